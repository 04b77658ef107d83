package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

const (
	// controlPackets and controlBytes are what SendControl may queue. A session has a few packets under way at a
	// time, so a stream that holds this many has long been dead.
	controlPackets = 64
	controlBytes   = 256 << 10

	// lastWords is how long Close lets a client take what is queued, such as the reason for the farewell.
	lastWords = time.Second
	// writerIdle is how long a writer without work stays, with its two buffers, before an idle stream saves them.
	writerIdle = 200 * time.Millisecond
)

var errControlFull = errors.New("control packets are piling up: the client takes none")

// outbox is what waits to be written to a stream, all of it under Stream.mu. A writer runs while there is work and
// a little longer; what it has in hand no longer counts as queued.
type outbox struct {
	queue []byte // frames, in the order they came
	spare []byte // the buffer to queue in while the writer has the other
	data  load
	ctl   load

	writing bool  // the writer has a batch in hand, which goes before all else
	closing bool  // Close was called: no more packets, and the connection closes once the queue is empty
	broken  bool  // the connection is closed
	err     error // why, where it was not Close; set before broken where a direct was told

	wake    chan struct{} // holds one token
	written chan struct{} // closed when the writer ends; nil while there is none

	packetsOut, bytesOut, dropped uint64
}

// load is what one kind of packets takes up in a queue.
type load struct{ packets, bytes int }

// progress is what a direct has done in a call: how many packets of the trains are written, and where the first begins
// that is not, in the first train left; begun bytes of its frame are. broke is what the kernel says of a connection that
// broke, if it said so here.
type progress struct {
	packets, bytes uint64
	at, begun      int
	broke          error
}

// fits reports whether a packet of n bytes fits beside the load, and adds it if so.
func (l *load) fits(n, packets, bytes int) bool {
	if l.packets >= packets || l.bytes+frameHead+n > bytes {
		return false
	}
	l.add(n)
	return true
}

func (l *load) add(n int) {
	l.packets++
	l.bytes += frameHead + n
}

// Send gives the packets of the trains, whose Addr it does not look at, to the kernel, and queues those that it has no
// room for. It never waits. Packets that find the queue full are dropped and counted; so are packets no frame can hold.
func (s *Stream) Send(trains []Train) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out
	if o.closing || o.broken {
		return net.ErrClosed
	}
	at := 0
	if s.direct != nil && !o.writing {
		trains, at = s.writeNow(trains)
	}
	for i := range trains {
		for t := &trains[i]; at < len(t.Bytes); {
			packet := t.packet(at)
			at += len(packet)
			if len(packet) > maxPacket || !o.data.fits(len(packet), s.o.QueuePackets, s.o.QueueBytes) {
				o.dropped++
				continue
			}
			o.put(packet)
		}
		at = 0
	}
	if len(o.queue) > 0 {
		s.startWriter()
	}
	return nil
}

// writeNow writes the queue and then the trains as far as the kernel has room. It returns the trains that are left, and
// where in the first of them. It needs mu, and a writer that has nothing in hand.
func (s *Stream) writeNow(trains []Train) (left []Train, at int) {
	o, d := &s.out, s.direct
	rest, left := d.write(o.queue, trains)
	o.packetsOut += d.packets
	o.bytesOut += d.bytes
	if d.broke != nil && o.err == nil {
		o.err = fmt.Errorf("write: %w", d.broke)
	}
	if len(rest) < len(o.queue) {
		o.queue = o.queue[:copy(o.queue, rest)]
	}
	if len(rest) > 0 {
		return left, d.at
	}
	o.data, o.ctl = load{}, load{}
	if at = d.at; d.begun > 0 { // the rest of this one must follow, whatever the bounds say
		packet := left[0].packet(at)
		at += len(packet)
		o.data.add(len(packet))
		o.put(packet)
		o.queue = o.queue[:copy(o.queue, o.queue[d.begun:])]
	} else if o.written == nil {
		o.queue = nil
	}
	return left, at
}

// SendControl sends a control packet behind what is queued already, in room that data cannot take. It never waits.
// An error means that the packet is lost, and so is the session: on a stream nobody sends it again.
func (s *Stream) SendControl(packet []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out
	switch {
	case o.closing, o.broken:
		return net.ErrClosed
	case len(packet) == 0 || len(packet) > maxPacket:
		return fmt.Errorf("control packet of %d bytes", len(packet))
	case !o.ctl.fits(len(packet), controlPackets, controlBytes):
		return errControlFull
	}
	o.put(packet)
	if s.direct != nil && !o.writing {
		s.writeNow(nil)
	}
	if len(o.queue) > 0 {
		s.startWriter()
	}
	return nil
}

func (o *outbox) put(packet []byte) {
	o.queue = appendFrame(o.queue, packet)
	o.packetsOut++
	o.bytesOut += uint64(len(packet))
}

// Close refuses further packets and ends Receive with net.ErrClosed. A client that takes them still gets the packets
// queued before, for a second at most; Close itself does not wait.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out
	if o.closing {
		return nil
	}
	o.closing = true
	if o.broken || o.written == nil {
		o.broken = true
		s.conn.Close() // fails only when closed already
		return nil
	}
	now := time.Now()
	s.conn.SetReadDeadline(now)
	s.conn.SetWriteDeadline(now.Add(lastWords))
	s.startWriter()
	return nil
}

// fail closes the connection at once, for the reason given. It needs mu.
func (s *Stream) fail(err error) {
	o := &s.out
	if o.broken {
		return
	}
	o.broken = true
	if o.err == nil {
		o.err = err
	}
	s.conn.Close()
	s.startWriter() // to its end, if there is one
}

// startWriter sees to it that a writer looks at the outbox. It needs mu.
func (s *Stream) startWriter() {
	o := &s.out
	if o.written != nil {
		select {
		case o.wake <- struct{}{}:
		default: // it has not taken the last token yet
		}
		return
	}
	if len(o.queue) == 0 {
		return
	}
	o.wake, o.written = make(chan struct{}, 1), make(chan struct{})
	go s.write(o.wake, o.written)
}

// write writes what is queued, each time all of it at once, until the stream ends or stays idle.
func (s *Stream) write(wake <-chan struct{}, written chan<- struct{}) {
	defer close(written)
	idle := time.NewTimer(writerIdle)
	defer idle.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out
	for {
		switch {
		case o.broken:
			o.queue, o.spare = nil, nil
			return
		case len(o.queue) > 0:
			batch := o.queue
			o.queue, o.spare = o.spare[:0], nil
			o.data, o.ctl = load{}, load{}
			o.writing = true
			err := s.writeAll(batch)
			o.writing = false
			o.spare = batch[:0]
			if err != nil {
				s.fail(err)
			}
		case o.closing:
			s.fail(nil)
		default:
			idle.Reset(writerIdle)
			s.mu.Unlock()
			expired := false
			select {
			case <-wake:
			case <-idle.C:
				expired = true
			}
			s.mu.Lock()
			if expired && len(o.queue) == 0 && !o.closing && !o.broken {
				o.queue, o.spare, o.written = nil, nil, nil
				return
			}
		}
	}
}

// writeAll writes b, giving up when the client takes nothing of it for o.Stall, or not all before Close's deadline.
// It needs mu and lets go of it while it writes.
func (s *Stream) writeAll(b []byte) error {
	for {
		if !s.out.closing {
			s.conn.SetWriteDeadline(time.Now().Add(s.o.Stall))
		}
		s.mu.Unlock()
		n, err := s.conn.Write(b)
		s.mu.Lock()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("write: %w", err)
		case s.out.closing:
			return err
		case n == 0:
			return fmt.Errorf("client took nothing for %v", s.o.Stall)
		}
		b = b[n:]
	}
}
