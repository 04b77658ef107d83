package server

import (
	"sync"
	"time"

	"postern/server/config"
)

// A pace lets so many through in a period, as connect-freq counts: a period begins with the first after the last one.
// Any goroutine.
type pace struct {
	mu    sync.Mutex
	since time.Time
	n     int
}

// allows reports whether one more may begin now.
func (p *pace) allows(most config.Frequency, now time.Time) bool {
	if most.N == 0 {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.since) >= most.Period {
		p.since, p.n = now, 0
	}
	if p.n >= most.N {
		return false
	}
	p.n++
	return true
}
