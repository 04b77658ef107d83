// Package datachan seals and opens data packets. It knows no socket, no client and no clock.
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
	Room = 64
)

var (
	ErrShort  = errors.New("packet too short")
	ErrAuth   = errors.New("authentication failed")
	ErrReplay = errors.New("replayed packet id")
)
