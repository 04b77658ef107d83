package tlsctl

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/hex"
	"hash"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/pion/dtls/v2/pkg/crypto/prf"
)

func TestPRFVectors(t *testing.T) {
	var v struct {
		PRF []struct {
			Secret, Seed, Output hexBytes
			Length               int
		} `json:"tls1_prf"`
		Derivation derivationVector
		Captured   derivationVector `json:"captured_openvpn_2_6_14"`
	}
	readVectors(t, "prf.json", &v)
	for i, c := range v.PRF {
		got, err := prf10(c.Secret, c.Seed, c.Length)
		if err != nil || !bytes.Equal(got, c.Output) {
			t.Errorf("PRF %d: %x, %v, want %x", i, got, err, c.Output)
		}
	}
	for name, d := range map[string]derivationVector{"synthetic": v.Derivation, "captured": v.Captured} {
		client := &exchange{preMaster: [48]byte(d.PreMaster), random1: [32]byte(d.ClientRandom1), random2: [32]byte(d.ClientRandom2)}
		server := &exchange{random1: [32]byte(d.ServerRandom1), random2: [32]byte(d.ServerRandom2)}
		keys, err := deriveKeys(client, server, SessionID(d.ClientSession), SessionID(d.ServerSession))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(keys, d.KeyBlock) {
			t.Errorf("%s: key block\n%x, want\n%x", name, keys, d.KeyBlock)
		}
		fromClient := append(bytes.Clone(d.Split.ClientCipher), d.Split.ClientHMAC...)
		toClient := append(bytes.Clone(d.Split.ServerCipher), d.Split.ServerHMAC...)
		if !bytes.Equal(keys.fromClient(), fromClient) || !bytes.Equal(keys.toClient(), toClient) {
			t.Errorf("%s: the directions are not those of the vectors", name)
		}
	}
}

type derivationVector struct {
	PreMaster     hexBytes `json:"pre_master"`
	ClientRandom1 hexBytes `json:"client_random1"`
	ClientRandom2 hexBytes `json:"client_random2"`
	ServerRandom1 hexBytes `json:"server_random1"`
	ServerRandom2 hexBytes `json:"server_random2"`
	ClientSession hexBytes `json:"client_session_id"`
	ServerSession hexBytes `json:"server_session_id"`
	KeyBlock      hexBytes `json:"key_block"`
	Split         struct {
		ClientCipher hexBytes `json:"client_to_server_cipher"`
		ClientHMAC   hexBytes `json:"client_to_server_hmac"`
		ServerCipher hexBytes `json:"server_to_client_cipher"`
		ServerHMAC   hexBytes `json:"server_to_client_hmac"`
	}
}

// exporter12 is RFC 5705 without a context. The vectors show that this is the right formula, a TLS session that
// exportKeys follows it.
func exporter12(t *testing.T, newHash func() hash.Hash, master, clientRandom, serverRandom []byte, label string) []byte {
	t.Helper()
	seed := append(append([]byte(label), clientRandom...), serverRandom...)
	out, err := prf.PHash(master, seed, keyBlockSize, newHash)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestExporterVectors(t *testing.T) {
	var v struct {
		Exporter []struct {
			TLS, Hash, Label string
			Master           hexBytes `json:"master_secret"`
			ClientRandom     hexBytes `json:"client_random"`
			ServerRandom     hexBytes `json:"server_random"`
			Output           hexBytes
		}
	}
	readVectors(t, "exporter.json", &v)
	checked := 0
	for i, c := range v.Exporter {
		if c.TLS != "1.2" {
			continue
		}
		checked++
		newHash := sha256.New
		if c.Hash == "sha384" {
			newHash = sha512.New384
		}
		if got := exporter12(t, newHash, c.Master, c.ClientRandom, c.ServerRandom, c.Label); !bytes.Equal(got, c.Output) {
			t.Errorf("vector %d: %x, want %x", i, got, c.Output)
		}
	}
	if checked == 0 {
		t.Fatal("no vector for TLS 1.2")
	}
}

// exportKeys takes what the formula says out of a real session: label and (absent) context are right.
func TestExportKeys(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var log bytes.Buffer
		client, server := handshake(t, version, &log)
		for _, label := range []string{exportDataKeys, exportDynamic} {
			got, err := exportKeys(server, label)
			if err != nil {
				t.Fatalf("%s: %v", tls.VersionName(version), err)
			}
			theirs, err := client.ExportKeyingMaterial(label, nil, keyBlockSize)
			if err != nil || !bytes.Equal(got, theirs) {
				t.Errorf("%s %s: the ends differ", tls.VersionName(version), label)
			}
			if version == tls.VersionTLS12 {
				f := strings.Fields(log.String()) // CLIENT_RANDOM random master
				random, _ := hex.DecodeString(f[1])
				master, _ := hex.DecodeString(f[2])
				if want := exporter12(t, sha256.New, master, random, serverRandom(t), label); !bytes.Equal(got, want) {
					t.Errorf("%s: not what the formula says", label)
				}
			}
		}
	}
}

// lastServerRandom is what handshake saw on the wire.
var lastServerRandom []byte

func serverRandom(t *testing.T) []byte {
	t.Helper()
	if len(lastServerRandom) != 32 {
		t.Fatal("no ServerHello was seen")
	}
	return lastServerRandom
}

// helloReader notes the random bytes of the first ServerHello: 5 bytes of record, 4 of message, 2 of version, then
// they.
type helloReader struct {
	net.Conn
	seen []byte
}

func (h *helloReader) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if len(h.seen) < 43 {
		h.seen = append(h.seen, b[:n]...)
	}
	return n, err
}

func handshake(t *testing.T, version uint16, log io.Writer) (client, server *tls.ConnectionState) {
	t.Helper()
	cert := newTestAuthority(t).issue(t, "server", nil)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	wire := &helloReader{Conn: a}
	c := tls.Client(wire, &tls.Config{InsecureSkipVerify: true, MaxVersion: version, KeyLogWriter: log,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
	s := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true})
	failed := make(chan error, 1)
	go func() { failed <- s.Handshake() }()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	lastServerRandom = wire.seen[11:43]
	cs, ss := c.ConnectionState(), s.ConnectionState()
	return &cs, &ss
}
