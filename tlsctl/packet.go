package tlsctl

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
)

type (
	// Opcode is the high five bits of a packet's first byte.
	Opcode uint8
	// KeyID is the low three: the number of a negotiation.
	KeyID uint8
	// SessionID names one end of a session; never all zero.
	SessionID [8]byte
	// PacketID is a message number of the reliability layer.
	PacketID uint32
)

func (s SessionID) String() string { return hex.EncodeToString(s[:]) }

// IsZero reports whether s is the one value that names no session.
func (s SessionID) IsZero() bool { return s == SessionID{} }

const (
	OpSoftReset         Opcode = 3
	OpControl           Opcode = 4
	OpAck               Opcode = 5
	OpDataV1            Opcode = 6
	OpHardResetClientV2 Opcode = 7
	OpHardResetServerV2 Opcode = 8
	OpDataV2            Opcode = 9
	OpHardResetClientV3 Opcode = 10
	OpControlWKC        Opcode = 11
)

// isControl reports whether o is a control packet that a peer of ours may send: the obsolete key method 1, data
// and everything unassigned are not.
func (o Opcode) isControl() bool {
	switch o {
	case OpSoftReset, OpControl, OpAck, OpHardResetClientV2, OpHardResetServerV2, OpHardResetClientV3, OpControlWKC:
		return true
	}
	return false
}

// isReset reports whether o begins a negotiation. A reset has message id 0 and its payload is no TLS.
func (o Opcode) isReset() bool {
	switch o {
	case OpSoftReset, OpHardResetClientV2, OpHardResetServerV2, OpHardResetClientV3:
		return true
	}
	return false
}

// MaxAcks is how many acknowledgements a packet may carry.
const MaxAcks = 8

const (
	sessionIDLen = 8
	headLen      = 1 + sessionIDLen // opcode and key id, the sender's session id
)

// errPacket is what every parser of control packets says, without a reason: a stranger's packet must not allocate.
var errPacket = errors.New("malformed control packet")

// A Packet is one control packet without its wrap.
//
//	0          1                9    10          10+4n            18+4n      22+4n
//	+----------+----------------+----+-----------+----------------+----------+---------
//	| op|keyid | own session id | n  | acked ids | remote sid     | msg id   | payload
//	+----------+----------------+----+-----------+----------------+----------+---------
//	 \________ head ___________/ \___ body    if n > 0         not in ack
//
// A wrap puts its own fields between head and body.
type Packet struct {
	Opcode  Opcode
	KeyID   KeyID
	Session SessionID // the sender's
	Acks    []PacketID
	Remote  SessionID // the receiver's; on the wire only with Acks
	ID      PacketID  // absent in OpAck
	Payload []byte
}

// ParsePacket reads an unwrapped packet. Payload points into b. The rules are those that need no session: an opcode
// of the control channel, no session id of zero, at most MaxAcks acknowledgements with the receiver's id behind
// them, a message id on everything but an acknowledgement.
func ParsePacket(b []byte) (Packet, error) {
	if len(b) < headLen {
		return Packet{}, errPacket
	}
	p := parseHead(b)
	var acks [MaxAcks]PacketID
	if err := p.parseBody(b[headLen:], &acks); err != nil {
		return Packet{}, err
	}
	p.Acks = append([]PacketID(nil), p.Acks...)
	return p, nil
}

// PeekSession reads what every control packet shows in clear under any wrap: enough to find its session. It
// says no to data packets, and to control packets that no client may send.
func PeekSession(pkt []byte) (op Opcode, kid KeyID, sid SessionID, ok bool) {
	if len(pkt) < headLen {
		return 0, 0, SessionID{}, false
	}
	p := parseHead(pkt)
	ok = p.Opcode.isControl() && p.Opcode != OpHardResetServerV2 && !p.Session.IsZero()
	return p.Opcode, p.KeyID, p.Session, ok
}

// parseHead reads the head; b must be as long as one.
func parseHead(b []byte) (p Packet) {
	p.Opcode = Opcode(b[0] >> 3)
	p.KeyID = KeyID(b[0] & 7)
	p.Session = SessionID(b[1:headLen])
	return p
}

// parseBody reads the rest of a packet whose head is in p, and judges the whole. The acknowledged ids are kept in
// acks, so that a packet that turns out to be worthless has cost no memory.
func (p *Packet) parseBody(b []byte, acks *[MaxAcks]PacketID) error {
	if !p.Opcode.isControl() || p.Session.IsZero() || len(b) < 1 {
		return errPacket
	}
	n := int(b[0])
	b = b[1:]
	if n > MaxAcks {
		return errPacket
	}
	if n > 0 {
		if len(b) < 4*n+sessionIDLen {
			return errPacket
		}
		for i := range n {
			acks[i] = PacketID(binary.BigEndian.Uint32(b[4*i:]))
		}
		p.Acks = acks[:n]
		p.Remote = SessionID(b[4*n:])
		if p.Remote.IsZero() {
			return errPacket
		}
		b = b[4*n+sessionIDLen:]
	}
	if p.Opcode == OpAck {
		return nil
	}
	if len(b) < 4 {
		return errPacket
	}
	p.ID = PacketID(binary.BigEndian.Uint32(b))
	p.Payload = b[4:]
	return nil
}

// AppendTo appends p as it is on the wire without a wrap. It panics when there are more than MaxAcks Acks.
func (p *Packet) AppendTo(b []byte) []byte { return p.appendBody(p.appendHead(b)) }

func (p *Packet) appendHead(b []byte) []byte {
	b = append(b, byte(p.Opcode)<<3|byte(p.KeyID)&7)
	return append(b, p.Session[:]...)
}

func (p *Packet) appendBody(b []byte) []byte {
	if len(p.Acks) > MaxAcks {
		panic("tlsctl: too many acks in a packet")
	}
	b = append(b, byte(len(p.Acks)))
	for _, id := range p.Acks {
		b = binary.BigEndian.AppendUint32(b, uint32(id))
	}
	if len(p.Acks) > 0 {
		b = append(b, p.Remote[:]...)
	}
	if p.Opcode == OpAck {
		return b
	}
	b = binary.BigEndian.AppendUint32(b, uint32(p.ID))
	return append(b, p.Payload...)
}
