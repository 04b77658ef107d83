package tlsctl

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"
)

var (
	gateNow  = time.Unix(1700000000, 0)
	gateFrom = netip.MustParseAddrPort("192.0.2.10:40000")
	clientID = SessionID{1, 2, 3, 4, 5, 6, 7, 8}
)

// A gateMode is a way of wrapping, with a gate's and a client's half of it.
type gateMode struct {
	name   string
	wrap   Wrapping
	reset  Opcode
	third  Opcode // of the message that brings the cookie
	tlv    []byte
	client func() *ClientWrap
}

func gateModes(t testing.TB) []gateMode {
	t.Helper()
	static := randomBytes(256)
	crypt, err := NewCryptKey(static)
	if err != nil {
		t.Fatal(err)
	}
	server := newTestServerKey(t)
	kc, wkc := newTestClientKey(t, server)
	plain := func(name string, w Wrapping) gateMode {
		return gateMode{name: name, wrap: w, reset: OpHardResetClientV2, third: OpControl,
			client: func() *ClientWrap { return NewClientWrap(w, gateNow) }}
	}
	auth := func(direction int, digest string) Wrapping {
		k, err := NewAuthKey(static, direction, digest)
		if err != nil {
			t.Fatal(err)
		}
		return Wrapping{Auth: k}
	}
	v2 := func(name string, w Wrapping) gateMode {
		return gateMode{name: name, wrap: w, reset: OpHardResetClientV3, third: OpControlWKC, tlv: resendWKC,
			client: func() *ClientWrap {
				c, err := NewClientWrapV2(kc, wkc, true, gateNow)
				if err != nil {
					t.Fatal(err)
				}
				return c
			}}
	}
	beside := auth(0, "")
	beside.CryptV2 = server
	return []gateMode{
		plain("plain", Wrapping{}),
		plain("tls-auth", auth(1, "SHA1")),
		plain("tls-auth SHA512", auth(-1, "SHA512")),
		plain("tls-crypt", Wrapping{Crypt: crypt}),
		v2("tls-crypt-v2", Wrapping{CryptV2: server}),
		v2("tls-crypt-v2 beside tls-auth", beside),
		{name: "tls-auth beside tls-crypt-v2", wrap: beside, reset: OpHardResetClientV2, third: OpControl,
			client: func() *ClientWrap { return NewClientWrap(Wrapping{Auth: beside.Auth}, gateNow) }},
	}
}

func newTestClientKey(t testing.TB, server *ServerKey) (kc, wkc []byte) {
	t.Helper()
	text, err := server.GenerateClientKey(nil, gateNow)
	if err != nil {
		t.Fatal(err)
	}
	if kc, wkc, err = ParseClientKeyV2(text); err != nil {
		t.Fatal(err)
	}
	return kc, wkc
}

func newTestGate(t testing.TB, w Wrapping) *Gate {
	t.Helper()
	g, err := NewGate(w, GateOptions{Listener: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// greetReset sends a reset and returns the cookie.
func greetReset(t *testing.T, g *Gate, m gateMode, c *ClientWrap) SessionID {
	t.Helper()
	reset := c.Seal(nil, &Packet{Opcode: m.reset, Session: clientID})
	reply, o := g.Greet(gateNow, gateFrom, reset)
	if o != nil {
		t.Fatal("a reset opened a session")
	}
	if reply == nil {
		t.Fatal("a reset got no answer")
	}
	p, err := c.Open(bytes.Clone(reply))
	if err != nil {
		t.Fatalf("open the answer: %v", err)
	}
	return p.Session
}

func forEachMode(t *testing.T, f func(t *testing.T, m gateMode)) {
	t.Helper()
	for _, m := range gateModes(t) {
		t.Run(m.name, func(t *testing.T) { f(t, m) })
	}
}

// From the reset to a session whose wrap goes on where the answer left off.
func TestGateOpens(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		g, c := newTestGate(t, m.wrap), m.client()
		reset := c.Seal(nil, &Packet{Opcode: m.reset, Session: clientID})
		before := bytes.Clone(reset)
		reply, o := g.Greet(gateNow, gateFrom, reset)
		if o != nil || reply == nil {
			t.Fatalf("reset: %x, %v", reply, o)
		}
		if !bytes.Equal(reset, before) {
			t.Error("Greet changed the packet")
		}
		if len(reply) > len(reset) {
			t.Errorf("answered %d bytes with %d (S003)", len(reset), len(reply))
		}
		answer, err := c.Open(bytes.Clone(reply))
		if err != nil {
			t.Fatalf("open the answer: %v", err)
		}
		want := Packet{Opcode: OpHardResetServerV2, Session: answer.Session, Payload: m.tlv}
		if m.tlv != nil { // the question was long enough
			want.Acks, want.Remote = []PacketID{0}, clientID
		}
		checkPacket(t, answer, want)

		third := c.Seal(nil, &Packet{Opcode: m.third, Session: clientID, Acks: []PacketID{0}, Remote: answer.Session,
			ID: 1, Payload: []byte("hello")})
		sent := bytes.Clone(third)
		reply, o = g.Greet(gateNow, gateFrom, third)
		if reply != nil || o == nil {
			t.Fatalf("cookie: %x, %v", reply, o)
		}
		clear(third) // the buffer is the caller's again
		if o.From != gateFrom || o.Client != clientID || o.Server != answer.Session || o.Stream || !bytes.Equal(o.first, sent) {
			t.Errorf("opening %+v", o)
		}
		p, err := o.wrap.open(bytes.Clone(o.first))
		if err != nil || p.Opcode != OpControl || p.ID != 1 || string(p.Payload) != "hello" {
			t.Errorf("first packet: %+v, %v", p, err)
		}
		if _, err := o.wrap.open(bytes.Clone(o.first)); m.name != "plain" && err != errReplay {
			t.Errorf("first packet again: %v, want %v (S034)", err, errReplay)
		}
		// The client's replay window takes what the session sends after what the gate sent, in the same second too.
		ack := Packet{Opcode: OpAck, Session: o.Server, Acks: []PacketID{1, 0}, Remote: clientID}
		if p, err = c.Open(o.wrap.seal(nil, &ack)); err != nil {
			t.Errorf("the session's packet: %v", err)
		}
		checkPacket(t, p, ack)
		if m.name != "plain" && !bytes.Equal(o.wrap.staticKey(), c.wrap.staticKey()) {
			t.Error("the session has another key")
		}
		if got := g.Counts(); got != (GateCounts{Answered: 1, Opened: 1}) {
			t.Errorf("counts %+v", got)
		}
	})
}

// Whatever acknowledges our reset brings the cookie: an acknowledgement alone, message 1, the reset once more.
func TestGateTakesCookieIn(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		for _, c := range []struct {
			name string
			p    Packet
			want bool
		}{
			{"message 1", Packet{Opcode: m.third, Acks: []PacketID{0}, ID: 1}, true},
			{"acknowledgement", Packet{Opcode: OpAck, Acks: []PacketID{0}}, m.tlv == nil},
			{"repeated reset", Packet{Opcode: m.reset, Acks: []PacketID{0}}, true},
			{"acknowledges 1 too", Packet{Opcode: m.third, Acks: []PacketID{1, 0}, ID: 1}, true},

			{"no acknowledgements", Packet{Opcode: OpAck}, false},
			{"message 2", Packet{Opcode: m.third, Acks: []PacketID{0}, ID: 2}, false},
			{"message 7", Packet{Opcode: m.third, Acks: []PacketID{0}, ID: 7}, false},
			{"acknowledges 2", Packet{Opcode: m.third, Acks: []PacketID{0, 2}, ID: 1}, false},
			{"acknowledges the highest", Packet{Opcode: m.third, Acks: []PacketID{1<<32 - 1}, ID: 1}, false},
			{"reset with id 1", Packet{Opcode: m.reset, Acks: []PacketID{0}, ID: 1}, false},
			{"key id 1", Packet{Opcode: m.third, KeyID: 1, Acks: []PacketID{0}, ID: 1}, false},
			{"soft reset", Packet{Opcode: OpSoftReset, Acks: []PacketID{0}}, false},
			{"server reset", Packet{Opcode: OpHardResetServerV2, Acks: []PacketID{0}}, false},
		} {
			g, cl := newTestGate(t, m.wrap), m.client()
			p := c.p
			p.Session, p.Remote = clientID, greetReset(t, g, m, cl)
			reply, o := g.Greet(gateNow, gateFrom, cl.Seal(nil, &p))
			if reply != nil || (o != nil) != c.want {
				t.Errorf("%s: %x, %v", c.name, reply, o)
			}
		}
	})
}

// Only the right cookie, from the right address, in time (S002, S118).
func TestGateRefusesWrongCookies(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		g, cl := newTestGate(t, m.wrap), m.client()
		cookie := greetReset(t, g, m, cl)
		try := func(now time.Time, from netip.AddrPort, client, server SessionID) bool {
			_, o := g.Greet(now, from, cl.Seal(nil, &Packet{Opcode: m.third, Session: client, Acks: []PacketID{0}, Remote: server, ID: 1}))
			return o != nil
		}
		for bit := range 64 {
			c := cookie
			c[bit/8] ^= 1 << (bit % 8)
			if try(gateNow, gateFrom, clientID, c) {
				t.Errorf("bit %d flipped: opened", bit)
			}
		}
		if try(gateNow, netip.AddrPortFrom(gateFrom.Addr(), 40001), clientID, cookie) {
			t.Error("from another port: opened")
		}
		if try(gateNow, netip.MustParseAddrPort("192.0.2.11:40000"), clientID, cookie) {
			t.Error("from another address: opened")
		}
		if try(gateNow, gateFrom, SessionID{9}, cookie) {
			t.Error("by another client: opened")
		}
		if try(gateNow.Add(90*time.Second), gateFrom, clientID, cookie) {
			t.Error("too late: opened")
		}
		if try(gateNow.Add(-30*time.Second), gateFrom, clientID, cookie) {
			t.Error("before it was made: opened")
		}
		if got := g.Counts().Cookie; got != 64+5 {
			t.Errorf("counted %d wrong cookies, want %d", got, 64+5)
		}
		if !try(gateNow.Add(59*time.Second), gateFrom, clientID, cookie) {
			t.Error("the right one is refused")
		}
	})
}

// Two gates are one to a client only if they share the key and the listener.
func TestGatesShareCookies(t *testing.T) {
	key := randomBytes(cookieKeyLen)
	gate := func(o GateOptions) *Gate {
		g, err := NewGate(Wrapping{}, o)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	m := gateModes(t)[0]
	cookie := greetReset(t, gate(GateOptions{Listener: "a", CookieKey: key}), m, m.client())
	third := m.client().Seal(nil, &Packet{Opcode: OpAck, Session: clientID, Acks: []PacketID{0}, Remote: cookie})
	for _, c := range []struct {
		o    GateOptions
		want bool
	}{
		{GateOptions{Listener: "a", CookieKey: key}, true},
		{GateOptions{Listener: "b", CookieKey: key}, false},
		{GateOptions{Listener: "a"}, false},
	} {
		if _, o := gate(c.o).Greet(gateNow, gateFrom, third); (o != nil) != c.want {
			t.Errorf("%+v: opened = %v", c.o, o != nil)
		}
	}
	if _, err := NewGate(Wrapping{}, GateOptions{CookieKey: key[:31]}); err == nil {
		t.Error("a cookie key of 31 bytes was taken")
	}
	if _, err := NewGate(Wrapping{Auth: &AuthKey{}, Crypt: &CryptKey{}}, GateOptions{}); err == nil {
		t.Error("tls-auth and tls-crypt together were taken")
	}
}

// An address that is proven to one of a listener's own addresses is not proven to another, or to none (S002).
func TestGateTellsLocalAddressesApart(t *testing.T) {
	m := gateModes(t)[0]
	one, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	g := newTestGate(t, Wrapping{})
	reset := m.client().Seal(nil, &Packet{Opcode: m.reset, Session: clientID})
	reply, _ := g.GreetAt(gateNow, gateFrom, one, reset)
	answer, err := m.client().Open(reply)
	if err != nil {
		t.Fatal(err)
	}
	third := m.client().Seal(nil, &Packet{Opcode: OpAck, Session: clientID, Acks: []PacketID{0}, Remote: answer.Session})
	for _, c := range []struct {
		local netip.Addr
		want  bool
	}{{other, false}, {netip.Addr{}, false}, {one, true}} {
		if _, o := g.GreetAt(gateNow, gateFrom, c.local, third); (o != nil) != c.want {
			t.Errorf("asked at %v: opened = %v", c.local, o != nil)
		}
	}
}

// The first message without the acknowledgement that was lost gets the cookie again, in an answer that is shorter.
func TestGateRepeatsLostCookie(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		g, cl := newTestGate(t, m.wrap), m.client()
		cookie := greetReset(t, g, m, cl)
		message := cl.Seal(nil, &Packet{Opcode: m.third, Session: clientID, ID: 1, Payload: make([]byte, 200)})
		reply, o := g.Greet(gateNow.Add(2*time.Second), gateFrom, message)
		if o != nil || reply == nil || len(reply) > len(message) {
			t.Fatalf("got %x, %v", reply, o)
		}
		p, err := cl.Open(bytes.Clone(reply))
		if err != nil {
			t.Fatal(err)
		}
		checkPacket(t, p, Packet{Opcode: OpHardResetServerV2, Session: cookie, Acks: []PacketID{0}, Remote: clientID, Payload: m.tlv})

		for _, p := range []Packet{
			{Opcode: m.third, Session: clientID, ID: 0},
			{Opcode: m.third, Session: clientID, ID: 2},
			{Opcode: m.third, Session: clientID, ID: 1, KeyID: 1},
		} {
			if reply, o := g.Greet(gateNow, gateFrom, cl.Seal(nil, &p)); reply != nil || o != nil {
				t.Errorf("%+v: got %x, %v", p, reply, o)
			}
		}
	})
}

// Answers are limited in all, but a client that turns out to be real is not counted.
func TestGateLimitsAnswers(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		g, err := NewGate(m.wrap, GateOptions{Limits: NewLimits(LimitOptions{Resets: 100})})
		if err != nil {
			t.Fatal(err)
		}
		answered := 0
		for i := range 300 {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1194)
			reply, _ := g.Greet(gateNow, from, m.client().Seal(nil, &Packet{Opcode: m.reset, Session: clientID}))
			if reply != nil {
				answered++
			}
		}
		if answered != 100 {
			t.Errorf("answered %d resets, want 100", answered)
		}
		if got := g.Counts(); got.Limited != 200 {
			t.Errorf("counts %+v", got)
		}

		if g, err = NewGate(m.wrap, GateOptions{Limits: NewLimits(LimitOptions{Resets: 100})}); err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, byte(i), 2, byte(i)}), 1194)
			c := m.client()
			reply, _ := g.Greet(gateNow, from, c.Seal(nil, &Packet{Opcode: m.reset, Session: clientID}))
			if reply == nil {
				t.Fatalf("reset %d got no answer", i)
			}
			p, err := c.Open(bytes.Clone(reply))
			if err != nil {
				t.Fatal(err)
			}
			if _, o := g.Greet(gateNow, from, c.Seal(nil, &Packet{Opcode: m.third, Session: clientID, Acks: []PacketID{0}, Remote: p.Session, ID: 1})); o == nil {
				t.Fatalf("client %d is not let in", i)
			}
		}
	})
}

// Forged resets keep nobody out (S012): an answer is no longer than its question, so that no limit on them is needed
// for others' sake.
func TestGateForgedResetsKeepNobodyOut(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		g := newTestGate(t, m.wrap)
		reset := func() []byte {
			return m.client().Seal(nil, &Packet{Opcode: m.reset, Session: clientID})
		}
		for i := range 1000 {
			g.Greet(gateNow, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 1194), reset())
		}
		if reply, _ := g.Greet(gateNow, netip.MustParseAddrPort("192.0.2.1:1194"), reset()); reply == nil {
			t.Error("no answer to a client after 1,000 forged resets")
		}
	})
}

// What is not proven to come from an address counts for nothing against it (S016).
func TestGateForgersHarmNobody(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		g, err := NewGate(m.wrap, GateOptions{Limits: NewLimits(LimitOptions{Resets: 1 << 30})})
		if err != nil {
			t.Fatal(err)
		}
		c := m.client()
		for i := range 2000 {
			id := SessionID{byte(i), byte(i >> 8), 1}
			g.Greet(gateNow, gateFrom, c.Seal(nil, &Packet{Opcode: m.reset, Session: id}))
			g.Greet(gateNow, gateFrom, c.Seal(nil, &Packet{Opcode: m.third, Session: id, Acks: []PacketID{0}, Remote: SessionID{3}, ID: 1}))
		}
		c = m.client()
		cookie := greetReset(t, g, m, c)
		if _, o := g.Greet(gateNow, gateFrom, c.Seal(nil, &Packet{Opcode: m.third, Session: clientID, Acks: []PacketID{0}, Remote: cookie, ID: 1})); o == nil {
			t.Error("the owner of the address is not let in")
		}
	})
}

// Handshakes that really begin are limited per source (S007).
func TestGateLimitsStarts(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		g, c := newTestGate(t, m.wrap), m.client()
		cookie := greetReset(t, g, m, c)
		opened := 0
		for range 50 {
			third := c.Seal(nil, &Packet{Opcode: m.third, Session: clientID, Acks: []PacketID{0}, Remote: cookie, ID: 1})
			if _, o := g.Greet(gateNow, gateFrom, third); o != nil {
				opened++
			}
		}
		if opened != sourceBurst {
			t.Errorf("opened %d sessions, want %d", opened, sourceBurst)
		}
	})
}

// Every opcode with every key id, at every short length: nothing but what section 6.3 lists has an effect (S020, S021).
func TestGateTakesOnlyFirstPackets(t *testing.T) {
	g := newTestGate(t, Wrapping{})
	for op := range Opcode(32) {
		for kid := range KeyID(8) {
			p := Packet{Opcode: op, KeyID: kid, Session: clientID}
			whole := p.AppendTo(nil)
			for n := range len(whole) + 1 {
				reply, o := g.Greet(gateNow, gateFrom, whole[:n])
				want := op == OpHardResetClientV2 && kid == 0 && n == len(whole)
				if (reply != nil) != want || o != nil {
					t.Errorf("opcode %d, key id %d, %d bytes: %x, %v", op, kid, n, reply, o)
				}
			}
		}
	}
	for _, size := range []int{maxDatagram, maxDatagram + 1, 65507} {
		p := Packet{Opcode: OpHardResetClientV2, Session: clientID, Payload: make([]byte, size-14)}
		if reply, _ := g.Greet(gateNow, gateFrom, p.AppendTo(nil)); (reply != nil) != (size <= maxDatagram) {
			t.Errorf("a reset of %d bytes: %x", size, reply)
		}
	}
}

// A gate with a wrap is silent to the packets of every other (S037, 5.8).
func TestGateWrapsDoNotMix(t *testing.T) {
	modes := gateModes(t)
	serves := func(a, b gateMode) bool {
		if b.reset == OpHardResetClientV3 {
			return a.wrap.CryptV2 == b.wrap.CryptV2
		}
		return a.wrap.Auth == b.wrap.Auth && a.wrap.Crypt == b.wrap.Crypt && (a.wrap.CryptV2 == nil || a.wrap.Auth != nil)
	}
	for _, a := range modes {
		g, err := NewGate(a.wrap, GateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range modes {
			if serves(a, b) {
				continue
			}
			c := b.client()
			for _, p := range []Packet{
				{Opcode: b.reset, Session: clientID},
				{Opcode: b.third, Session: clientID, ID: 1},
			} {
				pkt := c.Seal(nil, &p)
				if _, err := ParsePacket(pkt); a.name == "plain" && err == nil {
					continue // by chance it looks like one
				}
				if reply, o := g.Greet(gateNow, gateFrom, pkt); reply != nil || o != nil {
					t.Errorf("%s answers %s: %x, %v", a.name, b.name, reply, o)
				}
				if o, err := g.GreetStream(gateNow, gateFrom, pkt); o != nil || err == nil {
					t.Errorf("%s opens a stream for %s", a.name, b.name)
				}
			}
		}
	}
}

// A flipped bit anywhere in the first packets is silence (S035): no answer, no session, and no harm done.
func TestGateBitFlips(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		if m.name == "plain" {
			t.Skip("nothing protects a plain packet")
		}
		g, c := newTestGate(t, m.wrap), m.client()
		reset := c.Seal(nil, &Packet{Opcode: m.reset, Session: clientID})
		cookie := greetReset(t, g, m, c)
		third := c.Seal(nil, &Packet{Opcode: m.third, Session: clientID, Acks: []PacketID{0}, Remote: cookie, ID: 1})
		for _, good := range [][]byte{reset, third} {
			for bit := range 8 * len(good) {
				b := bytes.Clone(good)
				b[bit/8] ^= 1 << (bit % 8)
				if reply, o := g.Greet(gateNow, gateFrom, b); reply != nil || o != nil {
					t.Errorf("bit %d of byte %d: %x, %v", bit%8, bit/8, reply, o)
				}
			}
		}
		if _, o := g.Greet(gateNow, gateFrom, third); o == nil {
			t.Error("the packet as it was is not taken")
		}
	})
}

func TestGateStream(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		g, c := newTestGate(t, m.wrap), m.client()
		reset := c.Seal(nil, &Packet{Opcode: m.reset, Session: clientID})
		o, err := g.GreetStream(gateNow, gateFrom, reset)
		if err != nil {
			t.Fatal(err)
		}
		if o.From != gateFrom || o.Client != clientID || o.Server.IsZero() || !o.Stream || o.first != nil {
			t.Errorf("opening %+v", o)
		}
		if _, err := o.wrap.open(bytes.Clone(reset)); m.name != "plain" && err != errReplay {
			t.Errorf("the reset again, inside: %v, want %v", err, errReplay)
		}
		answer := Packet{Opcode: OpHardResetServerV2, Session: o.Server, Acks: []PacketID{0}, Remote: clientID}
		sealed := o.wrap.seal(nil, &answer)
		if p, err := c.Open(sealed); err != nil || !samePacket(p, answer) {
			t.Errorf("the session's reset: %+v, %v", p, err)
		}
		if w, ok := o.wrap.(sessionMaker); ok && m.name != "plain" {
			p := Packet{Opcode: OpAck, Session: clientID, Acks: []PacketID{0}, Remote: o.Server}
			if _, _, err := w.openAny(c.Seal(nil, &p)); err != nil {
				t.Errorf("the client's next: %v", err)
			}
		}

		other, err := g.GreetStream(gateNow, gateFrom, m.client().Seal(nil, &Packet{Opcode: m.reset, Session: clientID}))
		if err != nil {
			t.Fatal(err)
		}
		if other.Server == o.Server {
			t.Error("two streams have one session id")
		}

		for _, p := range []Packet{
			{Opcode: m.third, ID: 1},
			{Opcode: m.third},
			{Opcode: OpAck},
			{Opcode: OpAck, Acks: []PacketID{0}, Remote: o.Server},
			{Opcode: m.reset, ID: 1},
			{Opcode: m.reset, KeyID: 1},
			{Opcode: m.reset, Acks: []PacketID{0}, Remote: o.Server},
			{Opcode: OpSoftReset, KeyID: 1},
			{Opcode: OpDataV2},
		} {
			p.Session = clientID
			if o, err := g.GreetStream(gateNow, gateFrom, c.Seal(nil, &p)); o != nil || err == nil {
				t.Errorf("%+v begins a stream", p)
			}
		}
		for _, pkt := range [][]byte{nil, {}, {0x38}, reset[:len(reset)-1]} {
			if o, err := g.GreetStream(gateNow, gateFrom, pkt); o != nil || err == nil {
				t.Errorf("%x begins a stream", pkt)
			}
		}

		opened := 2
		for range 50 {
			if _, err := g.GreetStream(gateNow, gateFrom, m.client().Seal(nil, &Packet{Opcode: m.reset, Session: clientID})); err == nil {
				opened++
			}
		}
		if opened != sourceBurst {
			t.Errorf("opened %d streams from one source, want %d (S007)", opened, sourceBurst)
		}
	})
}

// A client that cannot send its wrapped key twice gets a session at once, in small numbers, unless that is forbidden
// (S037).
func TestGateEarlySessions(t *testing.T) {
	server := newTestServerKey(t)
	kc, wkc := newTestClientKey(t, server)
	reset := func(i int) (pkt []byte, c *ClientWrap) {
		c, err := NewClientWrapV2(kc, wkc, false, gateNow)
		if err != nil {
			t.Fatal(err)
		}
		return c.Seal(nil, &Packet{Opcode: OpHardResetClientV3, Session: SessionID{1, byte(i >> 8), byte(i)}}), c
	}

	g := newTestGate(t, Wrapping{CryptV2: server})
	pkt, c := reset(0)
	reply, o := g.Greet(gateNow, gateFrom, pkt)
	if reply != nil || o == nil {
		t.Fatalf("got %x, %v", reply, o)
	}
	if o.Server.IsZero() || o.Stream || o.first != nil || o.Client != (SessionID{1}) {
		t.Errorf("opening %+v", o)
	}
	answer := Packet{Opcode: OpHardResetServerV2, Session: o.Server, Acks: []PacketID{0}, Remote: o.Client}
	if _, err := c.Open(o.wrap.seal(nil, &answer)); err != nil {
		t.Errorf("the session's reset: %v", err)
	}
	message := Packet{Opcode: OpControl, Session: o.Client, Acks: []PacketID{0}, Remote: o.Server, ID: 1}
	if _, err := o.wrap.open(c.Seal(nil, &message)); err != nil {
		t.Errorf("the client's message: %v", err)
	}
	if _, err := o.wrap.open(bytes.Clone(pkt)); err != errReplay {
		t.Errorf("the reset again, inside: %v, want %v", err, errReplay)
	}
	// Its later packets mean nothing to the gate.
	if reply, o := g.Greet(gateNow, gateFrom, c.Seal(nil, &Packet{Opcode: OpControlWKC, Session: SessionID{1}, ID: 1})); reply != nil || o != nil {
		t.Errorf("a message: %x, %v", reply, o)
	}

	// One recorded packet from any number of addresses.
	opened := 0
	now := gateNow
	for i := range 1000 {
		if i%10 == 0 {
			now = now.Add(time.Second / 10)
		}
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 1194)
		if _, o := g.Greet(now, from, pkt); o != nil {
			opened++
		}
	}
	if opened != earlyHalfOpen-1 {
		t.Errorf("opened %d more sessions, want %d", opened, earlyHalfOpen-1)
	}
	now = now.Add(20 * time.Second)
	g.Settle(now, o, true)
	pkt, _ = reset(1)
	if _, o := g.Greet(now, gateFrom, pkt); o == nil {
		t.Error("no session after one was settled")
	}
	pkt, _ = reset(2)
	if _, o := g.Greet(now, gateFrom, pkt); o != nil {
		t.Error("one settled session made room for two")
	}

	server.MaxAge = time.Hour
	g = newTestGate(t, Wrapping{CryptV2: server})
	if reply, o := g.Greet(gateNow.Add(2*time.Hour), gateFrom, pkt); reply != nil || o != nil {
		t.Errorf("with a key too old: %x, %v", reply, o)
	}
	if _, o := g.Greet(gateNow, gateFrom, pkt); o == nil {
		t.Error("with a young key: no session")
	}

	server.ForceCookie = true
	g = newTestGate(t, Wrapping{CryptV2: server})
	if reply, o := g.Greet(gateNow, gateFrom, pkt); reply != nil || o != nil {
		t.Errorf("with force-cookie: %x, %v", reply, o)
	}
	if got := g.Counts(); got != (GateCounts{Refused: 1}) {
		t.Errorf("counts %+v", got)
	}
}

// Clients with keys of their own come in turn, and each is served under his.
func TestGateServesManyKeys(t *testing.T) {
	server := newTestServerKey(t)
	g := newTestGate(t, Wrapping{CryptV2: server})
	var clients []*ClientWrap
	for range 3 {
		kc, wkc := newTestClientKey(t, server)
		c, err := NewClientWrapV2(kc, wkc, true, gateNow)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	for i := range 9 {
		c := clients[i%3]
		reset := Packet{Opcode: OpHardResetClientV3, Session: SessionID{byte(i) + 1}}
		reply, _ := g.Greet(gateNow.Add(time.Duration(i)*time.Second), gateFrom, c.Seal(nil, &reset))
		if p, err := c.Open(bytes.Clone(reply)); err != nil || p.Remote != reset.Session {
			t.Errorf("client %d: %+v, %v", i%3, p, err)
		}
	}
}

// What a client key says about itself is looked at only once its sender has proved its address, and before the
// session (S038).
func TestGateAsksAboutKeysLate(t *testing.T) {
	for _, m := range gateModes(t) {
		if m.wrap.CryptV2 == nil || m.reset != OpHardResetClientV3 {
			continue
		}
		asked := 0
		refuse := true
		m.wrap.CryptV2.Refuse = func(c ClientKey) bool {
			asked++
			if created, ok := c.Created(); !ok || !created.Equal(gateNow) || c.ID == (ClientKeyID{}) {
				t.Errorf("asked about %+v", c)
			}
			return refuse
		}
		g, c := newTestGate(t, m.wrap), m.client()
		cookie := greetReset(t, g, m, c)
		third := Packet{Opcode: m.third, Session: clientID, Acks: []PacketID{0}, Remote: SessionID{1}, ID: 1}
		g.Greet(gateNow, gateFrom, c.Seal(nil, &third))
		if asked != 0 {
			t.Error("asked before the cookie was there")
		}
		third.Remote = cookie
		if reply, o := g.Greet(gateNow, gateFrom, c.Seal(nil, &third)); reply != nil || o != nil || asked != 1 {
			t.Errorf("refused: %x, %v, asked %d times", reply, o, asked)
		}
		if o, err := g.GreetStream(gateNow, gateFrom, m.client().Seal(nil, &Packet{Opcode: m.reset, Session: clientID})); o != nil || err == nil {
			t.Error("refused, but opened over a stream")
		}
		refuse = false
		if _, o := g.Greet(gateNow, gateFrom, c.Seal(nil, &third)); o == nil {
			t.Error("not refused, but not opened")
		}
		refuse, m.wrap.CryptV2.MaxAge = false, time.Hour
		if _, o := g.Greet(gateNow.Add(2*time.Hour), gateFrom, nil); o != nil {
			t.Error("opened for nothing")
		}
		g, c = newTestGate(t, m.wrap), m.client()
		later := gateNow.Add(2 * time.Hour)
		reply, _ := g.Greet(later, gateFrom, c.Seal(nil, &Packet{Opcode: m.reset, Session: clientID}))
		p, err := c.Open(bytes.Clone(reply))
		if err != nil {
			t.Fatal(err)
		}
		third.Remote = p.Session
		if _, o := g.Greet(later, gateFrom, c.Seal(nil, &third)); o != nil {
			t.Error("opened for a key that is too old")
		}
	}
}

// The replay time never goes back, even if the clock does: a client would drop everything from then on (S116).
func TestGateTimeNeverGoesBack(t *testing.T) {
	g := newTestGate(t, Wrapping{})
	now := time.Now()
	stepped := now.Add(10 * time.Second) // ten seconds later by the monotonic clock, whatever the wall says
	if got := g.seconds(stepped) - g.seconds(now); got != 10 {
		t.Errorf("ten seconds are %d", got)
	}
	if got := g.seconds(gateNow); got != gateNow.Unix() {
		t.Errorf("a plain time is %d, want %d", got, gateNow.Unix())
	}
}

// strangers are packets that a gate must not even allocate for (S005).
func strangers(t testing.TB, m gateMode) map[string][]byte {
	c := m.client()
	reset := c.Seal(nil, &Packet{Opcode: m.reset, Session: clientID})
	flipped := bytes.Clone(reset)
	flipped[len(flipped)-3] ^= 1
	badTag := bytes.Clone(reset)
	badTag[headLen+1] ^= 1
	claims := bytes.Clone(reset)
	binary.BigEndian.PutUint16(claims[len(claims)-2:], 0xffff)
	p := map[string][]byte{
		"empty":           {},
		"short":           reset[:8],
		"cut":             reset[:len(reset)-1],
		"data":            slices.Concat([]byte{byte(OpDataV2) << 3, 0, 0, 1}, make([]byte, 100)),
		"opcode 31":       append([]byte{31 << 3}, reset[1:]...),
		"key id 1":        append([]byte{reset[0] | 1}, reset[1:]...),
		"session zero":    slices.Concat(reset[:1], make([]byte, 8), reset[9:]),
		"oversized":       make([]byte, maxDatagram+1),
		"random":          randomBytes(200),
		"random reset":    append([]byte{byte(m.reset) << 3}, randomBytes(399)...),
		"random v3 reset": append([]byte{byte(OpHardResetClientV3) << 3}, randomBytes(399)...),
		"wrong cookie":    c.Seal(nil, &Packet{Opcode: m.third, Session: clientID, Acks: []PacketID{0}, Remote: SessionID{1}, ID: 1}),
		"message 7":       c.Seal(nil, &Packet{Opcode: m.third, Session: clientID, Acks: []PacketID{0}, Remote: SessionID{1}, ID: 7}),
		"reset, id 5":     c.Seal(nil, &Packet{Opcode: m.reset, Session: clientID, ID: 5}),
	}
	if m.name != "plain" {
		p["bit flipped"] = flipped
		p["bad tag"] = badTag
	}
	if m.tlv != nil {
		p["long claim"] = claims
	}
	return p
}

func TestGateIsSilentWithoutAllocating(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		g := newTestGate(t, m.wrap)
		greetReset(t, g, m, m.client()) // the hashes are warm, as in any gate after its first packet
		for name, pkt := range strangers(t, m) {
			rounds := 10_000
			if testing.Short() {
				rounds = 100
			}
			allocs := testing.AllocsPerRun(rounds, func() {
				if reply, o := g.Greet(gateNow, gateFrom, pkt); reply != nil || o != nil {
					t.Fatalf("%s: %x, %v", name, reply, o)
				}
			})
			if allocs != 0 {
				t.Errorf("%s: %v allocations", name, allocs)
			}
		}
		reset := m.client().Seal(nil, &Packet{Opcode: m.reset, Session: clientID})
		if allocs := testing.AllocsPerRun(1000, func() { g.Greet(gateNow, gateFrom, reset) }); allocs != 0 {
			t.Errorf("reset: %v allocations", allocs)
		}
	})
}

// A million resets from as many addresses leave nothing behind (S001); each is answered with no more than it was (S003),
// and at most once (S004).
func TestGateKeepsNothingOfResets(t *testing.T) {
	forEachMode(t, func(t *testing.T, m gateMode) {
		resets := 20_000
		if m.name == "plain" && !testing.Short() {
			resets = 1_000_000
		}
		g, err := NewGate(m.wrap, GateOptions{Limits: NewLimits(LimitOptions{Resets: 1 << 40})})
		if err != nil {
			t.Fatal(err)
		}
		reset := m.client().Seal(nil, &Packet{Opcode: m.reset, Session: clientID})
		heap := func() int64 {
			var s runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&s)
			return int64(s.HeapAlloc)
		}
		before := heap()
		for i := range resets {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), uint16(1024+i%60000))
			if reply, o := g.Greet(gateNow, from, reset); reply == nil || o != nil || len(reply) > len(reset) {
				t.Fatalf("reset %d: %x, %v", i, reply, o)
			}
		}
		if grown := heap() - before; grown > 4<<20 || grown > int64(16*resets) {
			t.Errorf("the heap grew by %d bytes", grown)
		}
		runtime.KeepAlive(g)
	})
}

func FuzzGate(f *testing.F) {
	modes := gateModes(f)
	for i, m := range modes {
		for _, pkt := range strangers(f, m) {
			f.Add(uint8(i), false, pkt)
		}
		reset := Packet{Opcode: m.reset, Session: clientID}
		f.Add(uint8(i), true, reset.AppendTo(nil))
		third := Packet{Opcode: m.third, Session: clientID, Acks: []PacketID{0}, Remote: SessionID{1}, ID: 1}
		f.Add(uint8(i), true, third.AppendTo(nil))
	}
	for _, text := range []string{"38", "3801020304050607", "3801020304050607080000000000", "50010203040506070800"} {
		b, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(0), false, b)
	}
	gates := make([]*Gate, len(modes))
	for i, m := range modes {
		var err error
		if gates[i], err = NewGate(m.wrap, GateOptions{Limits: NewLimits(LimitOptions{Resets: 1 << 40})}); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, mode uint8, authentic bool, b []byte) {
		i := int(mode) % len(modes)
		if authentic {
			p, err := ParsePacket(b)
			if err != nil {
				return
			}
			b = modes[i].client().Seal(nil, &p)
		}
		before := bytes.Clone(b)
		reply, o := gates[i].Greet(gateNow, gateFrom, b)
		if !bytes.Equal(b, before) {
			t.Error("Greet changed the packet")
		}
		if len(reply) > len(b) {
			t.Errorf("answered %d bytes with %d", len(b), len(reply))
		}
		if o != nil {
			t.Errorf("opened without a cookie: %+v", o)
		}
		if o, err := gates[i].GreetStream(gateNow, gateFrom, b); (o == nil) == (err == nil) {
			t.Errorf("stream: %v, %v", o, err)
		}
	})
}
