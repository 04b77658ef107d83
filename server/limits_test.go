package server

import (
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"postern/server/config"
	"postern/server/datachan"
)

// S008: 32 half-open sessions a source, 128 a prefix, 2,048 in all.
func TestHalfOpenBounds(t *testing.T) {
	h := newHalfOpen()
	fill := func(addr string, want int) (in []*client) {
		t.Helper()
		for {
			c := &client{source: netip.MustParseAddr(addr)}
			if _, ok := h.enter(c); !ok {
				break
			}
			in = append(in, c)
		}
		if len(in) != want {
			t.Errorf("%v: %d half-open sessions, want %d", addr, len(in), want)
		}
		return in
	}
	first := fill("192.0.2.1", 32)
	fill("192.0.2.2", 32)
	fill("192.0.2.3", 32)
	fill("192.0.2.4", 32)
	fill("192.0.2.5", 0) // the prefix is full
	fill("2001:db8::1", 32)
	fill("2001:db8::2", 0) // the same /64 is the same source
	if !h.leave(first[0]) || h.leave(first[0]) {
		t.Error("one session leaves exactly once")
	}
	fill("192.0.2.5", 1)
}

// S008: when all places are taken, the oldest session whose login has not come makes room, and no other.
func TestHalfOpenEvicts(t *testing.T) {
	h := newHalfOpen()
	var in []*client
	for i := range maxHalfOpen {
		c := &client{source: netip.AddrFrom4([4]byte{10, byte(i / 64), 1, byte(i % 4)})}
		if _, ok := h.enter(c); !ok {
			t.Fatalf("session %d found no place", i)
		}
		in = append(in, c)
	}
	h.login(in[0])
	evicted, ok := h.enter(&client{source: netip.MustParseAddr("203.0.113.1")})
	if !ok || evicted != in[1] {
		t.Errorf("evicted %p, %v; want the second session, %p: the first is at its login", evicted, ok, in[1])
	}
	if h.leave(in[1]) {
		t.Error("the evicted session is still counted")
	}
	for _, c := range in[2:] {
		h.login(c)
	}
	evicted, ok = h.enter(&client{source: netip.MustParseAddr("203.0.113.2")}) // in the place of the one that came before
	if !ok || evicted == nil || evicted.source != netip.MustParseAddr("203.0.113.1") {
		t.Errorf("evicted %v, %v", evicted, ok)
	}
	h.login(evicted)
	for c := h.early.Front(); c != nil; c = h.early.Front() {
		h.login(c.Value.(*client))
	}
	if _, ok := h.enter(&client{source: netip.MustParseAddr("203.0.113.3")}); ok {
		t.Error("a place was found where all are at their login")
	}
	if h.total != maxHalfOpen {
		t.Errorf("%d counted, want %d", h.total, maxHalfOpen)
	}
}

// S066, S088: what may name a file, and what may not. Nothing is replaced.
func TestSafeName(t *testing.T) {
	for _, good := range []string{"alice", "Alice.Smith", "a@b", "a+b-c_d.e", "7"} {
		if !safeName(good) {
			t.Errorf("%q refused", good)
		}
	}
	long := make([]byte, 65)
	for i := range long {
		long[i] = 'a'
	}
	for _, bad := range []string{"", ".", "..", ".hidden", "DEFAULT", "default", "a/b", "../x", "a b", "a,b", "a\n", "a\x00", "é", string(long)} {
		if safeName(bad) {
			t.Errorf("%q accepted", bad)
		}
	}
}

// The vectors, most of them read from running servers, for every format that is served.
func TestMSS(t *testing.T) {
	b, err := os.ReadFile("../testdata/vectors/data-mss.json")
	must(t, err)
	var file struct {
		Rows []struct {
			Cipher, Auth, Proto, Mode string
			Outer                     int  `json:"outer_ip"`
			V2                        bool `json:"data_v2"`
			Comp                      bool `json:"comp_v1_byte"`
			Fragment, Epoch           bool
			MSSFix                    int
			MSS                       uint16
		}
	}
	must(t, json.Unmarshal(b, &file))
	tried := 0
	for _, r := range file.Rows {
		modes := map[string]config.MSSMode{"none": config.MSSLink, "mtu": config.MSSMTU}
		mode, known := modes[r.Mode]
		if r.Fragment || r.Cipher == "none" || r.Cipher == "AES-256-CFB" {
			continue // nothing that is served here
		}
		if !known {
			t.Errorf("mode %q", r.Mode)
		}
		tried++
		c := datachan.Config{Cipher: r.Cipher, Digest: r.Auth, V2: r.V2, Epoch: r.Epoch}
		if r.Comp {
			c.Framing = datachan.Stub
		}
		key, err := c.NewKey(make([]byte, 128), make([]byte, 128))
		must(t, err)
		if got, got6 := mss(config.MSSFix{Max: r.MSSFix, Mode: mode}, r.Outer == 6, r.Proto == "tcp", key); got != r.MSS || got6 != r.MSS-20 {
			t.Errorf("%+v: %d and %d", r, got, got6)
		}
	}
	if tried < 15 {
		t.Errorf("only %d rows", tried)
	}
	for _, c := range []struct {
		fix  config.MSSFix
		want uint16
	}{
		{config.MSSFix{Max: 1400, Mode: config.MSSFixed}, 1360},
		{config.MSSFix{Max: 1450, Mode: config.MSSLink}, 1450 - 24 - 40},
		{config.MSSFix{}, 0},
		{config.MSSFix{Max: 100, Mode: config.MSSMTU}, 0}, // it would stop all TCP
	} {
		key, err := datachan.Config{Cipher: "AES-256-GCM", V2: true}.NewKey(make([]byte, 128), make([]byte, 128))
		must(t, err)
		if got, _ := mss(c.fix, false, false, key); got != c.want {
			t.Errorf("%+v: %d, want %d", c.fix, got, c.want)
		}
	}
}
