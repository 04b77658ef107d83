package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"postern/auth"
	"postern/auth/pki"
	"postern/server"
	"postern/server/config"
)

// run is the program with a command line, as far as its commands go. It returns what was printed.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	app := &cli.App{
		Name: "postern", Writer: &out, ErrWriter: &out, Reader: strings.NewReader(""), ExitErrHandler: func(*cli.Context, error) {},
		Commands: []*cli.Command{quickstartCommand(), pkiCommand(), profileCommand(), keyCommand()},
	}
	err := app.RunContext(t.Context(), append([]string{"postern"}, args...))
	return out.String(), err
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t, args...)
	if err != nil {
		t.Fatalf("postern %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// contents is every file below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestQuickstart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a directory")
	out := mustRun(t, "quickstart", "--dir", dir, "--users", "alice,bob", "--endpoint", "vpn.example.com:443", "--prepare-only")

	cfg, report, err := config.Load(filepath.Join(dir, "server.conf"))
	if err != nil || report.Count(config.Refused) > 0 {
		t.Fatalf("server.conf: %v", err)
	}
	if !cfg.NAT || !cfg.TLSCryptV2.Set() || !cfg.CRL.Set() || !cfg.WantLogin() || !cfg.LoginMustMatchCert {
		t.Errorf("server.conf lacks something: %+v", cfg)
	}

	// The printed passwords are the ones that work, and they are printed once.
	users, err := auth.ListUsers(filepath.Join(dir, "users"))
	if err != nil || strings.Join(users, " ") != "alice bob" {
		t.Fatalf("users %q, %v", users, err)
	}
	found := regexp.MustCompile(`user +(\S+)\n +password +(\S+) `).FindAllStringSubmatch(out, -1)
	if len(found) != 2 {
		t.Fatalf("no two passwords in %q", out)
	}
	var passwords []string
	for _, m := range found {
		a, err := auth.NewFile(filepath.Join(dir, "users"), server.NewWorkers(), zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		if id, err := a.Authenticate(t.Context(), &auth.Request{Username: m[1], Password: []byte(m[2])}); err != nil || id.Name != m[1] {
			t.Errorf("%s with the printed password: %v, %v", m[1], id, err)
		}
		passwords = append(passwords, m[2])
	}

	// S108: nothing for others.
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if fi, err := d.Info(); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v", path, fi.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	profile := readFile(t, filepath.Join(dir, "profiles/alice.ovpn"))
	for _, want := range []string{"remote vpn.example.com 443 udp", "auth-user-pass\n", "<tls-crypt-v2>", "verify-x509-name server name"} {
		if !strings.Contains(profile, want) {
			t.Errorf("alice's profile lacks %q", want)
		}
	}
	if bob := readFile(t, filepath.Join(dir, "profiles/bob.ovpn")); wrapKey(t, bob) == wrapKey(t, profile) {
		t.Error("alice and bob share a tls-crypt-v2 key")
	}
	openvpnAccepts(t, filepath.Join(dir, "profiles/alice.ovpn"))

	// Again, it changes nothing.
	before := contents(t, dir)
	for _, args := range [][]string{nil, {"--users", "alice"}, {"--port", "1195"}} {
		again := mustRun(t, append([]string{"quickstart", "--dir", dir, "--prepare-only"}, args...)...)
		for _, p := range passwords {
			if strings.Contains(again, p) {
				t.Errorf("a password is shown again")
			}
		}
		if !strings.Contains(again, filepath.Join(dir, "profiles/alice.ovpn")) {
			t.Errorf("alice's profile is not named in %q", again)
		}
		if args != nil && args[0] == "--port" && !strings.Contains(again, "stays as it is") {
			t.Errorf("the new port is ignored silently: %q", again)
		}
	}
	after := contents(t, dir)
	for name, text := range before {
		if after[name] != text {
			t.Errorf("%s changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}

	// One more user later, with the endpoint that the configuration remembers.
	mustRun(t, "quickstart", "--dir", dir, "--users", "carol", "--prepare-only")
	if carol := readFile(t, filepath.Join(dir, "profiles/carol.ovpn")); !strings.Contains(carol, "remote vpn.example.com 443 udp") {
		t.Error("carol's profile has another endpoint")
	}
}

// Whatever is missing is made again, and only that.
func TestQuickstartAfterInterruption(t *testing.T) {
	dir := t.TempDir()
	mustRun(t, "quickstart", "--dir", dir, "--endpoint", "192.0.2.1", "--prepare-only")
	whole := contents(t, dir)
	for _, gone := range []string{"server.conf", "tls-crypt-v2.key", "users", "pki/crl.pem"} {
		if err := os.Remove(filepath.Join(dir, gone)); err != nil {
			t.Fatal(err)
		}
		mustRun(t, "quickstart", "--dir", dir, "--endpoint", "192.0.2.1", "--prepare-only")
		now := contents(t, dir)
		for name, text := range whole {
			if name != filepath.Join(dir, gone) && now[name] != text {
				t.Errorf("without %s, %s changed", gone, name)
			}
			if now[name] == "" && !strings.HasSuffix(name, "lock") && text != "" {
				t.Errorf("without %s, %s was not made", gone, name)
			}
		}
		whole = now
	}
	// A profile that was moved to its device is not made again unless asked for.
	profile := filepath.Join(dir, "profiles/user1.ovpn")
	if err := os.Remove(profile); err != nil {
		t.Fatal(err)
	}
	if out := mustRun(t, "quickstart", "--dir", dir, "--prepare-only"); !strings.Contains(out, "postern profile --config") {
		t.Errorf("without a profile: %q does not say how to make it", out)
	}
	if _, err := os.Stat(profile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the profile came back: %v", err)
	}
	mustRun(t, "quickstart", "--dir", dir, "--users", "user1", "--prepare-only")
	readFile(t, profile)

	// A key that was taken away on purpose is not made anew behind the admin's back.
	if err := os.Remove(filepath.Join(dir, "pki/private/server.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, "quickstart", "--dir", dir, "--prepare-only"); !errors.Is(err, pki.ErrNoKey) {
		t.Errorf("without the server's key: %v, want ErrNoKey", err)
	}
}

func TestQuickstartRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"--users", "a b"}, {"--users", "../x"}, {"--users", "server"}, {"--users", "x\nup /bin/sh"}, {"--endpoint", "a b"},
		{"--endpoint", "x\n</ca>"}, {"--endpoint", "vpn.example.com:0"}, {"--port", "0"}, {"--port", "70000"}, {"--proto", "sctp"},
		{"--dns", "ns.example.com"}, {"extra"},
	} {
		dir := filepath.Join(t.TempDir(), "d")
		if out, err := run(t, append([]string{"quickstart", "--dir", dir, "--prepare-only"}, args...)...); err == nil {
			t.Errorf("%q was taken: %s", args, out)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: something was made: %v", args, err)
		}
	}
}

func TestRandomPassword(t *testing.T) {
	if len(passwordLetters) != 32 {
		t.Fatalf("%d letters: not every password is as likely as the others", len(passwordLetters))
	}
	form := regexp.MustCompile(`^[a-z2-9]{4}(-[a-z2-9]{4}){3}$`)
	seen := map[string]bool{}
	for range 1000 {
		p := randomPassword()
		if !form.MatchString(p) || seen[p] {
			t.Fatalf("password %q", p)
		}
		seen[p] = true
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wrapKey(t *testing.T, profile string) string {
	t.Helper()
	_, rest, ok := strings.Cut(profile, "<tls-crypt-v2>")
	key, _, ok2 := strings.Cut(rest, "</tls-crypt-v2>")
	if !ok || !ok2 {
		t.Fatal("no tls-crypt-v2 key")
	}
	return key
}

// openvpnAccepts has the real client read a profile and try to connect to a port that never answers.
func openvpnAccepts(t *testing.T, profile string, more ...string) {
	t.Helper()
	if testing.Short() {
		return
	}
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, port, _ := net.SplitHostPort(silent.LocalAddr().String())
	text := regexp.MustCompile(`(?m)^remote .*$`).ReplaceAllString(readFile(t, profile), "remote 127.0.0.1 "+port+" udp")
	dir := t.TempDir()
	conf, login := filepath.Join(dir, "c.ovpn"), filepath.Join(dir, "login")
	if err := errors.Join(os.WriteFile(conf, []byte(text), 0o600), os.WriteFile(login, []byte("alice\nsecret\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config", conf, "--dev", "null", "--connect-timeout", "1", "--connect-retry-max", "1"}
	if strings.Contains(text, "auth-user-pass") {
		args = append(args, "--auth-user-pass", login)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "openvpn", append(args, more...)...).CombinedOutput()
	if ctx.Err() != nil || !strings.Contains(string(out), "link remote") || strings.Contains(string(out), "Options error") {
		t.Errorf("openvpn: %v\n%s", err, out)
	}
}
