package main

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/auth"
	"postern/auth/profile"
	"postern/server/config"
)

// site is an authority and a server's configuration on it, as an admin of OpenVPN has them.
func site(t *testing.T, lines ...string) (dir, conf string) {
	t.Helper()
	dir = t.TempDir()
	mustRun(t, "pki", "init", "--dir", filepath.Join(dir, "pki"))
	mustRun(t, "pki", "server", "--dir", dir, "server")
	mustRun(t, "pki", "client", "--dir", dir, "alice")
	return dir, writeConf(t, dir, lines...)
}

func writeConf(t *testing.T, dir string, lines ...string) string {
	t.Helper()
	conf := filepath.Join(dir, "server.conf")
	text := "cd " + dir + "\nport 1194\nproto udp\ndev tun\nserver 10.8.0.0 255.255.255.0\ntopology subnet\n" +
		"ca pki/ca.crt\ncert pki/issued/server.crt\nkey pki/private/server.key\ndh none\n" + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return conf
}

// Every wrap a server may have, with keys from `postern key` and from openvpn, makes a profile that openvpn takes.
func TestProfileWraps(t *testing.T) {
	dir, _ := site(t)
	for _, key := range []string{"tls-auth", "tls-crypt", "tls-crypt-v2-server", "auth-token"} {
		mustRun(t, "key", key, "--out", filepath.Join(dir, key+".key"))
	}
	for _, tc := range []struct {
		name  string
		lines []string
		flags []string
		want  string
	}{
		{"none", nil, nil, "</key>\n"},
		{"tls-auth", []string{"tls-auth tls-auth.key 0", "auth SHA256"}, nil, "key-direction 1\n<tls-auth>"},
		{"tls-auth reversed", []string{"tls-auth tls-auth.key 1"}, nil, "key-direction 0\n<tls-auth>"},
		{"tls-auth without direction", []string{"tls-auth tls-auth.key"}, nil, "</key>\n<tls-auth>"},
		{"tls-crypt", []string{"tls-crypt tls-crypt.key"}, nil, "<tls-crypt>"},
		{"tls-crypt-v2", []string{"tls-crypt-v2 tls-crypt-v2-server.key"}, nil, "<tls-crypt-v2>"},
		{"the best of two", []string{"tls-crypt tls-crypt.key", "tls-crypt-v2 tls-crypt-v2-server.key"}, nil, "<tls-crypt-v2>"},
		{"the other of two", []string{"tls-crypt tls-crypt.key", "tls-crypt-v2 tls-crypt-v2-server.key"}, []string{"--wrap", "tls-crypt"}, "<tls-crypt>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conf, out := writeConf(t, dir, tc.lines...), filepath.Join(t.TempDir(), "p.ovpn")
			mustRun(t, append([]string{"profile", "alice", "--config", conf, "--out", out, "--endpoint", "vpn.example.com"}, tc.flags...)...)
			if text := readFile(t, out); !strings.Contains(text, tc.want) {
				t.Errorf("the profile lacks %q:\n%s", tc.want, text)
			}
			if fi, err := os.Stat(out); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", fi.Mode(), err)
			}
			openvpnAccepts(t, out)
		})
	}
	conf := writeConf(t, dir)
	if _, err := run(t, "profile", "alice", "--config", conf, "--out", "-", "--wrap", "tls-crypt"); err == nil {
		t.Error("a wrap the server does not have was promised")
	}
	if text := mustRun(t, "profile", "alice", "--config", conf, "--out", "-", "--endpoint", "h"); strings.Contains(text, "auth-user-pass") {
		t.Error("a login is asked for that the server does not want")
	}
}

// S093: profiles, and the keys they are made of, are for their owner only, whatever the umask and whatever was there before;
// --drop-key leaves the profile as the only copy of a key, of which no trace stays in the authority.
func TestS093ProfileKeys(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir, conf := site(t)
	mustRun(t, "pki", "renew", "--dir", dir, "alice")
	out, key := filepath.Join(dir, "alice.ovpn"), filepath.Join(dir, "pki", "private", "alice.key")
	if err := os.WriteFile(out, []byte("an older one"), 0o666); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "profile", "alice", "--config", conf, "--out", out, "--endpoint", "vpn.example.com")
	for _, name := range []string{out, key} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	secret := strings.Split(readFile(t, key), "\n")[1]
	mustRun(t, "profile", "alice", "--config", conf, "--out", out, "--endpoint", "vpn.example.com", "--drop-key")
	if !strings.Contains(readFile(t, out), secret) {
		t.Error("the profile lacks the key")
	}
	err := filepath.WalkDir(filepath.Join(dir, "pki"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.Contains(readFile(t, path), secret) || strings.HasSuffix(path, "/alice.key") {
			t.Errorf("%s has a key still", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, "profile", "alice", "--config", conf, "--out", out); err == nil || !strings.Contains(err.Error(), "pki renew") {
		t.Errorf("another profile without a key: %v", err)
	}
	// The certificate can be renewed and revoked all the same.
	mustRun(t, "pki", "renew", "--dir", dir, "alice")
	mustRun(t, "profile", "alice", "--config", conf, "--out", out, "--endpoint", "vpn.example.com", "--drop-key")
	mustRun(t, "pki", "revoke", "--dir", dir, "alice")
}

func TestProfileMissing(t *testing.T) {
	dir, conf := site(t)
	for _, tc := range []struct {
		name, user string
		spoil      func() error
		want       string
	}{
		{"no certificate", "bob", func() error { return nil }, "postern pki client --dir " + filepath.Join(dir, "pki") + " bob"},
		{"the server's name", "server", func() error { return nil }, "is no client certificate"},
		{"no key", "alice", func() error { return os.Remove(filepath.Join(dir, "pki/private/alice.key")) }, "has been taken away"},
		{"revoked", "alice", func() error { _, err := run(t, "pki", "revoke", "--dir", dir, "alice"); return err }, "no such certificate"},
		{"another's authority", "alice", func() error {
			if err := os.RemoveAll(filepath.Join(dir, "pki")); err != nil {
				return err
			}
			mustRun(t, "pki", "init", "--dir", filepath.Join(dir, "pki"))
			mustRun(t, "pki", "server", "--dir", dir, "server")
			mustRun(t, "pki", "client", "--dir", dir, "alice")
			mustRun(t, "pki", "init", "--dir", filepath.Join(dir, "other"))
			return os.Rename(filepath.Join(dir, "other/ca.crt"), filepath.Join(dir, "pki/ca.crt"))
		}, "clients would refuse it"},
	} {
		if err := tc.spoil(); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		out := filepath.Join(t.TempDir(), "p.ovpn")
		if _, err := run(t, "profile", tc.user, "--config", conf, "--endpoint", "h", "--out", out); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q in it", tc.name, err, tc.want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: a profile was written", tc.name)
		}
	}
}

func TestProfileRemotes(t *testing.T) {
	listen := func(network, addr string, v4 bool) config.Listen {
		return config.Listen{Network: network, Addr: netip.MustParseAddrPort(addr), Any4: v4}
	}
	for _, tc := range []struct {
		name      string
		listen    []config.Listen
		endpoints []string
		want      string
	}{
		{"both families", []config.Listen{listen("udp", "[::]:1194", false)}, []string{"vpn.example.com"}, "vpn.example.com 1194 udp"},
		{"IPv4 only", []config.Listen{listen("udp", "0.0.0.0:1194", true)}, []string{"vpn.example.com"}, "vpn.example.com 1194 udp4"},
		{"an address says its family", []config.Listen{listen("udp", "0.0.0.0:1194", true)}, []string{"192.0.2.1"}, "192.0.2.1 1194 udp"},
		{"IPv6 with port", []config.Listen{listen("tcp", "[::]:443", false)}, []string{"[2001:db8::1]:8443", "2001:db8::2"}, "2001:db8::1 8443 tcp, 2001:db8::2 443 tcp"},
		{"one socket a family", []config.Listen{listen("udp", "0.0.0.0:1194", true), listen("udp", "[2001:db8::1]:1194", false)}, []string{"h"}, "h 1194 udp"},
		{"UDP, then TCP", []config.Listen{listen("udp", "[::]:1194", false), listen("tcp", "[::]:443", false)}, []string{"a", "b"},
			"a 1194 udp, a 443 tcp, b 1194 udp, b 443 tcp"},
		{"loopback stays home", []config.Listen{listen("tcp", "127.0.0.1:1195", true), listen("udp", "[::]:1194", false)}, []string{"h"}, "h 1194 udp"},
		{"only loopback", []config.Listen{listen("tcp", "127.0.0.1:1195", true)}, []string{"h"}, "error"},
		{"port 0", []config.Listen{listen("udp", "[::]:1194", false)}, []string{"h:0"}, "error"},
		{"no host", []config.Listen{listen("udp", "[::]:1194", false)}, []string{"h up"}, "error"},
	} {
		got := "error"
		if rs, err := remotes(tc.listen, tc.endpoints); err == nil {
			var all []string
			for _, r := range rs {
				all = append(all, remoteText(r))
			}
			got = strings.Join(all, ", ")
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func remoteText(r profile.Remote) string { return fmt.Sprintf("%s %d %s", r.Host, r.Port, r.Proto) }

// Where codes are wanted the profile asks for one beside the password: of everybody, or of those who have a secret.
func TestProfileCode(t *testing.T) {
	dir, _ := site(t)
	mustRun(t, "pki", "client", "--dir", dir, "bob")
	if err := os.WriteFile(filepath.Join(dir, "users"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.AddTOTP(filepath.Join(dir, "totp"), "alice"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		lines      []string
		alice, bob string // the line; "" for none
	}{
		{nil, "", ""},
		{[]string{"auth-totp-file totp"}, `static-challenge "One-time code" 1`, `static-challenge "One-time code" 1`},
		{[]string{"auth-totp-file totp", "auth-totp optional"}, `static-challenge "One-time code" 1`, ""},
		{[]string{"auth-totp-file totp", "auth-totp-text Code:"}, `static-challenge Code: 1`, `static-challenge Code: 1`},
	} {
		conf := writeConf(t, dir, append(tc.lines, "auth-users-file users")...)
		for name, want := range map[string]string{"alice": tc.alice, "bob": tc.bob} {
			text := mustRun(t, "profile", name, "--config", conf, "--out", "-", "--endpoint", "h")
			got := ""
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "static-challenge") {
					got = strings.TrimSpace(line)
				}
			}
			if got != want {
				t.Errorf("%q: %s has %q, want %q", tc.lines, name, got, want)
			}
		}
	}
}
