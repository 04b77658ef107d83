package hooks

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A real OpenVPN server and a real client call the recorder at every hook; then we are told the same facts and call
// it too. Same arguments, same variables, same files.
func TestSameAsStockServer(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root, network namespaces and openvpn")
	}
	for _, c := range []struct {
		name   string
		viaEnv bool
		user   string // name and password, as the client's file has them
		proto  string // and where the client comes from
	}{
		{"via-env over IPv4", true, "älice\xff $(id)\ns3cret ü \"x\n", "udp"},
		{"via-file over IPv6", false, "-LD_PRELOAD=/x\npass\tword\n", "udp6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lab := newStockLab(t)
			via := "via-file"
			if c.viaEnv {
				via = "via-env"
			}
			calls, chain := lab.run(t, via, c.user, c.proto)
			seen := map[string]int{}
			for i, call := range calls {
				seen[call.ScriptType+" "+strings.Join(call.Argv[:min(1, len(call.Argv))], "")]++
				t.Run(fmt.Sprintf("%d-%s", i, call.ScriptType), func(t *testing.T) { replay(t, call, chain) })
			}
			for what, n := range map[string]int{"up tun0": 1, "route-up ": 1, "tls-crypt-v2-verify ": 1, "tls-verify 1": 1, "tls-verify 0": 1,
				"learn-address add": 4, "learn-address delete": 4, "client-disconnect ": 1, "down tun0": 1} {
				if seen[what] < n {
					t.Errorf("OpenVPN called %q %d times, want %d: %v", what, seen[what], n, seen)
				}
			}
		})
	}
}

// A stockLab is two namespaces with a wire between them, and a directory.
type stockLab struct {
	dir            string
	server, client string // namespaces
	self           string // the recorder
}

const stockPrefix = "pthk"

func newStockLab(t *testing.T) *stockLab {
	t.Helper()
	for _, tool := range []string{"openvpn", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatal(err)
		}
	}
	entries, _ := os.ReadDir("/var/run/netns")
	for _, e := range entries { // what a killed run left
		pid, ok := strings.CutPrefix(e.Name(), stockPrefix)
		pid, _, _ = strings.Cut(pid, "-")
		if n, err := strconv.Atoi(pid); ok && err == nil && syscall.Kill(n, 0) != nil {
			_ = exec.Command("ip", "netns", "del", e.Name()).Run()
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("%s%d", stockPrefix, os.Getpid())
	l := &stockLab{dir: t.TempDir(), server: name + "-s", client: name + "-c", self: self}
	for _, ns := range []string{l.server, l.client} {
		must(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { must(t, "ip", "netns", "del", ns) })
		must(t, "ip", "-n", ns, "link", "set", "lo", "up")
	}
	must(t, "ip", "-n", l.server, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", l.client)
	for i, ns := range []string{l.server, l.client} {
		must(t, "ip", "-n", ns, "link", "set", "wire", "up")
		must(t, "ip", "-n", ns, "addr", "add", fmt.Sprintf("203.0.113.%d/24", i+1), "dev", "wire")
		must(t, "ip", "-n", ns, "addr", "add", fmt.Sprintf("fd00:99::%d/64", i+1), "dev", "wire", "nodad")
	}
	return l
}

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
}

// run has a client connect and leave, ends the server, and returns what its scripts recorded.
func (l *stockLab) run(t *testing.T, via, user, proto string) (calls []call, chain []CertInfo) {
	t.Helper()
	chain = l.writeKeys(t)
	file := func(name string) string { return filepath.Join(l.dir, name) }
	for _, dir := range []string{"calls", "ccd", "tmp", "export"} {
		if err := os.Mkdir(file(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "openvpn", "--genkey", "tls-crypt-v2-server", file("v2s.key"))
	metadata := base64.StdEncoding.EncodeToString([]byte("hello\nworld"))
	must(t, "openvpn", "--tls-crypt-v2", file("v2s.key"), "--genkey", "tls-crypt-v2-client", file("v2c.key"), metadata)
	hook := fmt.Sprintf("%s %s %s", l.self, recorder, file("calls"))
	address := "203.0.113.1"
	if proto == "udp6" {
		address = "fd00:99::1"
	}
	for name, text := range map[string]string{
		"user":        user,
		"ccd/client1": "iroute 192.168.50.0 255.255.255.0\niroute-ipv6 fd00:50::/64\n",
		"server.conf": fmt.Sprintf(`dev tun0
dev-type tun
proto %s
local %s
port 1199
server 10.9.0.0 255.255.255.0
server-ipv6 fd00:9::/64
topology subnet
route 192.168.50.0 255.255.255.0
route 192.168.60.0 255.255.255.0 10.9.0.1 7
route-ipv6 fd00:50::/64
ca ca.crt
cert server.crt
key server.key
dh none
tls-crypt-v2 v2s.key
script-security 3
up "%s"
down "%s"
route-up "%s"
tls-verify "%s"
tls-export-cert %s/export
tls-crypt-v2-verify "%s"
auth-user-pass-verify "%s" %s
client-connect "%s"
client-disconnect "%s"
learn-address "%s"
client-config-dir ccd
tmp-dir %s/tmp
auth-gen-token
explicit-exit-notify 1
keepalive 1 20
verb 4
`, proto, address, hook, hook, hook, hook, l.dir, hook, hook, via, hook, hook, hook, l.dir),
		"client.conf": fmt.Sprintf(`client
dev tun
proto %s
remote %s 1199
nobind
ca ca.crt
cert client.crt
key client.key
tls-crypt-v2 v2c.key
auth-user-pass user
push-peer-info
setenv UV_SEAT 7A
explicit-exit-notify 1
remote-cert-tls server
verb 3
`, proto, address),
	} {
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server := l.start(t, ctx, l.server, "server.conf")
	server.expect(t, ctx, "Initialization Sequence Completed")
	client := l.start(t, ctx, l.client, "client.conf")
	client.expect(t, ctx, "Initialization Sequence Completed")
	client.stop(t)
	server.expect(t, ctx, "client-instance exiting")
	server.stop(t)
	return recorded(t, file("calls")), chain
}

// A stock is an openvpn that runs.
type stock struct {
	cmd *exec.Cmd
	log *logged
}

func (l *stockLab) start(t *testing.T, ctx context.Context, ns, config string) *stock {
	t.Helper()
	s := &stock{log: &logged{}}
	s.cmd = exec.CommandContext(ctx, "ip", "netns", "exec", ns, "openvpn", "--cd", l.dir, "--config", config)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.WaitDelay = time.Second
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%s:\n%s", config, s.log)
		}
	})
	return s
}

func (s *stock) expect(t *testing.T, ctx context.Context, text string) {
	t.Helper()
	for !strings.Contains(s.log.String(), text) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("openvpn did not print %q", text)
		}
	}
}

func (s *stock) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("openvpn ended: %v", err)
	}
}

// writeKeys makes an authority, a server and a client, and returns the client's chain.
func (l *stockLab) writeKeys(t *testing.T) []CertInfo {
	t.Helper()
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	var chain []CertInfo
	attribute := func(oid asn1.ObjectIdentifier, v string) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: oid, Value: v}
	}
	cn, c, o, ou := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 6}, asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.ObjectIdentifier{2, 5, 4, 11}
	email := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	for i, who := range []struct {
		file, subject string
		names         []pkix.AttributeTypeAndValue
		usage         []x509.ExtKeyUsage
	}{
		{"ca", "CN=Lab CA", []pkix.AttributeTypeAndValue{attribute(cn, "Lab CA")}, nil},
		{"server", "CN=server", []pkix.AttributeTypeAndValue{attribute(cn, "server")}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		{"client", "C=DE, O=Lab Örg, OU=A, OU=B, OU=C, CN=client1, emailAddress=a@b.example",
			[]pkix.AttributeTypeAndValue{attribute(c, "DE"), attribute(o, "Lab Örg"), attribute(ou, "A"), attribute(ou, "B"), attribute(ou, "C"), attribute(cn, "client1"), attribute(email, "a@b.example")},
			[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		var rdn pkix.RDNSequence
		for _, n := range who.names {
			rdn = append(rdn, pkix.RelativeDistinguishedNameSET{n})
		}
		subject, err := asn1.Marshal(rdn)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: new(big.Int).SetBytes([]byte{0x0a, 0xff, 0, 1, byte(i)}), RawSubject: subject,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: who.usage, BasicConstraintsValid: true,
		}
		parent, signer := ca, caKey
		if ca == nil {
			template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if ca == nil {
			ca, caKey = cert, key
		}
		if who.file != "server" {
			chain = append([]CertInfo{CertOf(cert, who.subject)}, chain...)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{who.file + ".crt": {Type: "CERTIFICATE", Bytes: der}, who.file + ".key": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
			if err := os.WriteFile(filepath.Join(l.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return chain
}
