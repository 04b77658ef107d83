package tlsctl

import (
	"bytes"
	"net/netip"
	"testing"
)

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
