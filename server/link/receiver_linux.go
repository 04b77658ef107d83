package link

import (
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiver is the receiving half of batch. It belongs to the goroutine in Receive.
type receiver struct {
	u    *UDP
	sock *QuietSocket

	sameInterface bool // answers shall leave by the interface that packets came by

	trains []Train
	used   int // headers the last call filled in
	errno  unix.Errno
	gone   bool                  // the socket is closed
	ready  func(uintptr) bool    // within sock.wake; made once
	call   func(fd uintptr) bool // recvmmsg, within sock.raw; made once

	headers  [recvBatch]mmsghdr
	iovs     [recvBatch]unix.Iovec
	names    [recvBatch]sockaddr
	controls [recvBatch]recvControl
	buf      []byte // recvBatch buffers, stride apart
}

// recvControl takes the control messages of one datagram: the segment size, and the address it was sent to. The uint64s
// align it.
type recvControl [8]uint64

func (r *receiver) init(u *UDP, sock *QuietSocket, sameInterface bool) {
	r.u, r.sock, r.sameInterface = u, sock, sameInterface
	r.trains = make([]Train, 0, recvBatch)
	r.buf = make([]byte, recvBatch*stride) // pages that no datagram reaches stay untouched
	r.used = recvBatch
	r.ready, r.call = r.arrived, r.recvmmsg
	for i := range r.headers {
		h := &r.headers[i]
		r.iovs[i].Base = &r.buf[i*stride]
		r.iovs[i].SetLen(readBuf)
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = (*byte)(unsafe.Pointer(&r.controls[i]))
	}
}

func (r *receiver) receive() ([]Train, error) {
	for failures := 0; ; {
		for i := range r.headers[:r.used] { // the kernel wrote into these
			h := &r.headers[i]
			h.Namelen = unix.SizeofSockaddrInet6
			h.SetControllen(int(unsafe.Sizeof(r.controls[i])))
			h.Flags = 0
		}
		r.used = 0
		var err error
		if r.sock.wake.Read(r.ready) != nil || r.gone {
			err = net.ErrClosed
		} else if r.errno != 0 {
			err = r.errno
		}
		if err != nil {
			if err := r.u.receiveFailed(err, failures); err != nil {
				return nil, err
			}
			failures++
			continue
		}
		failures = 0
		if trains := r.collect(); len(trains) > 0 {
			return trains, nil
		}
	}
}

// arrived runs inside the Read of sock.wake, which parks the goroutine in the netpoller while it returns false.
func (r *receiver) arrived(uintptr) bool {
	if r.sock.raw.Read(r.call) != nil {
		r.gone = true
		return true
	}
	return r.errno != unix.EAGAIN
}

// recvmmsg runs inside the Read of sock.raw, which keeps the descriptor open meanwhile. It asks not to wait, so the
// scheduler need not hear of the system call.
func (r *receiver) recvmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.headers[0])), recvBatch,
			unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if r.errno = errno; errno == 0 {
			r.used = int(n)
		}
		return true
	}
}

// collect makes trains of what the last call brought.
func (r *receiver) collect() []Train {
	clear(r.trains)
	r.trains = r.trains[:0]
	packets, bytes := 0, 0
	for i := range r.headers[:r.used] {
		h := &r.headers[i]
		n := int(h.n)
		switch {
		case h.Flags&unix.MSG_TRUNC != 0:
			r.u.in.truncated.Add(1)
			continue
		case n == 0:
			r.u.in.empty.Add(1)
			continue
		}
		at := i * stride
		t := Train{Addr: take(&r.names[i]), Bytes: r.buf[at : at+n : at+n+Slack], Size: n}
		size, local := r.controls[i].read(int(h.Controllen))
		if size > 0 && size < n {
			t.Size = size
		}
		if local.Addr.IsValid() {
			if !r.sameInterface {
				local.Interface = 0
			}
			t.Local = local
		}
		packets += t.packets()
		bytes += n
		r.trains = append(r.trains, t)
	}
	r.u.received(packets, bytes)
	return r.trains
}

// read returns how long the packets are that UDP_GRO merged, 0 when it merged none, and where they came to, if the
// socket asked for that.
func (c *recvControl) read(n int) (size int, local Local) {
	for at := 0; at+unix.CmsgLen(0) <= n; {
		h := (*unix.Cmsghdr)(unsafe.Add(unsafe.Pointer(c), at))
		length := int(h.Len)
		if length < unix.CmsgLen(0) || length > n-at {
			break
		}
		data := unsafe.Add(unsafe.Pointer(h), unix.CmsgLen(0))
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && length >= unix.CmsgLen(4):
			size = int(*(*int32)(data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && length >= unix.CmsgLen(unix.SizeofInet4Pktinfo):
			p := (*unix.Inet4Pktinfo)(data)
			local = Local{netip.AddrFrom4(p.Spec_dst), int(p.Ifindex)}
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && length >= unix.CmsgLen(unix.SizeofInet6Pktinfo):
			p := (*unix.Inet6Pktinfo)(data)
			local = Local{netip.AddrFrom16(p.Addr).Unmap(), int(p.Ifindex)}
		}
		at += unix.CmsgSpace(length - unix.CmsgLen(0))
	}
	return size, local
}
