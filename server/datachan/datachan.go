// Package datachan seals and opens data packets. It knows no socket, no client and no clock.
//
// A Key is what lanes see, whatever goes on inside:
//
//	Seal:  payload -> framing -> format -> packet        Config says which framing and format, and
//	Open:  packet  -> format  -> framing -> payload      nobody needs to know it afterwards
//
//	format  aead    OpenVPN 2.4 to 2.6: AES-GCM or ChaCha20-Poly1305, 32-bit ids, tag first
//	        epochs  2.7 and core 3: the same ciphers, 64-bit ids, tag last, keys that follow one another
//	        cbc     older clients: AES-CBC and an HMAC
//	framing         what clients with a compression directive put around payloads that are not compressed
package datachan

import "errors"

type (
	// KeyID is the 3-bit number that names a data key on the wire.
	KeyID uint8
	// PeerID is the 24-bit number that names a client in P_DATA_V2.
	PeerID uint32
)

const (
	OpDataV1 = 6
	OpDataV2 = 9
	// NoPeer is the peer id that names nobody.
	NoPeer PeerID = 0xffffff
	// Room is the most that Seal may need before and behind a payload together, and what Open borrows behind
	// a packet is at most 16.
	Room = 112
)

var (
	ErrShort  = errors.New("packet too short")
	ErrAuth   = errors.New("authentication failed")
	ErrReplay = errors.New("replayed packet id")
	// ErrMalformed refuses what the peer, and nobody else, has encrypted wrongly.
	ErrMalformed = errors.New("malformed payload")
	// ErrCompressed refuses a payload that is compressed, or not framed as agreed (S079). The packet itself was
	// genuine and is counted: nothing is wrong with the key, nor with the stream that it came over.
	ErrCompressed = errors.New("compressed payload")
)
