package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"postern/server/link"
)

// The peer stands in the network behind the server: over TCP it takes or gives bytes as the request asks, over UDP it
// counts, echoes and sends datagrams (flow_udp.go).

// A TCP request is the first bytes of a connection.
const requestSize = 16

func request(mode byte) [requestSize]byte {
	r := [requestSize]byte([]byte("vpnload\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	r[8] = mode
	return r
}

// servePeer serves on a TCP and a UDP port of one number until one of them fails.
func servePeer(at netip.AddrPort) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	sock, err := link.Quieten(conn)
	if err != nil {
		return err
	}
	p := &udpPeer{sock: sock, flows: make(map[netip.AddrPort]*peerFlow)}
	if p.raw, err = sock.SyscallConn(); err != nil {
		return err
	}
	if err := p.raw.Control(func(fd uintptr) {
		for _, o := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 8<<20)
		}
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	}); err != nil {
		return err
	}
	fmt.Printf("peer serves on %v\n", at)
	failed := make(chan error, 2)
	go func() { failed <- serveTCP(l) }()
	go func() { failed <- p.serve() }()
	return <-failed
}

func serveTCP(l *net.TCPListener) error {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no descriptors: some will come back
			continue
		}
		go serveConn(c)
	}
}

func serveConn(c *net.TCPConn) {
	defer c.Close()
	var r [requestSize]byte
	if _, err := io.ReadFull(c, r[:]); err != nil || string(r[:7]) != "vpnload" {
		return
	}
	var wg sync.WaitGroup
	if r[8] != 'u' {
		wg.Go(func() {
			b := make([]byte, 256<<10)
			for {
				if _, err := c.Write(b); err != nil {
					c.Close()
					return
				}
			}
		})
	}
	b := make([]byte, 256<<10)
	for {
		if _, err := c.Read(b); err != nil {
			break
		}
	}
	c.Close()
	wg.Wait()
}

// A udpPeer is the UDP side of a peer.
type udpPeer struct {
	sock  *link.QuietSocket
	raw   syscall.RawConn
	flows map[netip.AddrPort]*peerFlow // of the goroutine in serve
}

// receive reads what came, as one message of the kernel.
func (p *udpPeer) receive(buf, oob []byte) (n, on int, from netip.AddrPort, err error) {
	read := func(fd uintptr) bool {
		var sa unix.Sockaddr
		n, on, _, sa, err = unix.Recvmsg(int(fd), buf, oob, unix.MSG_DONTWAIT)
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			from = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			from = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
		}
		return true
	}
	closed := p.sock.Arrivals().Read(func(uintptr) bool {
		if e := p.raw.Read(read); e != nil {
			err = e
		}
		return !errors.Is(err, unix.EAGAIN)
	})
	if closed != nil {
		err = net.ErrClosed
	}
	return n, on, from, err
}

// transmit sends one message, with a control message or none, and waits for room.
func (p *udpPeer) transmit(b, oob []byte, to unix.Sockaddr) (err error) {
	closed := p.raw.Control(func(fd uintptr) {
		for {
			if err = unix.Sendmsg(int(fd), b, oob, to, unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
				return
			}
			awaitRoom(int(fd))
		}
	})
	return errors.Join(closed, err)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// peerFlow is what the peer knows of one session's flow.
type peerFlow struct {
	packets, bytes uint64 // of the goroutine in serve

	mu    sync.Mutex
	until time.Time // sends so long
	size  int
	rate  int
	burst int
	runs  bool
	seq   uint64
}

func (p *udpPeer) serve() error {
	buf, oob := make([]byte, 64<<10), make([]byte, 64)
	var from netip.AddrPort
	var f *peerFlow
	for {
		n, on, addr, err := p.receive(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue // ICMP leaves errors on the socket
		}
		if f == nil || addr != from {
			from = addr
			if f = p.flows[addr]; f == nil {
				f = new(peerFlow)
				p.flows[addr] = f
			}
		}
		size := segmentSize(oob[:on], n)
		for b := buf[:n]; len(b) > 0; {
			pkt := b[:min(size, len(b))]
			b = b[len(pkt):]
			m, ok := parseMessage(pkt)
			if !ok {
				continue
			}
			switch m.kind {
			case 'u':
				f.packets++
				f.bytes += uint64(len(pkt))
			case 'e':
				_ = p.transmit(pkt, nil, sockaddr(addr))
			case 'q':
				m.kind, m.seq, m.stamp = 'r', f.packets, f.bytes
				m.put(pkt)
				_ = p.transmit(pkt[:udpHead], nil, sockaddr(addr))
			case 's':
				p.send(f, addr, &m)
			case 'x':
				f.mu.Lock()
				f.until = time.Time{}
				f.mu.Unlock()
			}
		}
	}
}

// patience is how long the peer sends without being asked again.
const patience = 3 * time.Second

func (p *udpPeer) send(f *peerFlow, to netip.AddrPort, m *message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = time.Now().Add(patience)
	f.size, f.rate, f.burst = max(int(m.size), udpHead), int(min(m.stamp, 1<<24)), 1
	if m.flags&flagSingly == 0 {
		f.burst = min(maxSplit, maxMessage/f.size)
	}
	if !f.runs {
		f.runs = true
		go p.run(f, to)
	}
}

func (p *udpPeer) run(f *peerFlow, to netip.AddrPort) {
	var cmsg [unix.SizeofCmsghdr + 8]byte
	h := (*unix.Cmsghdr)(unsafe.Pointer(&cmsg))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	var b []byte
	at := sockaddr(to)
	last, owed := time.Now(), 0.0
	for {
		f.mu.Lock()
		now := time.Now()
		if now.After(f.until) {
			f.runs = false
			f.mu.Unlock()
			return
		}
		size, rate, n := f.size, f.rate, f.burst
		f.mu.Unlock()
		if rate > 0 {
			owed += now.Sub(last).Seconds() * float64(rate)
			last = now
			if owed < min(float64(n), max(1, float64(rate)*batchEvery.Seconds())) {
				time.Sleep(2 * time.Millisecond)
				continue
			}
			n = min(n, int(owed))
			owed -= float64(n)
		}
		if len(b) < n*size {
			b = make([]byte, n*size)
		}
		for i := range n {
			m := message{kind: 'd', seq: f.seq}
			m.put(b[i*size:])
			f.seq++
		}
		var err error
		if n == 1 {
			err = p.transmit(b[:size], nil, at)
		} else {
			binary.NativeEndian.PutUint16(cmsg[unix.CmsgLen(0):], uint16(size))
			err = p.transmit(b[:n*size], cmsg[:], at)
		}
		if err != nil {
			time.Sleep(time.Millisecond) // no room, or no route for the moment
		}
	}
}
