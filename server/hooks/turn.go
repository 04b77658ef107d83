package hooks

import (
	"context"
	"sync"
)

// A turn is a lock that is had in the order of asking, and that one may stop waiting for.
type turn struct {
	mu      sync.Mutex
	taken   bool
	waiting []chan struct{} // each is closed when it is its turn
}

// wait waits for the turn; leave hands it to the next.
func (t *turn) wait(ctx context.Context) (leave func(), err error) {
	t.mu.Lock()
	if !t.taken {
		t.taken = true
		t.mu.Unlock()
		return t.leave, nil
	}
	mine := make(chan struct{})
	t.waiting = append(t.waiting, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return t.leave, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	for i, c := range t.waiting {
		if c == mine {
			t.waiting = append(t.waiting[:i], t.waiting[i+1:]...)
			t.mu.Unlock()
			return nil, context.Cause(ctx)
		}
	}
	t.mu.Unlock()
	t.leave() // the turn came in the same moment
	return nil, context.Cause(ctx)
}

func (t *turn) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		t.taken = false
		return
	}
	close(t.waiting[0])
	t.waiting = t.waiting[1:]
}
