package config

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sampleMachine has the files that the configurations of testdata/conf name.
func sampleMachine() machine {
	m := newMachine()
	id := serverIdentity()
	for name, text := range map[string]string{
		"/etc/openvpn/server_AbCdEf.crt": id.cert, "/etc/openvpn/server_AbCdEf.key": id.key,
		"/etc/openvpn/tls-crypt.key": staticKeyText, "/etc/openvpn/tls-crypt-v2.key": v2KeyText,
		"/var/etc/openvpn/server1/cert": id.cert, "/var/etc/openvpn/server1/key": id.key,
		"/var/etc/openvpn/server1/tls-auth": staticKeyText, "/var/etc/openvpn/server1/csc/x": "",
		"/var/run/x": "", "/etc/openvpn/dh2048.pem": "", "/var/etc/openvpn/server1/ca/0a1b2c3d.0": id.cert,
		"/usr/local/sbin/ovpn-linkup": "#!", "/usr/local/sbin/ovpn-linkdown": "#!", "/usr/local/sbin/openvpn.attributes.sh": "#!",
		"/usr/local/sbin/ovpn_auth_verify": "#!", "/etc/openvpn/check.sh": "#!", "/etc/openvpn/auth-ldap.conf": "",
	} {
		m[name] = text
	}
	return m
}

// What generators and guides write is judged line by line. The judgements are in testdata/conf/*.judged; -update
// writes them anew, for reading in the diff.
func TestSampleConfigurations(t *testing.T) {
	refused := map[string][]string{ // what these files ask for and cannot have yet
		"easy-rsa":         nil,
		"angristan":        nil,
		"angristan-old":    nil,
		"nyr":              nil,
		"peer-fingerprint": nil,
		"pfsense":          {"ncp-disable"},
		"site-to-site":     {"chroot"},
	}
	files, err := filepath.Glob("testdata/conf/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(refused) {
		t.Errorf("%d files, want %d", len(files), len(refused))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".conf")
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, r, err := load(sampleMachine(), "/etc/openvpn", "/etc/openvpn/"+name+".conf", src, nil)
			var got []string
			for _, e := range r.Entries {
				if e.Verdict == Refused {
					got = append(got, e.Directive)
				}
			}
			if !slices.Equal(got, refused[name]) {
				t.Errorf("refused are %q, want %q:\n%v", got, refused[name], err)
			}
			if (c != nil) != (len(refused[name]) == 0) {
				t.Errorf("config %v, error %v", c, err)
			}
			compareGolden(t, "testdata/conf/"+name+".judged", judgements(r))
		})
	}
}

// judgements writes a report as one line per entry.
func judgements(r *Report) string {
	var b strings.Builder
	for _, e := range r.Entries {
		fmt.Fprintf(&b, "%d %s: %s", e.Line, e.Verdict, e.Text)
		if e.Why != "" {
			fmt.Fprintf(&b, ": %s", e.Why)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not current (go test -update writes it):\n%s", file, firstDifference(got, string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is\n%s\nwant\n%s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// Debian's sample is served as it is, once its certificates are there: nothing of it is refused.
func TestDebianSample(t *testing.T) {
	src := debianSample(t)
	c, r, err := load(sampleMachine(), "/etc/openvpn", "/etc/openvpn/server.conf", src, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen[0].Network != "udp" || c.Addr4.String() != "10.8.0.1/24" || c.Ping.Seconds() != 10 {
		t.Errorf("listen %v, address %v, ping %v", c.Listen, c.Addr4, c.Ping)
	}
	if n := len(r.Entries); n < 15 {
		t.Errorf("only %d directives were judged", n)
	}
}

func debianSample(t *testing.T) []byte {
	const file = "/usr/share/doc/openvpn/examples/sample-config-files/server.conf"
	if b, err := os.ReadFile(file); err == nil {
		return b
	}
	f, err := os.Open(file + ".gz")
	if err != nil {
		t.Skip("Debian's sample is not installed (images for containers leave documentation out)")
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
