package server

import "runtime/debug"

// panicked counts and logs a panic that a packet of c brought about, and ends c: what one peer sends may cost that peer
// its session, and nobody else's (S019). c may be nil where no client is known yet. The stack is logged, the value is
// not: it may hold a peer's bytes.
func (s *Server) panicked(c *client, _ any) {
	s.panics.Add(1)
	log := s.log
	if c != nil {
		log = c.log
		s.end(c, errPanic.Error())
	}
	log.Error().Bytes("stack", debug.Stack()).Msg("survived a panic")
}
