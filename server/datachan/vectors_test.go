package datachan_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"postern/server/datachan"
)

// hexBytes is written as hexadecimal digits in the vector files.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func readVectors(tb testing.TB, name string, into any) {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("../../testdata/vectors", name))
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
}

type aeadVector struct {
	Name       string
	Cipher     string
	Opcode     uint8
	KeyID      datachan.KeyID   `json:"key_id"`
	PeerID     *datachan.PeerID `json:"peer_id"`
	PacketID   uint64           `json:"packet_id"`
	Key        hexBytes
	ImplicitIV hexBytes `json:"implicit_iv"`
	Plaintext  hexBytes
	Packet     hexBytes
	Reject     string
}

type aeadVectors struct {
	Vectors    []aeadVector
	MustReject []aeadVector `json:"must_reject"`
}

// material lays the vector's key and iv out as a direction of the key block.
func (v *aeadVector) material() []byte {
	m := make([]byte, 128)
	copy(m, v.Key)
	copy(m[64:], v.ImplicitIV)
	return m
}

func (v *aeadVector) sealer(tb testing.TB) *datachan.Key {
	peer := datachan.NoPeer
	if v.PeerID != nil {
		peer = *v.PeerID
	}
	return newKey(tb, v.KeyID, v.Cipher, peer, v.Opcode == datachan.OpDataV2, v.material(), make([]byte, 128), 0)
}

func (v *aeadVector) opener(tb testing.TB) *datachan.Key {
	return newKey(tb, v.KeyID, v.Cipher, datachan.NoPeer, true, make([]byte, 128), v.material(), 0)
}

func newKey(tb testing.TB, id datachan.KeyID, cipher string, peer datachan.PeerID, v2 bool,
	toClient, fromClient []byte, window int) *datachan.Key {
	tb.Helper()
	k, err := datachan.NewKey(id, cipher, peer, v2, toClient, fromClient, window)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// open opens a copy of packet and checks that the borrowed bytes were returned.
func open(tb testing.TB, k *datachan.Key, packet []byte) (payload []byte, id uint64, err error) {
	tb.Helper()
	behind := []byte("sixteen bytes on")
	b := append(bytes.Clone(packet), behind...)
	k.Lock()
	payload, id, err = k.Open(b[:len(packet)], new(datachan.Scratch))
	k.Unlock()
	if !bytes.Equal(b[len(packet):], behind) {
		tb.Errorf("the bytes behind the packet are now %q", b[len(packet):])
	}
	return payload, id, err
}

// seal seals a copy of payload into memory of its own.
func seal(k *datachan.Key, payload []byte, id uint64) []byte {
	dst := make([]byte, k.HeadLen()+len(payload)+k.TailLen())
	return dst[:k.Seal(dst, payload, id, new(datachan.Scratch))]
}

func TestAEADVectors(t *testing.T) {
	var file aeadVectors
	readVectors(t, "data-aead.json", &file)
	if len(file.Vectors) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			if got := seal(v.sealer(t), v.Plaintext, v.PacketID); !bytes.Equal(got, v.Packet) {
				t.Errorf("sealed %x, want %x", got, v.Packet)
			}
			payload, id, err := open(t, v.opener(t), v.Packet)
			if err != nil {
				t.Fatalf("open: %v", err)
			}
			if !bytes.Equal(payload, v.Plaintext) || id != v.PacketID {
				t.Errorf("opened %x under id %d, want %x under id %d", payload, id, v.Plaintext, v.PacketID)
			}
		})
	}
}

func TestAEADVectorsRejected(t *testing.T) {
	var file aeadVectors
	readVectors(t, "data-aead.json", &file)
	if len(file.MustReject) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range file.MustReject {
		t.Run(v.Name, func(t *testing.T) {
			var want error
			switch {
			case v.Reject == "tag":
				want = datachan.ErrAuth
			case strings.HasPrefix(v.Reject, "replay"):
				want = datachan.ErrReplay
			case strings.HasPrefix(v.Reject, "too short"):
				want = datachan.ErrShort
			default:
				t.Fatalf("what error is %q?", v.Reject)
			}
			k := v.opener(t)
			if payload, _, err := open(t, k, v.Packet); !errors.Is(err, want) || payload != nil {
				t.Errorf("opened %x, error %v, want %v", payload, err, want)
			}
			k.Lock()
			defer k.Unlock()
			if got := k.Highest(); got != 0 {
				t.Errorf("the window has moved to %d", got)
			}
		})
	}
}

// The slices of the key block that each cipher is keyed with, checked against crypto/cipher used directly.
func TestKeyBlockSlices(t *testing.T) {
	var file struct {
		Key2 hexBytes
		AEAD []struct {
			Cipher string
			C2SKey hexBytes `json:"c2s_key"`
			C2SIV  hexBytes `json:"c2s_implicit_iv"`
			S2CKey hexBytes `json:"s2c_key"`
			S2CIV  hexBytes `json:"s2c_implicit_iv"`
		}
	}
	readVectors(t, "data-key2.json", &file)
	if len(file.AEAD) != 4 {
		t.Fatalf("%d AEAD rows, want 4", len(file.AEAD))
	}
	c2s, s2c := []byte(file.Key2[:128]), []byte(file.Key2[128:])
	payload := []byte("what the client says")
	for _, row := range file.AEAD {
		t.Run(row.Cipher, func(t *testing.T) {
			server := newKey(t, 0, row.Cipher, 3, true, s2c, c2s, 0)
			client := newKey(t, 0, row.Cipher, 3, true, c2s, s2c, 0)
			if got, want := seal(server, payload, 7), reference(t, row.Cipher, row.S2CKey, row.S2CIV, 3, payload, 7); !bytes.Equal(got, want) {
				t.Errorf("server sealed %x, want %x", got, want)
			}
			if got, want := seal(client, payload, 7), reference(t, row.Cipher, row.C2SKey, row.C2SIV, 3, payload, 7); !bytes.Equal(got, want) {
				t.Errorf("client sealed %x, want %x", got, want)
			}
			if got, _, err := open(t, server, seal(client, payload, 7)); err != nil || !bytes.Equal(got, payload) {
				t.Errorf("server opened %q, error %v", got, err)
			}
			if _, _, err := open(t, server, seal(server, payload, 8)); !errors.Is(err, datachan.ErrAuth) {
				t.Errorf("server opened its own packet: error %v, want %v", err, datachan.ErrAuth)
			}
		})
	}
}

// reference builds a P_DATA_V2 with key id 0 the long way.
func reference(t *testing.T, name string, key, iv []byte, peer uint32, payload []byte, id uint32) []byte {
	t.Helper()
	var aead cipher.AEAD
	var err error
	if name == "CHACHA20-POLY1305" {
		aead, err = chacha20poly1305.New(key)
	} else {
		var block cipher.Block
		if block, err = aes.NewCipher(key); err == nil {
			aead, err = cipher.NewGCM(block)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	head := binary.BigEndian.AppendUint32(nil, 0x48<<24|peer)
	head = binary.BigEndian.AppendUint32(head, id)
	nonce := append(binary.BigEndian.AppendUint32(nil, id), iv...)
	sealed := aead.Seal(nil, nonce, payload, head)
	body, tag := sealed[:len(payload)], sealed[len(payload):]
	return append(append(head, tag...), body...)
}

// The vectors' time limit is kept by a caller who repeats to Expire what Highest was so many seconds ago.
func TestReplayVectors(t *testing.T) {
	var file struct {
		Cases []struct {
			Name    string
			Window  int
			Seconds int
			Steps   []struct {
				T      int
				ID     uint64
				Accept bool
			}
		}
	}
	readVectors(t, "data-replay.json", &file)
	if len(file.Cases) == 0 {
		t.Fatal("no vectors")
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			if c.Window == 0 {
				c.Window = datachan.Sequential
			}
			client, server := pair(t, "AES-128-GCM", c.Window)
			highestAt := map[int]uint64{}
			for i, step := range c.Steps {
				if c.Seconds > 0 {
					server.Lock()
					for at, id := range highestAt {
						if at < step.T-c.Seconds {
							server.Expire(id)
						}
					}
					server.Unlock()
				}
				_, _, err := open(t, server, seal(client, []byte("x"), step.ID))
				if err != nil && !errors.Is(err, datachan.ErrReplay) {
					t.Fatalf("step %d: id %d: %v", i, step.ID, err)
				}
				if accepted := err == nil; accepted != step.Accept {
					t.Errorf("step %d: id %d accepted: %t, want %t", i, step.ID, accepted, step.Accept)
				}
				server.Lock()
				highestAt[step.T] = server.Highest()
				server.Unlock()
			}
		})
	}
}

func TestMessageVectors(t *testing.T) {
	var file struct {
		Ping     hexBytes
		Messages []struct {
			Name      string
			Plaintext hexBytes
		}
	}
	readVectors(t, "data-messages.json", &file)
	want := map[string]datachan.Message{
		"ping":                          datachan.Ping,
		"OCC_REQUEST":                   datachan.OCCRequest,
		"OCC_REPLY":                     datachan.OCCReply,
		"OCC_MTU_LOAD_REQUEST 1500":     datachan.MTULoadRequest,
		"OCC_MTU_LOAD (8 filler bytes)": datachan.MTULoad,
		"OCC_MTU_REQUEST":               datachan.MTURequest,
		"OCC_MTU_REPLY 1541/1541":       datachan.MTUReply,
		"OCC_EXIT":                      datachan.Exit,
	}
	if len(file.Messages) != len(want) {
		t.Errorf("%d messages in the file, want %d", len(file.Messages), len(want))
	}
	for _, m := range file.Messages {
		if got := datachan.Classify(m.Plaintext); got != want[m.Name] || got == datachan.NoMessage {
			t.Errorf("%s: %v, want %v", m.Name, got, want[m.Name])
		}
		if m.Name == "OCC_EXIT" {
			if got := datachan.AppendExit(nil); !bytes.Equal(got, m.Plaintext) {
				t.Errorf("AppendExit: %x, want %x", got, m.Plaintext)
			}
		}
	}
	if got := datachan.AppendPing(nil); !bytes.Equal(got, file.Ping) {
		t.Errorf("AppendPing: %x, want %x", got, file.Ping)
	}
}
