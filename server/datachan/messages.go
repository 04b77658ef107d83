package datachan

// A Message is what a payload is, when it is not a packet of the inside network. None of them may be forwarded.
type Message uint8

// The messages between the ends of a tunnel. Only Exit must be heeded by a server; MTULoadRequest and
// MTURequest want an answer.
const (
	NoMessage  Message = iota // a payload to forward
	Ping                      // the peer is there
	Exit                      // the peer is leaving
	OCCRequest                // "what are your options?"
	OCCReply                  // an options string
	MTULoadRequest
	MTULoad
	MTURequest
	MTUReply
	UnknownMessage // to be ignored
)

// Fixed byte sequences that no IP packet starts with.
const (
	ping     = "\x2a\x18\x7b\xf3\x64\x1e\xb4\xcb\x07\xed\x2d\x0a\x98\x1f\xc7\x48"
	occMagic = "\x28\x7f\x34\x6b\xd4\xef\x7a\x81\x2d\x56\xb8\xd3\xaf\xc5\x45\x9c"
)

// occTypes are the messages by the byte that follows the magic.
var occTypes = [...]Message{OCCRequest, OCCReply, MTULoadRequest, MTULoad, MTURequest, MTUReply, Exit}

// Classify says what a decrypted payload is. A ping is exactly its 16 bytes; an OCC message is whatever starts with
// the magic.
func Classify(payload []byte) Message {
	if len(payload) < len(ping) {
		return NoMessage
	}
	switch string(payload[:len(ping)]) {
	case ping:
		if len(payload) == len(ping) {
			return Ping
		}
	case occMagic:
		body := payload[len(occMagic):]
		if len(body) > 0 && int(body[0]) < len(occTypes) {
			return occTypes[body[0]]
		}
		return UnknownMessage
	}
	return NoMessage
}

// AppendPing appends the payload of a ping to b.
func AppendPing(b []byte) []byte { return append(b, ping...) }
