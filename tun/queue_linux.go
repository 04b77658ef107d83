package tun

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxBatch      = 64       // packets lent by one Read
	maxBatchBytes = 64 << 10 // after which Read takes no more
)

// offloadQueue is a queue with virtio-net headers. Its callbacks are built once and its system calls are raw: they
// never wait, since the descriptor is non-blocking, and the netpoller is what wakes us.
type offloadQueue struct {
	counters
	file     *os.File
	raw      syscall.RawConn
	tcp, udp bool
	closed   atomic.Bool

	// The reader's. Packets lie in buf one behind the other, each with slack behind it.
	buf     []byte
	packets []Packet
	readErr syscall.Errno
	drain   func(fd uintptr) bool

	mu       sync.Mutex
	hdr      [vnetHdrLen]byte // these under mu
	iov      []unix.Iovec
	writeErr syscall.Errno
	writev   func(fd uintptr) bool
}

func newOffloadQueue(f *os.File, tcp, udp bool) (*offloadQueue, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open tun queue: %w", err)
	}
	q := &offloadQueue{
		file: f, raw: raw, tcp: tcp, udp: udp,
		buf:     make([]byte, maxBatchBytes+maxBatch*(vnetHdrLen+slack+16)+vnetHdrLen+maxPacket+slack),
		packets: make([]Packet, 0, maxBatch),
		iov:     make([]unix.Iovec, 1, 1+maxFrags),
	}
	q.iov[0].Base = &q.hdr[0]
	q.iov[0].SetLen(vnetHdrLen)
	q.drain, q.writev = q.drainReady, q.writevNow
	return q, nil
}

func (q *offloadQueue) Offload() (tcp, udp bool) { return q.tcp, q.udp }

func (q *offloadQueue) Read() ([]Packet, error) {
	q.packets, q.readErr = q.packets[:0], 0
	err := q.raw.Read(q.drain)
	switch {
	case len(q.packets) > 0:
		return q.packets, nil
	case q.closed.Load():
		return nil, os.ErrClosed
	case q.readErr != 0:
		return nil, fmt.Errorf("%w: %w", ErrGone, q.readErr)
	}
	return nil, fmt.Errorf("%w: %w", ErrGone, err) // the netpoller saw it first
}

// drainReady reads until nothing is left or a bound is reached; false means that nothing was there.
func (q *offloadQueue) drainReady(fd uintptr) bool {
	used, bytes, calls := 0, 0, 0
	defer func() {
		if len(q.packets) > 0 {
			q.read(calls, len(q.packets), bytes)
		}
	}()
	for len(q.packets) < maxBatch && bytes < maxBatchBytes {
		b := q.buf[used : used+vnetHdrLen+maxPacket]
		calls++
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return len(q.packets) > 0
		default:
			q.readErr = errno
			return true
		}
		g, ok := parseVnetHdr(b[:n])
		if !ok {
			continue
		}
		end := used + int(n)
		q.packets = append(q.packets, Packet{Bytes: q.buf[used+vnetHdrLen : end : end+slack], GSO: g})
		bytes += int(n)
		used = (end + slack + 15) &^ 15
	}
	return true
}

func (q *offloadQueue) Write(frags [][]byte, g GSO) error {
	if len(frags) == 0 || len(frags) > maxFrags {
		return ErrDropped
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	g.put(q.hdr[:])
	q.iov = q.iov[:1]
	bytes := 0
	for _, f := range frags {
		if len(f) == 0 {
			continue
		}
		v := unix.Iovec{Base: &f[0]}
		v.SetLen(len(f))
		bytes += len(f)
		q.iov = append(q.iov, v)
	}
	q.writeErr = 0
	if err := q.raw.Write(q.writev); err != nil {
		return os.ErrClosed
	}
	q.wrote(len(frags), bytes, q.writeErr == 0)
	if q.writeErr != 0 {
		return ErrDropped
	}
	return nil
}

// writevNow always reports that it is done: a packet that cannot be written now is dropped, as any router would.
func (q *offloadQueue) writevNow(fd uintptr) bool {
	for {
		_, _, q.writeErr = unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&q.iov[0])), uintptr(len(q.iov)))
		if q.writeErr != unix.EINTR {
			return true
		}
	}
}

func (q *offloadQueue) Close() error {
	if q.closed.Swap(true) {
		return os.ErrClosed
	}
	if err := q.file.Close(); err != nil {
		return fmt.Errorf("close tun queue: %w", err)
	}
	return nil
}
