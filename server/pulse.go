package server

// beat is the keeper's: it passes through every lane's sender, which both directions of traffic go through, and counts.
func (s *Server) beat() {
	for _, l := range s.lanes {
		l.sender.mu.Lock()
		l.sender.mu.Unlock() // to have had it is the point
	}
	s.pulse.Add(1)
}

// Pulse counts the rounds of the keeper. While it stands still something in the packet path, or the keeper itself,
// hangs: a watchdog must not be fed then (F05). Any goroutine.
func (s *Server) Pulse() int64 { return s.pulse.Load() }

// Connected is how many clients are in. Any goroutine.
func (s *Server) Connected() (n int) {
	for _, c := range s.table.all(nil) {
		if c.isIn() {
			n++
		}
	}
	return n
}
