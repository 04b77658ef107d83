package lab

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// An Impairment is what a bad network does to each packet, either way. The zero value is a good one.
type Impairment struct {
	Loss      float64       // of a packet, 0 to 1
	Duplicate float64       // that it comes twice
	Reorder   float64       // that those behind overtake it
	Delay     time.Duration // of each
}

// overtaken is how much later a packet arrives that others overtake.
const overtaken = 30 * time.Millisecond

// A Relay passes datagrams on between clients and one server, as a bad network does, and as a translator: each client
// has a socket of its own towards the server.
type Relay struct {
	front *net.UDPConn
	dial  func() (*net.UDPConn, error)
	how   atomic.Pointer[Impairment]

	passed, lost atomic.Int64

	mu     sync.Mutex // everything below
	rng    *rand.Rand
	behind map[netip.AddrPort]*net.UDPConn
	closed bool
	wg     sync.WaitGroup
}

// Relay opens a relay on the host at a port of its IPv4 address, towards a server.
func (h *Host) Relay(port uint16, server netip.AddrPort, how Impairment) (*Relay, error) {
	var front *net.UDPConn
	err := h.Do(func() (err error) {
		front, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Wan4, port)))
		return err
	})
	if err != nil {
		return nil, err
	}
	return NewRelay(front, func() (conn *net.UDPConn, err error) {
		err = h.Do(func() (err error) {
			conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(server))
			return err
		})
		return conn, err
	}, how), nil
}

// NewRelay starts a relay between who sends to front and what dial connects to. What becomes of each packet is decided by
// a generator with a fixed seed.
func NewRelay(front *net.UDPConn, dial func() (*net.UDPConn, error), how Impairment) *Relay {
	r := &Relay{front: front, dial: dial, rng: rand.New(rand.NewPCG(1, 2)), behind: make(map[netip.AddrPort]*net.UDPConn)}
	r.Impair(how)
	r.wg.Go(r.forward)
	return r
}

// Impair changes what becomes of packets from now on.
func (r *Relay) Impair(how Impairment) { r.how.Store(&how) }

// Counts is how many packets have been passed on and how many were lost. A duplicate counts as passed on.
func (r *Relay) Counts() (passed, lost int64) { return r.passed.Load(), r.lost.Load() }

// Close ends the relay, and returns when it has.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	r.front.Close()
	for _, c := range r.behind {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// forward carries packets towards the server until the relay is closed.
func (r *Relay) forward() {
	var b [1 << 16]byte
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(b[:])
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // what ICMP left
		}
		if conn := r.client(from); conn != nil {
			r.pass(b[:n], func(p []byte) { conn.Write(p) })
		}
	}
}

// client returns a client's socket towards the server; nil when there is none, or no more.
func (r *Relay) client(from netip.AddrPort) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if conn := r.behind[from]; conn != nil || r.closed {
		return conn
	}
	conn, err := r.dial()
	if err != nil {
		return nil // the packet is lost, as it may be here
	}
	r.behind[from] = conn
	r.wg.Go(func() {
		var b [1 << 16]byte
		for {
			n, err := conn.Read(b[:])
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			r.pass(b[:n], func(p []byte) { r.front.WriteToUDPAddrPort(p, from) })
		}
	})
	return conn
}

// pass decides what becomes of a packet.
func (r *Relay) pass(p []byte, send func([]byte)) {
	how := *r.how.Load()
	r.mu.Lock()
	lost, twice, late := r.rng.Float64() < how.Loss, r.rng.Float64() < how.Duplicate, r.rng.Float64() < how.Reorder
	r.mu.Unlock()
	if lost {
		r.lost.Add(1)
		return
	}
	copies := 1
	if twice {
		copies = 2
	}
	delay := how.Delay
	if late {
		delay += overtaken
	}
	r.passed.Add(int64(copies))
	if delay == 0 {
		for range copies {
			send(p)
		}
		return
	}
	p = append([]byte(nil), p...)
	time.AfterFunc(delay, func() { // a socket that is closed by then takes nothing
		for range copies {
			send(p)
		}
	})
}
