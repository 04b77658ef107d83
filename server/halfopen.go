package server

import (
	"container/list"
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
//
// When all places are taken a newcomer gets that of the session that has come longest ago and is not at its login yet,
// so that silent sessions from many sources keep nobody out.
type halfOpen struct {
	mu       sync.Mutex
	total    int
	bySource map[netip.Prefix]int
	byPrefix map[netip.Prefix]int
	early    list.List // *client, those whose login has not come, oldest first
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

// enter counts c and reports whether there is room for it. There may be only if evicted, which is not counted any more,
// ends.
func (h *halfOpen) enter(c *client) (evicted *client, ok bool) {
	source, prefix := sourceOf(c.source)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bySource[source] >= maxHalfOpenPerSource || h.byPrefix[prefix] >= maxHalfOpenPerPrefix {
		return nil, false
	}
	if h.total >= maxHalfOpen {
		oldest := h.early.Front()
		if oldest == nil {
			return nil, false
		}
		evicted = oldest.Value.(*client)
		h.uncount(evicted)
	}
	h.total++
	h.bySource[source]++
	h.byPrefix[prefix]++
	c.counted = true
	c.place = h.early.PushBack(c)
	return evicted, true
}

// login says that c's login has come: it keeps its place.
func (h *halfOpen) login(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passed(c)
}

// leave counts c no more, and reports whether it was counted.
func (h *halfOpen) leave(c *client) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.uncount(c)
}

func (h *halfOpen) uncount(c *client) bool {
	if !c.counted {
		return false
	}
	c.counted = false
	h.passed(c)
	h.total--
	source, prefix := sourceOf(c.source)
	if h.bySource[source]--; h.bySource[source] == 0 {
		delete(h.bySource, source)
	}
	if h.byPrefix[prefix]--; h.byPrefix[prefix] == 0 {
		delete(h.byPrefix, prefix)
	}
	return true
}

func (h *halfOpen) passed(c *client) {
	if c.place != nil {
		h.early.Remove(c.place)
		c.place = nil
	}
}
