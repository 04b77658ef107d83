package server

import (
	"net/netip"
	"sync"
)

// Who gets an address gets nothing that was sent to another name that had it before: the kernel forgets the connections
// it tracks of the address (S086).

// handOn does so for a lease.
func (s *Server) handOn(l *lease) {
	if l != nil && l.handedOn {
		s.forget(l.addr4, l.addr6)
	}
}

func (s *Server) forget(addrs ...netip.Addr) {
	if s.parts.Forget == nil {
		return
	}
	if err := s.parts.Forget(addrs...); err != nil {
		s.alarmOnce("connections", err)
	}
}

// maxHolders is how many addresses lastHolders remembers: as many as a pool has.
const maxHolders = 1 << 16

// lastHolders is who last had each address that is of no pool, as client files and scripts give them. The zero value is ready;
// any goroutine.
type lastHolders struct {
	mu    sync.Mutex
	names map[netip.Addr]string
}

// given notes that name gets a, and reports whether another name had it before.
func (h *lastHolders) given(a netip.Addr, name string) (handedOn bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was, known := h.names[a]
	if h.names == nil {
		h.names = make(map[netip.Addr]string)
	}
	if !known && len(h.names) >= maxHolders {
		for other := range h.names {
			delete(h.names, other)
			break
		}
	}
	h.names[a] = name
	return known && was != name
}
