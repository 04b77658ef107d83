package datachan

import "sync/atomic"

// When a key has been used so much that a new one should take its place.
const (
	// lastID leaves the top of the four bytes unused, far from ever wrapping.
	lastID     = 0xffffffef
	nearLastID = 0xff000000
	// gcmLimit bounds what one AES-GCM key may encrypt in one direction, counted in blocks plus packets, so that
	// an attacker's advantage stays below 2^-57. Usage is counted after sealing and in trains, so a key counts as
	// worn out well before, at seven eighths.
	gcmLimit = 1<<36 - 1
	wornOut  = gcmLimit / 8 * 7
	// failLimit bounds the forgeries that may be tried against one key.
	failLimit = 1 << 36
)

// wear estimates blocks plus packets from above: each packet's last block may be partly filled.
func wear(packets, bytes int) uint64 { return uint64(bytes)/16 + 2*uint64(packets) }

// An outgoing hands out the ids of what one key seals: base+1 to base+last.
type outgoing struct {
	base, last uint64
	taken      atomic.Uint64
	worn       atomic.Uint64
}

func (o *outgoing) reserve(n int) (first uint64, ok bool) {
	// A refused reservation moves the counter too; 64 bits hold more refusals than a key can live to see.
	taken := o.taken.Add(uint64(n))
	if taken > o.last {
		return 0, false
	}
	return o.base + taken - uint64(n) + 1, true
}

// An incoming remembers what one key has opened and refused. It is not safe for concurrent use.
type incoming struct {
	window window
	worn   uint64
	failed uint64
}

// take counts a packet that was authentic, unless it is a replay.
func (i *incoming) take(id uint64, bytes int) error {
	if !i.window.accept(id) {
		return ErrReplay
	}
	i.worn += wear(1, bytes)
	return nil
}

// fail counts a packet that was not authentic.
func (i *incoming) fail() error {
	i.failed++
	return ErrAuth
}

// beset reports whether so many forgeries were tried that no packet is to be believed any more.
func (i *incoming) beset() bool { return i.failed >= failLimit }

// A series is both directions of a key that is the same from its first packet to its last.
type series struct {
	gcm bool // what AES-GCM may encrypt is limited

	_   [64]byte
	out outgoing

	_  [64]byte
	in incoming
}

func newSeries(gcm bool, window int) series {
	return series{gcm: gcm, out: outgoing{last: lastID}, in: incoming{window: newWindow(window)}}
}

func (s *series) reserve(n int) (first uint64, ok bool) { return s.out.reserve(n) }
func (s *series) wear(packets, bytes int)               { s.out.worn.Add(wear(packets, bytes)) }
func (s *series) highest() uint64                       { return s.in.window.highest }
func (s *series) expire(id uint64)                      { s.in.window.expire(id) }

func (s *series) nearEnd() bool {
	return s.out.taken.Load() >= nearLastID || s.in.failed >= failLimit/2 ||
		s.gcm && (s.out.worn.Load() > wornOut || s.in.worn > wornOut)
}
