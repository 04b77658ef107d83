package management

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who connected.
func peerOf(nc net.Conn) (p peer, err error) {
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		p.addr = tcp.AddrPort()
	}
	u, ok := nc.(*net.UnixConn)
	if !ok {
		return p, nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return p, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) {
		cred, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return p, fmt.Errorf("peer credentials: %w", err)
	}
	if asked != nil {
		return p, fmt.Errorf("peer credentials: %w", asked)
	}
	p.local, p.pid, p.uid, p.gid = true, cred.Pid, cred.Uid, cred.Gid
	return p, nil
}
