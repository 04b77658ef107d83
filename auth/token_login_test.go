package auth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
)

const tokenOver = "token expired"

// tokenWorld is Tokens over a back end that counts: "secret" is everybody's password.
type tokenWorld struct {
	*testing.T
	tokens *auth.Tokens
	asked  []*auth.Request
	answer func(r *auth.Request) (*auth.Identity, error)
}

func newTokenWorld(t *testing.T, o auth.TokenOptions) *tokenWorld {
	t.Helper()
	w := &tokenWorld{T: t}
	w.answer = func(r *auth.Request) (*auth.Identity, error) {
		if string(r.Password) != "secret" {
			return nil, &auth.Denied{Reason: "wrong password", Public: auth.PublicRefusal}
		}
		name, err := auth.CanonicalName(r.Username)
		return &auth.Identity{Name: name, Groups: []string{"g"}, By: "test"}, err
	}
	w.tokens = w.again(o)
	return w
}

// again is Tokens as another server, or this one after a reload, has them.
func (w *tokenWorld) again(o auth.TokenOptions) *auth.Tokens {
	w.Helper()
	if o.Secret == nil {
		o.Secret = auth.NewTokenSecret()
	}
	if o.Renewal == 0 {
		o.Renewal = time.Hour
	}
	tokens, err := auth.NewTokens(o, zerolog.New(zerolog.NewTestWriter(w.T)))
	if err != nil {
		w.Fatal(err)
	}
	return tokens
}

func (w *tokenWorld) Authenticate(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	copied := *r
	w.asked = append(w.asked, &copied)
	return w.answer(r)
}

func (w *tokenWorld) login(s *auth.TokenSession, user, password, cert string) (*auth.Identity, error) {
	r := &auth.Request{Username: user, Password: []byte(password), CommonName: cert}
	if cert != "" {
		r.CertKey = bytes.Repeat([]byte(cert[:1]), 32)
	}
	return w.tokens.Login(w.Context(), s, w, r)
}

func (w *tokenWorld) in(s *auth.TokenSession, user, password, cert string) {
	w.Helper()
	if _, err := w.login(s, user, password, cert); err != nil {
		w.Fatalf("%q: %v", user, err)
	}
}

func (w *tokenWorld) out(s *auth.TokenSession, user, password, cert string) {
	w.Helper()
	before, asked := s.Token(), len(w.asked)
	_, err := w.login(s, user, password, cert)
	wantDenied(w.T, err, "token: ", tokenOver)
	if !errors.Is(err, auth.ErrTokenOver) {
		w.Errorf("%v does not wrap ErrTokenOver", err)
	}
	if s.Token() != before {
		w.Error("a refusal has changed the session")
	}
	if len(w.asked) != asked {
		w.Error("the back end was asked about a token")
	}
}

// A token stands for its password in the session, in later ones, after a reload and at servers with the same secret; it
// is another one each time, with the same session id.
func TestTokenLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := auth.NewTokenSecret()
		w := newTokenWorld(t, auth.TokenOptions{Secret: secret})
		var s auth.TokenSession
		if s.Token() != "" {
			t.Error("a token before the login")
		}
		w.in(&s, "Alice", "secret", "alice")
		first := s.Token()
		if len(first) != 91 || s.User() != "" {
			t.Errorf("token %q, user %q", first, s.User())
		}
		time.Sleep(time.Hour)
		for _, user := range []string{"Alice", "alice", "ＡＬＩＣＥ"} {
			id, err := w.login(&s, user, s.Token(), "alice")
			if err != nil || id.Name != "alice" || !slices.Equal(id.Groups, []string{"g"}) {
				t.Errorf("%s: %+v, %v", user, id, err)
			}
		}
		second := s.Token()
		if second == first || second[:27] != first[:27] {
			t.Errorf("%s is followed by %s", first, second)
		}
		w.tokens = w.again(auth.TokenOptions{Secret: secret})
		var next auth.TokenSession
		id, err := w.login(&next, "alice", second, "alice")
		if err != nil || id.Name != "alice" || id.By != "token" || next.Token()[:27] != first[:27] {
			t.Errorf("a new session: %+v, %v", id, err)
		}
		if len(w.asked) != 1 {
			t.Errorf("the back end was asked %d times", len(w.asked))
		}
		// Each caller has its own groups.
		id, _ = w.login(&s, "alice", s.Token(), "alice")
		id.Groups[0] = "changed"
		if id, _ = w.login(&s, "alice", s.Token(), "alice"); id.Groups[0] != "g" {
			t.Error("a caller has changed the session's groups")
		}
		// The password goes on being good, and what it gives is a full login of the same session.
		time.Sleep(time.Hour)
		w.in(&s, "alice", "secret", "alice")
		if s.Token()[:27] != first[:27] {
			t.Error("a password has changed the session id")
		}
		// Another start has another secret.
		w.tokens = w.again(auth.TokenOptions{})
		w.out(&next, "alice", second, "alice")
	})
}

// S048, S049: a token is good for its user with its certificate, in its session, in its epoch, and for nothing else.
func TestTokenBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret, epoch := auth.NewTokenSecret(), "1"
		w := newTokenWorld(t, auth.TokenOptions{Secret: secret, Epoch: func(name string) string { return name + epoch }})
		var a, b auth.TokenSession
		w.in(&a, "alice", "secret", "alice")
		w.in(&b, "alice", "secret", "alice")
		var fresh auth.TokenSession
		w.out(&fresh, "bob", a.Token(), "alice")
		w.out(&fresh, "alice", a.Token(), "bob")
		w.out(&fresh, "alice", a.Token(), "")
		w.out(&fresh, "", a.Token(), "alice")
		w.out(&fresh, "a lice", a.Token(), "alice")
		w.out(&b, "alice", a.Token(), "alice") // another session's
		w.out(&b, "alice", b.Token(), "bob")
		w.out(&fresh, "alice", "SESS_ID_AT_"+strings.Repeat("A", 80), "alice")

		epoch = "2"
		w.out(&a, "alice", a.Token(), "alice")
		w.out(&fresh, "alice", a.Token(), "alice")
		if _, ok := w.tokens.Renew(&a); ok {
			t.Error("a revoked token was renewed")
		}
		epoch = "1"
		w.in(&a, "alice", a.Token(), "alice")

		// What the reference would sign is none of ours, and the other way round.
		w.tokens = w.again(auth.TokenOptions{Secret: secret, Shared: true})
		w.out(&fresh, "alice", a.Token(), "alice")
		var shared auth.TokenSession
		w.in(&shared, "alice", "secret", "alice")
		w.in(&shared, "alice", shared.Token(), "bob") // there is no room for the certificate
		w.tokens = w.again(auth.TokenOptions{Secret: secret})
		w.out(&fresh, "alice", shared.Token(), "alice")
	})
}

// A secret shared with servers of another make: their tokens are good here.
func TestTokenShared(t *testing.T) {
	var v struct {
		KeyPEM string `json:"key_pem"`
		Tokens []struct{ Username, Token string }
	}
	readVectors(t, "auth-token.json", &v)
	secret, err := auth.ParseTokenSecret([]byte(v.KeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Unix(1_700_003_700, 0)))
		w := newTokenWorld(t, auth.TokenOptions{Secret: secret, Shared: true})
		for _, c := range v.Tokens {
			var s auth.TokenSession
			id, err := w.login(&s, c.Username, c.Token, "laptop")
			want := c.Username
			if want == "" {
				want = "laptop"
			}
			if err != nil || id.Name != want {
				t.Errorf("%q: %+v, %v", c.Username, id, err)
				continue
			}
			// Renewed, it is still over the name as the client sent it.
			if _, err := w.login(&s, c.Username, s.Token(), "laptop"); err != nil {
				t.Errorf("%q, renewed: %v", c.Username, err)
			}
		}
		var s auth.TokenSession
		w.out(&s, "alice", v.Tokens[2].Token, "laptop") // made for no name: this one is unproved
		w.in(&s, "Alice", "secret", "laptop")
		w.out(&s, "alice", s.Token(), "laptop") // to the letter
		w.in(&s, "Alice", s.Token(), "laptop")
		if len(w.asked) != 1 {
			t.Errorf("the back end was asked %d times", len(w.asked))
		}
	})
}

// S048: the time of the first login goes from token to token, over renewals and connections; after 12 h there is no
// token whatever was configured, and the password begins a new 12 h.
func TestTokenLifetime(t *testing.T) {
	for _, lifetime := range []time.Duration{0, 100 * time.Hour, 12 * time.Hour, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := newTokenWorld(t, auth.TokenOptions{Lifetime: lifetime})
			end := 12 * time.Hour
			if lifetime == 3*time.Hour {
				end = lifetime
			}
			s := new(auth.TokenSession)
			began := time.Now()
			w.in(s, "alice", "secret", "alice")
			for n := 0; time.Since(began) < end-time.Hour; n++ {
				time.Sleep(time.Hour)
				switch n % 3 {
				case 0:
					w.in(s, "alice", s.Token(), "alice")
				case 1:
					if _, ok := w.tokens.Renew(s); !ok {
						t.Fatalf("not renewed after %v", time.Since(began))
					}
				case 2: // a new connection
					next := new(auth.TokenSession)
					w.in(next, "alice", s.Token(), "alice")
					s = next
				}
			}
			time.Sleep(end - time.Since(began))
			w.in(s, "alice", s.Token(), "alice")
			time.Sleep(time.Second)
			w.out(s, "alice", s.Token(), "alice")
			w.out(new(auth.TokenSession), "alice", s.Token(), "alice")
			if _, ok := w.tokens.Renew(s); ok {
				t.Error("renewed after its end")
			}
			w.in(s, "alice", "secret", "alice")
			time.Sleep(time.Hour)
			w.in(s, "alice", s.Token(), "alice")
		})
	}
}

// S048: a token that is not renewed is good for twice the renewal time.
func TestTokenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTokenWorld(t, auth.TokenOptions{Renewal: 10 * time.Minute})
		var s, late auth.TokenSession
		w.in(&s, "alice", "secret", "alice")
		w.in(&late, "alice", "secret", "alice")
		if w.tokens.Interval() != 10*time.Minute {
			t.Errorf("interval %v", w.tokens.Interval())
		}
		time.Sleep(20*time.Minute - time.Second)
		if text, ok := w.tokens.Renew(&s); !ok || text != s.Token() {
			t.Errorf("renewed: %q, %v", text, ok)
		}
		time.Sleep(time.Second)
		w.out(&late, "alice", late.Token(), "alice")
		w.in(&s, "alice", s.Token(), "alice")
	})
}

// A session that has begun is not another's, whatever proof they bring.
func TestTokenSessionKeepsUser(t *testing.T) {
	w := newTokenWorld(t, auth.TokenOptions{})
	var s auth.TokenSession
	w.in(&s, "alice", "secret", "")
	_, err := w.login(&s, "bob", "secret", "")
	wantDenied(t, err, `session of "alice"`, auth.PublicRefusal)
	w.in(&s, "alice", s.Token(), "")
}

// S043 holds for tokens too.
func TestTokenMatchesCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTokenWorld(t, auth.TokenOptions{Shared: true, MatchCertificate: true})
		var s, next auth.TokenSession
		w.in(&s, "alice", "secret", "alice")
		w.in(&next, "alice", s.Token(), "Alice")
		for _, cert := range []string{"bob", ""} {
			_, err := w.login(new(auth.TokenSession), "alice", s.Token(), cert)
			wantDenied(t, err, "certificate", "login name does not match the certificate")
		}
	})
}

// Where the certificate names the user, whatever is typed goes with the token, and nobody is told another name.
func TestTokenNamedByCertificate(t *testing.T) {
	w := newTokenWorld(t, auth.TokenOptions{NamedByCertificate: true})
	var s auth.TokenSession
	w.in(&s, "me", "secret", "alice")
	if s.User() != "" {
		t.Errorf("told to be %q", s.User())
	}
	w.in(&s, "me", s.Token(), "alice")
	if id, err := w.login(new(auth.TokenSession), "I", s.Token(), "alice"); err != nil || id.Name != "alice" {
		t.Errorf("%+v, %v", id, err)
	}
	w.out(new(auth.TokenSession), "alice", s.Token(), "bob")
	w.out(new(auth.TokenSession), "alice", s.Token(), "")
	if len(w.asked) != 1 {
		t.Errorf("the back end was asked %d times", len(w.asked))
	}
}

// A client without a user name is its certificate, where the back end says the same; where it says another name the
// client is told to use that one.
func TestTokenEmptyUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTokenWorld(t, auth.TokenOptions{})
		name := "laptop"
		w.answer = func(*auth.Request) (*auth.Identity, error) { return &auth.Identity{Name: name, By: "web"}, nil }
		var s auth.TokenSession
		w.in(&s, "", "x", "laptop")
		if s.User() != "" {
			t.Errorf("told to be %q", s.User())
		}
		time.Sleep(time.Hour)
		w.in(&s, "", s.Token(), "laptop")
		time.Sleep(time.Hour)
		var next auth.TokenSession
		if id, err := w.login(&next, "", s.Token(), "laptop"); err != nil || id.Name != "laptop" {
			t.Errorf("%+v, %v", id, err)
		}
		w.out(&s, "alice", s.Token(), "laptop")
		w.out(new(auth.TokenSession), "alice", s.Token(), "laptop")
		w.out(new(auth.TokenSession), "laptop", s.Token(), "laptop")

		name = "alice"
		var named auth.TokenSession
		w.in(&named, "", "x", "laptop")
		if named.User() != "alice" {
			t.Errorf("told to be %q", named.User())
		}
		w.out(&named, "", named.Token(), "laptop")
		w.in(&named, "alice", named.Token(), "laptop")
	})
}

// external-auth: the back end is asked each time, told what the token is worth, and decides alone.
func TestTokenExternal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := auth.NewTokenSecret()
		w := newTokenWorld(t, auth.TokenOptions{Secret: secret, Shared: true, External: true})
		w.answer = func(r *auth.Request) (*auth.Identity, error) {
			return &auth.Identity{Name: "alice", By: "external"}, nil
		}
		last := func() *auth.Request { return w.asked[len(w.asked)-1] }
		ask := func(s *auth.TokenSession, user, password string, want auth.TokenState, sentUser string) {
			t.Helper()
			w.in(s, user, password, "laptop")
			if r := last(); r.Token == nil || r.Token.State != want || r.Username != sentUser || string(r.Password) != password {
				t.Errorf("asked with %+v as %q, want %v", r.Token, r.Username, want)
			}
		}
		var s auth.TokenSession
		ask(&s, "alice", "secret", auth.TokenInitial, "alice")
		session := last().Token.Session
		if got := s.Token()[len("SESS_ID_AT_"):][:16]; got != session {
			t.Errorf("told session %q, the token has %q", session, got)
		}
		ask(&s, "alice", s.Token(), auth.TokenAuthenticated, "alice")
		if last().Token.Session != session {
			t.Errorf("told session %q, want %q", last().Token.Session, session)
		}
		broken := s.Token()[:90] + "!"
		ask(&s, "alice", broken, auth.TokenInvalid, "alice")
		old := s.Token()
		time.Sleep(2 * time.Hour)
		ask(&s, "alice", old, auth.TokenExpired, "alice")
		ask(&s, "alice", s.Token(), auth.TokenAuthenticated, "alice") // the yes was a new login

		// Made over the empty name, brought with one that nothing proves.
		w.answer = func(*auth.Request) (*auth.Identity, error) { return &auth.Identity{Name: "laptop"}, nil }
		var empty auth.TokenSession
		ask(&empty, "", "x", auth.TokenInitial, "")
		ask(&empty, "mallory", empty.Token(), auth.TokenAuthenticatedEmptyUser, "")
		ask(&empty, "", empty.Token(), auth.TokenAuthenticated, "")
		old = empty.Token()
		time.Sleep(2 * time.Hour)
		ask(&empty, "mallory", old, auth.TokenExpiredEmptyUser, "")

		// No is no, however good the token.
		w.answer = func(*auth.Request) (*auth.Identity, error) {
			return nil, &auth.Denied{Reason: "no", Public: auth.PublicRefusal}
		}
		_, err := w.login(&s, "alice", s.Token(), "laptop")
		wantDenied(t, err, "no", auth.PublicRefusal)
		w.answer = func(*auth.Request) (*auth.Identity, error) { return nil, nil }
		_, err = w.login(&s, "alice", s.Token(), "laptop")
		wantBroken(t, err, "named no user")
	})
	for state, want := range map[auth.TokenState]string{
		auth.TokenInitial: "Initial", auth.TokenAuthenticated: "Authenticated", auth.TokenExpired: "Expired", auth.TokenInvalid: "Invalid",
		auth.TokenAuthenticatedEmptyUser: "AuthenticatedEmptyUser", auth.TokenExpiredEmptyUser: "ExpiredEmptyUser",
	} {
		if state.String() != want {
			t.Errorf("%v, want %s", state, want)
		}
	}
}

// A password that only begins like a token is the back end's to judge; a challenge, and its answer, pass through.
func TestTokenOthersPass(t *testing.T) {
	w := newTokenWorld(t, auth.TokenOptions{})
	var s auth.TokenSession
	_, err := w.login(&s, "alice", "SESS_ID_AT_secret", "")
	wantDenied(t, err, "wrong password", auth.PublicRefusal)
	want := &auth.Challenge{State: "state"}
	w.answer = func(*auth.Request) (*auth.Identity, error) { return nil, want }
	var got *auth.Challenge
	if _, err := w.login(&s, "alice", "secret", ""); !errors.As(err, &got) || got != want || s.Token() != "" {
		t.Errorf("challenge: %v", err)
	}
	w.answer = func(r *auth.Request) (*auth.Identity, error) {
		if r.State != "state" || string(r.Response) != "42" {
			t.Errorf("answer %q, %q", r.State, r.Response)
		}
		return &auth.Identity{Name: "alice"}, nil
	}
	// As the server comes back: the password may be anything by now.
	r := &auth.Request{Username: "alice", Password: []byte("SESS_ID_AT_" + strings.Repeat("A", 80)), State: "state", Response: []byte("42")}
	if _, err := w.tokens.Login(t.Context(), &s, w, r); err != nil || s.Token() == "" {
		t.Errorf("answer: %v", err)
	}
}

type voucher func(name string) (*auth.Identity, error)

func (v voucher) Vouch(_ context.Context, name string) (*auth.Identity, error) { return v(name) }

// S049, S062: a user is asked after when a session begins and then every 15 minutes; a no ends the token, a directory
// that is away ends nothing that has begun.
func TestTokenVouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		var err error
		groups := []string{"now"}
		w := newTokenWorld(t, auth.TokenOptions{Renewal: 5 * time.Minute, Voucher: voucher(func(name string) (*auth.Identity, error) {
			asked++
			if name == "stranger" {
				name = "alice"
			}
			return &auth.Identity{Name: name, Groups: groups, By: "ldap"}, err
		})})
		var s auth.TokenSession
		w.in(&s, "alice", "secret", "alice")
		for range 2 {
			time.Sleep(5 * time.Minute)
			w.in(&s, "alice", s.Token(), "alice")
		}
		if asked != 0 {
			t.Errorf("asked %d times within 15 minutes of a login", asked)
		}
		time.Sleep(5 * time.Minute)
		if id, err := w.login(&s, "alice", s.Token(), "alice"); err != nil || asked != 1 || !slices.Equal(id.Groups, groups) {
			t.Errorf("after 15 minutes: %+v, %v, asked %d times", id, err, asked)
		}
		var next auth.TokenSession
		if id, err := w.login(&next, "alice", s.Token(), "alice"); err != nil || asked != 2 || id.By != "token+ldap" {
			t.Errorf("a new session: %+v, %v, asked %d times", id, err, asked)
		}

		err = errors.New("directory is away")
		for range 12 { // an hour
			time.Sleep(5 * time.Minute)
			w.in(&s, "alice", s.Token(), "alice")
		}
		_, broken := w.login(new(auth.TokenSession), "alice", s.Token(), "alice")
		wantBroken(t, broken, "away")
		err = &auth.Denied{Reason: "disabled", Public: auth.PublicRefusal}
		_, denied := w.login(&s, "alice", s.Token(), "alice")
		wantDenied(t, denied, "disabled", auth.PublicRefusal)
		err = nil
		w.in(&s, "alice", s.Token(), "alice")

		var other auth.TokenSession
		w.in(&other, "stranger", "secret", "s")
		time.Sleep(8 * time.Minute)
		_, broken = w.login(new(auth.TokenSession), "stranger", other.Token(), "s")
		wantBroken(t, broken, "another user")
	})
}

func TestNewTokensRefuses(t *testing.T) {
	secret := auth.NewTokenSecret()
	for name, o := range map[string]auth.TokenOptions{
		"no secret":         {Renewal: time.Hour},
		"no renewal":        {Secret: secret},
		"negative lifetime": {Secret: secret, Renewal: time.Hour, Lifetime: -1},
		"shared and epoch":  {Secret: secret, Renewal: time.Hour, Shared: true, Epoch: func(string) string { return "" }},
	} {
		if _, err := auth.NewTokens(o, zerolog.Nop()); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Renewals by the clock and logins meet on one session.
func TestTokenRace(t *testing.T) {
	w := newTokenWorld(t, auth.TokenOptions{})
	next := backend(yes)
	var s auth.TokenSession
	login := func(password string) error {
		_, err := w.tokens.Login(t.Context(), &s, next, &auth.Request{Username: "alice", Password: []byte(password)})
		return err
	}
	if err := login("secret"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if _, ok := w.tokens.Renew(&s); !ok {
					t.Error("not renewed")
				}
			}
		})
	}
	for range 200 {
		if err := login(s.Token()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if _, err := base64.StdEncoding.DecodeString(s.Token()[len("SESS_ID_AT_"):]); err != nil {
		t.Error(err)
	}
}
