package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// runCheck runs postern check and returns what it printed, and its exit status.
func runCheck(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	app := &cli.App{Writer: &out, Commands: []*cli.Command{checkCommand()}, ExitErrHandler: func(*cli.Context, error) {}}
	err := app.RunContext(t.Context(), append([]string{"postern", "check"}, args...))
	var exit cli.ExitCoder
	switch {
	case err == nil:
		return out.String(), 0
	case errors.As(err, &exit):
		return out.String(), exit.ExitCode()
	}
	t.Fatalf("check: %v", err)
	return "", 0
}

// checkDir makes a directory with a certificate, its key and the configuration.
func checkDir(t *testing.T, lines string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"server.crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		"server.key":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		"server.conf": []byte("ca server.crt\ncert server.crt\nkey server.key\nserver 10.9.0.0 255.255.255.0\ntopology subnet\nkeepalive 10 60\n" + lines),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCheckGood(t *testing.T) {
	dir := checkDir(t, "dh none\nstatus status.log\nlog vpn.log\nwritepid vpn.pid\nport 1\n")
	t.Chdir(dir)
	out, status := runCheck(t, "--config", "server.conf")
	if status != 0 {
		t.Fatalf("exit status %d:\n%s", status, out)
	}
	for _, want := range []string{
		"4   used     server 10.9.0.0 255.255.255.0",
		"7   ignored  dh none", "key exchange is always ECDHE",
		"server.conf: drop-in: 10 used, 0 with a notice, 1 ignored, 0 refused\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	// S095: check opens nothing, so nothing is there afterwards that was not before.
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"server.conf", "server.crt", "server.key"}; !slices.Equal(names, want) {
		t.Errorf("the directory holds %q, want %q", names, want)
	}
}

// A notice is no reason not to serve.
func TestCheckNotices(t *testing.T) {
	t.Chdir(checkDir(t, "comp-lzo\n"))
	out, status := runCheck(t, "--config", "server.conf")
	if want := "server.conf: drop-in with notices: 6 used, 1 with a notice, 0 ignored, 0 refused\n"; status != 0 || !strings.HasSuffix(out, want) {
		t.Errorf("exit status %d, want 0 and %q at the end of\n%s", status, want, out)
	}
}

func TestCheckRefused(t *testing.T) {
	t.Chdir(checkDir(t, "chroot .\nverb \x1b[31m\ncipher BF-CBC\n"))
	out, status := runCheck(t, "--config", "server.conf")
	if status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	for _, want := range []string{"7  refused  chroot .", "a reload could not read", `8  refused  verb \x1b[31m`, "server.conf: needs 2 changes: 6 used, 0 with a notice, 1 ignored, 2 refused\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("a control character of the file reaches the terminal: %q", out)
	}
}

func TestCheckJSON(t *testing.T) {
	t.Chdir(checkDir(t, "chroot .\n"))
	out, status := runCheck(t, "--json", "--config", "server.conf")
	var got struct {
		OK         bool
		Used       int
		Refused    int
		Directives []struct {
			Line                          int
			Directive, Text, Verdict, Why string
		}
		Problems []struct {
			File, Directive, Message string
			Line                     int
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if status != 1 || got.OK || got.Used != 6 || got.Refused != 1 || len(got.Directives) != 7 || len(got.Problems) != 1 {
		t.Fatalf("status %d, %+v", status, got)
	}
	if d := got.Directives[6]; d.Line != 7 || d.Directive != "chroot" || d.Verdict != "refused" || d.Why == "" {
		t.Errorf("the last directive is %+v", d)
	}
	if p := got.Problems[0]; p.File != "server.conf" || p.Line != 7 || p.Directive != "chroot" || p.Message == "" {
		t.Errorf("the problem is %+v", p)
	}
}

func TestCheckNoFile(t *testing.T) {
	out, status := runCheck(t, "--config", filepath.Join(t.TempDir(), "none.conf"))
	if status != 1 || !strings.Contains(out, "Error opening configuration file") {
		t.Errorf("status %d, printed %q", status, out)
	}
}
