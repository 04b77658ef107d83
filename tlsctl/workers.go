package tlsctl

import "sync/atomic"

// Workers bound how many TLS handshakes compute at one time, so that a crowd at the door leaves processors to those who
// are inside (S011). A handshake that waits for its client, or for the decision about it, has no place among them. nil
// Workers bound nothing.
type Workers struct {
	places  chan struct{}
	queue   int64
	waiting atomic.Int64
}

// NewWorkers returns Workers with n places. Full is said of them when queue handshakes wait for one.
func NewWorkers(n, queue int) *Workers {
	return &Workers{places: make(chan struct{}, n), queue: int64(queue)}
}

// Full reports whether so many handshakes wait that newcomers are better left outside: a client whose first packets are
// not answered sends them again some seconds later, while one that was let in could only wait.
func (w *Workers) Full() bool { return w != nil && w.waiting.Load() >= w.queue }

// begin waits for a place.
func (w *Workers) begin() {
	if w == nil {
		return
	}
	w.waiting.Add(1)
	w.places <- struct{}{}
	w.waiting.Add(-1)
}

// end gives it back. It never waits.
func (w *Workers) end() {
	if w != nil {
		<-w.places
	}
}
