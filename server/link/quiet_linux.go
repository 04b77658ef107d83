package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A QuietSocket is a UDP socket that wakes us for what comes in, and for nothing else. Package net asks the kernel to
// tell about room in the send buffer, too, and of a UDP socket it tells so for each train that has left, whether anybody
// waits or not: a thread is woken, finds nothing to do and sleeps again. So the netpoller has an epoll instance in the
// socket's place, which asks for arrivals alone.
//
//	socket --arrivals--> epoll instance --readable--> netpoller
type QuietSocket struct {
	socket *os.File // in blocking mode, so that the netpoller knows nothing of it: calls say MSG_DONTWAIT
	epoll  *os.File
	raw    syscall.RawConn // of socket; callbacks may not ask to wait
	wake   syscall.RawConn // of epoll: Read waits for arrivals
}

// Quieten takes a socket out of package net's hands, which are done with it, whatever becomes of this.
func Quieten(conn *net.UDPConn) (q *QuietSocket, err error) {
	defer conn.Close()
	fd, poll := -1, -1
	defer func() {
		if err != nil && fd >= 0 {
			unix.Close(fd)
		}
		if err != nil && poll >= 0 {
			unix.Close(poll)
		}
	}()
	err = control(conn, func(theirs int) (err error) {
		fd, err = unix.FcntlInt(uintptr(theirs), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("duplicate the socket: %w", err)
	}
	if poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := errors.Join(
		unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}),
		unix.SetNonblock(poll, true),
		unix.SetNonblock(fd, false)); err != nil {
		return nil, fmt.Errorf("have epoll look at the socket: %w", err)
	}
	q = &QuietSocket{socket: os.NewFile(uintptr(fd), "udp"), epoll: os.NewFile(uintptr(poll), "epoll")}
	fd, poll = -1, -1
	q.raw, err = q.socket.SyscallConn()
	if err == nil {
		q.wake, err = q.epoll.SyscallConn()
	}
	if err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

// SyscallConn is the socket's. Its callbacks may not ask to wait.
func (q *QuietSocket) SyscallConn() (syscall.RawConn, error) { return q.raw, nil }

// Arrivals is where to wait: the callback of its Read is called again when something has come in. What that is given is not
// the socket's descriptor.
func (q *QuietSocket) Arrivals() syscall.RawConn { return q.wake }

// Close closes the socket, and ends the wait for arrivals.
func (q *QuietSocket) Close() error { return errors.Join(q.socket.Close(), q.epoll.Close()) }
