package server

import "crypto/subtle"

// float moves a client to the address its newest authentic packet came from (S077): at most once a second, only with
// a peer id, never to an address that another client's live session has.
func (s *Server) float(c *client, from, to *path, named bool) {
	if !named {
		return
	}
	now := s.clock.Load()
	if from.addr == to.addr {
		// The same address on another socket: the kernel moved it between lanes. Follow it.
		c.path.CompareAndSwap(from, to)
		return
	}
	if c.floated.Load() == now+1 { // +1: the zero value is never now
		return
	}
	c.floated.Store(now + 1)
	stale, ok := s.table.move(c, to, func(other *client) bool { return sameCertificate(c, other) })
	if !ok {
		return
	}
	if stale != nil {
		s.end(stale, "its address now belongs to a newer session of the same certificate")
	}
	c.log.Info().Stringer("from", from.addr).Stringer("to", to.addr).Str("client", c.identity()).Msg("client moved")
}

// sameCertificate reports whether two clients showed the same certificate and are the same user.
func sameCertificate(a, b *client) bool {
	a.mu.Lock()
	ga := a.grant
	a.mu.Unlock()
	b.mu.Lock()
	gb := b.grant
	b.mu.Unlock()
	if ga == nil || gb == nil || ga.name != gb.name || len(ga.chain) != len(gb.chain) || len(ga.chain) == 0 {
		return false
	}
	for i := range ga.chain {
		if subtle.ConstantTimeCompare(ga.chain[i].sum[:], gb.chain[i].sum[:]) != 1 {
			return false
		}
	}
	return true
}
