package server

import (
	"crypto/subtle"
	"time"
)

// floatEvery is how often a client may change its address (S077).
const floatEvery = time.Second

// float moves a client to the address its newest authentic packet came from (S077): at most once a second, only with
// a peer id, only to where the same listener hears it, and never to an address that another client's live session has.
func (s *Server) float(c *client, from, to *path) {
	if from.outside == to.outside {
		// The same address on another socket: the kernel moved it between lanes. Follow it.
		c.path.CompareAndSwap(from, to)
		return
	}
	if from.door != to.door {
		return
	}
	now, last := int64(time.Since(s.started)), c.floated.Load()
	if last != 0 && now-last < int64(floatEvery) || !c.floated.CompareAndSwap(last, now) {
		return
	}
	stale, ok := s.table.move(c, to, func(other *client) bool { return sameCertificate(c, other) })
	if !ok {
		return
	}
	if stale != nil {
		s.end(stale, "its address now belongs to a newer session of the same certificate")
	}
	c.log.Info().Stringer("from", from.addr).Stringer("to", to.addr).Str("client", c.decided().name).Msg("client moved")
	c.recordFloat(from.addr, to.addr)
}

// sameCertificate reports whether two clients showed the same certificate and are the same user.
func sameCertificate(a, b *client) bool {
	ga, gb := a.decided(), b.decided()
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
