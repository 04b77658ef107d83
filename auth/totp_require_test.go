package auth_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
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

// A code is good once, whichever way it comes, and for its owner.
func TestTOTPReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		ways := func(code, reason string) {
			t.Helper()
			w.out("alice", static("secret", code), reason)
			w.out("alice", "secret"+code, reason)
			w.out("alice", reply(w.challenge("alice", "secret"), code), reason)
		}
		code := w.code("alice")
		w.out("bob", static("secret", code), "wrong one-time code")
		w.out("alice", static("wrong", code), "wrong password")
		w.in("alice", static("secret", code)) // a wrong password has spent nothing
		for range 5 {
			ways(code, "used before")
		}
		w.next()
		ways(code, "used before") // still in the window
		w.in("alice", static("secret", w.code("alice")))
		w.out("alice", static("secret", code), "used before") // and none older than the last
		w.in("bob", static("secret", w.code("bob")))
	})
}

// The next run knows what this one has taken; without its file it takes nothing that may be spent.
func TestTOTPReplayAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		used, err := os.OpenFile(filepath.Join(t.TempDir(), "used"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer used.Close()
		w := newTOTPWorld(t, auth.TOTPOptions{Used: used})
		code := w.code("alice")
		w.in("alice", static("secret", code))
		w.start(auth.TOTPOptions{Used: used})
		w.out("alice", static("secret", code), "used before")
		w.in("bob", static("secret", w.code("bob")))

		w.next()
		w.start(auth.TOTPOptions{})
		for _, user := range []string{"alice", "bob"} {
			for _, ahead := range []time.Duration{-30, 0, 30} {
				w.out(user, static("secret", w.secrets[user].Code(time.Now().Add(ahead*time.Second))), "used before")
			}
		}
		time.Sleep(time.Minute)
		w.in("alice", static("secret", w.code("alice")))
	})
}

// Of many logins at once with one code, one comes in.
func TestTOTPReplayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		logins := auth.Answers(w.totp.Require(backend(yes)))
		code := w.code("alice")
		var wg sync.WaitGroup
		var mu sync.Mutex
		in := 0
		for range 20 {
			wg.Go(func() {
				_, err := logins.Authenticate(t.Context(), w.request("alice", static("secret", code)))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					in++
				} else {
					wantDenied(t, err, "used before", auth.PublicRefusal)
				}
			})
		}
		wg.Wait()
		if in != 1 {
			t.Errorf("%d came in", in)
		}
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

// A directory that is away asks nobody for a code, and takes none.
func TestTOTPBackendAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		w.broken = errors.New("directory is away")
		code := w.code("alice")
		for _, password := range []string{"secret", "secret" + code, static("secret", code)} {
			wantBroken(t, w.login("alice", password), "away")
		}
		w.broken = nil
		w.in("alice", static("secret", code))

		w.logins = auth.Answers(w.totp.Require(backend(func(context.Context, *auth.Request) (*auth.Identity, error) {
			return &auth.Identity{Name: "bob"}, nil
		})))
		for _, password := range []string{"secret", static("secret", w.code("bob"))} {
			wantBroken(t, w.login("alice", password), "another user")
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

// A change of the file is seen at the next login; a bad one is as if it had not been.
func TestTOTPReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		epoch, other := w.totp.Epoch("alice"), w.totp.Epoch("bob")
		if epoch == other || epoch == "" || w.totp.Epoch("carol") != "" {
			t.Error("epochs are alike")
		}
		old := w.code("alice")
		w.set(auth.RenewTOTP, "alice")
		w.out("alice", static("secret", old), "wrong one-time code")
		w.in("alice", static("secret", w.code("alice")))
		if w.totp.Epoch("alice") == epoch || w.totp.Epoch("bob") != other {
			t.Error("the epochs did not follow the secrets")
		}
		if err := os.WriteFile(w.file, []byte("alice:oops\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.in("bob", static("secret", w.code("bob")))
		if err := os.Remove(w.file); err != nil {
			t.Fatal(err)
		}
		w.next()
		w.in("bob", static("secret", w.code("bob")))
		w.set(auth.AddTOTP, "carol")
		w.in("carol", static("secret", w.code("carol")))
		w.next()
		w.out("bob", static("secret", w.code("bob")), "no TOTP secret")
		if err := auth.RemoveTOTP(w.file, "Carol"); err != nil {
			t.Fatal(err)
		}
		if w.totp.Holds("carol") {
			t.Error("carol's secret is still there")
		}
	})
}

// S108: secrets that others can read are not used.
func TestTOTPFilePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "totp-secrets")
	if _, err := auth.AddTOTP(path, "alice"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.NewTOTP(auth.TOTPOptions{File: path}, zerolog.Nop()); err == nil {
		t.Error("a file that all can read was used")
	}
	if _, err := auth.AddTOTP(path, "bob"); err == nil {
		t.Error("a file that all can read was added to")
	}
	if _, err := auth.NewTOTP(auth.TOTPOptions{File: path + "-none"}, zerolog.Nop()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A directory's users have codes like local ones, and the directory sees their passwords alone.
func TestTOTPWithLDAP(t *testing.T) {
	var bound []string
	var mu sync.Mutex
	s := startStub(t, &stub{bind: func(dn, password string) *ber.Packet {
		if dn == aliceDN {
			mu.Lock()
			bound = append(bound, password)
			mu.Unlock()
		}
		return nil
	}})
	path := filepath.Join(t.TempDir(), "totp-secrets")
	secret, err := auth.AddTOTP(path, "alice")
	if err != nil {
		t.Fatal(err)
	}
	used, err := os.OpenFile(filepath.Join(t.TempDir(), "used"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	totp, err := auth.NewTOTP(auth.TOTPOptions{File: path, Used: used}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	users := newFile(t, writeUsers(t, "bob:"+bcryptOf(t, "bob-secret")))
	a := auth.Answers(totp.Require(auth.FileFirst(users, newLDAP(t, stubOptions(s)))))
	code := secret.Code(time.Now())
	if id, err := login(a, "alice", static("secret", code)); err != nil || id.By != "ldap+totp" {
		t.Errorf("%+v, %v", id, err)
	}
	_, err = login(a, "alice", static("secret", code))
	wantDenied(t, err, "used before", auth.PublicRefusal)
	for _, password := range []string{"SCRV1::MTIzNDU2", "123456", "CRV1::s::123456", "SCRV1:secret:123456"} {
		_, err := login(a, "alice", password)
		var denied *auth.Denied
		if !errors.As(err, &denied) {
			t.Errorf("%q: %v", password, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(bound) != 2 || bound[0] != "secret" || bound[1] != "secret" {
		t.Errorf("the directory saw binds of alice with %q", bound)
	}
}

// A reload changes what is asked and where secrets are; spent codes, open challenges and wrong guesses stay what they are.
func TestTOTPWithOtherOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		code := w.code("alice")
		w.in("alice", "secret"+code)
		for range 2 {
			w.out("bob", "secret000000", "wrong one-time code")
		}
		old := w.logins
		next, err := w.totp.With(auth.TOTPOptions{File: w.file, Place: auth.CodeFirst, Optional: true})
		if err != nil {
			t.Fatal(err)
		}
		w.totp, w.logins = next, auth.Answers(next.Require(backend(w.answer)))
		w.out("alice", code+"secret", "used before")
		if err := w.login("carol", "secret"); err != nil {
			t.Errorf("carol has no secret and needs none: %v", err)
		}
		w.out("bob", "000000secret", "wrong one-time code") // the third
		w.next()
		w.out("bob", w.code("bob")+"secret", "too many failed logins")
		time.Sleep(16 * time.Minute)
		w.in("bob", w.code("bob")+"secret")
		_, err = old.Authenticate(t.Context(), w.request("bob", "secret"))
		open := w.asks(err, "bob")
		w.next()
		r := w.request("bob", "")
		r.State, r.Response = open.State, []byte(w.code("bob"))
		if _, err := w.logins.Authenticate(t.Context(), r); err != nil {
			t.Errorf("the answer to a challenge of before: %v", err)
		}
		// What the old one lets in is spent for the new one, too.
		w.next()
		code = w.code("alice")
		if _, err := old.Authenticate(t.Context(), w.request("alice", "secret"+code)); err != nil {
			t.Errorf("a login under way: %v", err)
		}
		w.out("alice", code+"secret", "used before")
		if _, err := next.With(auth.TOTPOptions{File: w.file + "-none"}); err == nil {
			t.Error("a file that is not there was taken")
		}
		w.next()
		w.in("alice", w.code("alice")+"secret")
	})
}

// HoldsTOTP tells who has a secret, by any way to write the name.
func TestHoldsTOTP(t *testing.T) {
	path := filepath.Join(t.TempDir(), "totp-secrets")
	if _, err := auth.HoldsTOTP(path, "alice"); err == nil {
		t.Error("nothing said of a file that is not there")
	}
	if _, err := auth.AddTOTP(path, "alice"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"alice": true, "ALICE": true, "bob": false} {
		if got, err := auth.HoldsTOTP(path, name); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	if _, err := auth.HoldsTOTP(path, "a b"); err == nil {
		t.Error("a name that is none was taken")
	}
}

// Where the certificate names the user it says whose code it has to be, too.
func TestTOTPNamedByCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		named := auth.NamedByCertificate(w.logins)
		try := func(typed, cert, password string) error {
			r := w.request(typed, password)
			r.CommonName = cert
			_, err := named.Authenticate(t.Context(), r)
			return err
		}
		if err := try("anybody", "alice", "secret"+w.code("alice")); err != nil {
			t.Errorf("alice: %v", err)
		}
		w.next()
		wantDenied(t, try("alice", "bob", "secret"+w.code("alice")), "wrong one-time code", auth.PublicRefusal)
		var c *auth.Challenge
		if err := try("anybody", "bob", "secret"); !errors.As(err, &c) {
			t.Fatalf("bob: %v, want a challenge", err)
		}
		r := w.request(c.Username, "")
		r.CommonName, r.State, r.Response = "bob", c.State, []byte(w.code("bob"))
		if id, err := named.Authenticate(t.Context(), r); err != nil || id.Name != "bob" {
			t.Errorf("bob: %+v, %v", id, err)
		}
	})
}
