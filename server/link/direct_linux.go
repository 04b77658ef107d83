package link

import (
	"encoding/binary"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// gathered is how many packets go to the kernel in one system call.
const gathered = 64

// direct writes to a stream's connection from whatever goroutine sends, and never waits: what the kernel does not take
// at once is left, for the stream's queue. So on a connection that is not full nothing is copied but by the kernel, and
// nothing waits until a writer gets its turn on a core that lanes keep busy. It needs Stream.mu.
type direct struct {
	raw  syscall.RawConn
	call func(fd uintptr) // send, made once

	// Lent for a call.
	head   []byte  // goes first
	trains []Train // the packets behind it

	progress
}

// newDirect returns nil for a connection that is no socket.
func newDirect(conn net.Conn) *direct {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	d := &direct{raw: raw}
	d.call = d.send
	return d
}

// write writes head, then the packets of the trains, and returns what is left of each.
func (d *direct) write(head []byte, trains []Train) ([]byte, []Train) {
	d.head, d.trains, d.progress = head, trains, progress{}
	_ = d.raw.Control(d.call) // of a closed connection everything is left
	head, trains = d.head, d.trains
	d.head, d.trains = nil, nil
	return head, trains
}

func (d *direct) send(fd uintptr) {
	for len(d.head) > 0 {
		iov := unix.Iovec{Base: &d.head[0]}
		iov.SetLen(len(d.head))
		n := d.sendmsg(fd, &iov, 1)
		if n <= 0 {
			return
		}
		d.head = d.head[n:]
	}
	if len(d.trains) > 0 {
		d.gather(fd)
	}
}

// gather has the big frame, which is on no stack but of goroutines that send data.
func (d *direct) gather(fd uintptr) {
	var lengths [gathered][frameHead]byte
	var iovs [2 * gathered]unix.Iovec
	for {
		k, total, at := 0, 0, d.at
	fill:
		for i := range d.trains {
			t := &d.trains[i]
			for at < len(t.Bytes) {
				packet := t.packet(at)
				if k == len(iovs) || len(packet) > maxPacket {
					break fill
				}
				at += len(packet)
				length := &lengths[k/2]
				binary.BigEndian.PutUint16(length[:], uint16(len(packet)))
				iovs[k].Base, iovs[k+1].Base = &length[0], &packet[0]
				iovs[k].SetLen(frameHead)
				iovs[k+1].SetLen(len(packet))
				k += 2
				total += frameHead + len(packet)
			}
			at = 0
		}
		if k == 0 {
			return
		}
		n := d.sendmsg(fd, &iovs[0], k)
		if n < 0 {
			return
		}
		d.wrote(n)
		if n < total {
			return // the next call would say that there is no room
		}
	}
}

// wrote takes n bytes off the trains.
func (d *direct) wrote(n int) {
	for ; len(d.trains) > 0; d.trains, d.at = d.trains[1:], 0 {
		for t := &d.trains[0]; d.at < len(t.Bytes); {
			size := len(t.packet(d.at))
			if n < frameHead+size {
				d.begun = n
				return
			}
			n -= frameHead + size
			d.at += size
			d.packets++
			d.bytes += uint64(size)
		}
	}
}

// sendmsg returns how much the kernel has taken, and -1 for any error: the writer, to whom the rest is left, meets it
// again. All but why a connection broke: that the kernel says once, and afterwards only that it is broken (EPIPE).
func (d *direct) sendmsg(fd uintptr, iov *unix.Iovec, n int) int {
	msg := unix.Msghdr{Iov: iov}
	msg.SetIovlen(n)
	for {
		took, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return int(took)
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.EPIPE, unix.ENOBUFS, unix.ENOMEM:
		default:
			d.broke = errno
		}
		return -1
	}
}
