package datachan

import "encoding/binary"

// A Header is what a data packet says before its encrypted part:
//
//	byte 0       7 6 5 4 3 | 2 1 0
//	             opcode    | key id
//	P_DATA_V1    [op|key 1]            encrypted part
//	P_DATA_V2    [op|key 1][peer id 3] encrypted part
type Header struct {
	Op   uint8
	Key  KeyID
	Peer PeerID // NoPeer in a P_DATA_V1, which names nobody
	Len  int    // of the header itself
}

const (
	headerLenV1 = 1
	headerLenV2 = 4
)

// ParseHeader reads the header of a data packet. It is not ok for a packet of any other opcode and for one that
// ends within its header.
func ParseHeader(b []byte) (h Header, ok bool) {
	if len(b) < headerLenV1 {
		return Header{}, false
	}
	h = Header{Op: b[0] >> 3, Key: KeyID(b[0] & 7)}
	switch {
	case h.Op == OpDataV1:
		h.Peer, h.Len = NoPeer, headerLenV1
	case h.Op == OpDataV2 && len(b) >= headerLenV2:
		h.Peer, h.Len = PeerID(binary.BigEndian.Uint32(b)&0xffffff), headerLenV2
	default:
		return Header{}, false
	}
	return h, true
}

// AppendTo appends the header to b. Op is OpDataV1, which leaves Peer out, or OpDataV2.
func (h Header) AppendTo(b []byte) []byte {
	first := h.Op<<3 | uint8(h.Key&7)
	if h.Op == OpDataV1 {
		return append(b, first)
	}
	return append(b, first, byte(h.Peer>>16), byte(h.Peer>>8), byte(h.Peer))
}
