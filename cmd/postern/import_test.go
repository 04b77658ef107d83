package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// runImport runs the command as main does.
func runImport(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	var b bytes.Buffer
	app := &cli.App{Name: "postern", Writer: &b, Commands: []*cli.Command{importCommand()}, ExitErrHandler: func(*cli.Context, error) {}}
	err = app.Run(append([]string{"postern", "import"}, args...))
	return b.String(), err
}

// An OpenVPN directory as people have it: a server with client files, addresses, a script and an easy-rsa tree, one that
// needs changes, and a client's profile. A look changes nothing, an import copies the one that can be served, twice is as
// once, and what is there is not replaced.
func TestImport(t *testing.T) {
	from := filepath.Join(t.TempDir(), "openvpn")
	server := filepath.Join(from, "server")
	if err := os.MkdirAll(filepath.Dir(server), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(checkDir(t, "client-config-dir ccd\nifconfig-pool-persist ipp.txt\nscript-security 2\nclient-connect \"/bin/true x\"\nmanagement m.sock unix\nconfig more.inc\ncomp-lzo\n"), server); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("server/ccd/alice", "ifconfig-push 10.9.0.7 255.255.255.0\nnonsense\n")
	write("server/ccd/bob", "push \"route 10.1.0.0 255.255.0.0\"\n")
	write("server/ipp.txt", "alice,10.9.0.7,\nbob,10.9.0.8,\ncarol,192.168.1.1,\n")
	write("server/more.inc", "verb 3\n")
	write("broken.conf", "dev tap\nserver 10.8.0.0 255.255.255.0\n")
	write("laptop.conf", "client\nremote vpn.example.org\n")
	if err := os.MkdirAll(filepath.Join(from, "easy-rsa", "pki"), 0o755); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(server, "server.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write("easy-rsa/pki/ca.crt", string(ca))
	write("easy-rsa/pki/index.txt", "V\t490101000000Z\t\t01\tunknown\t/CN=alice\n"+
		"V\t490101000000Z\t\t02\tunknown\t/CN=John Doe\n"+
		"R\t490101000000Z\t200101000000Z\t03\tunknown\t/CN=Jane Doe\n")

	before := snapshotTree(t, from)
	to := filepath.Join(t.TempDir(), "postern")
	out, err := runImport(t, "--from", from, "--to", to)
	if code := cli.ExitCoder(nil); err == nil || !asExit(err, &code) || code.ExitCode() != 1 {
		t.Errorf("with a configuration that needs changes: %v, want exit status 1", err)
	}
	for _, want := range []string{
		server + "/server.conf: drop-in with notices\n", "openvpn-server@server, in its place postern-server@server",
		"2 in " + server + "/ccd", "nonsense", "2 remembered in " + server + "/ipp.txt", "1 lines in it hold no address", "/bin/true (stays where it is)",
		server + "/more.inc (copied)", from + "/broken.conf: needs", "easy-rsa/pki: a certificate authority",
		"a certificate named John Doe cannot log in", "Nothing was changed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "Jane Doe") || strings.Contains(out, "named alice") {
		t.Errorf("names are refused that log in, or do not need to:\n%s", out)
	}
	if strings.Contains(out, "laptop") {
		t.Errorf("a client's profile is taken for a server:\n%s", out)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("a look has made a directory")
	}

	for range 2 {
		if out, err = runImport(t, "--from", from, "--to", to, "--apply"); err == nil || !strings.Contains(out, "broken.conf is not copied") {
			t.Errorf("apply: %v\n%s", err, out)
		}
		for _, name := range []string{"server.conf", "server.crt", "server.key", "ccd/alice", "ccd/bob", "ipp.txt", "more.inc"} {
			a, err := os.ReadFile(filepath.Join(server, name))
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(to, name))
			if err != nil || !bytes.Equal(a, b) {
				t.Errorf("%s: %v, %d bytes of %d", name, err, len(b), len(a))
			}
		}
	}
	if info, err := os.Stat(filepath.Join(to, "server.key")); err != nil || info.Mode().Perm() != fs.FileMode(0o600) {
		t.Errorf("the key's mode: %v, %v", info.Mode(), err)
	}
	t.Chdir(to)
	if out, status := runCheck(t, "--config", "server.conf"); status != 0 {
		t.Errorf("the copy cannot be served:\n%s", out)
	}
	for name, was := range snapshotTree(t, from) {
		if before[name] != was {
			t.Errorf("%s was changed", name)
		}
	}
	if err := os.WriteFile(filepath.Join(to, "ipp.txt"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runImport(t, "--from", from, "--to", to, "--apply"); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("over another file: %v", err)
	}
}

func asExit(err error, code *cli.ExitCoder) bool {
	c, ok := err.(cli.ExitCoder)
	if ok {
		*code = c
	}
	return ok
}
