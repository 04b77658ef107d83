package management

import (
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	outboxLimit  = 1 << 20     // bytes that may wait before events are dropped (S098)
	writeChunk   = 64 << 10    // bytes a single write takes
	stuckTimeout = time.Minute // a tool that takes nothing for so long is gone
	farewellTime = time.Second // for what is left when a connection is closed from our side
)

// outbox holds what waits to be sent to one tool: whole replies and whole events.
type outbox struct {
	nc net.Conn

	mu        sync.Mutex // guards nc's write deadline, too
	changed   sync.Cond  // on mu: more to write, less to write, or closed
	queue     []byte     // guarded by mu
	late      []byte     // guarded by mu: events that wait until a reply is queued
	replying  bool       // guarded by mu
	writing   int        // guarded by mu: bytes in the writer's hands
	missed    int        // guarded by mu: events dropped since the tool was told of any
	confessed int        // guarded by mu: events that the tool was told of since the last take
	deadline  time.Time  // guarded by mu: set when closed
	failed    bool       // guarded by mu: nothing can be written any more
}

func newOutbox(nc net.Conn) *outbox {
	o := &outbox{nc: nc}
	o.changed.L = &o.mu
	return o
}

// event queues an event, or drops it and returns false. After a drop nothing is queued before half the outbox is free,
// so that what is lost is lost in one piece.
func (o *outbox) event(b string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed || o.closed() {
		return true // nobody is there to miss it
	}
	limit := outboxLimit
	if o.missed > 0 {
		limit /= 2
	}
	if o.waitingBytes()+len(b) > limit {
		o.missed++
		return false
	}
	if o.replying {
		o.late = append(o.late, b...)
		return true
	}
	o.confess()
	o.queue = append(o.queue, b...)
	o.changed.Broadcast()
	return true
}

// begin makes events wait for a reply.
func (o *outbox) begin() {
	o.mu.Lock()
	o.replying = true
	o.mu.Unlock()
}

// end queues the reply, then the events that came meanwhile.
func (o *outbox) end(reply []byte) {
	o.mu.Lock()
	o.queue = append(o.queue, reply...)
	o.queue = append(o.queue, o.late...)
	o.late, o.replying = nil, false
	o.changed.Broadcast()
	o.mu.Unlock()
}

// waitingBytes is how much the outbox holds.
func (o *outbox) waitingBytes() int { return len(o.queue) + len(o.late) + o.writing }

func (o *outbox) closed() bool { return !o.deadline.IsZero() }

// confess tells the tool that it missed events.
func (o *outbox) confess() {
	if o.missed > 0 {
		o.queue = fmt.Appendf(o.queue, ">INFO:%d notifications were dropped, since this client read too slowly\r\n", o.missed)
		o.confessed, o.missed = o.confessed+o.missed, 0
	}
}

// waitRoom waits until half the outbox is free. It returns false when the connection is over.
func (o *outbox) waitRoom() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.waitingBytes() > outboxLimit/2 && !o.closed() && !o.failed {
		o.changed.Wait()
	}
	return !o.closed() && !o.failed
}

// close lets the writer send what is queued, and what a running command still has to say, for a moment.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed() {
		return
	}
	o.deadline = time.Now().Add(farewellTime)
	_ = o.nc.SetWriteDeadline(o.deadline) // fails on a connection that is closed, which needs none
	o.changed.Broadcast()
}

// take waits for something to write and hands it out; nil when there will be no more. dropped is how many events the
// tool is now told it missed.
func (o *outbox) take() (b []byte, dropped int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing = 0
	o.changed.Broadcast()
	for {
		if len(o.queue) == 0 && !o.replying {
			o.confess()
		}
		switch {
		case o.failed:
			return nil, 0
		case len(o.queue) > 0:
			b, o.queue = o.queue, nil
			o.writing = len(b)
			dropped, o.confessed = o.confessed, 0
			return b, dropped
		case o.closed() && !o.replying:
			return nil, 0
		}
		o.changed.Wait()
	}
}

// wrote says that n bytes have gone, and gives the next chunk its time.
func (o *outbox) wrote(n int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing -= n
	o.changed.Broadcast()
	if o.closed() {
		return nil // it has a deadline
	}
	return o.nc.SetWriteDeadline(time.Now().Add(stuckTimeout))
}

// fail ends the outbox: whatever it holds is lost.
func (o *outbox) fail() {
	o.mu.Lock()
	o.failed, o.queue, o.late, o.writing = true, nil, nil, 0
	o.changed.Broadcast()
	o.mu.Unlock()
}

// run sends what is queued until the outbox is closed and empty, or the tool takes nothing any more. report is told
// how many events were dropped, each time the tool is.
func (o *outbox) run(report func(dropped int)) error {
	defer o.fail()
	for {
		b, dropped := o.take()
		if dropped > 0 {
			report(dropped)
		}
		if b == nil {
			return nil
		}
		for n := 0; len(b) > 0; b = b[n:] {
			err := o.wrote(n)
			if err != nil {
				return err
			}
			if n, err = o.nc.Write(b[:min(len(b), writeChunk)]); err != nil {
				return err
			}
		}
	}
}
