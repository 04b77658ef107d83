package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPKICommands(t *testing.T) {
	around := t.TempDir()
	dir := filepath.Join(around, "pki")
	mustRun(t, "pki", "init", "--dir", dir, "--cn", "Test CA")
	mustRun(t, "pki", "server", "vpn", "--dir", dir)                            // a flag behind the name
	mustRun(t, "pki", "client", "--dir", around, "alice", "bob", "--days", "5") // the directory around it, several names
	mustRun(t, "pki", "client", "--dir", dir, "--algorithm", "rsa", "--rsa-bits", "2048", "carol")
	mustRun(t, "pki", "renew", "--dir", dir, "alice")
	mustRun(t, "pki", "revoke", "--dir", dir, "bob", "--reason", "keyCompromise")
	if out := mustRun(t, "pki", "revoke", "--dir", dir, "bob"); !strings.Contains(out, "revoked already") {
		t.Errorf("revoke twice: %q", out)
	}
	mustRun(t, "pki", "crl", "--dir", dir, "--crl-days", "7")

	out := mustRun(t, "pki", "list", "--dir", dir)
	for _, want := range []string{"in 4 days", "valid, renewed since", "(keyCompromise)", "authority", "in 6 days"} {
		if !strings.Contains(out, want) {
			t.Errorf("list lacks %q:\n%s", want, out)
		}
	}
	var l pkiListing
	if err := json.Unmarshal([]byte(mustRun(t, "pki", "list", "--dir", dir, "--json")), &l); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range l.Certificates {
		got = append(got, c.Name+" "+c.Kind+" "+c.Status)
	}
	if want := "vpn server valid, alice client valid, bob client revoked, carol client valid, alice client valid"; strings.Join(got, ", ") != want {
		t.Errorf("list has %s, want %s", strings.Join(got, ", "), want)
	}

	for _, args := range [][]string{
		{"client", "--dir", dir, "alice"}, {"client", "--dir", dir}, {"client", "--dir", dir, "--days", "0", "dave"},
		{"client", "--dir", dir, "--days", "-1", "dave"}, {"client", "--dir", dir, "--algorithm", "dsa", "dave"},
		{"client", "--dir", dir, "--algorithm", "rsa", "--rsa-bits", "1024", "dave"}, {"client", "--dir", dir, "dave", "--no-such-flag"},
		{"init", "--dir", dir}, {"revoke", "--dir", dir, "nobody"}, {"revoke", "--dir", dir, "--reason", "boredom", "alice"},
		{"list", "--dir", t.TempDir()}, {"list", "--dir", dir, "extra"},
	} {
		if out, err := run(t, append([]string{"pki"}, args...)...); err == nil {
			t.Errorf("pki %q: %s", args, out)
		}
	}
	if _, err := run(t, "pki", "list", "--dir", t.TempDir()); !strings.Contains(err.Error(), "postern pki init") {
		t.Errorf("without an authority: %v does not say how to make one", err)
	}
}

func TestPKIPassphrase(t *testing.T) {
	dir, pass := filepath.Join(t.TempDir(), "pki"), filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(pass, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "pki", "init", "--dir", dir, "--encrypt", "--passphrase-file", pass)
	mustRun(t, "pki", "client", "--dir", dir, "--passphrase-file", pass, "alice")
	if _, err := run(t, "pki", "client", "--dir", dir, "bob"); err == nil || !strings.Contains(err.Error(), "--passphrase-file") {
		t.Errorf("without terminal and file: %v", err)
	}
	mustRun(t, "pki", "list", "--dir", dir) // needs no key
}
