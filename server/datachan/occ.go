package datachan

import "encoding/binary"

// Answers to what a client may ask with OCC messages: MTU_LOAD_REQUEST asks for a packet of some size, and MTU_REQUEST,
// when a client is through with those, for the largest packets we have seen. REQUEST, for an options string, is of no use
// where both ends have said theirs at the handshake, and no client asks then.
//
//	[magic 16][type 1]                       REQUEST, MTU_REQUEST, EXIT
//	[magic 16][type 1][options, NUL]         REPLY
//	[magic 16][type 1][size 2]               MTU_LOAD_REQUEST
//	[magic 16][type 1][filler]               MTU_LOAD
//	[magic 16][type 1][received 2][sent 2]   MTU_REPLY
const (
	occMTULoad  = 3
	occMTUReply = 5
	occExit     = 6

	occHeadLen = len(occMagic) + 1
)

func appendOCC(b []byte, kind byte) []byte { return append(append(b, occMagic...), kind) }

// LoadSize returns how large a packet an MTULoadRequest asks for, from its first byte, the opcode, to its last. It is
// not ok for any other payload and for one that ends too early.
func LoadSize(payload []byte) (size int, ok bool) {
	if Classify(payload) != MTULoadRequest || len(payload) < occHeadLen+2 {
		return 0, false
	}
	return int(binary.BigEndian.Uint16(payload[occHeadLen:])), true
}

// AppendMTULoad appends the payload that answers an MTULoadRequest to b: n bytes, where n is what Fit says of the
// size asked for, or of the largest packet that can be sent if that is less. It is at least as long as it must be to
// be an answer. The filler is zeros, which nobody can see.
func AppendMTULoad(b []byte, n int) []byte {
	b = appendOCC(b, occMTULoad)
	return append(b, make([]byte, max(n-occHeadLen, 0))...)
}

// AppendMTUReply appends the payload that answers an MTURequest to b: the sizes of the largest packets that were
// received and sent.
func AppendMTUReply(b []byte, received, sent uint16) []byte {
	b = appendOCC(b, occMTUReply)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, received), sent)
}

// AppendExit appends the payload that says this end is leaving to b.
func AppendExit(b []byte) []byte { return appendOCC(b, occExit) }
