package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/server"
	"postern/server/config"
)

// A login is composed of what the configuration has, and what a reload makes of it remembers spent codes, open challenges
// and tokens.
func TestLogins(t *testing.T) {
	dir, _ := site(t)
	users, secrets := filepath.Join(dir, "users"), filepath.Join(dir, "totp")
	for _, name := range []string{"alice", "bob"} {
		if err := auth.AddUser(users, name, []byte(name+"-secret")); err != nil {
			t.Fatal(err)
		}
	}
	alice, err := auth.AddTOTP(secrets, "alice")
	if err != nil {
		t.Fatal(err)
	}
	load := func(lines ...string) *config.Config {
		t.Helper()
		cfg, _, err := config.Load(writeConf(t, dir, append(lines, "auth-users-file users")...))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	plain, required := load(), load("auth-totp-file totp", "auth-gen-token")
	optional, external := load("auth-totp-file totp", "auth-totp optional", "auth-totp-place first", "auth-gen-token"), load("auth-totp-file totp", "auth-gen-token external-auth")
	none, _, err := config.Load(writeConf(t, dir))
	if err != nil {
		t.Fatal(err)
	}

	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))) // files are not of the future
		k := newLogins(plain, zerolog.Nop())
		var l server.Login
		take := func(cfg *config.Config) {
			t.Helper()
			if l, err = k.login(cfg); err != nil {
				t.Fatal(err)
			}
		}
		session := new(auth.TokenSession)
		scripted := false // what a script says
		var states []auth.TokenState
		login := func(name, cert, password string) (by string, err error) {
			r := &auth.Request{Username: name, CommonName: cert, Password: []byte(password), Can: auth.ByReturn}
			r.Script = func(_ context.Context, r *auth.Request) error {
				if r.Token != nil {
					states = append(states, r.Token.State)
				}
				if scripted {
					return nil
				}
				return &auth.Denied{Reason: "the script says no", Public: auth.PublicRefusal}
			}
			var id *auth.Identity
			if l.Tokens != nil {
				id, err = l.Tokens.Login(t.Context(), session, l.Auth, r)
			} else {
				id, err = l.Auth.Authenticate(t.Context(), r)
			}
			if err != nil {
				return "", err
			}
			return id.By, nil
		}
		in := func(name, password, want string) {
			t.Helper()
			if by, err := login(name, name, password); err != nil || by != want {
				t.Errorf("%s with %q: by %q, %v, want %q", name, password, by, err, want)
			}
		}
		out := func(name, cert, password string) {
			t.Helper()
			denied, challenge := (*auth.Denied)(nil), (*auth.Challenge)(nil)
			if by, err := login(name, cert, password); !errors.As(err, &denied) && !errors.As(err, &challenge) {
				t.Errorf("%s with %q and the certificate of %s: by %q, %v, want a no", name, password, cert, by, err)
			}
		}

		if take(none); l.Auth != nil || l.Tokens != nil {
			t.Error("a login that nothing asks for")
		}
		take(plain)
		in("alice", "alice-secret", "file")
		out("alice", "bob", "alice-secret")
		out("alice", "alice", "SCRV1:"+"YWxpY2Utc2VjcmV0"+":!")
		in("alice", "SCRV1:YWxpY2Utc2VjcmV0:MTIzNDU2", "file") // a code that nobody wants

		out("", "alice", "") // as auth-user-pass-optional lets it come here
		out("alice", "alice", "")
		out("alice", "alice", "SCRV1:YWxpY2Utc2VjcmV0") // half of it is no password

		take(required)
		out("", "alice", "")
		time.Sleep(time.Minute) // what a run before has taken
		code := alice.Code(time.Now())
		out("alice", "alice", "alice-secret")
		out("bob", "bob", "bob-secret")
		in("alice", "alice-secret"+code, "file+totp")
		token := session.Token()
		in("alice", token, "file+totp")
		out("alice", "alice", "alice-secret"+code)

		take(optional)
		in("alice", session.Token(), "file+totp")
		out("alice", "alice", code+"alice-secret")
		out("alice", "alice", "alice-secret")
		time.Sleep(30 * time.Second)
		in("alice", alice.Code(time.Now())+"alice-secret", "file+totp")
		session = new(auth.TokenSession)
		in("bob", "bob-secret", "file")

		session = new(auth.TokenSession)
		time.Sleep(30 * time.Second)
		take(external)
		in("alice", "alice-secret"+alice.Code(time.Now()), "file+totp")
		in("alice", session.Token(), "file") // vouched for by the file
		out("alice", "bob", session.Token())

		// A script has its say each time, about tokens too; with the directory or the file, both must agree.
		for _, lines := range [][]string{
			{"auth-users-file users"},
			{"auth-users-file users", "auth-totp-file totp"},
			nil,
			{"auth-totp-file totp"},
		} {
			cfg, _, err := config.Load(writeConf(t, dir, append(lines, "auth-gen-token external-auth", "script-security 2", "auth-user-pass-verify /bin/true via-file")...))
			if err != nil {
				t.Fatal(err)
			}
			take(cfg)
			time.Sleep(30 * time.Second)
			session = new(auth.TokenSession)
			scripted = true
			password := "alice-secret"
			if slices.Contains(lines, "auth-totp-file totp") {
				password += alice.Code(time.Now())
			}
			by, err := login("alice", "alice", password)
			if err != nil || !strings.Contains(by, "script") {
				t.Errorf("%q: by %q, %v", lines, by, err)
			}
			if by, err := login("alice", "alice", session.Token()); err != nil || !strings.Contains(by, "script") {
				t.Errorf("%q, token: by %q, %v", lines, by, err)
			}
			scripted = false
			out("alice", "alice", session.Token())
			out("alice", "bob", session.Token())
			if want := []auth.TokenState{auth.TokenInitial, auth.TokenAuthenticated, auth.TokenAuthenticated}; !slices.Equal(states, want) {
				t.Errorf("%q: the script heard %v, want %v", lines, states, want)
			}
			states = nil
		}

		// Clients without a login are for a script alone.
		for _, more := range []string{"", "auth-users-file users", "auth-totp-file totp"} {
			cfg, _, err := config.Load(writeConf(t, dir, more, "auth-gen-token", "auth-user-pass-optional", "script-security 2", "auth-user-pass-verify /bin/true via-file"))
			if err != nil {
				t.Fatal(err)
			}
			take(cfg)
			session = new(auth.TokenSession)
			scripted = true
			if more != "" {
				out("", "alice", "")
				continue
			}
			for range 2 { // at first without, then with the token
				if by, err := login("", "alice", session.Token()); err != nil || by != "script" {
					t.Errorf("without a login: by %q, %v", by, err)
				}
			}
			out("", "", "")
			out("bob", "alice", "")
			scripted = false
			session = new(auth.TokenSession)
			out("", "alice", "")
		}

		// What ends tokens, in whatever session: another password, another secret, the user's end.
		take(required)
		password := "alice-secret"
		for _, change := range []func() error{
			func() error { password = "other"; return auth.SetPassword(users, "alice", []byte(password)) },
			func() (err error) { alice, err = auth.RenewTOTP(secrets, "alice"); return err },
			func() error { return auth.DeleteUser(users, "alice") },
		} {
			time.Sleep(30 * time.Second)
			session = new(auth.TokenSession)
			in("alice", password+alice.Code(time.Now()), "file+totp")
			token := session.Token()
			session = new(auth.TokenSession)
			in("alice", token, "token+file")
			if err := change(); err != nil {
				t.Fatal(err)
			}
			session = new(auth.TokenSession)
			if _, err := login("alice", "alice", token); !errors.Is(err, auth.ErrTokenOver) {
				t.Errorf("the token after a change: %v", err)
			}
		}

		// A file that has become bad does not become the login.
		broken := *required
		broken.TOTPFile = filepath.Join(dir, "no-such")
		if _, err := k.login(&broken); err == nil {
			t.Error("a file that is not there was taken")
		}
	})
}

// Passwords' hashes are computed where the server's handshakes are, and nowhere beside them (S011).
func TestLoginsShareProcessors(t *testing.T) {
	dir, _ := site(t)
	if err := auth.AddUser(filepath.Join(dir, "users"), "alice", []byte("alice-secret")); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(writeConf(t, dir, "auth-users-file users"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		k := newLogins(cfg, zerolog.Nop())
		l, err := k.login(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ask := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := l.Auth.Authenticate(ctx, &auth.Request{Username: "alice", Password: []byte("alice-secret"), CommonName: "alice"})
			return err
		}
		handshakes := 0
		for ; ; handshakes++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := k.workers.Begin(ctx)
			cancel()
			if err != nil {
				break // all places are taken
			}
		}
		if err := ask(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while handshakes have all %d places: %v", handshakes, err)
		}
		k.workers.End()
		if err := ask(); err != nil {
			t.Errorf("with a place: %v", err)
		}
	})
}
