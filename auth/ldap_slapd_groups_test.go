package auth_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/auth"
	"postern/auth/slapdtest"
)

// L13, S059: groups within groups count up to their depth, with and without the memberof overlay; a circle ends; and
// memberUid lists by the entry's uid.
func TestSlapdNestedGroups(t *testing.T) {
	overlay := startSlapd(t, slapdtest.Options{})
	plain := startSlapd(t, slapdtest.Options{NoMemberOf: true})
	for _, c := range []struct {
		user, group string
		direct, in  bool
	}{
		{"heidi", slapdtest.Team, false, true},
		{"heidi", slapdtest.Department, false, true},
		{"heidi", slapdtest.Division, false, true},
		{"heidi", slapdtest.Team, true, true},
		{"heidi", slapdtest.Department, true, false},
		{"heidi", slapdtest.UnixGroup, false, false},
		{"ivan", slapdtest.UnixGroup, false, true},
		{"ivan", slapdtest.UnixGroup, true, true},
		{"ivan", slapdtest.Division, false, false},
		{"carol", slapdtest.Division, false, false},
		{"carol", slapdtest.Team, false, false},
	} {
		for _, s := range []*slapdtest.Server{overlay, plain} {
			o := slapdOptions(s)
			o.RequireGroups, o.DirectOnly = []string{c.group}, c.direct
			_, err := login(newLDAP(t, o), c.user, c.user+"-secret")
			if c.in && err != nil {
				t.Errorf("%s in %s, direct only %v: %v", c.user, c.group, c.direct, err)
			}
			if !c.in {
				wantDenied(t, err, "in no required group", auth.PublicRefusal)
			}
		}
	}
	for _, s := range []*slapdtest.Server{overlay, plain} {
		o := slapdOptions(s)
		o.RequireGroups, o.GroupBase = nil, "ou=groups,"+slapdtest.BaseDN
		id, err := login(newLDAP(t, o), "heidi", "heidi-secret")
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{slapdtest.Department, slapdtest.Division, slapdtest.Team}; !slices.Equal(id.Groups, want) {
			t.Errorf("heidi is in %q, want %q", id.Groups, want)
		}
	}
}

// S059: what lies deeper than 10 does not count.
func TestSlapdDepth(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{})
	var ldif strings.Builder
	member := "uid=carol," + slapdtest.UserBase
	for i := 1; i <= 12; i++ {
		dn := fmt.Sprintf("cn=level%02d,ou=groups,%s", i, slapdtest.BaseDN)
		fmt.Fprintf(&ldif, "dn: %s\nchangetype: add\nobjectClass: groupOfNames\ncn: level%02d\nmember: %s\n\n", dn, i, member)
		member = dn
	}
	if err := s.Modify(ldif.String()); err != nil {
		t.Fatal(err)
	}
	for level, in := range map[int]bool{1: true, 2: true, 10: true, 11: false, 12: false} {
		o := slapdOptions(s)
		o.RequireGroups = []string{fmt.Sprintf("cn=level%02d,ou=groups,%s", level, slapdtest.BaseDN)}
		_, err := login(newLDAP(t, o), "carol", "carol-secret")
		if in != (err == nil) {
			t.Errorf("level %d: %v", level, err)
		}
	}
}

// A wiretap stands between us and a directory, and decodes the filter of each search that goes by.
type wiretap struct {
	url string

	mu      sync.Mutex
	filters []*ber.Packet
}

func tap(t *testing.T, s *slapdtest.Server) *wiretap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wiretap{url: "ldap://" + l.Addr().String()}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", net.JoinHostPort(s.Addr, strconv.Itoa(s.Port)))
			if err != nil {
				near.Close()
				continue
			}
			running.Go(func() { io.Copy(near, far); near.Close() })
			running.Go(func() {
				defer far.Close()
				for {
					msg, err := ber.ReadPacket(near)
					if err != nil {
						return
					}
					if op := msg.Children[1]; op.Tag == ldap.ApplicationSearchRequest {
						w.mu.Lock()
						w.filters = append(w.filters, op.Children[6])
						w.mu.Unlock()
					}
					if _, err := far.Write(msg.Bytes()); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); s.Close(); running.Wait() })
	return w
}

// take returns the filters that went by since it was called last.
func (w *wiretap) take() []*ber.Packet {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.filters
	w.filters = nil
	return list
}

// S053: every hostile name finds the entry that has it, and no other; each has a password of its own. What goes over the
// wire for it is a filter with one node, whose value is that name.
func TestSlapdHostileNames(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{})
	var ldif strings.Builder
	var names []string
	for _, name := range hostileNames {
		canonical, err := auth.CanonicalName(name)
		if err != nil || slices.Contains(names, canonical) {
			continue
		}
		names = append(names, canonical)
		fmt.Fprintf(&ldif, "dn: cn=hostile%[1]d,%[2]s\nchangetype: add\nobjectClass: inetOrgPerson\ncn: hostile%[1]d\nsn: x\nuid:: %[3]s\nuserPassword: secret%[1]d\n\n",
			len(names), slapdtest.UserBase, base64.StdEncoding.EncodeToString([]byte(canonical)))
	}
	if len(names) < 60 {
		t.Fatalf("only %d names", len(names))
	}
	if err := s.Modify(ldif.String()); err != nil {
		t.Fatal(err)
	}
	o := slapdOptions(s)
	w := tap(t, s)
	o.URLs, o.RequireGroups = []string{w.url}, nil
	l := newLDAP(t, o)
	for i, name := range names {
		if id, err := login(l, name, fmt.Sprintf("secret%d", i+1)); err != nil || id.Name != name {
			t.Errorf("%q: %+v, %v", name, id, err)
		}
		_, err := login(l, name, fmt.Sprintf("secret%d", i))
		wantDenied(t, err, "wrong password", auth.PublicRefusal)
		asked := w.take()
		if len(asked) != 2 {
			t.Errorf("%q: %d searches for two logins", name, len(asked))
		}
		for _, f := range asked {
			if f.Tag != ldap.FilterEqualityMatch || len(f.Children) != 2 || f.Children[0].Data.String() != "uid" || f.Children[1].Data.String() != name {
				text, _ := ldap.DecompileFilter(f)
				t.Errorf("%q went over the wire as %s", name, text)
			}
		}
	}
	for _, name := range []string{"a\x00b", "\x00", "a\x00)(uid=*"} {
		_, err := login(l, name, "secret1")
		wantDenied(t, err, "", auth.PublicRefusal)
	}
	if n := len(w.take()); n != 0 {
		t.Errorf("%d searches for names with a zero byte", n)
	}
}

// S046: a guesser from everywhere does not lock the account in the directory, and its owner still comes in from where
// the owner is known; also when the same wrong password comes again and again.
func TestSlapdNotLocked(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{})
	const limit = 6
	if err := s.Modify(fmt.Sprintf("dn: cn=policy,%s\nchangetype: modify\nreplace: pwdMaxFailure\npwdMaxFailure: %d\n", slapdtest.BaseDN, limit)); err != nil {
		t.Fatal(err)
	}
	throttle := auth.NewThrottle(auth.ThrottleOptions{}, nopLog)
	a := throttle.Limit(throttle.Spare(newLDAP(t, slapdOptions(s))))
	from := func(source, password string) error {
		_, err := a.Authenticate(t.Context(), &auth.Request{Username: "alice", Password: []byte(password), Source: netip.AddrPortFrom(netip.MustParseAddr(source), 1)})
		return err
	}
	const home = "192.0.2.1"
	if err := from(home, "alice-secret"); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		if err := from(fmt.Sprintf("198.51.100.%d", i), fmt.Sprintf("guess%d", i)); err == nil {
			t.Fatal("a guess was right")
		}
	}
	if err := from(home, "alice-secret"); err != nil {
		t.Errorf("the owner, after 30 guesses from elsewhere: %v", err)
	}
	for range 4 {
		err := from(home, "last month's")
		wantDenied(t, err, "wrong password", auth.PublicRefusal)
	}
	if err := from(home, "alice-secret"); err != nil {
		t.Errorf("the owner, after a saved password four times: %v", err)
	}
	if _, err := login(newLDAP(t, slapdOptions(s)), "alice", "alice-secret"); err != nil {
		t.Errorf("straight at the directory: %v", err) // locked, if it had seen as many as its limit
	}
}

// L21: what changes in the directory is seen at the next look; while it is away nothing is, and recovery needs nobody.
func TestSlapdChanges(t *testing.T) {
	for _, o := range []slapdtest.Options{{}, {NoMemberOf: true}} {
		t.Run(fmt.Sprintf("memberof overlay %v", !o.NoMemberOf), func(t *testing.T) {
			s := startSlapd(t, o)
			options := slapdOptions(s)
			options.RequireGroups = append(options.RequireGroups, slapdtest.Division)
			l := newLDAP(t, options)
			var connected []*auth.Identity
			for _, name := range []string{"alice", "bob", "heidi"} {
				id, err := login(l, name, name+"-secret")
				if err != nil {
					t.Fatal(err)
				}
				connected = append(connected, id)
			}
			look := func(want ...string) {
				t.Helper()
				changes, err := l.Changes(context.Background(), connected)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, c := range changes {
					if c.Now == nil {
						got = append(got, c.Name+": "+c.Reason)
					}
				}
				if len(got) != len(want) {
					t.Fatalf("got %q, want %q", got, want)
				}
				for i := range want {
					if !strings.HasPrefix(got[i], strings.SplitN(want[i], ":", 2)[0]) || !strings.Contains(got[i], strings.SplitN(want[i], ": ", 2)[1]) {
						t.Errorf("got %q, want %q", got[i], want[i])
					}
				}
			}
			modify := func(ldif string) {
				t.Helper()
				if err := s.Modify(ldif); err != nil {
					t.Fatal(err)
				}
			}
			look()
			look()
			// Only the middle of heidi's way into Division changes.
			modify(fmt.Sprintf("dn: %s\nchangetype: modify\nadd: member\nmember: uid=carol,%s\n-\ndelete: member\nmember: %s\n", slapdtest.Department, slapdtest.UserBase, slapdtest.Team))
			look("heidi: in no required group")
			modify(fmt.Sprintf("dn: %s\nchangetype: modify\nadd: member\nmember: %s\n", slapdtest.Department, slapdtest.Team))
			look()
			modify(fmt.Sprintf("dn: uid=bob,%s\nchangetype: modify\nadd: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n", slapdtest.UserBase))
			look("bob: account locked")
			modify(fmt.Sprintf("dn: uid=bob,%s\nchangetype: modify\ndelete: pwdAccountLockedTime\n", slapdtest.UserBase))
			look()
			s.Stop()
			if changes, err := l.Changes(t.Context(), connected); err == nil || len(changes) != 0 {
				t.Errorf("directory away: %+v, %v", changes, err)
			}
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
			waitForLogin(t, l)
			look()
			modify(fmt.Sprintf("dn: uid=alice,%s\nchangetype: delete\n", slapdtest.UserBase))
			look("alice: not in the directory")
		})
	}
}
