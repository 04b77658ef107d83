package tlsctl

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

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
