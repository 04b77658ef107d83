package auth_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/auth"
)

// S045: nothing tells a wrong password from a wrong code, nor an unknown user from one without a secret.
func TestTOTPTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, user := range []string{"alice", "carol", "nobody"} { // with a secret, without, unknown
			for _, password := range []string{"secret", "wrong", ""} {
				for _, code := range []string{"right", "wrong", "", "000000", "1234567"} {
					if user == "alice" && password == "secret" && code == "right" {
						continue
					}
					w := newTOTPWorld(t, auth.TOTPOptions{})
					given := code
					if code == "right" {
						given = w.code("alice")
					}
					w.out(user, static(password, given), "")
					w.out(user, reply(w.challenge(user, password), given), "")
					if len(given) == 6 && strings.Trim(given, "0123456789") == "" {
						w.out(user, password+given, "")
					}
				}
			}
		}
		// Who cannot be asked is told so, whoever it is.
		w := newTOTPWorld(t, auth.TOTPOptions{})
		for _, user := range []string{"alice", "carol", "nobody"} {
			for _, password := range []string{"secret", "wrong"} {
				r := w.request(user, password)
				r.Can = auth.ByWebPage
				_, err := w.logins.Authenticate(t.Context(), r)
				wantDenied(t, err, "no one-time code", "a one-time code is needed besides the password")
			}
		}
	})
}

// S045: a user is asked after the same time, however long it took to find out about the password.
func TestTOTPAsksAfterOneTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		var takes time.Duration
		w.logins = w.totp.Require(backend(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			time.Sleep(takes)
			return w.answer(ctx, r)
		}))
		for _, takes = range []time.Duration{0, 5, 700 * time.Millisecond, 2 * time.Second} {
			for _, password := range []string{"secret", "wrong"} {
				began := time.Now()
				w.challenge("alice", password)
				if took := time.Since(began); took != 2*time.Second {
					t.Errorf("asked after %v where the back end took %v", took, takes)
				}
			}
		}
		takes = 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := w.logins.Authenticate(ctx, w.request("alice", "secret"))
		wantBroken(t, err, "deadline exceeded")
	})
}

// S046: wrong codes are guesses. The password in between, right, clears no count; a wrong one is no guess at the code.
func TestTOTPGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		for range 20 {
			w.out("alice", static("wrong", "000000"), "wrong password")
			w.out("alice", reply(w.challenge("alice", "wrong"), "000000"), "wrong password")
		}
		w.out("alice", static("secret", "000000"), "wrong one-time code")
		w.out("alice", "secret000000", "wrong one-time code")
		w.challenge("alice", "secret")
		w.out("alice", reply(w.challenge("alice", "secret"), "000000"), "wrong one-time code")
		w.out("alice", static("secret", w.code("alice")), "too many failed logins")
		w.out("alice", reply(w.challenge("alice", "secret"), w.code("alice")), "too many failed logins")
		w.in("bob", static("secret", w.code("bob")))
		time.Sleep(15 * time.Minute)
		w.in("alice", static("secret", w.code("alice")))
	})
}

// Many sources guess no more than one does, and the owner comes in from where they were before.
func TestTOTPGuessesFromEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		w.in("alice", static("secret", w.code("alice")))
		w.next()
		wrong := 0
		for i := range 200 {
			r := w.request("alice", static("secret", "000000"))
			r.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1)
			_, err := w.logins.Authenticate(t.Context(), r)
			var denied *auth.Denied
			if errors.As(err, &denied) && denied.Reason == "wrong one-time code" {
				wrong++
			}
		}
		if wrong != 3 {
			t.Errorf("%d guesses", wrong)
		}
		w.in("alice", static("secret", w.code("alice")))
	})
}

// A state is good once, in time, for whom it was made, whatever the answer.
func TestTOTPState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		c := w.challenge("alice", "secret")
		w.out("alice", reply(c, "000000"), "wrong one-time code")
		w.out("alice", reply(c, w.code("alice")), "not open")

		c = w.challenge("alice", "secret")
		time.Sleep(2*time.Minute - time.Second)
		w.in("alice", reply(c, w.code("alice")))
		w.out("alice", reply(c, w.code("alice")), "not open")
		c = w.challenge("alice", "secret")
		time.Sleep(2 * time.Minute)
		w.out("alice", reply(c, w.code("alice")), "not open")
		w.out("alice", reply(&auth.Challenge{State: "guess"}, w.code("alice")), "not open")

		for name, change := range map[string]func(*auth.Request){
			"user":           func(r *auth.Request) { r.Username = "bob" },
			"common name":    func(r *auth.Request) { r.CommonName = "phone" },
			"key":            func(r *auth.Request) { r.CertKey = []byte("other") },
			"no certificate": func(r *auth.Request) { r.CommonName, r.CertKey = "", nil },
		} {
			c := w.challenge("alice", "secret")
			code := w.code("alice")
			if name == "user" {
				code = w.code("bob")
			}
			r := w.request("alice", reply(c, code))
			change(r)
			_, err := w.logins.Authenticate(t.Context(), r)
			wantDenied(t, err, "another's challenge", auth.PublicRefusal)
			w.out("alice", reply(c, w.code("alice")), "not open")
		}
		c = w.challenge("alice", "secret")
		r := w.request("Alice", reply(c, w.code("alice")))
		r.Source = netip.MustParseAddrPort("198.51.100.1:7") // they have moved meanwhile
		if _, err := w.logins.Authenticate(t.Context(), r); err != nil {
			t.Error(err)
		}
	})
}
