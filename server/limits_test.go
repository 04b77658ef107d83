package server

import (
	"net/netip"
	"testing"

	"postern/server/config"
)

// S008: 32 half-open sessions a source, 128 a prefix, 2,048 in all.
func TestHalfOpenBounds(t *testing.T) {
	h := newHalfOpen()
	fill := func(a netip.Addr, want int) {
		t.Helper()
		n := 0
		for h.enter(a) {
			n++
		}
		if n != want {
			t.Errorf("%v: %d half-open sessions, want %d", a, n, want)
		}
	}
	fill(netip.MustParseAddr("192.0.2.1"), 32)
	fill(netip.MustParseAddr("192.0.2.2"), 32)
	fill(netip.MustParseAddr("192.0.2.3"), 32)
	fill(netip.MustParseAddr("192.0.2.4"), 32)
	fill(netip.MustParseAddr("192.0.2.5"), 0) // the prefix is full
	fill(netip.MustParseAddr("2001:db8::1"), 32)
	fill(netip.MustParseAddr("2001:db8::2"), 0) // the same /64 is the same source
	h.leave(netip.MustParseAddr("192.0.2.1"))
	fill(netip.MustParseAddr("192.0.2.5"), 1)
	a := netip.MustParseAddr("10.0.0.1")
	for h.total < maxHalfOpen {
		if !h.enter(a) {
			b := a.As4()
			b[1]++
			a = netip.AddrFrom4(b)
		}
	}
	fill(netip.MustParseAddr("203.0.113.1"), 0)
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
	for _, bad := range []string{"", ".", "..", ".hidden", "DEFAULT", "a/b", "../x", "a b", "a,b", "a\n", "a\x00", "é", string(long)} {
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
