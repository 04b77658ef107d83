package auth_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
)

// totpWorld is alice and bob with passwords and secrets, carol with a password only, and the time of a bubble. All have
// the password "secret".
type totpWorld struct {
	*testing.T
	file    string
	secrets map[string]auth.TOTPSecret
	totp    *auth.TOTP
	logins  auth.Authenticator
	asked   []string // passwords that the back end has seen
	broken  error
}

func newTOTPWorld(t *testing.T, o auth.TOTPOptions) *totpWorld {
	t.Helper()
	w := &totpWorld{T: t, file: filepath.Join(t.TempDir(), "totp-secrets"), secrets: make(map[string]auth.TOTPSecret)}
	for _, name := range []string{"alice", "bob"} {
		w.set(auth.AddTOTP, name)
	}
	w.start(o)
	time.Sleep(time.Minute) // whatever a run before has taken
	return w
}

func (w *totpWorld) set(set func(path, name string) (auth.TOTPSecret, error), name string) {
	w.Helper()
	secret, err := set(w.file, name)
	if err != nil {
		w.Fatal(err)
	}
	w.secrets[name] = secret
}

// start begins a run of the program.
func (w *totpWorld) start(o auth.TOTPOptions) {
	w.Helper()
	o.File = w.file
	var err error
	if w.totp, err = auth.NewTOTP(o, zerolog.New(zerolog.NewTestWriter(w.T))); err != nil {
		w.Fatal(err)
	}
	w.logins = auth.Answers(w.totp.Require(backend(w.answer)))
}

func (w *totpWorld) answer(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	w.asked = append(w.asked, string(r.Password))
	name, err := auth.CanonicalName(r.Username)
	if w.secrets[name] != nil && r.Response != nil {
		w.Error("the back end sees the code")
	}
	switch {
	case w.broken != nil:
		return nil, w.broken
	case err != nil:
		return nil, err
	case name != "alice" && name != "bob" && name != "carol":
		return nil, &auth.Denied{Reason: "unknown", Public: auth.PublicRefusal, Err: auth.ErrUnknownUser}
	case string(r.Password) != "secret":
		return nil, &auth.Denied{Reason: "wrong password", Public: auth.PublicRefusal}
	}
	return &auth.Identity{Name: name, By: "test"}, nil
}

func (w *totpWorld) code(user string) string { return w.secrets[user].Code(time.Now()) }

// next lets time pass until there is another code.
func (w *totpWorld) next() { time.Sleep(30 * time.Second) }

func (w *totpWorld) login(user, password string) error {
	_, err := w.logins.Authenticate(w.Context(), w.request(user, password))
	return err
}

func (w *totpWorld) request(user, password string) *auth.Request {
	return &auth.Request{
		Username: user, Password: []byte(password), CommonName: "laptop", CertKey: []byte("key"), Can: auth.ByReturn | auth.ByText,
		Source: netip.MustParseAddrPort("192.0.2.1:1194"),
	}
}

func (w *totpWorld) in(user, password string) {
	w.Helper()
	id, err := w.logins.Authenticate(w.Context(), w.request(user, password))
	if err != nil {
		w.Errorf("%s with %q: %v", user, password, err)
	} else if want, _ := auth.CanonicalName(user); id.Name != want || id.By != "test+totp" {
		w.Errorf("%s with %q is %+v", user, password, id)
	}
}

func (w *totpWorld) out(user, password, reason string) {
	w.Helper()
	wantDenied(w.T, w.login(user, password), reason, auth.PublicRefusal)
}

// challenge wants to be asked.
func (w *totpWorld) challenge(user, password string) *auth.Challenge {
	w.Helper()
	return w.asks(w.login(user, password), user)
}

func (w *totpWorld) asks(err error, user string) *auth.Challenge {
	w.Helper()
	var c *auth.Challenge
	if !errors.As(err, &c) {
		w.Fatalf("%s: %v, want a challenge", user, err)
	}
	if c.Username != user || c.Text != "One-time code" || !c.Echo || c.URL != "" || c.Within != 2*time.Minute || c.State == "" {
		w.Errorf("asked %+v", c)
	}
	var denied *auth.Denied
	if errors.As(err, &denied) {
		w.Error("the challenge gives the verdict away")
	}
	return c
}

func static(password, code string) string {
	return string(auth.FormatStatic([]byte(password), []byte(code)))
}

func reply(c *auth.Challenge, code string) string {
	return string(auth.FormatReply(c.State, []byte(code)))
}

// Every way there is to show a code.
func TestTOTPWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		w.in("alice", "secret"+w.code("alice"))
		w.next()
		w.in("Alice", static("secret", w.code("alice")))
		w.next()
		code := w.code("alice")
		w.in("alice", static("secret", " "+code[:3]+" "+code[3:]))
		w.next()
		w.in("alice", reply(w.challenge("alice", "secret"), w.code("alice")))
		w.next()

		// Within the session: the same request, with the answer.
		r := w.request("alice", "secret")
		_, err := w.logins.Authenticate(t.Context(), r)
		r.State, r.Response = w.asks(err, "alice").State, []byte(w.code("alice"))
		if id, err := w.logins.Authenticate(t.Context(), r); err != nil || id.Name != "alice" || id.By != "test+totp" {
			t.Errorf("%+v, %v", id, err)
		}
		for i, password := range w.asked {
			if password != "secret" {
				t.Errorf("the back end saw %q at login %d", password, i)
			}
		}
		if len(w.asked) != 5 {
			t.Errorf("the back end was asked %d times for 5 logins", len(w.asked))
		}
		w.next()
		w.in("bob", reply(w.challenge("bob", "secret"), w.code("bob")))

		// Clocks differ.
		w.next()
		w.in("alice", static("secret", w.secrets["alice"].Code(time.Now().Add(-30*time.Second))))
		w.in("alice", static("secret", w.secrets["alice"].Code(time.Now().Add(30*time.Second))))
		w.out("bob", static("secret", w.secrets["bob"].Code(time.Now().Add(-60*time.Second))), "wrong one-time code")
	})
}

// Where the code is in a plain password is a setting.
func TestTOTPPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{Place: auth.CodeFirst})
		w.in("alice", w.code("alice")+"secret")
		w.challenge("alice", "secret"+w.code("alice"))
		w.challenge("alice", "12345")
		w.out("alice", "123456", "wrong password") // nothing is left of it

		w = newTOTPWorld(t, auth.TOTPOptions{Place: auth.CodeApart})
		w.challenge("alice", "secret"+w.code("alice"))
		w.challenge("alice", w.code("alice")+"secret")
		w.in("alice", static("secret", w.code("alice")))

		w = newTOTPWorld(t, auth.TOTPOptions{})
		for _, password := range []string{"secret", "12345", "secret12345x", "secret１２３４５６", ""} {
			w.challenge("alice", password)
		}
	})
}

// Optional: who has no secret comes in without.
func TestTOTPOptional(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{Optional: true})
		if err := w.login("carol", "secret"); err != nil {
			t.Error(err)
		}
		if err := w.login("carol", static("secret", "")); err != nil {
			t.Error(err)
		}
		w.out("carol", "secret123456", "wrong password") // it is the password
		w.out("nobody", "secret", "unknown")
		w.challenge("alice", "secret")
		w.challenge("ALICE", "secret")
		w.in("alice", static("secret", w.code("alice")))
		w.logins = w.totp.Require(backend(func(context.Context, *auth.Request) (*auth.Identity, error) {
			return &auth.Identity{Name: "alice"}, nil
		}))
		wantBroken(t, w.login("carol", "secret"), "another user")
	})
}
