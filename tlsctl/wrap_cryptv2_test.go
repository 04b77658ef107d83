package tlsctl

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

type cryptV2Vectors struct {
	ServerPEM string   `json:"server_key_pem"`
	ServerKey hexBytes `json:"server_key_hex"`
	ClientPEM string   `json:"client_key_pem"`
	Kc        hexBytes `json:"client_kc_hex"`
	WKC       []struct {
		Name     string
		Metadata hexBytes
		Length   int `json:"length_field"`
		WKC      hexBytes
	} `json:"wkc"`
	Invalid []struct {
		Name string
		WKC  hexBytes
	} `json:"invalid_wkc"`
	Packets struct {
		EarlyReset  hexBytes                          `json:"hard_reset_client_v3_early_negotiation"`
		OldReset    hexBytes                          `json:"hard_reset_client_v3_old_client_2_5"`
		ServerReset hexBytes                          `json:"hard_reset_server_v2_with_resend_wkc_tlv"`
		ControlWKC  hexBytes                          `json:"control_wkc_v1_with_payload"`
		EmptyWKC    hexBytes                          `json:"control_wkc_v1_empty_payload"`
		SessionIDs  struct{ Client, Server hexBytes } `json:"session_ids"`
		Time        uint32                            `json:"replay_time"`
	}
	Captured struct {
		ServerPEM string `json:"server_key_pem"`
		Sessions  []struct {
			ClientPEM string `json:"client_key_pem"`
			Kc        hexBytes
			WKC       hexBytes `json:"wkc"`
			Metadata  hexBytes
			Packets   []packetVector
		}
	} `json:"captured_openvpn_2_6_14"`
}

func readCryptV2Vectors(t testing.TB) (v cryptV2Vectors, k *ServerKey) {
	t.Helper()
	readVectors(t, "tls-crypt-v2.json", &v)
	if len(v.WKC) == 0 || len(v.Invalid) == 0 || len(v.Captured.Sessions) == 0 {
		t.Fatal("no vectors")
	}
	return v, parseTestServerKey(t, v.ServerPEM)
}

func parseTestServerKey(t testing.TB, text string) *ServerKey {
	t.Helper()
	raw, err := ParseServerKeyV2([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewServerKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newTestServerKey(t testing.TB) *ServerKey {
	t.Helper()
	return parseTestServerKey(t, string(GenerateServerKeyV2()))
}

func TestUnwrapWKCVectors(t *testing.T) {
	v, k := readCryptV2Vectors(t)
	if !bytes.Equal(k.raw, v.ServerKey) {
		t.Error("server key is not the file's")
	}
	u := newKeyUnwrapper(k)
	for _, c := range v.WKC {
		t.Run(c.Name, func(t *testing.T) {
			before := bytes.Clone(c.WKC)
			kc, ck, err := u.unwrap(c.WKC)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(kc, v.Kc) || !bytes.Equal(ck.Metadata, c.Metadata) || !bytes.Equal(ck.ID[:], c.WKC[:32]) {
				t.Errorf("got key %x, metadata %x, id %v", kc, ck.Metadata, ck.ID)
			}
			if !bytes.Equal(c.WKC, before) {
				t.Error("unwrap changed its input")
			}
			wkc, err := k.wrapClientKey(v.Kc, c.Metadata)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(wkc, c.WKC) {
				t.Errorf("wrapped\n%x, want\n%x", wkc, c.WKC)
			}
			if len(c.WKC) < 320 {
				for bit := range 8 * len(c.WKC) {
					b := bytes.Clone(c.WKC)
					b[bit/8] ^= 1 << (bit % 8)
					if _, _, err := u.unwrap(b); err != errWrap {
						t.Fatalf("bit %d flipped: %v", bit, err)
					}
				}
			}
		})
	}
	for _, c := range v.Invalid {
		t.Run(c.Name, func(t *testing.T) {
			if _, _, err := u.unwrap(c.WKC); err != errWrap {
				t.Errorf("unwrap: %v, want %v", err, errWrap)
			}
			// As it comes over the wire, where the length says what belongs to it.
			packet := append(make([]byte, cryptHeadLen), c.WKC...)
			if _, wkc, err := splitWKC(packet); err == nil {
				if _, _, err := u.unwrap(wkc); err != errWrap {
					t.Errorf("from a packet: %v, want %v", err, errWrap)
				}
			}
		})
	}
	for _, c := range v.Captured.Sessions {
		kc, ck, err := newKeyUnwrapper(parseTestServerKey(t, v.Captured.ServerPEM)).unwrap(c.WKC)
		if err != nil || !bytes.Equal(kc, c.Kc) || !bytes.Equal(ck.Metadata, c.Metadata) {
			t.Errorf("captured: %x, %x, %v", kc, ck.Metadata, err)
		}
	}
}

// A session reads packets with and without the wrapped key behind them, as plain messages, and answers them.
func TestCryptV2WrapVectors(t *testing.T) {
	v, _ := readCryptV2Vectors(t)
	key, err := NewCryptKey(v.Kc)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		packet []byte
		opcode Opcode
		id     PacketID
		empty  bool
	}{
		{"early reset", v.Packets.EarlyReset, OpHardResetClientV3, 0, true},
		{"message", v.Packets.ControlWKC, OpControl, 1, false},
		{"empty message", v.Packets.EmptyWKC, OpControl, 1, true},
		{"old reset", v.Packets.OldReset, OpHardResetClientV3, 0, true},
	} {
		w := &cryptV2Wrap{*key.newWrap(sendCounter{})}
		p, err := w.open(bytes.Clone(c.packet))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if p.Opcode != c.opcode || p.ID != c.id || (len(p.Payload) == 0) != c.empty || p.Session != SessionID(v.Packets.SessionIDs.Client) {
			t.Errorf("%s: %+v", c.name, p)
		}
	}

	w := &cryptV2Wrap{*key.newWrap(sendCounter{stamp: v.Packets.Time})}
	p := Packet{Opcode: OpHardResetServerV2, Session: SessionID(v.Packets.SessionIDs.Server), Acks: []PacketID{0},
		Remote: SessionID(v.Packets.SessionIDs.Client), Payload: resendWKC}
	if got := w.seal(nil, &p); !bytes.Equal(got, v.Packets.ServerReset) {
		t.Errorf("server reset\n%x, want\n%x", got, v.Packets.ServerReset)
	}

	for i, s := range v.Captured.Sessions {
		key, err := NewCryptKey(s.Kc)
		if err != nil {
			t.Fatal(err)
		}
		server := &cryptV2Wrap{*key.newWrap(sendCounter{})}
		client := key.reversed().newWrap(sendCounter{})
		for _, c := range s.Packets {
			var to wrapper = server
			if c.Direction == "s2c" {
				to = client
			}
			want := c.want()
			if want.Opcode == OpControlWKC {
				want.Opcode = OpControl
			}
			p, err := to.open(bytes.Clone(c.Packet))
			if err != nil {
				t.Errorf("session %d, %s: %v", i, &c, err)
			}
			checkPacket(t, p, want)
		}
	}
}

// All lengths a wrapped key can claim, in datagrams of many sizes: it never reaches into the packet's head (S035).
func TestSplitWKCLengths(t *testing.T) {
	for _, size := range []int{0, 1, 2, 48, 49, 50, 290, 338, 339, 340, 353, 1072, 1073, 1074, 2560} {
		b := make([]byte, size)
		for n := range 1 << 16 {
			if size >= 2 {
				binary.BigEndian.PutUint16(b[size-2:], uint16(n))
			}
			packet, wkc, err := splitWKC(b)
			want := size >= 2 && n >= 290 && n <= 1024 && n <= size-49
			if (err == nil) != want {
				t.Fatalf("length %d in %d bytes: %v", n, size, err)
			}
			if err == nil && (len(wkc) != n || len(packet) != size-n) {
				t.Fatalf("length %d in %d bytes: cut into %d and %d", n, size, len(packet), len(wkc))
			}
		}
	}
}

// A session never takes another key, and a broken one behind a good packet does not matter to it (S036).
func TestCryptV2WrapIgnoresLaterKeys(t *testing.T) {
	server := newTestServerKey(t)
	now := time.Unix(1700000000, 0)
	client := func() ([]byte, []byte) {
		text, err := server.GenerateClientKey(nil, now)
		if err != nil {
			t.Fatal(err)
		}
		kc, wkc, err := ParseClientKeyV2(text)
		if err != nil {
			t.Fatal(err)
		}
		return kc, wkc
	}
	kc, _ := client()
	otherKc, otherWKC := client()
	key, err := NewCryptKey(kc)
	if err != nil {
		t.Fatal(err)
	}
	w := &cryptV2Wrap{*key.newWrap(sendCounter{})}

	p := Packet{Opcode: OpControlWKC, Session: SessionID{1}, ID: 1, Payload: []byte("x")}
	mine, err := NewClientWrapV2(kc, otherWKC, true, now)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.open(mine.Seal(nil, &p))
	if err != nil || string(got.Payload) != "x" || got.Opcode != OpControl {
		t.Errorf("own key, other's wrapped key: %+v, %v", got, err)
	}
	other, err := NewClientWrapV2(otherKc, otherWKC, true, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.open(other.Seal(nil, &p)); err != errWrap {
		t.Errorf("another key: %v, want %v", err, errWrap)
	}
	if !bytes.Equal(w.staticKey(), kc) {
		t.Error("the session's key has changed")
	}
}

func TestServerKeyPermits(t *testing.T) {
	made := time.Unix(1700000000, 0)
	stamped := binary.BigEndian.AppendUint64([]byte{metadataStamp}, uint64(made.Unix()))
	day := 24 * time.Hour
	for _, c := range []struct {
		name     string
		metadata []byte
		maxAge   time.Duration
		now      time.Time
		want     bool
	}{
		{"no limit", nil, 0, made, true},
		{"young", stamped, 10 * day, made.Add(9 * day), true},
		{"just so", stamped, 10 * day, made.Add(10 * day), true},
		{"too old", stamped, 10 * day, made.Add(10*day + time.Second), false},
		{"from the future", stamped, 10 * day, made.Add(-1000 * day), true},
		{"no metadata", nil, 10 * day, made, false},
		{"no time", append([]byte{metadataUser}, stamped[1:]...), 10 * day, made, false},
		{"time cut short", stamped[:8], 10 * day, made, false},
	} {
		k := newTestServerKey(t)
		k.MaxAge = c.maxAge
		if got := k.permits(ClientKey{Metadata: c.metadata}, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	k := newTestServerKey(t)
	k.Refuse = func(c ClientKey) bool { return c.ID[0] == 7 }
	if k.permits(ClientKey{ID: ClientKeyID{7}}, made) || !k.permits(ClientKey{ID: ClientKeyID{8}}, made) {
		t.Error("Refuse is not what decides")
	}
}

func FuzzUnwrapWKC(f *testing.F) {
	v, k := readCryptV2Vectors(f)
	for _, c := range v.WKC {
		f.Add([]byte(c.WKC), false)
		f.Add([]byte(c.Metadata), true)
	}
	for _, c := range v.Invalid {
		f.Add([]byte(c.WKC), false)
	}
	f.Add([]byte(v.Packets.EarlyReset), false)
	u := newKeyUnwrapper(k)
	f.Fuzz(func(t *testing.T, b []byte, authentic bool) {
		if !authentic {
			if packet, wkc, err := splitWKC(b); err == nil {
				if len(packet) < cryptHeadLen || len(packet)+len(wkc) != len(b) {
					t.Fatalf("%d bytes cut into %d and %d", len(b), len(packet), len(wkc))
				}
				u.unwrap(wkc)
			}
			u.unwrap(b)
			return
		}
		wkc, err := k.wrapClientKey(v.Kc, b)
		if (err != nil) != (len(b) > metadataMax) {
			t.Fatalf("%d bytes of metadata: %v", len(b), err)
		}
		if err != nil {
			return
		}
		kc, c, err := u.unwrap(wkc)
		if err != nil || !bytes.Equal(kc, v.Kc) || !bytes.Equal(c.Metadata, b) {
			t.Errorf("%x, %x, %v", kc, c.Metadata, err)
		}
		c.Created()
	})
}
