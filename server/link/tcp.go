package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// TCPOptions say how streams behave. The zero value is right for OpenVPN's defaults.
type TCPOptions struct {
	SocketOptions
	V6Only  bool // a listener on [::] leaves IPv4 alone
	RecvBuf int  // the kernel's buffers, bytes; 0 leaves them to the kernel
	SendBuf int

	QueuePackets int           // data packets waiting for a slow client; 0 is 64
	QueueBytes   int           // and their bytes; 0 is 256 KiB
	FirstPacket  time.Duration // a client has this long for its first packet; 0 is 5 s
	Stall        time.Duration // a client that takes nothing for this long is given up; 0 is 60 s

	Inherited *Inherited     // the listening socket, opened already; nil: ListenTCP opens one
	Balancers []netip.Prefix // who opens connections with a PROXY header, see Stream.Introduce
}

func (o TCPOptions) withDefaults() TCPOptions {
	o.QueuePackets = orDefault(o.QueuePackets, 64)
	o.QueueBytes = orDefault(o.QueueBytes, 256<<10)
	o.FirstPacket = orDefault(o.FirstPacket, 5*time.Second)
	o.Stall = orDefault(o.Stall, 60*time.Second)
	return o
}

// Listener accepts streams. No error but its own closing ends it.
type Listener struct {
	ln     net.Listener
	o      TCPOptions
	close  sync.Once
	closed chan struct{}
	errors atomic.Uint64
}

// ListenTCP listens on addr.
func ListenTCP(addr netip.AddrPort, o TCPOptions) (*Listener, error) {
	if o.Inherited != nil {
		ln, err := o.Inherited.listener()
		if err != nil {
			return nil, fmt.Errorf("listen on TCP %v: %w", addr, err)
		}
		return listenOn(ln, addr, o)
	}
	lc := net.ListenConfig{KeepAlive: -1} // sessions have their own pings
	lc.Control = func(_, _ string, c syscall.RawConn) error { return o.SocketOptions.set(c, addr.Addr()) }
	lc.SetMultipathTCP(false) // stock clients do not speak it
	host := netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).String()
	ln, err := lc.Listen(context.Background(), network("tcp", addr.Addr(), o.V6Only), host)
	if err != nil {
		return nil, fmt.Errorf("listen on TCP %v: %w", addr, err)
	}
	return newListener(ln, o), nil
}

// listenOn prepares a listening socket that was opened elsewhere.
func listenOn(ln net.Listener, addr netip.AddrPort, o TCPOptions) (*Listener, error) {
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = o.SocketOptions.set(raw, addr.Addr())
	}
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("listen on TCP %v: %w", addr, err)
	}
	return newListener(ln, o), nil
}

func newListener(ln net.Listener, o TCPOptions) *Listener {
	return &Listener{ln: ln, o: o.withDefaults(), closed: make(chan struct{})}
}

// Accept waits for a client. An accepted stream holds neither a goroutine nor a buffer until it is used. When the
// system has no descriptors or memory left, Accept waits 5 ms, then twice as long each time up to 1 s, and goes on.
// It returns net.ErrClosed after Close, and no other error.
func (l *Listener) Accept() (*Stream, error) {
	for failures := 0; ; failures++ {
		conn, err := l.ln.Accept()
		if err == nil {
			return newStream(conn, &l.o), nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, net.ErrClosed
		}
		l.errors.Add(1)
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(backoff(failures)):
		}
	}
}

// Errors is how many times the system had no connection to give. Any goroutine.
func (l *Listener) Errors() uint64 { return l.errors.Load() }

// LocalAddr is the address the listener is bound to.
func (l *Listener) LocalAddr() netip.AddrPort { return addrPort(l.ln.Addr()) }

// Close ends Accept. Streams live on.
func (l *Listener) Close() error {
	var err error
	l.close.Do(func() {
		close(l.closed)
		err = l.ln.Close()
	})
	return err
}

// addrPort is addr without IPv4-in-IPv6, and the zero value for an address that is not IP.
func addrPort(addr net.Addr) netip.AddrPort {
	a, ok := addr.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
