package link

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sender is the sending half of batch. Lanes and control goroutines share it: one Send at a time.
type sender struct {
	u      *UDP
	raw    syscall.RawConn
	family int

	mu      sync.Mutex // everything below
	gso     bool       // the kernel splits trains; cleared when an interface cannot
	clogged bool       // the last wait was in vain
	narrow  narrowPaths

	n        int // messages ready to go
	messages [sendBatch]message
	headers  [sendBatch]mmsghdr
	iovs     [sendBatch]unix.Iovec
	names    [sendBatch]sockaddr
	controls [sendBatch]sendControl

	one    mmsghdr // for the packets of a message that must go singly
	oneIov unix.Iovec

	// What call is to do and what came of it.
	call  func(fd uintptr) bool // sendmmsg, made once
	first *mmsghdr
	count int
	wait  bool
	sent  int
	errno unix.Errno
}

// A message is one element of sendmmsg: packets for one address, each size long but perhaps the last.
type message struct {
	addr    netip.Addr
	bytes   []byte
	size    int
	packets int
	more    int // bytes of control messages behind the one that has the kernel split
}

func (s *sender) init(u *UDP, raw syscall.RawConn, family int) {
	s.u, s.raw, s.family = u, raw, family
	s.call = s.sendmmsg
	for i := range s.headers {
		s.headers[i].Iov = &s.iovs[i]
		s.headers[i].SetIovlen(1)
		s.controls[i].init()
	}
	s.one.Iov = &s.oneIov
	s.one.SetIovlen(1)
}

func (s *sender) send(trains []Train) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range trains {
		if err := s.add(&trains[i]); err != nil {
			return err
		}
	}
	return s.flush()
}

// add cuts the train into messages.
func (s *sender) add(t *Train) error {
	size := t.Size
	if size <= 0 || size > len(t.Bytes) {
		size = len(t.Bytes)
	}
	perMessage := 1
	if s.gso && size < len(t.Bytes) && !s.narrow.refuses(t.Addr.Addr(), size) {
		perMessage = max(1, min(maxSplit, maxDatagram/size))
	}
	for rest := t.Bytes; len(rest) > 0; {
		if s.n == sendBatch {
			if err := s.flush(); err != nil {
				return err
			}
		}
		m := message{addr: t.Addr.Addr(), bytes: rest[:min(len(rest), perMessage*size)], size: size}
		m.packets = (len(m.bytes) + size - 1) / size
		rest = rest[len(m.bytes):]

		nameLen := put(&s.names[s.n], t.Addr, s.family)
		if nameLen == 0 {
			s.drop(m.packets, unix.EAFNOSUPPORT)
			continue
		}
		h := &s.headers[s.n]
		h.Name = (*byte)(unsafe.Pointer(&s.names[s.n]))
		h.Namelen = nameLen
		c := &s.controls[s.n]
		h.Control = nil
		if t.Local.Addr.IsValid() || t.Class != 0 {
			m.more = c.more(t, s.family)
			h.Control = &c.rest[0]
		}
		h.SetControllen(m.more)
		if m.packets > 1 {
			c.size = uint16(size)
			h.Control = (*byte)(unsafe.Pointer(c))
			h.SetControllen(splitSpace + m.more)
		}
		s.iovs[s.n].Base = &m.bytes[0]
		s.iovs[s.n].SetLen(len(m.bytes))
		s.messages[s.n] = m
		s.n++
	}
	return nil
}

// flush sends what add has gathered and forgets it.
func (s *sender) flush() error {
	defer func() {
		clear(s.messages[:s.n])
		clear(s.iovs[:s.n])
		s.n = 0
	}()
	for next := 0; next < s.n; {
		if err := s.transmit(&s.headers[next], s.n-next); err != nil {
			return err
		}
		for range s.sent {
			s.left(s.messages[next].packets, len(s.messages[next].bytes))
			next++
		}
		if next == s.n || s.errno == 0 {
			continue
		}
		m := &s.messages[next]
		switch {
		case m.packets > 1 && s.refused(m):
			if err := s.singly(m, next); err != nil {
				return err
			}
			next++
		case s.errno == unix.EAGAIN: // no room for the others either
			for ; next < s.n; next++ {
				s.drop(s.messages[next].packets, s.errno)
			}
		default:
			if s.errno == unix.EMSGSIZE {
				s.u.tooLarge(m.addr)
			}
			s.drop(m.packets, s.errno)
			next++
		}
	}
	return nil
}

// refused reports whether the kernel would not split m, and remembers what to spare it.
func (s *sender) refused(m *message) bool {
	switch s.errno {
	case unix.EIO: // the interface, or IPsec on the way, wants checksums made here
		s.gso = false
	case unix.EMSGSIZE, unix.EINVAL: // a packet is larger than the path takes; EINVAL before Linux 6.13
		s.narrow.add(m.addr, m.size)
		s.u.tooLarge(m.addr)
	default:
		return false
	}
	s.u.out.errors.addErrno(s.errno)
	s.u.out.singly.Add(1)
	return true
}

// singly sends the packets of m, the i-th message, one by one; those too large for the path as fragments.
func (s *sender) singly(m *message, i int) error {
	defer func() { s.one.Name, s.one.Control, s.oneIov.Base = nil, nil, nil }()
	s.one.Name, s.one.Namelen = s.headers[i].Name, s.headers[i].Namelen
	if m.more > 0 {
		s.one.Control = &s.controls[i].rest[0]
	}
	s.one.SetControllen(m.more)
	for rest := m.bytes; len(rest) > 0; {
		packet := rest[:min(m.size, len(rest))]
		rest = rest[len(packet):]
		s.oneIov.Base = &packet[0]
		s.oneIov.SetLen(len(packet))
		if err := s.transmit(&s.one, 1); err != nil {
			return err
		}
		if s.sent == 1 {
			s.left(1, len(packet))
		} else {
			s.drop(1, s.errno)
		}
	}
	return nil
}

// transmit gives count messages to the kernel, and leaves in sent how many it took and in errno why it did not take
// the next one. It waits when the socket's buffer is full, as sendPatience allows. It fails on a closed socket only.
func (s *sender) transmit(first *mmsghdr, count int) error {
	s.first, s.count, s.wait = first, count, false
	err := s.raw.Write(s.call)
	if err == nil && s.errno == unix.EAGAIN && !s.clogged {
		s.wait = true
		err = s.raw.Write(s.call)
		s.clogged = s.errno == unix.EAGAIN
	}
	if err != nil {
		return net.ErrClosed
	}
	if s.sent > 0 {
		s.clogged = false
		s.u.out.batches.Add(1)
	}
	return nil
}

// sendmmsg runs inside RawConn.Write, which keeps the descriptor open meanwhile. See receiver.recvmmsg.
func (s *sender) sendmmsg(fd uintptr) bool {
	var until time.Time
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(s.first)), uintptr(s.count),
			unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if s.answered(int(n), errno); s.errno != unix.EAGAIN || !s.wait {
			return true
		}
		// The netpoller does not look for room, see QuietSocket.
		left := sendPatience
		if until.IsZero() {
			until = time.Now().Add(sendPatience)
		} else if left = time.Until(until); left <= 0 {
			return true
		}
		room := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		_, _ = unix.Poll(room[:], int((left+time.Millisecond-1)/time.Millisecond)) // sendmmsg says what came of it
	}
}

// answered notes what sendmmsg said. That it took nothing for no reason, or more than there was, no kernel says; what only
// plays one shall not keep us here for ever.
func (s *sender) answered(taken int, errno unix.Errno) {
	switch {
	case errno != 0:
		taken = 0
	case taken <= 0 || taken > s.count:
		taken, errno = 0, unix.EAGAIN
	}
	s.sent, s.errno = taken, errno
}

func (s *sender) left(packets, bytes int) {
	s.u.out.packets.Add(uint64(packets))
	s.u.out.bytes.Add(uint64(bytes))
}

func (s *sender) drop(packets int, errno unix.Errno) {
	s.u.out.errors.addErrno(errno)
	s.u.out.dropped.Add(uint64(packets))
}

// narrowPaths remembers the few addresses whose path takes no packets of the size their trains have. The kernel
// fragments such packets, but does not split trains of them. A path may widen again, so it forgets.
type narrowPaths struct {
	known [16]narrowPath
	n     int // ever added; the oldest is overwritten
}

type narrowPath struct {
	addr  netip.Addr
	size  int // the smallest refused
	until time.Time
}

const narrowFor = time.Minute

func (p *narrowPaths) refuses(addr netip.Addr, size int) bool {
	for i := range p.known[:min(p.n, len(p.known))] {
		if k := &p.known[i]; k.addr == addr && size >= k.size {
			return time.Now().Before(k.until)
		}
	}
	return false
}

func (p *narrowPaths) add(addr netip.Addr, size int) {
	until := time.Now().Add(narrowFor)
	for i := range p.known[:min(p.n, len(p.known))] {
		if k := &p.known[i]; k.addr == addr {
			if time.Now().Before(k.until) {
				size = min(size, k.size)
			}
			k.size, k.until = size, until
			return
		}
	}
	p.known[p.n%len(p.known)] = narrowPath{addr, size, until}
	p.n++
}
