package server

import (
	"net/netip"
	"testing"

	"postern/server/config"
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

// The values of data channel section 12, read from running servers.
func TestMSS(t *testing.T) {
	def := config.MSSFix{Max: 1492, Mode: config.MSSMTU}
	for _, c := range []struct {
		name               string
		fix                config.MSSFix
		outer6, stream, v2 bool
		want               uint16
	}{
		{"UDP4", def, false, false, true, 1400},
		{"UDP4 V1", def, false, false, false, 1403},
		{"TCP4", def, false, true, true, 1386},
		{"UDP6", def, true, false, true, 1380},
		{"TCP6", def, true, true, true, 1366},
		{"fixed", config.MSSFix{Max: 1400, Mode: config.MSSFixed}, false, false, true, 1360},
		{"off", config.MSSFix{}, false, false, true, 0},
	} {
		got, got6 := mss(c.fix, c.outer6, c.stream, c.v2, "AES-256-GCM")
		if got != c.want || got != 0 && got6 != got-20 {
			t.Errorf("%s: %d and %d, want %d and 20 less", c.name, got, got6, c.want)
		}
	}
}
