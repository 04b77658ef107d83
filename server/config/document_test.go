package config

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

//go:generate go test -run TestConfigurationPage -update .

// docs/configuration.md is written from the table: testdata/configuration.md, and behind it each row. After a change
// run go generate.
func TestConfigurationPage(t *testing.T) {
	intro, err := os.ReadFile("testdata/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	compareGolden(t, "../../docs/configuration.md", string(intro)+directivePage())
}

// The examples of the page can be served as they stand.
func TestConfigurationPageExamples(t *testing.T) {
	page, err := os.ReadFile("testdata/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine()
	id := serverIdentity()
	for name, text := range map[string]string{
		"/etc/ssl/example-ca.pem": id.cert, "/etc/ssl/corp-ca.pem": id.cert, "/etc/postern/ldap-password": "secret\n",
		"/etc/openvpn/pki/ca.crt": id.cert, "/etc/openvpn/pki/issued/server.crt": id.cert, "/etc/openvpn/pki/private/server.key": id.key,
		"/etc/openvpn/pki/crl.pem": revocations(), "/etc/openvpn/tls-crypt-v2.key": v2KeyText,
	} {
		m[name] = text
	}
	servers, clients := 0, 0
	for i, block := range strings.Split(string(page), "```") {
		switch {
		case i%2 == 0:
		case strings.Contains(block, "ldap-url") || strings.Contains(block, "server 10."):
			if !strings.Contains(block, "server 10.") {
				block = basic + block
			}
			servers++
			_, r, err := load(m, "/etc/openvpn", "/etc/openvpn/server.conf", []byte(block), nil)
			if err != nil || r.Count(Ignored)+r.Count(Noticed) > 0 {
				t.Errorf("%v\n%s", err, judgements(r))
			}
		case strings.Contains(block, "ifconfig-push"):
			clients++
			if c := parseClient("ccd", "alice", []byte(block), nil); len(c.Warnings) > 0 {
				t.Errorf("%q", c.Warnings)
			}
		}
	}
	if servers != 3 || clients != 1 {
		t.Errorf("%d examples of servers and %d of clients were found, want 3 and 1", servers, clients)
	}
}

// directivePage writes the table as Markdown: Postern's own directives first, then OpenVPN's in their sections.
func directivePage() string {
	var b strings.Builder
	own := sections[len(sections)-1]
	b.WriteString("\n## " + own.title + "\n\n")
	writeRows(&b, own.rows, uses)
	for _, s := range sections[:len(sections)-1] {
		fmt.Fprintf(&b, "\n## %s\n", s.title)
		for _, part := range []struct {
			stance stance
			title  string
		}{
			{uses, ""},
			{nested, "Only in client files:"},
			{accepts, "Accepted and ignored, because:"},
			{waits, "Not supported yet, refused until then:"},
			{refuses, "Refused:"},
		} {
			if !hasStance(s.rows, part.stance) {
				continue
			}
			b.WriteString("\n")
			if part.title != "" {
				b.WriteString(part.title + "\n\n")
			}
			writeRows(&b, s.rows, part.stance)
		}
		if hasRow(s.rows, "pool") {
			for _, kind := range []string{"pool", "policy"} {
				fmt.Fprintf(&b, "\nLines of a `%s` block:\n\n", kind)
				writeRows(&b, blockRows[kind], uses)
			}
		}
	}
	return b.String()
}

func hasRow(rows []row, name string) bool {
	return slices.ContainsFunc(rows, func(r row) bool { return r.name == name })
}

func hasStance(rows []row, s stance) bool {
	for _, r := range rows {
		if r.stance == s {
			return true
		}
	}
	return false
}

func writeRows(b *strings.Builder, rows []row, s stance) {
	b.WriteString("| directive | |\n|---|---|\n")
	for _, r := range rows {
		if r.stance == s {
			usage := r.usage()
			if s == refuses {
				usage = r.name
			}
			fmt.Fprintf(b, "| `%s` | %s |\n", strings.ReplaceAll(usage, "|", `\|`), strings.ReplaceAll(r.help, "|", `\|`))
		}
	}
}

// The examples of docs/policy.md can be served as they stand, and so can those of docs/ldap.md about directories.
func TestPageExamples(t *testing.T) {
	for page, want := range map[string]int{"policy.md": 4, "ldap.md": 5} {
		if n := servedExamples(t, "../../docs/"+page); n != want {
			t.Errorf("%s: %d examples were found, want %d", page, n, want)
		}
	}
}

func servedExamples(t *testing.T, file string) (examples int) {
	t.Helper()
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine()
	id := serverIdentity()
	for name, text := range map[string]string{
		"/etc/ssl/example-ca.pem": id.cert, "/etc/ssl/corp-ca.pem": id.cert, "/etc/postern/ldap-password": "secret\n",
		"/etc/openvpn/pki/ca.crt": id.cert, "/etc/openvpn/pki/issued/server.crt": id.cert, "/etc/openvpn/pki/private/server.key": id.key,
		"/etc/openvpn/pki/crl.pem": revocations(), "/etc/openvpn/tls-crypt-v2.key": v2KeyText, "/etc/openvpn/totp": "", "/etc/ipa/ca.crt": id.cert,
	} {
		m[name] = text
	}
	for i, block := range strings.Split(string(page), "```") {
		directory := strings.HasPrefix(block, "\nldap-")
		if i%2 == 0 || !directory && !strings.Contains(block, "\npolicy ") {
			continue
		}
		examples++
		if !strings.Contains(block, "ca pki") {
			context := "ldap-url ldaps://ldap.example\nldap-user-base dc=x\n"
			if directory {
				context = "server 10.8.0.0 255.255.255.0\n"
			}
			block = minimal + "keepalive 10 60\ntopology subnet\n" + context + block
		}
		_, r, err := load(m, "/etc/openvpn", "/etc/openvpn/server.conf", []byte(block), nil)
		if err != nil || r.Count(Ignored) > 0 {
			t.Errorf("%v\n%s", err, judgements(r))
		}
	}
	return examples
}
