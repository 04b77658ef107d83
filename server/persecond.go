package server

import "sync/atomic"

// errorsPerSecond is how many ICMP errors a client may bring about (S087).
const errorsPerSecond = 10

// perSecond lets errorsPerSecond through in a second. Where two goroutines meet at a second's turn it may be one or two
// more. Any goroutine.
type perSecond struct {
	second atomic.Int64
	count  atomic.Int32
}

// allow reports whether one more may be in the second now.
func (l *perSecond) allow(now int64) bool {
	if l.second.Swap(now) != now {
		l.count.Store(0)
	}
	return l.count.Add(1) <= errorsPerSecond
}
