package tlsctl

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// conn is the net.Conn that crypto/tls drives for one negotiation: two byte streams between the goroutine that does
// TLS and the one in Session.Run, which alone knows packets.
//
//	TLS -- Write --> out -- take --> reliable --> packets
//	TLS <-- Read --- in <-- feed --- reliable <-- packets
type conn struct {
	wake    func()   // tells Run that there is something to take; immutable
	workers *Workers // among whom the reader has a place; nil: it has none. The reader's

	mu      sync.Mutex
	changed sync.Cond
	in      []byte // in order, not yet read
	out     []byte // written, not yet cut into packets
	sending bool   // something taken is not yet acknowledged
	polled  bool   // Read does not wait any more
	err     error  // why nothing goes any more
}

var errOutgoing = errors.New("too much waits to be sent")

func newConn(wake func()) *conn {
	c := &conn{wake: wake}
	c.changed.L = &c.mu
	return c
}

// Read returns the next bytes of the client, waiting for them unless poll was called. Then it fails with
// os.ErrDeadlineExceeded, which crypto/tls takes for no more than that: a later Read goes on where this one stopped.
func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.workers != nil && c.waitsLocked() {
		// Whoever waits is not at work.
		c.workers.End()
		for c.waitsLocked() {
			c.changed.Wait()
		}
		c.mu.Unlock()
		c.workers.begin()
		c.mu.Lock()
	}
	for {
		switch {
		case c.err != nil:
			return 0, c.err
		case len(c.in) > 0:
			n := copy(b, c.in)
			c.in = c.in[n:]
			if len(c.in) == 0 {
				c.in = nil // do not keep a flight's memory for a session's life
			}
			return n, nil
		case c.polled:
			return 0, os.ErrDeadlineExceeded
		}
		c.changed.Wait()
	}
}

// waitsLocked reports whether Read has to wait.
func (c *conn) waitsLocked() bool { return c.err == nil && len(c.in) == 0 && !c.polled }

// work takes a place among the workers for the reader, until rest.
func (c *conn) work(w *Workers) {
	w.begin()
	c.workers = w
}

// rest gives the reader's place back, if it has one. After the first time there may be another reader.
func (c *conn) rest() {
	if c.workers != nil {
		c.workers.End()
		c.workers = nil
	}
}

// Write appends to the stream to the client and never waits: TLS writes no more than a flight or a message at a time.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	if c.err == nil && len(c.out)+len(b) > maxOutgoing {
		c.err = errOutgoing
	}
	if err := c.err; err != nil {
		c.mu.Unlock()
		return 0, err
	}
	c.out = append(c.out, b...)
	c.mu.Unlock()
	c.wake()
	return len(b), nil
}

// Close unblocks whoever waits.
func (c *conn) Close() error {
	c.fail(net.ErrClosed)
	return nil
}

// fail ends both directions, for the reason given first. What was written before is still there to be taken.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.changed.Broadcast()
}

// poll makes Read not wait any more.
func (c *conn) poll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.polled = true
	c.changed.Broadcast()
}

// feed appends bytes from the client, which conn keeps.
func (c *conn) feed(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.in == nil {
		c.in = b
	} else {
		c.in = append(c.in, b...)
	}
	c.changed.Broadcast()
}

// take moves what was written into packets of at most chunk bytes, as many as the window lets go.
func (c *conn) take(r *reliable, chunk int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && r.canSend() {
		n := min(chunk, len(c.out))
		r.queue(OpControl, c.out[:n])
		c.out = c.out[n:]
	}
	if len(c.out) == 0 {
		c.out = nil
	}
	if sending := r.outstanding() > 0; sending != c.sending {
		c.sending = sending
		c.changed.Broadcast()
	}
}

// idle reports whether all that was written has been acknowledged.
func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idleLocked()
}

func (c *conn) idleLocked() bool { return len(c.out) == 0 && !c.sending }

// flushed waits until all that was written has been acknowledged.
func (c *conn) flushed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && !c.idleLocked() {
		c.changed.Wait()
	}
	return c.err
}

// A control channel has no addresses, and its time limits are the session's.
type noAddr struct{}

func (noAddr) Network() string { return "openvpn" }
func (noAddr) String() string  { return "control channel" }

func (c *conn) LocalAddr() net.Addr              { return noAddr{} }
func (c *conn) RemoteAddr() net.Addr             { return noAddr{} }
func (c *conn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *conn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *conn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
