package auth_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/rs/zerolog"

	"postern/auth"
)

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
