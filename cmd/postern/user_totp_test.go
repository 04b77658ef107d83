package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	"rsc.io/qr"
)

func TestUserTOTPCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "totp-secrets")
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		app := &cli.App{Name: "postern", Commands: []*cli.Command{userCommand()}, Writer: &out, ErrWriter: &out}
		err := app.Run(append([]string{"postern", "user", "totp"}, args...))
		return out.String(), err
	}
	secretOf := func(out string) string {
		t.Helper()
		url, _, _ := strings.Cut(out, "\n")
		rest, found := strings.CutPrefix(url, "otpauth://totp/My%20Net:alice?secret=")
		secret, rest, _ := strings.Cut(rest, "&")
		if !found || len(secret) != 32 || rest != "algorithm=SHA1&digits=6&period=30&issuer=My%20Net" {
			t.Fatalf("printed %q", url)
		}
		code, err := qr.Encode(url, qr.L)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(out, "\n\n"+drawCode(code, false)) {
			t.Errorf("no QR code of the URL in %q", out)
		}
		return secret
	}
	held := func(want string) {
		t.Helper()
		if text, err := os.ReadFile(file); err != nil || string(text) != want {
			t.Errorf("file is %q, %v, want %q", text, err, want)
		}
	}

	out, err := run("--file", file, "--issuer", "My Net", "Alice")
	if err != nil {
		t.Fatal(err)
	}
	first := secretOf(out)
	held("alice:" + first + "\n")
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("file has mode %v, %v", info.Mode(), err)
	}

	// What is there is not shown, and not replaced by chance.
	if out, err = run("alice", "--file", file); err == nil || !strings.Contains(err.Error(), "--renew") || strings.Contains(out, first) {
		t.Errorf("once more: %q, %v", out, err)
	}
	held("alice:" + first + "\n")

	if out, err = run("alice", "--renew", "--file", file, "--issuer", "My Net"); err != nil {
		t.Fatal(err)
	}
	second := secretOf(out)
	if second == first {
		t.Error("the new secret is the old one")
	}
	held("alice:" + second + "\n")

	for _, args := range [][]string{
		{"--file", file}, {"--file", file, "bob", "carol"}, {"--file", file, "--renew", "--remove", "alice"},
		{"--file", file, "--renew", "bob"}, {"--file", file, "--remove", "bob"}, {"--file", file, "b ob"}, {"--file", file, "b:ob"},
	} {
		if out, err := run(args...); err == nil {
			t.Errorf("postern user totp %q: %q", args, out)
		}
	}
	held("alice:" + second + "\n")
	if out, err = run("--remove", "--file", file, "alice"); err != nil || out != "" {
		t.Errorf("remove: %q, %v", out, err)
	}
	held("")
}

// Each module is where the code has it, with a border of four that readers need.
func TestDrawCode(t *testing.T) {
	code, err := qr.Encode("otpauth://totp/x", qr.L)
	if err != nil {
		t.Fatal(err)
	}
	for _, colour := range []bool{false, true} {
		lines := strings.Split(strings.TrimSuffix(drawCode(code, colour), "\n"), "\n")
		for i, line := range lines {
			if colour {
				var before, after bool
				line, before = strings.CutPrefix(line, "\x1b[97;40m")
				line, after = strings.CutSuffix(line, "\x1b[0m")
				if !before || !after {
					t.Fatalf("line %d is %q", i, line)
				}
			}
			for j, r := range []rune(line) {
				x, y := j-4, 2*i-4
				for _, m := range []struct {
					y     int
					light bool
				}{{y, r == '█' || r == '▀'}, {y + 1, r == '█' || r == '▄'}} {
					inside := 0 <= x && x < code.Size && 0 <= m.y && m.y < code.Size
					if dark := inside && code.Black(x, m.y); m.light == dark {
						t.Fatalf("module %d,%d: light %v", x, m.y, m.light)
					}
				}
			}
			if n := len([]rune(line)); n != code.Size+8 {
				t.Errorf("line %d is %d wide", i, n)
			}
		}
		if len(lines) != (code.Size+8+1)/2 {
			t.Errorf("%d lines for %d rows", len(lines), code.Size)
		}
	}
}
