package tlsctl

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// setCounter makes the next packet of w carry the given replay id.
func setCounter(w wrapper, id, stamp uint32) {
	w.(interface{ rewind(sendCounter) }).rewind(sendCounter{last: id - 1, stamp: stamp})
}

// checkVector seals and opens one vector: from is who sent it, to who got it.
func checkVector(t *testing.T, c packetVector, from, to wrapper) {
	t.Helper()
	want := c.want()
	setCounter(from, c.ReplayID, c.Time)
	if got := from.seal([]byte("kept"), &want); !bytes.Equal(got, append([]byte("kept"), c.Packet...)) {
		t.Errorf("sealed\n%x, want\n%x", got[4:], c.Packet)
	}
	if got := want.AppendTo(nil); len(got)+from.overhead() != len(c.Packet) {
		t.Errorf("overhead %d, want %d", from.overhead(), len(c.Packet)-len(got))
	}
	p, err := to.open(bytes.Clone(c.Packet))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	checkPacket(t, p, want)
	p, err = to.open(bytes.Clone(c.Packet))
	if err != errReplay {
		t.Errorf("open again: %v, want %v", err, errReplay)
	}
	checkPacket(t, p, want)
}

// checkBitFlips flips each bit of a good packet: none may pass (S033, S118).
func checkBitFlips(t *testing.T, good []byte, to func() wrapper) {
	t.Helper()
	w := to()
	for bit := range 8 * len(good) {
		b := bytes.Clone(good)
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := w.open(b); err != errWrap {
			t.Errorf("bit %d of byte %d flipped: %v, want %v", bit%8, bit/8, err, errWrap)
		}
	}
	for n := range good {
		if _, err := w.open(bytes.Clone(good[:n])); err != errWrap {
			t.Errorf("%d of %d bytes: %v, want %v", n, len(good), err, errWrap)
		}
	}
	if _, err := w.open(bytes.Clone(good)); err != nil {
		t.Errorf("the packet as it was: %v", err)
	}
}

func TestAuthVectors(t *testing.T) {
	var v struct {
		Key         hexBytes `json:"static_key_hex"`
		Packets     []packetVector
		CapturedKey hexBytes       `json:"captured_static_key_hex"`
		Captured    []packetVector `json:"captured_openvpn_2_6_14"`
		Invalid     []packetVector `json:"invalid_under_packets_0"`
	}
	readVectors(t, "tls-auth.json", &v)
	if len(v.Packets) == 0 || len(v.Captured) == 0 || len(v.Invalid) == 0 {
		t.Fatal("no vectors")
	}
	check := func(c packetVector, static []byte, direction int, fromClient bool) {
		t.Run(c.Auth+" "+c.String(), func(t *testing.T) {
			k, err := NewAuthKey(static, direction, c.Auth)
			if err != nil {
				t.Fatal(err)
			}
			var from, to wrapper = k.newWrap(sendCounter{}), k.reversed().newWrap(sendCounter{})
			if fromClient {
				from, to = to, from
			}
			checkVector(t, c, from, to)
			checkBitFlips(t, c.Packet, func() wrapper {
				if fromClient {
					return k.newWrap(sendCounter{})
				}
				return k.reversed().newWrap(sendCounter{})
			})
		})
	}
	for _, c := range v.Packets {
		direction := 0
		if strings.Contains(c.Direction, "bidirectional") {
			direction = -1
		}
		check(c, v.Key, direction, !strings.HasPrefix(c.Direction, "server send"))
	}
	for _, c := range v.Captured {
		direction := 0
		if c.Auth == "SHA512" {
			direction = -1
		}
		check(c, v.CapturedKey, direction, c.Direction == "c2s")
	}
	for _, c := range v.Invalid {
		t.Run(c.String(), func(t *testing.T) {
			k, err := NewAuthKey(v.Key, 0, c.Auth)
			if err != nil {
				t.Fatal(err)
			}
			if p, err := k.newWrap(sendCounter{}).open(c.Packet); err != errWrap {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
}

// Direction is enforced: what one end sent does not come back to it as the other's, unless there is none (S033).
func TestAuthDirection(t *testing.T) {
	static := randomBytes(256)
	p := Packet{Opcode: OpControl, Session: SessionID{1}, ID: 1}
	for _, c := range []struct {
		from, to int
		ok       bool
	}{{0, 1, true}, {1, 0, true}, {0, 0, false}, {1, 1, false}, {-1, -1, true}, {-1, 0, false}, {-1, 1, true}, {0, -1, true}, {1, -1, false}} {
		from, err := NewAuthKey(static, c.from, "SHA256")
		if err != nil {
			t.Fatal(err)
		}
		to, err := NewAuthKey(static, c.to, "sha256")
		if err != nil {
			t.Fatal(err)
		}
		_, err = to.newWrap(sendCounter{}).open(from.newWrap(sendCounter{}).seal(nil, &p))
		if (err == nil) != c.ok {
			t.Errorf("direction %d to %d: %v", c.from, c.to, err)
		}
	}
}

func TestNewAuthKeyRefuses(t *testing.T) {
	for _, c := range []struct {
		size, direction int
		digest          string
	}{{255, 0, "SHA1"}, {0, -1, "SHA1"}, {128, 0, "SHA1"}, {256, 2, "SHA1"}, {256, -2, "SHA1"}, {256, 0, "none"}, {256, 0, "SHA0"}} {
		if _, err := NewAuthKey(make([]byte, c.size), c.direction, c.digest); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	for _, digest := range []string{"", "sha1", "MD5", "SHA224", "SHA256", "SHA384", "SHA512", "SHA512-256", "SHA3-512"} {
		if _, err := NewAuthKey(make([]byte, 128), -1, digest); err != nil {
			t.Errorf("%q: %v", digest, err)
		}
	}
}

func TestCryptVectors(t *testing.T) {
	var v struct {
		Key         hexBytes `json:"static_key_hex"`
		Packets     []packetVector
		CapturedKey hexBytes       `json:"captured_static_key_hex"`
		Captured    []packetVector `json:"captured_openvpn_2_6_14"`
		Invalid     []packetVector
	}
	readVectors(t, "tls-crypt.json", &v)
	if len(v.Packets) == 0 || len(v.Captured) == 0 || len(v.Invalid) == 0 {
		t.Fatal("no vectors")
	}
	check := func(c packetVector, static []byte, fromClient bool) {
		t.Run(c.String(), func(t *testing.T) {
			k, err := NewCryptKey(static)
			if err != nil {
				t.Fatal(err)
			}
			opener := func() wrapper { return k.reversed().newWrap(sendCounter{}) }
			var from wrapper = k.newWrap(sendCounter{})
			if fromClient {
				opener = func() wrapper { return k.newWrap(sendCounter{}) }
				from = k.reversed().newWrap(sendCounter{})
			}
			checkVector(t, c, from, opener())
			if len(c.Packet) < 200 {
				checkBitFlips(t, c.Packet, opener)
			}
		})
	}
	for _, c := range v.Packets {
		check(c, v.Key, strings.HasPrefix(c.Direction, "client send"))
	}
	for _, c := range v.Captured {
		check(c, v.CapturedKey, c.Direction == "c2s")
	}
	for _, c := range v.Invalid {
		t.Run(c.String(), func(t *testing.T) {
			k, err := NewCryptKey(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			if p, err := k.newWrap(sendCounter{}).open(c.Packet); err != errWrap {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
	if _, err := NewCryptKey(v.Key[:255]); err == nil {
		t.Error("a key of 255 bytes was taken")
	}
}

// The counter of CTR mode runs over all its 16 bytes.
func TestCryptCounterCarries(t *testing.T) {
	k, err := NewCryptKey(randomBytes(256))
	if err != nil {
		t.Fatal(err)
	}
	s := newSIV(k.send)
	tag := bytes.Repeat([]byte{0xff}, cryptTagLen)
	body := make([]byte, 40)
	s.xor(tag, body)
	var want [16]byte
	k.send.block.Encrypt(want[:], make([]byte, 16)) // behind ff..ff comes 0
	if !bytes.Equal(body[16:32], want[:]) {
		t.Errorf("second block %x, want %x", body[16:32], want)
	}
}

func TestDynamicWrapVectors(t *testing.T) {
	var v struct {
		Captured []struct {
			Wrap     string   `json:"original_wrap"`
			Original hexBytes `json:"original_key"`
			Exported hexBytes
			Dynamic  hexBytes `json:"dynamic_key"`
			Packets  []packetVector
		} `json:"dynamic_tls_crypt_captured"`
	}
	readVectors(t, "exporter.json", &v)
	if len(v.Captured) == 0 {
		t.Fatal("no vectors")
	}
	for _, c := range v.Captured {
		t.Run(c.Wrap, func(t *testing.T) {
			server := dynamicWrap([256]byte(c.Exported), c.Original)
			if !bytes.Equal(server.staticKey(), c.Dynamic) {
				t.Error("not the dynamic key")
			}
			client := &cryptWrap{key: server.(*cryptWrap).key.reversed()}
			client = client.key.newWrap(sendCounter{})
			for _, p := range c.Packets {
				to := server
				if p.Direction == "s2c" {
					to = client
				}
				if _, err := to.open(p.Packet); err != nil {
					t.Errorf("%s: %v", &p, err)
				}
			}
		})
	}
}

// The client's end opens what the server's seals, and the other way; a wrap of another kind opens neither.
func TestClientWrap(t *testing.T) {
	now := time.Unix(1700000000, 0)
	static := randomBytes(256)
	auth, err := NewAuthKey(static, 0, "SHA256")
	if err != nil {
		t.Fatal(err)
	}
	crypt, err := NewCryptKey(static)
	if err != nil {
		t.Fatal(err)
	}
	text, err := newTestServerKey(t).GenerateClientKey(nil, now)
	if err != nil {
		t.Fatal(err)
	}
	kc, wkc, err := ParseClientKeyV2(text)
	if err != nil {
		t.Fatal(err)
	}
	clientKey, err := NewCryptKey(kc)
	if err != nil {
		t.Fatal(err)
	}
	v2, err := NewClientWrapV2(kc, wkc, true, now)
	if err != nil {
		t.Fatal(err)
	}

	exported := [256]byte(randomBytes(256))
	pairs := []struct {
		server wrapper
		client *ClientWrap
	}{
		{&plainWrap{}, NewClientWrap(Wrapping{}, now)},
		{auth.newWrap(sendCounter{}), NewClientWrap(Wrapping{Auth: auth}, now)},
		{crypt.newWrap(sendCounter{}), NewClientWrap(Wrapping{Crypt: crypt}, now)},
		{&cryptV2Wrap{*clientKey.newWrap(sendCounter{})}, v2},
		{dynamicWrap(exported, static), NewClientWrap(Wrapping{Auth: auth}, now).Dynamic(exported, now)},
	}
	p := Packet{Opcode: OpControl, KeyID: 2, Session: SessionID{1}, Acks: []PacketID{3, 2}, Remote: SessionID{9}, ID: 4, Payload: []byte("hello")}
	for i, from := range pairs {
		for j, to := range pairs {
			got, err := to.server.open(from.client.Seal(nil, &p))
			if i != j && j != 0 && err == nil { // no wrap, no check
				t.Errorf("server %d opens what client %d sealed", j, i)
			}
			if i == j && (err != nil || !samePacket(got, p)) {
				t.Errorf("server %d: %+v, %v", i, got, err)
			}
			got, err = to.client.Open(from.server.seal(nil, &p))
			if i != j && j != 0 && err == nil {
				t.Errorf("client %d opens what server %d sealed", j, i)
			}
			if i == j && (err != nil || !samePacket(got, p)) {
				t.Errorf("client %d: %+v, %v", i, got, err)
			}
		}
	}
}

// Authentic, but malformed inside, is told apart from a failed wrap; opcodes that carry a wrapped key exist under
// tls-crypt-v2 only.
func TestOpenAuthentic(t *testing.T) {
	auth, err := NewAuthKey(randomBytes(256), -1, "")
	if err != nil {
		t.Fatal(err)
	}
	crypt, err := NewCryptKey(bytes.Repeat(randomBytes(128), 2)) // both directions alike
	if err != nil {
		t.Fatal(err)
	}
	for name, fresh := range map[string]func() wrapper{
		"auth":  func() wrapper { return auth.newWrap(sendCounter{}) },
		"crypt": func() wrapper { return crypt.newWrap(sendCounter{}) },
	} {
		for _, c := range []struct {
			name string
			p    Packet
			want error
		}{
			{"good", Packet{Opcode: OpControl, Session: SessionID{1}}, nil},
			{"session zero", Packet{Opcode: OpControl}, errPacket},
			{"opcode 12", Packet{Opcode: 12, Session: SessionID{1}}, errPacket},
			{"reset with a wrapped key", Packet{Opcode: OpHardResetClientV3, Session: SessionID{1}}, errWrap},
			{"message with a wrapped key", Packet{Opcode: OpControlWKC, Session: SessionID{1}}, errWrap},
		} {
			w := fresh()
			if _, err := w.open(w.seal(nil, &c.p)); !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v, want %v", name, c.name, err, c.want)
			}
		}
	}
}

// Replay id 0 is never valid, however well it is signed.
func TestOpenRefusesReplayIDZero(t *testing.T) {
	auth, err := NewAuthKey(randomBytes(256), -1, "")
	if err != nil {
		t.Fatal(err)
	}
	crypt, err := NewCryptKey(bytes.Repeat(randomBytes(128), 2))
	if err != nil {
		t.Fatal(err)
	}
	for id := range byte(2) {
		var want error
		if id == 0 {
			want = errWrap
		}
		head := []byte{byte(OpHardResetClientV2) << 3, 1, 1, 1, 1, 1, 1, 1, 1}
		number := []byte{0, 0, 0, id, 0, 0, 0, 7}
		body := make([]byte, 5)

		mac := hmac.New(sha1.New, auth.receive)
		mac.Write(slices.Concat(number, head, body))
		if _, err := auth.newWrap(sendCounter{}).open(slices.Concat(head, mac.Sum(nil), number, body)); err != want {
			t.Errorf("tls-auth, id %d: %v, want %v", id, err, want)
		}
		tag := make([]byte, cryptTagLen)
		newSIV(crypt.receive).seal(tag, slices.Concat(head, number), body)
		if _, err := crypt.newWrap(sendCounter{}).open(slices.Concat(head, number, tag, body)); err != want {
			t.Errorf("tls-crypt, id %d: %v, want %v", id, err, want)
		}
	}
}

func FuzzUnwrapAuth(f *testing.F) {
	var v struct {
		Key     hexBytes `json:"static_key_hex"`
		Packets []packetVector
	}
	readVectors(f, "tls-auth.json", &v)
	k, err := NewAuthKey(v.Key, 0, "SHA1")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range v.Packets {
		f.Add([]byte(c.Packet), false)
		inside := c.want()
		f.Add(inside.AppendTo(nil), true)
	}
	fuzzUnwrap(f, func() (server, client wrapper) {
		return k.newWrap(sendCounter{}), k.reversed().newWrap(sendCounter{})
	})
}

func FuzzUnwrapCrypt(f *testing.F) {
	var v struct {
		Key     hexBytes `json:"static_key_hex"`
		Packets []packetVector
	}
	readVectors(f, "tls-crypt.json", &v)
	k, err := NewCryptKey(v.Key)
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range v.Packets {
		f.Add([]byte(c.Packet), false)
		inside := c.want()
		f.Add(inside.AppendTo(nil), true)
	}
	fuzzUnwrap(f, func() (server, client wrapper) {
		return k.newWrap(sendCounter{}), k.reversed().newWrap(sendCounter{})
	})
}

// fuzzUnwrap opens raw bytes, and bodies that were made authentic.
func fuzzUnwrap(f *testing.F, pair func() (server, client wrapper)) {
	f.Fuzz(func(t *testing.T, b []byte, authentic bool) {
		server, client := pair()
		if !authentic {
			server.open(b)
			return
		}
		p, err := ParsePacket(b)
		if err != nil || carriesWKC(b) {
			return
		}
		got, err := server.open(client.seal(nil, &p))
		if err != nil {
			t.Fatal(err)
		}
		if !samePacket(got, p) {
			t.Errorf("sealed %+v, opened %+v", p, got)
		}
	})
}
