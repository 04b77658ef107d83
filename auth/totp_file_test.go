package auth_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/rs/zerolog"

	"postern/auth"
)

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
