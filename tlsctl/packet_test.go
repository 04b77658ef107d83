package tlsctl

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

func TestPacketVectors(t *testing.T) {
	var v struct {
		Packets  []packetVector
		Captured []packetVector `json:"captured_openvpn_2_6_14"`
		Invalid  []packetVector
	}
	readVectors(t, "control-plain.json", &v)
	if len(v.Packets) == 0 || len(v.Captured) == 0 || len(v.Invalid) == 0 {
		t.Fatal("no vectors")
	}
	for _, c := range append(v.Packets, v.Captured...) {
		t.Run(c.String(), func(t *testing.T) {
			p, err := ParsePacket(c.Packet)
			if err != nil {
				t.Fatal(err)
			}
			checkPacket(t, p, c.want())
			if got := p.AppendTo(nil); !bytes.Equal(got, c.Packet) {
				t.Errorf("appended\n%x, want\n%x", got, c.Packet)
			}
			if c.TCPFrame != nil && !bytes.Equal(c.TCPFrame[2:], c.Packet) {
				t.Error("the frame does not hold the packet")
			}
		})
	}

	// Some of the invalid are well-formed, but nothing that a stranger may come with.
	gate, err := NewGate(Wrapping{}, GateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Invalid {
		t.Run(c.String(), func(t *testing.T) {
			if reply, o := gate.Greet(time.Now(), netip.MustParseAddrPort("192.0.2.1:1194"), c.Packet); reply != nil || o != nil {
				t.Errorf("Greet gives %x, %v", reply, o)
			}
			switch c.Name {
			case "hard reset with key id 1", "server opcode 8 from a client", "hard reset with message id 5":
			default:
				if p, err := ParsePacket(c.Packet); err == nil {
					t.Errorf("parsed as %+v", p)
				}
			}
		})
	}
}

// Every count of acknowledgements, and every length (S018, S020, S022).
func TestParsePacketLengths(t *testing.T) {
	for n := range 256 {
		whole := []byte{byte(OpControl) << 3, 1, 2, 3, 4, 5, 6, 7, 8, byte(n)}
		for i := range n {
			whole = binary.BigEndian.AppendUint32(whole, uint32(i))
		}
		if n > 0 {
			whole = append(whole, 8, 7, 6, 5, 4, 3, 2, 1)
		}
		whole = append(whole, 0, 0, 0, 9)
		for size := range len(whole) + 2 {
			b := append(whole[:len(whole):len(whole)], 'x')[:size]
			p, err := ParsePacket(b)
			if want := n <= MaxAcks && size >= len(whole); (err == nil) != want {
				t.Fatalf("%d acks, %d of %d bytes: %v", n, size, len(whole), err)
			}
			if err == nil && (len(p.Acks) != n || p.ID != 9 || len(p.Payload) != size-len(whole)) {
				t.Fatalf("%d acks, %d bytes: %+v", n, size, p)
			}
		}
	}
}

func TestParsePacketRefusesZeroSessions(t *testing.T) {
	p := Packet{Opcode: OpAck, Session: SessionID{1}, Acks: []PacketID{0}, Remote: SessionID{2}}
	if _, err := ParsePacket(p.AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Packet{
		{Opcode: OpAck, Acks: []PacketID{0}, Remote: SessionID{2}},
		{Opcode: OpAck, Session: SessionID{1}, Acks: []PacketID{0}},
	} {
		if _, err := ParsePacket(bad.AppendTo(nil)); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestPeekSession(t *testing.T) {
	taken := map[Opcode]bool{OpSoftReset: true, OpControl: true, OpAck: true, OpHardResetClientV2: true,
		OpHardResetClientV3: true, OpControlWKC: true}
	for op := range Opcode(32) {
		for kid := range KeyID(8) {
			b := []byte{byte(op)<<3 | byte(kid), 1, 2, 3, 4, 5, 6, 7, 8}
			gotOp, gotKID, sid, ok := PeekSession(b)
			if ok != taken[op] || gotOp != op || gotKID != kid || sid != (SessionID{1, 2, 3, 4, 5, 6, 7, 8}) {
				t.Errorf("opcode %d, key id %d: %d %d %v %v", op, kid, gotOp, gotKID, sid, ok)
			}
			if _, _, _, ok := PeekSession(b[:8]); ok {
				t.Errorf("opcode %d: 8 bytes are enough", op)
			}
		}
	}
	if _, _, _, ok := PeekSession(append([]byte{byte(OpAck) << 3}, make([]byte, 8)...)); ok {
		t.Error("session zero is one")
	}
}

func FuzzParsePacket(f *testing.F) {
	var v struct {
		Packets, Invalid []packetVector
		Captured         []packetVector `json:"captured_openvpn_2_6_14"`
	}
	readVectors(f, "control-plain.json", &v)
	for _, c := range append(append(v.Packets, v.Invalid...), v.Captured...) {
		f.Add([]byte(c.Packet))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePacket(b)
		if err != nil {
			return
		}
		again := p.AppendTo(nil)
		if p.Opcode == OpAck {
			b = b[:len(again)] // what follows the acks is ignored
		}
		if !bytes.Equal(again, b) {
			t.Errorf("parsed %x, appended %x", b, again)
		}
	})
}
