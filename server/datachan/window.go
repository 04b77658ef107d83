package datachan

import "math/bits"

const (
	// DefaultWindow is how many packet ids a key looks back when the configuration does not say. Smaller ones
	// lose packets on links that reorder.
	DefaultWindow = 2048
	// Sequential as a window size refuses every id but the next one. The first may be any.
	Sequential = -1
)

// A window remembers which packet ids have been seen: all up to highest-size count as seen, above that there is a
// bit for each. The bits are a ring of words (RFC 6479), one word longer than the window, so that moving forward
// clears whole words. It is not safe for concurrent use.
type window struct {
	size    uint64 // 0: sequential
	highest uint64 // 0: nothing seen yet
	expired uint64 // ids up to here come too late
	words   []uint64
}

func newWindow(size int) window {
	switch {
	case size == 0:
		size = DefaultWindow
	case size < 0:
		return window{}
	}
	n := uint(size+63)/64 + 1
	return window{size: uint64(size), words: make([]uint64, 1<<bits.Len(n-1))}
}

// accept reports whether id is new, and marks it seen.
func (w *window) accept(id uint64) bool {
	if id <= w.expired { // 0 at least
		return false
	}
	if w.size == 0 {
		if w.highest != 0 && id != w.highest+1 {
			return false
		}
		w.highest = id
		return true
	}
	mask := uint64(len(w.words) - 1)
	if id > w.highest {
		// With a jump over the whole ring every word is cleared once, not once per turn.
		old := w.highest / 64
		for n := min(id/64-old, uint64(len(w.words))); n > 0; n-- {
			w.words[(old+n)&mask] = 0
		}
		w.highest = id
	} else if w.highest-id >= w.size {
		return false
	}
	word, bit := &w.words[id/64&mask], uint64(1)<<(id%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// expire refuses from now on every id up to id.
func (w *window) expire(id uint64) { w.expired = max(w.expired, id) }
