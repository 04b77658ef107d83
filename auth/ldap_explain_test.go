package auth_test

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/auth"
)

var update = flag.Bool("update", false, "write the table of docs/ldap.md anew")

// Every message of `postern ldap test` has its line in docs/ldap.md.
func TestAdvicePage(t *testing.T) {
	const file, head = "../docs/ldap.md", "| it says | what to do |\n|---|---|\n"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), head)
	if !ok {
		t.Fatalf("%s has no table", file)
	}
	_, after, _ := strings.Cut(rest, "\n\n")
	var table strings.Builder
	seen := make(map[string]bool)
	for _, a := range auth.LDAPAdvice {
		if line := fmt.Sprintf("| %s | %s |\n", a.Problem, a.Remedy); !seen[line] {
			table.WriteString(line)
			seen[line] = true
		}
	}
	want := before + head + table.String() + "\n" + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(page) != want {
		t.Errorf("the table of %s is not what LDAPAdvice says: run go test ./auth -run AdvicePage -update", file)
	}
}

// crowded is an address that does not take connections, nor refuse them: as many wait there already as may.
func crowded(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
	for range 20 {
		c, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("it takes ever more connections")
	return ""
}

// plays is the address of a server that says this to whoever has said something, and nothing more.
func plays(t *testing.T, what string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			io.WriteString(c, what)
			io.Copy(io.Discard, c) // until that is enough
			c.Close()
		}
	}()
	return l.Addr().String()
}

const (
	// helloOf11 is the ServerHello of a server that goes down to TLS 1.1 instead of refusing.
	helloOf11 = "\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02" + "0123456789abcdef0123456789abcdef" + "\x00\xc0\x13\x00"
	// internalError is an alert that could mean anything.
	internalError = "\x15\x03\x03\x00\x02\x02\x50"
)

// Each thing that can be wrong with a directory has advice of its own.
func TestExplain(t *testing.T) {
	ca := newCA(t)
	closed := startStub(t, &stub{})
	closed.listener.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	done := func(code int64) func(net.Conn, ber.Tag, int64) bool {
		return func(c net.Conn, op ber.Tag, id int64) bool {
			if op == ldap.ApplicationSearchRequest {
				send(c, id, envelope(result(ldap.ApplicationSearchResultDone, code, "")))
			}
			return op == ldap.ApplicationSearchRequest
		}
	}
	bound := func(answer *ber.Packet, service bool) func(string, string) *ber.Packet {
		return func(dn, _ string) *ber.Packet {
			if (dn == serviceDN) == service {
				return answer
			}
			return nil
		}
	}
	data := func(code string) *ber.Packet {
		return bindResult(49, "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data "+code+", v3839")
	}
	entry := func(attributes map[string][]string) []stubEntry {
		return []stubEntry{{dn: aliceDN, attributes: attributes}}
	}
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprintf("cn=%d,dc=example", i)
	}
	old := ca.server(t, nil)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	told := make(map[string]bool)
	for _, c := range []struct {
		want string
		s    *stub
		set  func(o *auth.LDAPOptions)
	}{
		{"the name of the server cannot be resolved", nil, func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://ldap.invalid"} }},
		{"the server refuses the connection", closed, nil},
		{"the server cannot be reached in time", nil, func(o *auth.LDAPOptions) {
			o.URLs, o.Timeout = []string{"ldap://" + crowded(t)}, 200*time.Millisecond
		}},
		{"the server has no TLS 1.2", &stub{tls: old}, nil},
		{"the server has no TLS 1.2", nil, func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://" + plays(t, helloOf11)} }},
		{"TLS cannot be set up", nil, func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://" + plays(t, internalError)} }},
		{"the server does not take StartTLS", &stub{intercept: func(c net.Conn, op ber.Tag, id int64) bool {
			send(c, id, envelope(result(ldap.ApplicationExtendedResponse, ldap.LDAPResultProtocolError, "")))
			return true
		}}, func(o *auth.LDAPOptions) { o.StartTLS = true }},
		{"the CA of the server's certificate is not known", &stub{tls: newCA(t).server(t, nil)}, nil},
		{"the server's certificate is for another name", &stub{tls: ca.server(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} })}, nil},
		{"the server's certificate has expired", &stub{tls: ca.server(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })}, nil},
		{"the server's certificate is not meant for servers", &stub{tls: ca.server(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })}, nil},
		{"the server does not speak TLS at this port", &stub{intercept: func(c net.Conn, _ ber.Tag, _ int64) bool { c.Close(); return true }}, func(o *auth.LDAPOptions) { o.URLs[0] = strings.Replace(o.URLs[0], "ldap:", "ldaps:", 1) }},
		{"TLS cannot be set up in time", nil, func(o *auth.LDAPOptions) {
			o.URLs, o.Timeout = []string{"ldaps://" + silent.Addr().String()}, 200*time.Millisecond
		}},
		{"TLS cannot be set up in time", &stub{intercept: func(net.Conn, ber.Tag, int64) bool { return true }}, func(o *auth.LDAPOptions) {
			o.StartTLS, o.Timeout = true, 200*time.Millisecond
		}},
		{"the directory is busy or not available", &stub{bind: bound(bindResult(51, ""), true)}, nil},
		{"the directory is busy or not available", &stub{intercept: done(52)}, nil},
		{"the service account's name or password is wrong", &stub{bind: bound(bindResult(49, ""), true)}, nil},
		{"the directory wants encryption before a password", &stub{bind: bound(bindResult(13, ""), true)}, nil},
		{"the directory does not let the service account in", &stub{bind: bound(bindResult(53, ""), true)}, nil},
		{"the base of the search does not exist", &stub{intercept: done(32)}, nil},
		{"the search is not allowed", &stub{intercept: done(50)}, nil},
		{"the directory refers to another server", &stub{intercept: done(10)}, nil},
		{"the directory refuses a question", &stub{intercept: done(53)}, nil},
		{"the directory refuses a question", &stub{bind: bound(bindResult(80, ""), false)}, nil},
		{"the directory does not answer in time", &stub{intercept: done(11)}, nil},
		{"the name is of none of the directories", &stub{}, func(o *auth.LDAPOptions) { o.Realm = "corp.example" }},
		{"no entry has this name", &stub{entries: []stubEntry{}}, nil},
		{"several entries have this name", &stub{entries: []stubEntry{{dn: aliceDN}, {dn: "cn=" + aliceDN}}}, nil},
		{"the user is in none of the required groups", &stub{}, func(o *auth.LDAPOptions) { o.RequireGroups = []string{"cn=vpn,dc=example"} }},
		{"the user is in too many groups", &stub{entries: entry(map[string][]string{"memberOf": many})}, nil},
		{"groups cannot be searched", &stub{tree: []stubEntry{{dn: aliceDN, attributes: map[string][]string{"uid": {"alice"}}}, {dn: "ou=people,dc=example,dc=net"}}},
			func(o *auth.LDAPOptions) { o.GroupBase = "ou=nowhere,dc=example,dc=net" }},
		{"an attribute of the entry cannot be used", &stub{entries: entry(map[string][]string{"ip": {"home"}})}, func(o *auth.LDAPOptions) { o.Addr4 = "ip" }},
		{"the account is disabled", &stub{entries: entry(map[string][]string{"userAccountControl": {"514"}})}, nil},
		{"the account is disabled", &stub{bind: bound(data("533"), false)}, nil},
		{"the account is disabled", &stub{entries: entry(map[string][]string{"nsAccountLock": {"TRUE"}})}, nil},
		{"the account is locked", &stub{bind: bound(data("775"), false)}, nil},
		{"the account has expired", &stub{bind: bound(data("701"), false)}, nil},
		{"the password has expired", &stub{bind: bound(data("532"), false)}, nil},
		{"the password must be changed first", &stub{bind: bound(bindResult(0, "", policyError(2)), false)}, nil},
		{"the account may not log in now", &stub{bind: bound(data("530"), false)}, nil},
		{"the password is wrong", &stub{bind: bound(data("52e"), false)}, nil},
		{"the directory refuses the account", &stub{bind: bound(bindResult(53, "inactivated"), false)}, nil},
		{"the directory means somebody else", &stub{whoami: func(string) *ber.Packet { return extended(0, "") }}, nil},
		{"the directory does not say who is bound", &stub{whoami: func(string) *ber.Packet { return extended(2, "") }}, func(o *auth.LDAPOptions) { o.BindAs = "%u@x.example" }},
		{"the directory does not answer in time", &stub{intercept: func(_ net.Conn, op ber.Tag, _ int64) bool { return op == ldap.ApplicationSearchRequest }}, func(o *auth.LDAPOptions) { o.Timeout = 200 * time.Millisecond }},
		{"the directory answers what cannot be understood", &stub{intercept: func(c net.Conn, _ ber.Tag, _ int64) bool { c.Write([]byte("HTTP/1.1 400\r\n\r\n")); return true }}, nil},
	} {
		t.Run(c.want, func(t *testing.T) {
			o := stubOptions()
			if c.s != nil {
				if c.s.listener == nil {
					startStub(t, c.s)
				}
				o.URLs = []string{c.s.URL}
			}
			o.CA = ca.pem
			if c.set != nil {
				c.set(&o)
			}
			steps := 0
			_, err := newLDAP(t, o).Test(t.Context(), "alice", []byte("secret"), func(auth.LDAPStep) { steps++ })
			if err == nil {
				t.Fatal("nothing failed")
			}
			if got := auth.Explain(err); got.Problem != c.want {
				t.Errorf("%v: got %q, want %q", err, got.Problem, c.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("a password is in %q", err)
			}
			told[c.want] = true
		})
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} { // 1.3 says it behind the handshake
		const want = "the server wants another certificate of ours"
		t.Run(want+", "+tls.VersionName(version), func(t *testing.T) {
			config := ca.server(t, nil)
			config.ClientAuth, config.MaxVersion = tls.RequireAnyClientCert, version
			s := startStub(t, &stub{tls: config})
			o := stubOptions(s)
			o.CA = ca.pem
			_, err := newLDAP(t, o).Test(t.Context(), "alice", nil, func(auth.LDAPStep) {})
			if got := auth.Explain(err).Problem; got != want {
				t.Errorf("%v: %q", err, got)
			}
			told[want] = true
		})
	}
	o := stubOptions(startStub(t, &stub{}))
	o.BindDN, o.BindPassword, o.BindAs = "", "", "%u@x.example"
	l := newLDAP(t, o)
	_, err = l.Test(t.Context(), "alice", nil, func(auth.LDAPStep) {})
	if got := auth.Explain(err).Problem; got != "a password is needed to find this user" {
		t.Errorf("%v: %q", err, got)
	}
	_, err = l.Test(t.Context(), "", nil, func(auth.LDAPStep) {})
	if got := auth.Explain(err).Problem; got != "the name does not fit" {
		t.Errorf("%v: %q", err, got)
	}
	told["a password is needed to find this user"], told["the name does not fit"] = true, true
	for _, a := range auth.LDAPAdvice {
		if !told[a.Problem] {
			t.Errorf("nothing brought about %q", a.Problem)
		}
	}
}

// The steps of a login that goes well, in their order, with what an administrator wants to see.
func TestSteps(t *testing.T) {
	s := startAD(t)
	var lines []string
	id, err := newLDAP(t, adOptions(s, adVPN)).Test(t.Context(), "alice", []byte("secret"), func(s auth.LDAPStep) {
		lines = append(lines, s.Step+": "+s.Detail)
	})
	if err != nil || id.Name != "alice" {
		t.Fatalf("%+v, %v", id, err)
	}
	all := strings.Join(lines, "\n")
	at := 0
	for _, want := range []string{
		"resolve: 127.0.0.1 is 127.0.0.1", "connect: 127.0.0.1:", "bind as the service account: bound as CN=Postern,",
		"search for the user: below DC=corp,DC=example for (&(objectClass=user)(sAMAccountName=alice))",
		"entry: CN=alice,CN=Users,DC=corp,DC=example",
		"groups: CN=VPN Users,OU=Groups,DC=corp,DC=example (member), through CN=Sales,OU=Groups,DC=corp,DC=example, then CN=Staff,OU=Groups,DC=corp,DC=example",
		"groups: required CN=VPN Users,OU=Groups,DC=corp,DC=example: yes", "account state: nothing", "bind as the user: ", `ask who was bound: u:CORP\alice`,
	} {
		i := strings.Index(all[at:], want)
		if i < 0 {
			t.Fatalf("%q is not in its place in\n%s", want, all)
		}
		at += i
	}
	if strings.Contains(all, "secret") {
		t.Errorf("a password is in\n%s", all)
	}
}
