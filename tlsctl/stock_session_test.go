package tlsctl_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// A stock client connects under every wrap and TLS version, renegotiates, and leaves.
func TestStockClientSession(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the openvpn client")
	}
	t.Parallel()
	static := tlsctl.GenerateStaticKey()
	raw, err := tlsctl.ParseStaticKey(static)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := tlsctl.NewAuthKey(raw, 0, "SHA256")
	if err != nil {
		t.Fatal(err)
	}
	crypt, err := tlsctl.NewCryptKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	v2, err := tlsctl.NewServerKey(raw[:128])
	if err != nil {
		t.Fatal(err)
	}
	clientKey, err := v2.GenerateClientKey(nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		wrap    tlsctl.Wrapping
		options string
	}{
		{"none", tlsctl.Wrapping{}, ""},
		{"tls-auth", tlsctl.Wrapping{Auth: auth}, "auth SHA256\ntls-auth static.key 1"},
		{"tls-crypt", tlsctl.Wrapping{Crypt: crypt}, "tls-crypt static.key"},
		{"tls-crypt-v2", tlsctl.Wrapping{CryptV2: v2}, "tls-crypt-v2 v2.key"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(c.name+" "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				s := newSetup(t)
				s.cfg.Wrap = c.wrap
				s.cfg.TLS.MaxVersion = version
				s.cfg.Timing.Renegotiate, s.cfg.Timing.Linger = time.Second, time.Second
				testStockSession(t, s, c.options, map[string][]byte{"static.key": static, "v2.key": clientKey})
			})
		}
	}
}

// serve runs a setup's server behind a socket of the loopback until the test ends.
func (s *setup) serve() netip.AddrPort {
	t := s.t
	t.Helper()
	var err error
	if s.server, err = ctltest.NewServer(&s.cfg, s.newOwner); err != nil {
		t.Fatal(err)
	}
	sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan struct{})
	go func() {
		defer close(received)
		b := make([]byte, 4096)
		for {
			n, from, err := sock.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			s.server.Deliver(from, b[:n], func(pkt []byte) { sock.WriteToUDPAddrPort(pkt, from) })
		}
	}()
	t.Cleanup(func() {
		s.server.Close(errTestOver)
		sock.Close()
		<-received
	})
	return sock.LocalAddr().(*net.UDPAddr).AddrPort()
}

func testStockSession(t *testing.T, s *setup, options string, files map[string][]byte) {
	remote := s.serve()
	server := s.server
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	client := startOpenVPN(t, ctx, s, remote, options, files)
	client.await("Initialization Sequence Completed")
	live := server.Opened()[0]
	owner := live.Owner
	// Until the client has its third key, too: a farewell in the middle of a negotiation waits for its end, and the client
	// does so for a second.
	for !slices.Contains(owner.Events(), "confirm 2") {
		select {
		case <-ctx.Done():
			t.Fatal("no renegotiation")
		case <-time.After(50 * time.Millisecond):
		}
	}
	client.cmd.Process.Signal(os.Interrupt)
	client.await("exit-with-notification")
	ended := make(chan error, 1)
	go func() { ended <- live.Wait() }()
	select {
	case <-ctx.Done():
		t.Fatal("the client's farewell never came")
	case err := <-ended:
		if err != tlsctl.ErrExit {
			t.Errorf("the session ended with %v", err)
		}
	}
	if n := len(server.Opened()); n != 1 {
		t.Errorf("%d sessions were opened", n)
	}
	hellos, _ := owner.Hellos()
	if h := hellos[0]; h.Peer.Version() == "" || !h.Peer.Can(tlsctl.FeatureDynamicCrypt|tlsctl.FeatureExporter) {
		t.Errorf("peer info %+v", h.Peer)
	}
}

// A stockClient is a running openvpn.
type stockClient struct {
	t     *testing.T
	cmd   *exec.Cmd
	dir   string
	lines <-chan string
}

// await reads the client's log up to a line that holds text.
func (c *stockClient) await(text string) {
	c.t.Helper()
	for line := range c.lines {
		c.t.Log(line)
		if strings.Contains(line, text) {
			return
		}
	}
	c.t.Fatalf("the client never said %q", text)
}

// startOpenVPN runs a client until the test or ctx ends.
func startOpenVPN(t *testing.T, ctx context.Context, s *setup, remote netip.AddrPort, options string, files map[string][]byte) *stockClient {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert := s.client.TLS.Certificates[0]
	key, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Cert.Raw}))
	write("client.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	write("client.key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}))
	write("login", []byte("alice\nsecret\n"))
	if !strings.Contains(options, "auth-user-pass") {
		options += "\nauth-user-pass login"
	}
	for name, b := range files {
		write(name, b)
	}
	write("client.conf", fmt.Appendf(nil, "client\nproto udp4\nremote %v %d\nnobind\ndev null\nifconfig-noexec\nroute-noexec\n"+
		"ca ca.crt\ncert client.crt\nkey client.key\nremote-cert-tls server\nexplicit-exit-notify\nverb 3\n%s\n",
		remote.Addr(), remote.Port(), options))
	cmd := exec.CommandContext(ctx, "openvpn", "--cd", dir, "--config", "client.conf")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start openvpn: %v", err)
	}
	said := make(chan string, 10000)
	go func() {
		defer close(said)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			said <- scan.Text()
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		for range said {
		}
		cmd.Wait()
	})
	return &stockClient{t: t, cmd: cmd, dir: dir, lines: said}
}
