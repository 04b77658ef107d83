package tlsctl

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// Wrapping is how a server's control packets are protected. At most one of Auth and Crypt is set; CryptV2 may
// stand beside either or alone. All nil: no wrap.
type Wrapping struct {
	Auth    *AuthKey
	Crypt   *CryptKey
	CryptV2 *ServerKey
}

// A wrapper is one session's wrap: keys and replay state of both directions. Its user serialises calls.
type wrapper interface {
	// seal appends p, wrapped with a fresh replay id, to dst.
	seal(dst []byte, p *Packet) []byte
	// open checks and unwraps b, which it may overwrite; the packet's Payload points into b, and its Acks are
	// valid until the next open. With an error the packet is not to be used, save one: with errReplay, said of an
	// authentic packet whose replay id was seen before, it is whole and may be acknowledged again, no more.
	// Everything else is errWrap, or errPacket for an authentic packet that is malformed inside.
	open(b []byte) (Packet, error)
	// overhead is how many bytes the wrap adds to a packet.
	overhead() int
	// staticKey is the key that a dynamic wrap is mixed with: the static key file's bytes or the client's Kc; nil
	// without a wrap. It must not be changed.
	staticKey() []byte
}

// Without reasons, and made once: the packet is probably a stranger's, and a stranger's packet must not allocate.
var (
	errWrap   = errors.New("control packet fails its wrap")
	errReplay = errors.New("replayed control packet")
)

// sameSecret is the one comparison of MACs, keys and cookies in this package; it takes the same time wherever the
// first difference is.
func sameSecret(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

const replayIDLen = 8

// sendCounter makes the replay ids of one direction: 1, 2, 3 under the time of the context's first packet. The time
// moves only when the counter ends, since a receiver takes a new time for a new beginning.
type sendCounter struct {
	last  uint32 // ids spent
	stamp uint32 // not before any that an earlier counter told the same receiver
}

func (c *sendCounter) appendNext(b []byte) []byte {
	c.last++
	if c.last == 0 {
		c.last = 1
		c.stamp++
	}
	b = binary.BigEndian.AppendUint32(b, c.last)
	return binary.BigEndian.AppendUint32(b, c.stamp)
}
