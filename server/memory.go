package server

import (
	"runtime/debug"
	"runtime/metrics"
)

const (
	// memoryCheck is how often, in seconds, memory is looked at.
	memoryCheck = 5
	// memoryTight is when newcomers stay outside, in percent of what there may be (S117).
	memoryTight = 90
	// tidyAfter is how many sessions must have come before their leavings are cleared away.
	tidyAfter = 100
)

// memory is what the keeper remembers about it.
type memory struct {
	sample [2]metrics.Sample
	came   uint64 // sessions so far, when it last looked
	tidied uint64 // and when it last tidied
}

// tendMemory looks whether there is room for newcomers, and gives memory back that handshakes have left behind: each
// allocates some ten times what its session keeps, and with an idle server nothing would make the collector run, which
// in turn lets the heap stay twice as large as what lives in it.
func (s *Server) tendMemory(clock int64) {
	if clock%memoryCheck != 0 {
		return
	}
	m := &s.memory
	if limit := s.parts.MemoryLimit; limit > 0 {
		m.sample[0].Name, m.sample[1].Name = "/memory/classes/total:bytes", "/memory/classes/heap/released:bytes"
		metrics.Read(m.sample[:])
		used := m.sample[0].Value.Uint64() - m.sample[1].Value.Uint64()
		s.tight.Store(used*100 >= uint64(limit)*memoryTight)
	}
	came := s.clientIDs.Load()
	quiet := came == m.came
	if m.came = came; quiet && came-m.tidied >= tidyAfter {
		m.tidied = came
		s.wg.Go(debug.FreeOSMemory) // it takes a moment with many sessions, in which others go on
	}
}

// crowded reports whether strangers had better come again later: a client that is not answered does so by itself.
func (s *Server) crowded() bool { return s.workers.Full() || s.tight.Load() }
