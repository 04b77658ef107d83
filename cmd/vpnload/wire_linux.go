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
	"unsafe"

	"golang.org/x/sys/unix"

	"postern/server/link"
)

// A wire carries one session's packets.
type wire interface {
	// send sends packets that lie back to back, each size long but perhaps the last. It waits when the kernel's buffer
	// is full, keeps nothing, and may be called from any goroutine.
	send(b []byte, size int) error
	// receive hands each batch of packets over, as send takes them, and calls idle when nothing more is at hand, until
	// the wire is closed. The bytes are lent for the call, with room behind them that an opener may borrow.
	receive(handle func(b []byte, size int), idle func()) error
	close()
}

const (
	slack      = 16
	bufferSize = 64<<10 + slack
	maxSplit   = 64    // packets in one message: what older kernels take
	maxMessage = 65507 // bytes in one
)

// buffers are for wires and trains, held only while there is something in them: thousands of idle sessions have none.
var buffers = sync.Pool{New: func() any { return new([2 * bufferSize]byte) }}

// A udpWire is a socket of its own, so that every session has a port of its own. With gso it moves many packets per
// system call, as the best of clients could; without, one, as the stock client does.
type udpWire struct {
	sock  io.Closer
	raw   syscall.RawConn
	quiet syscall.RawConn // where to wait for arrivals; nil: at raw
	gso   bool

	mu     sync.Mutex // all below
	msg    unix.Msghdr
	iov    unix.Iovec
	cmsg   [unix.SizeofCmsghdr + 8]byte // its size is CmsgSpace(2)
	errno  unix.Errno
	writer func(fd uintptr) bool
}

// quietSessions is up to how many sessions have sockets that are woken for arrivals only: each takes two descriptors, and is of
// use to those that send much.
const quietSessions = 1000

func dialUDP(to netip.AddrPort, from netip.Addr, gso, quiet bool) (*udpWire, error) {
	var local *net.UDPAddr
	if from.IsValid() {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	w := &udpWire{sock: conn, gso: gso}
	if quiet {
		sock, err := link.Quieten(conn)
		if err != nil {
			return nil, err
		}
		w.sock, w.quiet = sock, sock.Arrivals()
		if w.raw, err = sock.SyscallConn(); err != nil {
			w.close()
			return nil, err
		}
	} else if w.raw, err = conn.SyscallConn(); err != nil {
		w.close()
		return nil, err
	}
	w.writer = w.sendmsg
	err = w.raw.Control(func(fd uintptr) {
		for _, o := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 8<<20) // without the right to it packets may be lost, and are counted
		}
		if gso {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		}
	})
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *udpWire) send(b []byte, size int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	most := size
	if w.gso {
		most = min(maxSplit, maxMessage/size) * size
	}
	for len(b) > 0 {
		n := min(most, len(b))
		w.iov.Base = &b[0]
		w.iov.SetLen(n)
		w.msg = unix.Msghdr{Iov: &w.iov, Iovlen: 1}
		if n > size {
			h := (*unix.Cmsghdr)(unsafe.Pointer(&w.cmsg))
			h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
			h.SetLen(unix.CmsgLen(2))
			binary.NativeEndian.PutUint16(w.cmsg[unix.CmsgLen(0):], uint16(size))
			w.msg.Control = &w.cmsg[0]
			w.msg.SetControllen(unix.CmsgSpace(2))
		}
		if w.raw.Write(w.writer) != nil {
			return net.ErrClosed
		}
		switch w.errno {
		case 0, unix.ECONNREFUSED, unix.ENOBUFS: // the next try may do better
		default:
			return fmt.Errorf("send: %w", w.errno)
		}
		b = b[n:]
	}
	return nil
}

func (w *udpWire) sendmsg(fd uintptr) bool {
	for {
		_, _, w.errno = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&w.msg)), unix.MSG_DONTWAIT)
		switch w.errno {
		case unix.EINTR:
		case unix.EAGAIN:
			awaitRoom(int(fd))
		default:
			return true
		}
	}
}

// awaitRoom waits until there may be room in a socket's send buffer.
func awaitRoom(fd int) {
	room := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	_, _ = unix.Poll(room[:], 100) // whatever it says: the next try says more
}

func (w *udpWire) receive(handle func(b []byte, size int), idle func()) error {
	var (
		msg  unix.Msghdr
		iov  unix.Iovec
		cmsg [64]byte
	)
	drain := func(fd uintptr) bool {
		buffer := buffers.Get().(*[2 * bufferSize]byte)
		defer buffers.Put(buffer)
		iov.Base = &buffer[0]
		iov.SetLen(bufferSize - slack)
		some := false
		for {
			msg = unix.Msghdr{Iov: &iov, Iovlen: 1}
			if w.gso {
				msg.Control = &cmsg[0]
				msg.SetControllen(len(cmsg))
			}
			n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT)
			switch errno {
			case 0:
				if n > 0 {
					some = true
					handle(buffer[:n:n+slack], segmentSize(cmsg[:msg.Controllen], int(n)))
				}
				if !w.gso {
					idle() // each packet is a batch of its own
				}
			case unix.EINTR, unix.ECONNREFUSED:
			case unix.EAGAIN:
				if some {
					idle()
				}
				return false
			default:
				return true // the socket is gone
			}
		}
	}
	ended := false
	read := func(fd uintptr) bool {
		ended = drain(fd)
		return ended || w.quiet != nil
	}
	var err error
	if w.quiet == nil {
		err = w.raw.Read(read)
	} else {
		err = w.quiet.Read(func(uintptr) bool { return w.raw.Read(read) != nil || ended })
	}
	if err != nil || !ended {
		return net.ErrClosed
	}
	return nil
}

// segmentSize is how long the packets are that the kernel merged into n bytes.
func segmentSize(cmsg []byte, n int) int {
	if len(cmsg) >= unix.CmsgLen(4) {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&cmsg[0]))
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO {
			if size := int(binary.NativeEndian.Uint32(cmsg[unix.CmsgLen(0):])); size > 0 {
				return min(size, n)
			}
		}
	}
	return n
}

func (w *udpWire) close() { w.sock.Close() }

// A tcpWire is a stream of packets with their lengths before them.
type tcpWire struct {
	conn *net.TCPConn
	raw  syscall.RawConn
	bulk bool // many packets per system call

	mu  sync.Mutex
	out []byte
}

func dialTCP(to netip.AddrPort, from netip.Addr, bulk bool) (*tcpWire, error) {
	d := net.Dialer{KeepAlive: -1}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	conn, err := d.Dial("tcp", to.String())
	if err != nil {
		return nil, err
	}
	w := &tcpWire{conn: conn.(*net.TCPConn), bulk: bulk}
	if w.raw, err = w.conn.SyscallConn(); err != nil {
		conn.Close()
		return nil, err
	}
	return w, nil
}

func (w *tcpWire) send(b []byte, size int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(b) > 0 {
		w.out = w.out[:0]
		for len(b) > 0 && (len(w.out) == 0 || w.bulk) {
			n := min(size, len(b))
			w.out = append(binary.BigEndian.AppendUint16(w.out, uint16(n)), b[:n]...)
			b = b[n:]
		}
		if _, err := w.conn.Write(w.out); err != nil {
			return err
		}
	}
	if cap(w.out) > 4<<10 && len(w.out) < 1<<10 {
		w.out = nil // bulk is over: do not keep its buffer
	}
	return nil
}

var errFrame = errors.New("the stream makes no sense")

func (w *tcpWire) receive(handle func(b []byte, size int), idle func()) error {
	var rest []byte // of a packet that is not complete
	ended := net.ErrClosed
	err := w.raw.Read(func(fd uintptr) bool {
		buffer := buffers.Get().(*[2 * bufferSize]byte)
		defer buffers.Put(buffer)
		for {
			have := copy(buffer[:], rest)
			n, err := unix.Read(int(fd), buffer[have:len(buffer)-slack])
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EAGAIN):
				return false
			case err != nil:
				ended = err
				return true
			case n == 0:
				ended = errors.New("the server closed the connection")
				return true
			}
			b := buffer[:have+n]
			for len(b) >= 2 {
				size := int(binary.BigEndian.Uint16(b))
				if size == 0 {
					ended = errFrame
					return true
				}
				if len(b) < 2+size {
					break
				}
				handle(b[2:2+size:2+size+slack], size)
				b = b[2+size:]
			}
			rest = append(rest[:0], b...)
			idle()
		}
	})
	if errors.Is(err, net.ErrClosed) || err == nil {
		return ended
	}
	return err
}

func (w *tcpWire) close() { w.conn.Close() }
