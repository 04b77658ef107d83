package main

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/tlsctl"
)

// openvpn works with our keys, and we with its.
func TestKeysBothWays(t *testing.T) {
	if testing.Short() {
		t.Skip("runs openvpn")
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	genkey := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("openvpn", args...).CombinedOutput(); err != nil {
			t.Fatalf("openvpn %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	genkey("--genkey", "secret", at("static"))
	genkey("--genkey", "tls-crypt-v2-server", at("server"))
	genkey("--genkey", "auth-token", at("token"))
	genkey("--tls-crypt-v2", at("server"), "--genkey", "tls-crypt-v2-client", at("client"))
	for name, key := range map[string][]string{
		"static": {"tls-auth"}, "server": {"tls-crypt-v2-server"}, "token": {"auth-token"},
		"client": {"tls-crypt-v2-client", "--server-key", at("server")},
	} {
		mustRun(t, append([]string{"key"}, append(key, "--out", at("our-"+name))...)...)
		theirs, ours := shape(readFile(t, at(name))), shape(readFile(t, at("our-"+name)))
		if theirs != ours {
			t.Errorf("%s key:\n%s\nopenvpn writes\n%s", name, ours, theirs)
		}
		if fi, err := os.Stat(at("our-" + name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("mode of the %s key: %v, %v", name, fi.Mode(), err)
		}
	}
	// Our server's key makes clients' keys in openvpn's hands.
	genkey("--tls-crypt-v2", at("our-server"), "--genkey", "tls-crypt-v2-client", at("client2"))
	if _, _, err := tlsctl.ParseClientKeyV2([]byte(readFile(t, at("client2")))); err != nil {
		t.Error(err)
	}
	if _, err := tlsctl.ParseStaticKey([]byte(readFile(t, at("static")))); err != nil {
		t.Error(err)
	}
}

// shape is a key file with its random part blanked.
func shape(key string) string {
	var b strings.Builder
	for line := range strings.Lines(key) {
		if c := line[0]; c != '-' && c != '#' {
			line = strings.Repeat("x", len(line)-1) + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestKeyFiles(t *testing.T) {
	out := filepath.Join(t.TempDir(), "key")
	mustRun(t, "key", "tls-crypt", "--out", out)
	before := readFile(t, out)
	if _, err := run(t, "key", "tls-crypt", "--out", out); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an older key: %v, want ErrExist", err)
	}
	if readFile(t, out) != before {
		t.Error("the older key was replaced")
	}
	server := filepath.Join(t.TempDir(), "server")
	mustRun(t, "key", "tls-crypt-v2-server", "--out", server)
	mustRun(t, "key", "tls-crypt-v2-client", "--server-key", server, "--metadata", base64.StdEncoding.EncodeToString([]byte("alice")))
	for _, args := range [][]string{
		{"tls-crypt-v2-client"}, {"tls-crypt-v2-client", "--server-key", out}, {"tls-crypt-v2-client", "--server-key", server, "--metadata", "?"},
		{"tls-crypt-v2-client", "--server-key", server, "--metadata", base64.StdEncoding.EncodeToString(make([]byte, 735))},
		{"tls-crypt", "extra"}, {"tls-crypt-v2-client", "--server-key", server + "-none"},
	} {
		if out, err := run(t, append([]string{"key"}, args...)...); err == nil {
			t.Errorf("key %q: %s", args, out)
		}
	}
}

// A key that root makes belongs to the owner of its directory, who is the server's user.
func TestKeyBelongsToDirectory(t *testing.T) {
	dir, uid, gid := t.TempDir(), os.Geteuid(), os.Getegid()
	if uid == 0 { // who alone makes files for others
		uid, gid = 12345, 23456
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "token.key")
	mustRun(t, "key", "auth-token", "--out", name)
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.Sys().(*syscall.Stat_t); int(s.Uid) != uid || int(s.Gid) != gid || info.Mode() != 0o600 {
		t.Errorf("it belongs to %d:%d, mode %v", s.Uid, s.Gid, info.Mode())
	}
}
