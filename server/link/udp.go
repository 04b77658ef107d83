package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	defaultSocketBuf = 4 << 20
	maxDatagram      = 65507 // the largest UDP payload over IPv4
	readBuf          = 1 << 16
	narrowMemory     = 64 // addresses waiting for Narrow

	// sendPatience is how long one Send may wait while the socket's own send buffer is full. That is the local
	// interface pushing back, not a client: it empties at line rate, so waiting a moment loses less than dropping.
	// An interface that still takes nothing after it is given no second wait until it takes a packet again.
	sendPatience = 10 * time.Millisecond
)

// UDPOptions say how ListenUDP opens its sockets. The zero value is one socket with everything the kernel has.
type UDPOptions struct {
	Lanes   int  // how many sockets share the address; 0 is 1
	V6Only  bool // a socket on [::] leaves IPv4 alone
	RecvBuf int  // bytes; 0 is 4 MB. Above the system's limit only with CAP_NET_ADMIN
	SendBuf int  // likewise
	Plain   bool // one datagram per system call, as where the kernel knows nothing better
	// Multihome has Receive tell the address that packets came to, where the socket has more than one, so that answers
	// can leave from there; SameInterface also the interface. Linux only; not together with Plain.
	Multihome, SameInterface bool
	// Inherited is the first socket, opened already. Where the others may not be opened beside it, as when it belongs to
	// another user, it is the only one.
	Inherited *Inherited
	SocketOptions
}

// UDP is a socket that many clients share. It implements Socket. Send waits at most sendPatience, and only for
// the machine's own interface. No error of the network ends it: what the kernel refuses is dropped and counted.
type UDP struct {
	conn interface {
		syscall.Conn
		io.Closer
	}
	local  netip.AddrPort
	moves  mover
	close  sync.Once
	closed chan struct{}

	narrow chan netip.Addr // addresses that took no packet of the size they were sent, see Narrow

	in  inCounters // written by the goroutine in Receive
	_   [64]byte   // the two directions run on different cores
	out outCounters
}

// A mover is a way to move datagrams: many per system call or one.
type mover interface {
	receive() ([]Train, error)
	send([]Train) error
}

// UDPStats is a snapshot of a socket's counters.
type UDPStats struct {
	Receives, PacketsIn, BytesIn uint64 // Receives: system calls that brought something
	Overrun                      uint64 // datagrams dropped by the kernel, whose buffer for the socket was full
	Truncated, Empty             uint64 // datagrams dropped because cut short, or without a byte
	Sends, PacketsOut, BytesOut  uint64 // Sends: system calls that took something
	Dropped                      uint64 // packets given to Send that did not leave
	Singly                       uint64 // trains that the kernel refused whole and got packet by packet
	ReceiveErrors, SendErrors    map[syscall.Errno]uint64
}

type inCounters struct {
	batches, packets, bytes, truncated, empty atomic.Uint64
	errors                                    errnoCounters
}

type outCounters struct {
	batches, packets, bytes, dropped, singly atomic.Uint64
	errors                                   errnoCounters
}

// errnoCounters counts errors by number; numbers it has no room for are counted as 0.
type errnoCounters [134]atomic.Uint64

func (c *errnoCounters) add(err error) {
	var errno syscall.Errno
	errors.As(err, &errno)
	c.addErrno(errno)
}

func (c *errnoCounters) addErrno(errno syscall.Errno) {
	if int(errno) >= len(c) {
		errno = 0
	}
	c[errno].Add(1)
}

func (c *errnoCounters) snapshot() map[syscall.Errno]uint64 {
	m := make(map[syscall.Errno]uint64)
	for i := range c {
		if n := c[i].Load(); n > 0 {
			m[syscall.Errno(i)] = n
		}
	}
	return m
}

// Receive waits for a datagram and returns all that one system call brings, as Socket promises.
func (u *UDP) Receive() ([]Train, error) { return u.moves.receive() }

// Send sends the trains in order. It returns an error only when the socket is closed.
func (u *UDP) Send(trains []Train) error { return u.moves.send(trains) }

// Close ends Receive and Send with net.ErrClosed.
func (u *UDP) Close() error {
	var err error
	u.close.Do(func() {
		close(u.closed)
		err = u.conn.Close()
	})
	return err
}

// Narrow returns an address that a packet was too large for since it was asked last; not ok when there is none, or no
// more. When many are waiting, others are forgotten. Any goroutine.
func (u *UDP) Narrow() (addr netip.Addr, ok bool) {
	select {
	case addr = <-u.narrow:
		return addr, true
	default:
		return addr, false
	}
}

// tooLarge remembers an address for Narrow.
func (u *UDP) tooLarge(addr netip.Addr) {
	select {
	case u.narrow <- addr:
	default:
	}
}

// LocalAddr is the address the socket is bound to, with the port the kernel chose when none was asked for.
func (u *UDP) LocalAddr() netip.AddrPort { return u.local }

// Stats returns the counters as they are now. Any goroutine.
func (u *UDP) Stats() UDPStats {
	return UDPStats{
		Receives: u.in.batches.Load(), PacketsIn: u.in.packets.Load(), BytesIn: u.in.bytes.Load(),
		Overrun:   overrun(u.conn),
		Truncated: u.in.truncated.Load(), Empty: u.in.empty.Load(),
		Sends: u.out.batches.Load(), PacketsOut: u.out.packets.Load(), BytesOut: u.out.bytes.Load(),
		Dropped: u.out.dropped.Load(), Singly: u.out.singly.Load(),
		ReceiveErrors: u.in.errors.snapshot(), SendErrors: u.out.errors.snapshot(),
	}
}

// received adds a batch to the counters.
func (u *UDP) received(packets, bytes int) {
	u.in.batches.Add(1)
	u.in.packets.Add(uint64(packets))
	u.in.bytes.Add(uint64(bytes))
}

// receiveFailed judges an error of the n-th receive in a row that failed. ICMP leaves errors on a socket and an
// interface may come and go: those are counted and Receive goes on. It returns an error only when the socket is
// closed or is no socket any more.
func (u *UDP) receiveFailed(err error, n int) error {
	switch {
	case errors.Is(err, net.ErrClosed):
		return net.ErrClosed
	case errors.Is(err, syscall.EBADF), errors.Is(err, syscall.ENOTSOCK), errors.Is(err, syscall.EFAULT):
		return fmt.Errorf("receive on %v: %w", u.local, err)
	}
	u.in.errors.add(err)
	if n < 16 {
		return nil // reading an error clears it
	}
	select {
	case <-u.closed:
		return net.ErrClosed
	case <-time.After(backoff(n - 16)):
		return nil
	}
}

// backoff is how long to wait after the n-th failure in a row, n from 0: 5 ms, doubling to 1 s.
func backoff(n int) time.Duration {
	return min(5*time.Millisecond<<min(n, 8), time.Second)
}

// packets is how many packets the train holds.
func (t *Train) packets() int {
	if t.Size <= 0 || t.Size >= len(t.Bytes) {
		return min(len(t.Bytes), 1)
	}
	return (len(t.Bytes) + t.Size - 1) / t.Size
}

// orDefault is n, or d when n is zero.
func orDefault[T int | time.Duration](n, d T) T {
	if n == 0 {
		return d
	}
	return n
}

// network is the name package net has for proto ("udp", "tcp") on addr: "udp" itself would take IPv6 as well
// where 0.0.0.0 is asked for.
func network(proto string, addr netip.Addr, v6Only bool) string {
	switch {
	case addr.Unmap().Is4():
		return proto + "4"
	case v6Only:
		return proto + "6"
	}
	return proto
}
