package datachan_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"postern/server/datachan"
)

type legacyVector struct {
	Name     string
	Cipher   string
	Auth     string
	Opcode   uint8
	KeyID    datachan.KeyID   `json:"key_id"`
	PeerID   *datachan.PeerID `json:"peer_id"`
	PacketID uint64           `json:"packet_id"`
	Key      hexBytes
	HMACKey  hexBytes `json:"hmac_key"`
	IV       hexBytes
	Plain    hexBytes `json:"plaintext"`
	Packet   hexBytes
}

func legacyVectors(tb testing.TB) []legacyVector {
	var file struct{ Vectors []legacyVector }
	readVectors(tb, "data-legacy.json", &file)
	if len(file.Vectors) == 0 {
		tb.Fatal("no vectors")
	}
	return file.Vectors
}

func (v *legacyVector) config() datachan.Config {
	c := datachan.Config{ID: v.KeyID, Peer: datachan.NoPeer, V2: v.Opcode == datachan.OpDataV2, Cipher: v.Cipher, Digest: v.Auth}
	if v.PeerID != nil {
		c.Peer = *v.PeerID
	}
	return c
}

func (v *legacyVector) material() []byte {
	m := make([]byte, 128)
	copy(m, v.Key)
	copy(m[64:], v.HMACKey)
	return m
}

func TestLegacyVectors(t *testing.T) {
	opened, refused := 0, 0
	for _, v := range legacyVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			k, err := v.config().NewKey(v.material(), v.material())
			if !strings.HasSuffix(v.Cipher, "-CBC") { // CFB, OFB and none (S072)
				if err == nil || !strings.Contains(err.Error(), v.Cipher) {
					t.Errorf("error %v, want one that names %s", err, v.Cipher)
				}
				refused++
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			k.SetIV(v.IV)
			if got := seal(k, v.Plain, v.PacketID); !bytes.Equal(got, v.Packet) {
				t.Errorf("sealed %x, want %x", got, v.Packet)
			}
			payload, id, err := open(t, k, v.Packet)
			if err != nil {
				t.Fatalf("open: %v", err)
			}
			if !bytes.Equal(payload, v.Plain) || id != v.PacketID {
				t.Errorf("opened %x under id %d, want %x under id %d", payload, id, v.Plain, v.PacketID)
			}
			opened++
		})
	}
	if opened < 20 || refused < 20 {
		t.Errorf("%d vectors opened, %d refused: the file has more", opened, refused)
	}
}

// The slices of the key block that each cipher and digest is keyed with.
func TestKeyBlockSlicesCBC(t *testing.T) {
	var file struct {
		Key2   hexBytes
		Legacy []struct {
			Cipher, Auth string
			C2SKey       hexBytes `json:"c2s_key"`
			C2SHMAC      hexBytes `json:"c2s_hmac_key"`
			S2CKey       hexBytes `json:"s2c_key"`
			S2CHMAC      hexBytes `json:"s2c_hmac_key"`
		}
	}
	readVectors(t, "data-key2.json", &file)
	c2s, s2c := []byte(file.Key2[:128]), []byte(file.Key2[128:])
	tried := 0
	for _, row := range file.Legacy {
		if !strings.HasSuffix(row.Cipher, "-CBC") {
			continue
		}
		tried++
		config := datachan.Config{V2: true, Cipher: row.Cipher, Digest: row.Auth}
		server, err := config.NewKey(s2c, c2s)
		if err != nil {
			t.Fatal(err)
		}
		// A key whose material is only the row's, the rest being zeros, is the same.
		slices := func(key, mac []byte) []byte {
			return append(append(append([]byte{}, key...), make([]byte, 64-len(key))...), append(mac, make([]byte, 64-len(mac))...)...)
		}
		client, err := config.NewKey(slices(row.C2SKey, row.C2SHMAC), slices(row.S2CKey, row.S2CHMAC))
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range []struct{ from, to *datachan.Key }{{client, server}, {server, client}} {
			if got, _, err := open(t, way.to, seal(way.from, []byte("payload"), 1)); err != nil || string(got) != "payload" {
				t.Errorf("%s %s: %q, error %v", row.Cipher, row.Auth, got, err)
			}
		}
		if _, _, err := open(t, server, seal(server, []byte("payload"), 2)); !errors.Is(err, datachan.ErrAuth) {
			t.Errorf("%s %s: the server opened its own packet: %v", row.Cipher, row.Auth, err)
		}
	}
	if tried == 0 {
		t.Error("no CBC rows")
	}
}

// Senders that share a CBC key do not get into each other's packets, and no IV comes twice.
func TestCBCConcurrently(t *testing.T) {
	const senders, packets = 4, 300
	client, server := ends(t, datachan.Config{Cipher: "AES-128-CBC", Digest: "SHA256", V2: true})
	sealed := make([][][]byte, senders)
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for n := range packets {
				id, _ := client.Reserve(1)
				sealed[i] = append(sealed[i], seal(client, fmt.Appendf(nil, "sender %d packet %d", i, n), id))
			}
		})
	}
	wg.Wait()
	ivs := map[string]bool{}
	for i := range sealed {
		for n, packet := range sealed[i] {
			ivs[string(packet[4+32:][:16])] = true
			payload, _, err := open(t, server, packet)
			if want := fmt.Sprintf("sender %d packet %d", i, n); err != nil || string(payload) != want {
				t.Errorf("%q, error %v, want %q", payload, err, want)
			}
		}
	}
	if len(ivs) != senders*packets {
		t.Errorf("%d IVs for %d packets", len(ivs), senders*packets)
	}
}

// The IVs of two keys have nothing in common, even when all else has: they cannot be foreseen.
func TestCBCUnforeseeableIV(t *testing.T) {
	c := datachan.Config{Cipher: "AES-128-CBC", Digest: "SHA1", V2: true}
	a, _ := ends(t, c)
	b, _ := ends(t, c)
	if bytes.Equal(seal(a, []byte("payload"), 1), seal(b, []byte("payload"), 1)) {
		t.Error("two keys of the same material seal the same packet")
	}
}

// What the peer itself encrypted wrongly is found out after its HMAC, and leaves no trace either.
func TestCBCMalformed(t *testing.T) {
	config := datachan.Config{Cipher: "AES-128-CBC", Digest: "SHA256", V2: true}
	material := slots(1)
	block, err := aes.NewCipher(material[:16])
	if err != nil {
		t.Fatal(err)
	}
	// sign builds a packet around text, encrypted when it is whole blocks.
	sign := func(text string) []byte {
		iv := bytes.Repeat([]byte{7}, 16)
		body := []byte(text)
		if len(body)%16 == 0 {
			cipher.NewCBCEncrypter(block, iv).CryptBlocks(body, body)
		}
		mac := hmac.New(sha256.New, material[64:96])
		mac.Write(iv)
		mac.Write(body)
		return append(append(mac.Sum([]byte{0x48, 0, 0, 5}), iv...), body...)
	}
	const id = "\x00\x00\x00\x01"
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"no block", "", datachan.ErrShort},
		{"half a block", id + "1234", datachan.ErrShort},
		{"a block and a half", id + "payload90123456789abc", datachan.ErrMalformed},
		{"padding of 0", id + "12345678901\x00", datachan.ErrMalformed},
		{"padding of 17", id + "12345678901" + strings.Repeat("\x11", 17), datachan.ErrMalformed},
		{"padding not all the same", id + "1234567890\x01\x02", datachan.ErrMalformed},
		{"padding instead of an id", strings.Repeat("\x10", 16), datachan.ErrMalformed},
		{"half an id", "\x00\x00\x00" + strings.Repeat("\x0d", 13), datachan.ErrMalformed},
		{"id 0", "\x00\x00\x00\x00payload\x05\x05\x05\x05\x05", datachan.ErrReplay},
		{"an empty payload", id + strings.Repeat("\x0c", 12), nil},
		{"good", "\x00\x00\x00\x02payload\x05\x05\x05\x05\x05", nil},
	} {
		server, err := config.NewKey(slots(2), material)
		if err != nil {
			t.Fatal(err)
		}
		packet := sign(c.text)
		if _, _, err := open(t, server, packet); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		server.Lock()
		if moved := server.Highest() != 0; moved != (c.want == nil) {
			t.Errorf("%s: the window is at %d", c.name, server.Highest())
		}
		server.Unlock()
		// The HMAC comes first: without it nothing is told about the inside.
		if len(packet) >= 4+32+16+16 {
			packet[4] ^= 1
			if _, _, err := open(t, server, packet); !errors.Is(err, datachan.ErrAuth) {
				t.Errorf("%s, forged: %v, want %v", c.name, err, datachan.ErrAuth)
			}
		}
	}
}

// The HMAC does not cover the header, so a packet of a client that has no peer id must not pass for one of a client
// that has, which could float (S077). A client that has been told its peer id may still send a last V1.
func TestCBCHeaderRewritten(t *testing.T) {
	c := datachan.Config{Cipher: "AES-128-CBC", Digest: "SHA256"}
	client, server := ends(t, c)
	v1 := seal(client, []byte("payload"), 1)
	v2 := append([]byte{0x49, 0, 0, 5}, v1[1:]...)
	if _, _, err := open(t, server, v2); !errors.Is(err, datachan.ErrAuth) {
		t.Errorf("as a V2: %v, want %v", err, datachan.ErrAuth)
	}
	if _, _, err := open(t, server, v1); err != nil {
		t.Errorf("as it was: %v", err)
	}
	c.V2 = true
	_, server = ends(t, c)
	if _, _, err := open(t, server, v1); err != nil {
		t.Errorf("by a key that seals V2: %v", err)
	}
}
