package tlsctl

import "encoding/binary"

// replayID is the number under which a wrapped packet was sent: a counter from 1, and the time at which the sender
// began to count.
type replayID struct {
	id    uint32
	stamp uint32
}

func parseReplayID(b []byte) replayID {
	return replayID{id: binary.BigEndian.Uint32(b), stamp: binary.BigEndian.Uint32(b[4:])}
}

// replayWindow remembers the last 64 replay ids of one sender. The zero value takes anything that is valid.
//
// Entries do not also expire after a time, as the reference's do: a session keeps no clock, 64 ids are few, and a
// late packet that was not seen before is only late.
type replayWindow struct {
	highest replayID
	seen    uint64 // bit i: highest.id - i was seen
}

// accept reports whether r is new, and remembers it. Ask it only about packets that are authentic.
func (w *replayWindow) accept(r replayID) bool {
	switch {
	case r.id == 0 || r.stamp < w.highest.stamp:
		return false
	case r.stamp > w.highest.stamp:
		*w = replayWindow{highest: r, seen: 1}
		return true
	case r.id > w.highest.id:
		w.seen = w.seen<<(r.id-w.highest.id) | 1 // a shift of 64 or more leaves nothing
		w.highest.id = r.id
		return true
	}
	bit := uint64(1) << (w.highest.id - r.id) // 0 when it fell out
	if bit == 0 || w.seen&bit != 0 {
		return false
	}
	w.seen |= bit
	return true
}
