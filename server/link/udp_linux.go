package link

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ListenUDP opens o.Lanes sockets on addr, one for each lane. With more than one the kernel spreads clients over
// them: data packets by peer id, so that a client keeps its lane when a NAT gives it another port, and all others
// by their addresses. An address that another socket holds is an error, even when that one is willing to share.
func ListenUDP(addr netip.AddrPort, o UDPOptions) ([]*UDP, error) {
	lanes := max(o.Lanes, 1)
	socks := make([]*UDP, 0, lanes)
	for i := range lanes {
		u, err := listenLane(addr, o, i, lanes)
		if err != nil && i > 0 && o.Inherited != nil {
			lanes = i
			break
		}
		if err != nil {
			for _, u := range socks {
				u.Close()
			}
			return nil, fmt.Errorf("listen on UDP %v: %w", addr, err)
		}
		socks = append(socks, u)
		addr = netip.AddrPortFrom(addr.Addr(), u.local.Port())
	}
	if lanes > 1 {
		// Without it the kernel goes by addresses alone: a session may change lanes, and still works.
		_ = control(socks[0].conn, func(fd int) error { return attachSelector(fd, selector(lanes)) })
	}
	return socks, nil
}

func listenLane(addr netip.AddrPort, o UDPOptions, i, lanes int) (*UDP, error) {
	prepare := func(c syscall.RawConn) error {
		if err := o.SocketOptions.set(c, addr.Addr()); err != nil {
			return err
		}
		return controlRaw(c, func(fd int) error {
			setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, orDefault(o.RecvBuf, defaultSocketBuf))
			setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, orDefault(o.SendBuf, defaultSocketBuf))
			if i == 0 {
				return nil
			}
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
	}
	conn, err := bindUDP(addr, o, i, prepare)
	if err != nil {
		return nil, err
	}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	u := &UDP{conn: conn, local: local, closed: make(chan struct{}), narrow: make(chan netip.Addr, narrowMemory)}
	if i == 0 && lanes > 1 {
		// The first socket binds alone and shares only then. Otherwise a second server, started by mistake on the
		// same port, would be let in and take half of the clients.
		err = control(conn, func(fd int) error {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
	}
	if err == nil {
		if o.Plain {
			u.moves = newPlain(u, conn)
		} else {
			u.moves, err = newBatch(u, conn, o)
		}
	}
	if err != nil {
		u.conn.Close()
		return nil, err
	}
	return u, nil
}

// bindUDP opens the i-th socket, or takes the inherited one for the first.
func bindUDP(addr netip.AddrPort, o UDPOptions, i int, prepare func(syscall.RawConn) error) (*net.UDPConn, error) {
	if i == 0 && o.Inherited != nil {
		pc, err := o.Inherited.packets()
		if err != nil {
			return nil, err
		}
		conn := pc.(*net.UDPConn)
		raw, err := conn.SyscallConn()
		if err == nil {
			err = prepare(raw)
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return prepare(c) }}
	host := netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).String()
	pc, err := lc.ListenPacket(context.Background(), network("udp", addr.Addr(), o.V6Only), host)
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// setBuffer sets a buffer size, above the system's limit when we may. A smaller buffer is no reason not to serve.
func setBuffer(fd, force, plain, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}

// overrun is how many datagrams the kernel has dropped because the socket's receive buffer was full.
func overrun(conn syscall.Conn) (n uint64) {
	_ = control(conn, func(fd int) error { // a closed socket has none to tell
		var info [9]uint32 // SK_MEMINFO_VARS
		size := uint32(unsafe.Sizeof(info))
		if _, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
			return errno
		}
		n = uint64(info[8]) // SK_MEMINFO_DROPS
		return nil
	})
	return n
}

// selector is the program by which sockets that share a port tell which of them takes a datagram.
func selector(lanes int) []unix.SockFilter {
	const opDataV2 = 9 // opcode in the upper five bits, then three bytes of peer id
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 3},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: opDataV2, Jf: 4},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xffffff},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(lanes)},
		{Code: unix.BPF_RET | unix.BPF_A},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}, // no such socket: the kernel goes by addresses
	}
}

// attachSelector gives a program to the sockets that share the port of fd.
var attachSelector = func(fd int, program []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

func control(conn syscall.Conn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return controlRaw(raw, f)
}

func controlRaw(raw syscall.RawConn, f func(fd int) error) error {
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}
