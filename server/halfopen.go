package server

import (
	"net/netip"
	"sync"
)

// The bounds of S008: sessions that have proved their address but are not authorised.
const (
	maxHalfOpen          = 2048
	maxHalfOpenPerSource = 32
	maxHalfOpenPerPrefix = 128
)

// halfOpen counts half-open sessions, in all, by source and by prefix. A source is an IPv4 address or an IPv6 /64,
// a prefix an IPv4 /24 or an IPv6 /48. The maps are as long as there are half-open sessions.
type halfOpen struct {
	mu       sync.Mutex
	total    int
	bySource map[netip.Prefix]int
	byPrefix map[netip.Prefix]int
}

func newHalfOpen() *halfOpen {
	return &halfOpen{bySource: make(map[netip.Prefix]int), byPrefix: make(map[netip.Prefix]int)}
}

func sourceOf(a netip.Addr) (source, prefix netip.Prefix) {
	s, p := 32, 24
	if a.Is6() {
		s, p = 64, 48
	}
	source, _ = a.Prefix(s)
	prefix, _ = a.Prefix(p)
	return source, prefix
}

// enter counts one more and reports whether there is room for it.
func (h *halfOpen) enter(a netip.Addr) bool {
	source, prefix := sourceOf(a)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.total >= maxHalfOpen || h.bySource[source] >= maxHalfOpenPerSource || h.byPrefix[prefix] >= maxHalfOpenPerPrefix {
		return false
	}
	h.total++
	h.bySource[source]++
	h.byPrefix[prefix]++
	return true
}

// leave counts one less.
func (h *halfOpen) leave(a netip.Addr) {
	source, prefix := sourceOf(a)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.total--
	if h.bySource[source]--; h.bySource[source] == 0 {
		delete(h.bySource, source)
	}
	if h.byPrefix[prefix]--; h.byPrefix[prefix] == 0 {
		delete(h.byPrefix, prefix)
	}
}
