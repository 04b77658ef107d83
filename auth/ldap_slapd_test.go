package auth_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/auth/slapdtest"
)

// slapdOptions are those of a gateway that uses the directory of testdata/ldap.
func slapdOptions(s *slapdtest.Server) auth.LDAPOptions {
	return auth.LDAPOptions{
		URLs:          []string{s.URLTLS},
		CA:            s.CA,
		BindDN:        slapdtest.BindDN,
		BindPassword:  slapdtest.BindPassword,
		UserBase:      slapdtest.UserBase,
		RequireGroups: []string{slapdtest.UsersGroup, slapdtest.AdminsGroup},
	}
}

func startSlapd(t *testing.T, o slapdtest.Options) *slapdtest.Server {
	t.Helper()
	if testing.Short() {
		t.Skip("starts slapd")
	}
	return slapdtest.Run(t, o)
}

var nopLog = zerolog.Nop()

func newLDAP(t *testing.T, o auth.LDAPOptions) *auth.LDAP {
	t.Helper()
	l, err := auth.NewLDAP(o, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatalf("NewLDAP: %v", err)
	}
	return l
}

func login(a auth.Authenticator, name, password string) (*auth.Identity, error) {
	return a.Authenticate(context.Background(), &auth.Request{Username: name, Password: []byte(password)})
}

// wantDenied fails unless err is a definite no with these texts; reason "" takes any.
func wantDenied(t *testing.T, err error, reason, public string) {
	t.Helper()
	var denied *auth.Denied
	if !errors.As(err, &denied) {
		t.Fatalf("got %v, want a denial", err)
	}
	if !strings.Contains(denied.Reason, reason) {
		t.Errorf("reason %q, want one with %q", denied.Reason, reason)
	}
	if denied.Public != public {
		t.Errorf("the client reads %q, want %q", denied.Public, public)
	}
}

// wantBroken fails unless err says that the directory could not be asked.
func wantBroken(t *testing.T, err error, text string) {
	t.Helper()
	var denied *auth.Denied
	switch {
	case err == nil:
		t.Fatal("login succeeded, want an error")
	case errors.As(err, &denied):
		t.Fatalf("denied with %q, want an error that is no denial", denied.Reason)
	case !strings.Contains(err.Error(), text):
		t.Errorf("error %q, want one with %q", err, text)
	}
}

// The outcomes of issue 2, over each kind of connection.
func TestSlapdLogin(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{Anonymous: true})
	for _, c := range []struct {
		name string
		set  func(o *auth.LDAPOptions)
	}{
		{"ldaps", func(o *auth.LDAPOptions) {}},
		{"starttls", func(o *auth.LDAPOptions) { o.URLs, o.StartTLS = []string{s.URL}, true }},
		{"cleartext on loopback", func(o *auth.LDAPOptions) { o.URLs, o.CA = []string{s.URL}, nil }},
		{"anonymous search", func(o *auth.LDAPOptions) { o.BindDN, o.BindPassword = "", "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := slapdOptions(s)
			c.set(&o)
			l := newLDAP(t, o)

			id, err := login(l, "alice", "alice-secret")
			if err != nil {
				t.Fatalf("alice: %v", err)
			}
			if id.Name != "alice" || id.By != "ldap" || !slices.Contains(id.Groups, slapdtest.UsersGroup) {
				t.Errorf("alice is %+v", id)
			}
			if id, err = login(l, "bob", "bob-secret"); err != nil || !slices.Contains(id.Groups, slapdtest.AdminsGroup) {
				t.Errorf("bob, in a group by uniqueMember: %+v, %v", id, err)
			}
			if id, err = login(l, "ALICE", "alice-secret"); err != nil || id.Name != "alice" {
				t.Errorf("ALICE: %+v, %v", id, err)
			}
			if _, err = login(l, "grace", "grace-secret"); err != nil {
				t.Errorf("grace, whose DN needs escaping: %v", err)
			}

			_, err = login(l, "alice", "bob-secret")
			wantDenied(t, err, "wrong password", auth.PublicRefusal)
			_, err = login(l, "nobody", "alice-secret")
			wantDenied(t, err, "not in the directory", auth.PublicRefusal)
			if !errors.Is(err, auth.ErrUnknownUser) {
				t.Errorf("unknown user: %v does not wrap ErrUnknownUser", err)
			}
			_, err = login(l, "carol", "carol-secret")
			wantDenied(t, err, "in no required group", auth.PublicRefusal)
			_, err = login(l, "alice", "")
			wantDenied(t, err, "empty password", "empty password")
			_, err = login(l, "alice", "\x00alice-secret")
			wantDenied(t, err, "zero byte", auth.PublicRefusal)
			_, err = login(l, "*", "alice-secret")
			wantDenied(t, err, "not in the directory", auth.PublicRefusal)
			_, err = login(l, "a*", "alice-secret")
			wantDenied(t, err, "not in the directory", auth.PublicRefusal)
			_, err = login(l, "", "alice-secret")
			wantDenied(t, err, "no user name", auth.PublicRefusal)
			_, err = login(l, "dave", "dave-secret")
			wantDenied(t, err, "more than one", auth.PublicRefusal)
			_, err = login(l, "erin", "erin-secret")
			wantDenied(t, err, "must be changed", auth.PublicRefusal)
			_, err = login(l, "frank", "frank-secret")
			wantDenied(t, err, "account locked", auth.PublicRefusal)
		})
	}
}

// S059: membership by the user's own memberOf and by the group's lists alike; a group of the same name elsewhere is
// another group; names differ in spelling only.
func TestSlapdGroups(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{})
	plain := startSlapd(t, slapdtest.Options{NoMemberOf: true})
	for _, c := range []struct {
		user, group string
		in          bool
	}{
		{"alice", slapdtest.UsersGroup, true},
		{"alice", "CN=VPN-Users , OU=Groups,DC=example,dc=net", true},
		{"alice", slapdtest.AdminsGroup, false},
		{"bob", slapdtest.AdminsGroup, true},
		{"bob", slapdtest.UsersGroup, false},
		{"carol", slapdtest.UsersGroup, false},
		{"carol", "cn=vpn-users,ou=elsewhere,dc=example,dc=net", true},
		{"carol", "cn=vpn,ou=groups,dc=example,dc=net", false},
		{"grace", slapdtest.UsersGroup, true},
	} {
		for _, server := range []*slapdtest.Server{s, plain} {
			o := slapdOptions(server)
			o.RequireGroups = []string{c.group}
			_, err := login(newLDAP(t, o), c.user, c.user+"-secret")
			if c.in && err != nil {
				t.Errorf("%s in %s: %v", c.user, c.group, err)
			}
			if !c.in {
				wantDenied(t, err, "in no required group", auth.PublicRefusal)
			}
		}
	}
}

// A stopped directory is no wrong password, and logins succeed again by themselves once it is back (F16, S062).
func TestSlapdStopped(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{})
	l := newLDAP(t, slapdOptions(s))
	if _, err := login(l, "alice", "alice-secret"); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	_, err := login(l, "alice", "alice-secret")
	wantBroken(t, err, "connection refused")
	_, err = login(l, "alice", "wrong")
	wantBroken(t, err, "")
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	waitForLogin(t, l)
}

// waitForLogin tries as a client does until alice is in again.
func waitForLogin(t *testing.T, l *auth.LDAP) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, err := login(l, "alice", "alice-secret")
		if err == nil {
			return
		}
		var denied *auth.Denied
		if errors.As(err, &denied) || time.Now().After(deadline) {
			t.Fatalf("directory is back: %v", err)
		}
	}
}

// A frozen directory, whose kernel still accepts connections, costs each login its time and no more (F17, S058), and
// leaves nothing behind. That this holds for clear text shows that every step is bounded, not TLS alone.
func TestSlapdFrozen(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{})
	for _, url := range []string{s.URL, s.URLTLS} {
		o := slapdOptions(s)
		o.URLs = []string{url}
		o.Timeout = 500 * time.Millisecond
		l := newLDAP(t, o)
		s.Freeze()
		began := time.Now()
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				_, err := login(l, "alice", "alice-secret")
				var denied *auth.Denied
				if err == nil || errors.As(err, &denied) {
					t.Errorf("frozen directory: %v", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("logins took %v", took)
		}
		s.Thaw()
		waitForLogin(t, l)
	}
}

// The caller's context ends a login at once, whatever step it is in.
func TestSlapdCancelled(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{})
	o := slapdOptions(s)
	o.URLs = []string{s.URL}
	l := newLDAP(t, o)
	s.Freeze()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	began := time.Now()
	_, err := l.Authenticate(ctx, &auth.Request{Username: "alice", Password: []byte("alice-secret")})
	wantBroken(t, err, "context canceled")
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a cancelled login took %v", took)
	}
	s.Thaw()
	// That login was given up by its client, so nothing is held against the server.
	if _, err := login(l, "alice", "alice-secret"); err != nil {
		t.Errorf("next login: %v", err)
	}
}

// S061: a dead server is passed over, a wrong password is final.
func TestSlapdSecondServer(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := dead.Addr().String()
	dead.Close()
	s := startSlapd(t, slapdtest.Options{})
	o := slapdOptions(s)
	o.URLs = []string{"ldaps://" + address, s.URLTLS}
	l := newLDAP(t, o)
	if _, err := login(l, "alice", "alice-secret"); err != nil {
		t.Errorf("with the first server dead: %v", err)
	}
	_, err = login(l, "alice", "wrong")
	wantDenied(t, err, "wrong password", auth.PublicRefusal)
}

// L07: a directory that stands still, at whatever step, costs the login one step's time before the next one is asked; and
// those after it nothing.
func TestSlapdFrozenFailover(t *testing.T) {
	first, second := startSlapd(t, slapdtest.Options{}), startSlapd(t, slapdtest.Options{})
	for name, url := range map[string]string{"ldaps": first.URLTLS, "StartTLS": first.URL, "a connection that has waited": first.URLTLS} {
		t.Run(name, func(t *testing.T) {
			o := slapdOptions(first)
			o.URLs, o.StartTLS, o.Timeout = []string{url, second.URLTLS}, true, 3*time.Second // a busy machine needs one, too
			o.CA = slices.Concat(first.CA, second.CA)
			l := newLDAP(t, o)
			if name == "a connection that has waited" {
				if _, err := login(l, "alice", "alice-secret"); err != nil {
					t.Fatal(err)
				}
			}
			first.Freeze()
			defer first.Thaw()
			began := time.Now()
			if _, err := login(l, "alice", "alice-secret"); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			began = time.Now()
			if _, err := login(l, "alice", "alice-secret"); err != nil {
				t.Fatal(err)
			}
			if again := time.Since(began); took-again < o.Timeout/2 || took-again > 2*o.Timeout {
				t.Errorf("took %v, and %v the next time, want %v more for the one step", took, again, o.Timeout)
			}
		})
	}
}

// S061: logins at once never get each other's answer.
func TestSlapdParallel(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{})
	l := newLDAP(t, slapdOptions(s))
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			user := []string{"alice", "bob", "grace"}[i%3]
			password := user + "-secret"
			if i%2 == 1 {
				password = []string{"bob", "grace", "alice"}[i%3] + "-secret"
			}
			id, err := login(l, user, password)
			var denied *auth.Denied
			switch {
			case i%2 == 0 && (err != nil || id.Name != user):
				t.Errorf("%s with the right password: %+v, %v", user, id, err)
			case i%2 == 1 && !errors.As(err, &denied):
				t.Errorf("%s with another's password: %+v, %v", user, id, err)
			}
		})
	}
	wg.Wait()
}

// A service account that cannot bind is the gateway's trouble, not a wrong password of the user.
func TestSlapdServiceAccount(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{})
	o := slapdOptions(s)
	o.BindPassword = "wrong"
	_, err := login(newLDAP(t, o), "alice", "alice-secret")
	wantBroken(t, err, "bind as the service account")

	o = slapdOptions(s)
	o.UserBase = "ou=nowhere," + slapdtest.BaseDN
	_, err = login(newLDAP(t, o), "alice", "alice-secret")
	wantBroken(t, err, "search for the user")
}
