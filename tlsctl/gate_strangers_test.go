package tlsctl

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"runtime"
	"slices"
	"testing"
)

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

// Every packet of strangers is met with silence, and without allocating (S005).
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
