package management

import "context"

const holdLine = ">HOLD:Waiting for hold release:0\r\n"

// Hold waits, when the hold flag is set, until a tool releases it, or ctx is done, whose error it returns.
// Call it before the server begins to serve.
func (i *Interface) Hold(ctx context.Context) error {
	i.mu.Lock()
	if !i.hold {
		i.mu.Unlock()
		return nil
	}
	released := i.waiting
	if released == nil {
		released = make(chan struct{})
		i.waiting = released
		for c := range i.conns {
			c.send(holdLine)
		}
	}
	i.mu.Unlock()
	select {
	case <-released:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// release ends every Hold that waits.
func (i *Interface) release() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.waiting != nil {
		close(i.waiting)
		i.waiting = nil
	}
}
