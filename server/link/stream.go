package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// strangerLimit is the largest packet a stream takes until SetLimit.
	strangerLimit = 2048
	// trainsPerReceive bounds what a client can make us keep by sending frames of one byte.
	trainsPerReceive = 256
)

// Stream is one client's TCP connection, cut into packets. It implements Socket.
//
// Each packet is a train of its own. Frames lie back to back, so the Slack behind a packet is the next frame: who
// borrows it must put it back before opening the next.
//
// Send drops data packets when the client's queue is full. Control packets go through SendControl: data never takes
// their room, for on TCP clients do not ask for them again.
type Stream struct {
	conn net.Conn
	addr netip.AddrPort // Introduce changes it, before the stream is anybody else's
	o    *TCPOptions    // of all streams of a listener

	balanced bool // a PROXY header is still to come

	limit     atomic.Int32
	packetsIn atomic.Uint64
	bytesIn   atomic.Uint64

	// These belong to the goroutine in Receive.
	in     frames
	trains []Train
	known  bool // the first packet has come

	mu     sync.Mutex
	out    outbox  // under mu
	direct *direct // likewise; nil where conn is no socket
}

// StreamStats is a snapshot of a stream's counters. Bytes are without frame lengths.
type StreamStats struct {
	PacketsIn, BytesIn   uint64
	PacketsOut, BytesOut uint64 // given to the kernel, or about to be
	Dropped              uint64 // packets that found the queue full
}

// NewStream makes a stream of conn. The time for the first packet begins to run.
func NewStream(conn net.Conn, o TCPOptions) *Stream {
	o = o.withDefaults()
	return newStream(conn, &o)
}

func newStream(conn net.Conn, o *TCPOptions) *Stream {
	s := &Stream{conn: conn, addr: addrPort(conn.RemoteAddr()), o: o}
	s.balanced = slices.ContainsFunc(o.Balancers, func(p netip.Prefix) bool { return p.Contains(s.addr.Addr().WithZone("")) })
	s.limit.Store(strangerLimit)
	s.direct = newDirect(conn)
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetNoDelay(true)
		// Where these fail, so will the first read.
		limitUnsent(tcp)
		if o.RecvBuf > 0 {
			tcp.SetReadBuffer(o.RecvBuf)
		}
		if o.SendBuf > 0 {
			tcp.SetWriteBuffer(o.SendBuf)
		}
	}
	conn.SetReadDeadline(time.Now().Add(s.o.FirstPacket))
	return s
}

// RemoteAddr is the client's address, unmapped: a balancer's until Introduce.
func (s *Stream) RemoteAddr() netip.AddrPort { return s.addr }

// SetLimit sets the largest packet that the stream takes, at most 65,535. It starts at 2,048. Any goroutine.
func (s *Stream) SetLimit(n int) { s.limit.Store(int32(min(n, maxPacket))) }

// Receive returns the packets at hand, each a train, as Socket promises. A packet that is empty or above the limit,
// and a client that sends none in time, are errors. After any error the connection is closed and the goroutine that
// wrote to it has ended.
func (s *Stream) Receive() ([]Train, error) {
	trains, err := s.receive()
	if err != nil {
		return nil, s.ended(err)
	}
	return trains, nil
}

func (s *Stream) receive() ([]Train, error) {
	for {
		trains, err := s.cut()
		if len(trains) > 0 {
			return trains, nil // a bad frame behind them is found again
		}
		if err != nil {
			return nil, err
		}
		n, err := s.conn.Read(s.in.space())
		if s.in.filled(n); n > 0 {
			continue // an error comes again
		}
		switch {
		case err == nil:
		case !s.known && errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("no packet within %v", s.o.FirstPacket)
		default:
			return nil, err
		}
	}
}

// cut makes trains of the frames that are complete.
func (s *Stream) cut() ([]Train, error) {
	clear(s.trains)
	s.trains = s.trains[:0]
	limit, bytes := int(s.limit.Load()), 0
	var packet []byte
	var err error
	for len(s.trains) < trainsPerReceive {
		if packet, err = s.in.next(limit); packet == nil {
			break
		}
		bytes += len(packet)
		s.trains = append(s.trains, Train{Addr: s.addr, Bytes: packet, Size: len(packet)})
	}
	if n := len(s.trains); n > 0 {
		s.packetsIn.Add(uint64(n))
		s.bytesIn.Add(uint64(bytes))
		if !s.known {
			s.known = true
			s.mu.Lock()
			if !s.out.closing { // Close has set a deadline of its own
				s.conn.SetReadDeadline(time.Time{})
			}
			s.mu.Unlock()
		}
	}
	return s.trains, err
}

// ended closes the stream after Receive has failed, waits for its writer, and says why it ended.
func (s *Stream) ended(err error) error {
	s.mu.Lock()
	closing, written := s.out.closing, s.out.written
	if !closing {
		s.fail(nil)
	}
	s.mu.Unlock()
	if written != nil {
		<-written
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = frames{}
	switch {
	case closing:
		return net.ErrClosed
	case s.out.err != nil:
		return s.out.err
	}
	s.out.err = err
	return err
}

// Stats returns the counters as they are now. Any goroutine.
func (s *Stream) Stats() StreamStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return StreamStats{
		PacketsIn: s.packetsIn.Load(), BytesIn: s.bytesIn.Load(),
		PacketsOut: s.out.packetsOut, BytesOut: s.out.bytesOut, Dropped: s.out.dropped,
	}
}
