package tlsctl

import "encoding/hex"

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

// MaxAcks is how many acknowledgements a packet may carry.
const MaxAcks = 8

// A Packet is one control packet without its wrap.
type Packet struct {
	Opcode  Opcode
	KeyID   KeyID
	Session SessionID // the sender's
	Acks    []PacketID
	Remote  SessionID // the receiver's; on the wire only with Acks
	ID      PacketID  // absent in OpAck
	Payload []byte
}
