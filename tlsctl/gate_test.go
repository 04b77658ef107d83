package tlsctl

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

var (
	gateNow  = time.Unix(1700000000, 0)
	gateFrom = netip.MustParseAddrPort("192.0.2.10:40000")
	clientID = SessionID{1, 2, 3, 4, 5, 6, 7, 8}
)

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
