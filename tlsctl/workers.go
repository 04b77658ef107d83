package tlsctl

import (
	"context"
	"sync/atomic"
)

// Workers bound how much computes at one time of TLS handshakes, and of what else newcomers cost, so that a crowd at the
// door leaves processors to those who are inside (S011). A handshake that waits for its client, or for the decision about
// it, has no place among them. nil Workers bound nothing. Any goroutine.
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

// Begin waits for a place, until ctx is done. Places go to whoever has waited for longest, so who wants many of them does
// well to wait for one at a time: the handshakes in between go first.
func (w *Workers) Begin(ctx context.Context) error {
	if w == nil {
		return nil
	}
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	select {
	case w.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// begin waits for as long as it takes.
func (w *Workers) begin() { _ = w.Begin(context.Background()) } // which never ends

// End gives the place back. It never waits.
func (w *Workers) End() {
	if w != nil {
		<-w.places
	}
}
