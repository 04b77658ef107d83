package tlsctl

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
)

type cookieVectors struct {
	Key         hexBytes
	Recommended []struct {
		Address    netip.Addr
		Port       uint16
		Client     hexBytes `json:"client_session_id"`
		Now        int64
		HandWindow int64    `json:"hand_window"`
		Input      hexBytes `json:"mac_input"`
		Cookie     hexBytes `json:"cookie_session_id"`
	}
	Acceptance []struct {
		Made     int64 `json:"cookie_made_at"`
		Verified int64 `json:"verified_at"`
		Accept   bool
	}
}

func TestCookieVectors(t *testing.T) {
	var v cookieVectors
	readVectors(t, "cookie.json", &v)
	if len(v.Recommended) == 0 || len(v.Acceptance) == 0 {
		t.Fatal("no vectors")
	}
	for _, c := range v.Recommended {
		j := newCookieJar(v.Key, "", c.HandWindow)
		from := netip.AddrPortFrom(c.Address, c.Port)
		got := j.bake(c.Now, from, SessionID(c.Client))
		if !bytes.Equal(got[:], c.Cookie) {
			t.Errorf("%v at %d: %v, want %x", from, c.Now, got, []byte(c.Cookie))
		}
		if input := j.input[:len(c.Input)]; !bytes.Equal(input, c.Input) {
			t.Errorf("%v at %d: input %x, want %x", from, c.Now, input, []byte(c.Input))
		}
		if !j.knows(c.Now, from, SessionID(c.Client), got) {
			t.Errorf("%v at %d: own cookie is not known", from, c.Now)
		}
	}
	from := netip.MustParseAddrPort("192.0.2.10:40000")
	j := newCookieJar(v.Key, "", 60)
	for _, c := range v.Acceptance {
		if got := j.knows(c.Verified, from, SessionID{1}, j.bake(c.Made, from, SessionID{1})); got != c.Accept {
			t.Errorf("made at %d, verified at %d: %v, want %v", c.Made, c.Verified, got, c.Accept)
		}
	}
}

// A cookie is good for one client at one address with one listener, for three slots (S002). Any comparison that is
// inverted or dropped fails here (S118).
func TestCookieIsBoundToItsClient(t *testing.T) {
	const now = 1700000010
	key := randomBytes(cookieKeyLen)
	from, client := netip.MustParseAddrPort("192.0.2.10:40000"), SessionID{1, 2, 3, 4, 5, 6, 7, 8}
	j := newCookieJar(key, "udp 198.51.100.1:1194", 60)
	cookie := j.bake(now, from, client)
	if !j.knows(now, from, client, cookie) {
		t.Fatal("own cookie is not known")
	}
	if mapped := netip.MustParseAddrPort("[::ffff:192.0.2.10]:40000"); !j.knows(now, mapped, client, cookie) {
		t.Error("the same address, mapped into IPv6, is another")
	}
	for bit := range 64 {
		c := cookie
		c[bit/8] ^= 1 << (bit % 8)
		if j.knows(now, from, client, c) {
			t.Errorf("bit %d flipped: known", bit)
		}
	}
	for bit := range 64 {
		c := client
		c[bit/8] ^= 1 << (bit % 8)
		if j.knows(now, from, c, cookie) {
			t.Errorf("bit %d of the client's id flipped: known", bit)
		}
	}
	for _, other := range []string{"192.0.2.11:40000", "192.0.2.10:40001", "[2001:db8::c000:20a]:40000"} {
		if j.knows(now, netip.MustParseAddrPort(other), client, cookie) {
			t.Errorf("known from %s", other)
		}
	}
	for _, other := range []string{"", "udp 198.51.100.1:1195", "udp 198.51.100.2:1194", "tcp 198.51.100.1:1194"} {
		if newCookieJar(key, other, 60).knows(now, from, client, cookie) {
			t.Errorf("known to listener %q", other)
		}
	}
	if newCookieJar(randomBytes(cookieKeyLen), "udp 198.51.100.1:1194", 60).knows(now, from, client, cookie) {
		t.Error("known under another key")
	}
	for slots, want := range map[int64]bool{-3: false, -2: true, -1: true, 0: true, 1: false, 2: false} {
		if got := j.knows(now, from, client, j.bake(now+30*slots, from, client)); got != want {
			t.Errorf("%d slots ahead: %v, want %v", slots, got, want)
		}
	}
	if j.knows(now, from, client, SessionID{}) {
		t.Error("zero is known")
	}
}

func TestCookieIsNotGuessed(t *testing.T) {
	guesses := 1_000_000
	if testing.Short() {
		guesses = 10_000
	}
	from := netip.MustParseAddrPort("192.0.2.10:40000")
	j := newCookieJar(randomBytes(cookieKeyLen), "", 60)
	for range guesses {
		if id := randomSessionID(); j.knows(1700000000, from, SessionID{1}, id) {
			t.Fatalf("%s is known", hex.EncodeToString(id[:]))
		}
	}
}

func TestCookieSlotOfShortHandWindows(t *testing.T) {
	from := netip.MustParseAddrPort("192.0.2.10:40000")
	for _, window := range []int64{0, 1, 2, 3} {
		j := newCookieJar(randomBytes(cookieKeyLen), "", window)
		if !j.knows(101, from, SessionID{1}, j.bake(100, from, SessionID{1})) {
			t.Errorf("hand window %d: a second is too long", window)
		}
	}
}
