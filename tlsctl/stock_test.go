package tlsctl

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A stock client takes our answer to its reset under every wrap: it brings the cookie back, and once the session
// made from that has acknowledged its reset it says its ClientHello. What we had sent it until then was never more
// than what it had sent (S003).
func TestStockClientBringsCookieBack(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the openvpn client")
	}
	static := GenerateStaticKey()
	staticKey, err := ParseStaticKey(static)
	if err != nil {
		t.Fatal(err)
	}
	auth := func(direction int, digest string) Wrapping {
		k, err := NewAuthKey(staticKey, direction, digest)
		if err != nil {
			t.Fatal(err)
		}
		return Wrapping{Auth: k}
	}
	crypt, err := NewCryptKey(staticKey)
	if err != nil {
		t.Fatal(err)
	}
	server := newTestServerKey(t)
	client, err := server.GenerateClientKey(nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		wrap    Wrapping
		options string
		unacked bool // the full answer would be longer than the question
	}{
		{"plain", Wrapping{}, "", true},
		{"tls-auth", auth(0, ""), "tls-auth static.key 1", true},
		{"tls-auth without direction", auth(-1, "SHA512"), "auth SHA512\ntls-auth static.key", true},
		{"tls-crypt", Wrapping{Crypt: crypt}, "tls-crypt static.key", true},
		{"tls-crypt-v2", Wrapping{CryptV2: server}, "tls-crypt-v2 client.key", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			gate, err := NewGate(c.wrap, GateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer sock.Close()
			startStockClient(t, sock.LocalAddr().(*net.UDPAddr).Port, c.options, map[string][]byte{
				"static.key": static, "client.key": client,
			})

			sock.SetReadDeadline(time.Now().Add(30 * time.Second))
			var got, sent int
			var o *Opening
			buf := make([]byte, maxDatagram)
			for o == nil {
				n, from, err := sock.ReadFromUDPAddrPort(buf)
				if err != nil {
					t.Fatalf("waiting for the cookie: %v", err)
				}
				got += n
				var reply []byte
				reply, o = gate.Greet(time.Now(), from, buf[:n])
				sent += len(reply)
				if sent > got {
					t.Fatalf("sent %d bytes for %d", sent, got)
				}
				if reply != nil {
					if _, err := sock.WriteToUDPAddrPort(reply, from); err != nil {
						t.Fatal(err)
					}
				}
				t.Logf("%v: %d bytes in, %d out", Opcode(buf[0]>>3), n, len(reply))
			}

			// What the session does next: take the packet, acknowledge the reset.
			first, err := o.wrap.open(o.first)
			if err != nil {
				t.Fatalf("the opening's packet: %v", err)
			}
			if unacked := first.Opcode != OpControl; unacked != c.unacked {
				t.Errorf("the cookie came back in a packet of opcode %d", first.Opcode)
			}
			for first.Opcode != OpControl {
				ack := Packet{Opcode: OpAck, Session: o.Server, Acks: []PacketID{0}, Remote: o.Client}
				if _, err := sock.WriteToUDPAddrPort(o.wrap.seal(nil, &ack), o.From); err != nil {
					t.Fatal(err)
				}
				n, _, err := sock.ReadFromUDPAddrPort(buf)
				if err != nil {
					t.Fatalf("waiting for the ClientHello: %v", err)
				}
				if first, err = o.wrap.open(buf[:n]); err != nil {
					t.Fatal(err)
				}
			}
			if first.ID != 1 || !bytes.HasPrefix(first.Payload, []byte{0x16, 3}) {
				t.Errorf("message %d begins with %x, want message 1 with a ClientHello", first.ID, first.Payload[:min(5, len(first.Payload))])
			}
			if first.Remote != o.Server && len(first.Acks) > 0 {
				t.Errorf("client calls us %v, want %v", first.Remote, o.Server)
			}
		})
	}
}

// startStockClient runs openvpn against a port of the loopback, until the test ends.
func startStockClient(t *testing.T, port int, options string, files map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write("login", []byte("user\npassword\n"))
	for name, b := range files {
		write(name, b)
	}
	write("client.conf", []byte(strings.Join([]string{
		"client", "dev null", "proto udp4", "nobind", "remote 127.0.0.1", "ca ca.crt", "auth-user-pass login", options, "",
	}, "\n")))

	var out bytes.Buffer
	cmd := exec.Command("openvpn", "--cd", dir, "--config", "client.conf", "--port", big.NewInt(int64(port)).String())
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
}
