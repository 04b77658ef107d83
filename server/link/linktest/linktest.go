// Package linktest is link in memory: sockets joined by a network that does no I/O, for tests in synctest bubbles.
// It keeps the promises of link.Socket as the real sockets do, and breaks the code of those who rely on more:
// trains are merged as a kernel with GRO would, and what Receive lent is overwritten at the next Receive.
package linktest

import (
	"bytes"
	"net"
	"net/netip"
	"sync"

	"postern/server/link"
)

const (
	queueLen   = 4096  // packets waiting in a socket; more are dropped
	maxTrains  = 16    // trains that one Receive returns
	maxPackets = 64    // packets in a train
	maxTrain   = 65507 // bytes in a train
)

// A Net is a network with sockets on it: the server's, and clients'.
type Net struct {
	server *Socket

	mu      sync.Mutex // everything below, and every socket's
	sockets map[netip.AddrPort]*Socket
	filter  func(from, to netip.AddrPort, packet []byte) bool
}

// New makes a network with the server's socket at addr.
func New(addr netip.AddrPort) *Net {
	n := &Net{sockets: make(map[netip.AddrPort]*Socket)}
	n.server = n.Client(addr)
	return n
}

// Server is the server's socket.
func (n *Net) Server() *Socket { return n.server }

// Client makes a socket at addr. It panics when there is one already.
func (n *Net) Client(addr netip.AddrPort) *Socket {
	addr = unmapped(addr)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sockets[addr] != nil {
		panic("linktest: " + addr.String() + " is taken")
	}
	s := &Socket{net: n, addr: addr, wake: make(chan struct{}, 1)}
	n.sockets[addr] = s
	return s
}

// Filter has every packet judged by keep before it is delivered; false loses it. keep may change the packet, and
// must not call into the Net. nil keeps all.
func (n *Net) Filter(keep func(from, to netip.AddrPort, packet []byte) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = keep
}

// Socket is a link.Socket on a Net.
type Socket struct {
	net  *Net
	wake chan struct{} // holds one token when Receive should look again

	// Under net.mu.
	addr    netip.AddrPort
	queue   []packet
	dropped int
	closed  bool

	lent [][]byte // the last Receive's
}

var _ link.Socket = (*Socket)(nil)

type packet struct {
	from  netip.AddrPort
	bytes []byte
}

// Addr is where the socket is now.
func (s *Socket) Addr() netip.AddrPort {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	return s.addr
}

// Move gives the socket another address, as a NAT does to a client. Packets for the old one are lost from now on.
func (s *Socket) Move(to netip.AddrPort) {
	to = unmapped(to)
	n := s.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sockets[to] != nil {
		panic("linktest: " + to.String() + " is taken")
	}
	delete(n.sockets, s.addr)
	s.addr = to
	if !s.closed {
		n.sockets[to] = s
	}
}

// Dropped is how many packets found the queue of this socket full.
func (s *Socket) Dropped() int {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	return s.dropped
}

// Receive implements link.Socket. Packets of one sender and one size that follow each other make one train.
func (s *Socket) Receive() ([]link.Train, error) {
	for _, b := range s.lent {
		for i := range b {
			b[i] = 0xdb // whoever still reads it shall notice
		}
	}
	s.lent = nil
	for {
		s.net.mu.Lock()
		trains, closed := s.take(), s.closed
		s.net.mu.Unlock()
		switch {
		case closed:
			return nil, net.ErrClosed
		case len(trains) > 0:
			return trains, nil
		}
		<-s.wake
	}
}

// take makes trains of what is queued. It needs net.mu.
func (s *Socket) take() []link.Train {
	var trains []link.Train
	for len(s.queue) > 0 && len(trains) < maxTrains {
		first, size := s.queue[0], len(s.queue[0].bytes)
		var b []byte
		for n := 0; len(s.queue) > 0 && n < maxPackets; n++ {
			p := s.queue[0]
			if p.from != first.from || len(p.bytes) > size || len(b)+len(p.bytes) > maxTrain {
				break
			}
			b = append(b, p.bytes...)
			s.queue = s.queue[1:]
			if len(p.bytes) < size {
				break // only the last one of a train may be shorter
			}
		}
		b = append(b, make([]byte, link.Slack)...)
		s.lent = append(s.lent, b)
		n := len(b) - link.Slack
		trains = append(trains, link.Train{Addr: first.from, Bytes: b[:n:len(b)], Size: size})
	}
	return trains
}

// Send implements link.Socket.
func (s *Socket) Send(trains []link.Train) error {
	n := s.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	for _, t := range trains {
		size := t.Size
		if size <= 0 {
			size = len(t.Bytes)
		}
		for rest := t.Bytes; len(rest) > 0; {
			b := bytes.Clone(rest[:min(size, len(rest))])
			rest = rest[len(b):]
			n.deliver(s.addr, unmapped(t.Addr), b)
		}
	}
	return nil
}

// deliver puts a packet into the queue of the socket at to, if there is one. It needs mu.
func (n *Net) deliver(from, to netip.AddrPort, b []byte) {
	if n.filter != nil && !n.filter(from, to, b) {
		return
	}
	s := n.sockets[to]
	if s == nil || len(b) == 0 {
		return
	}
	if len(s.queue) >= queueLen {
		s.dropped++
		return
	}
	s.queue = append(s.queue, packet{from, b})
	s.wakeUp()
}

func (s *Socket) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close implements link.Socket. The address is free again.
func (s *Socket) Close() error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.queue = nil
		delete(s.net.sockets, s.addr)
		s.wakeUp()
	}
	return nil
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
