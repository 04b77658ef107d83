//go:build !linux

package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// ListenUDP opens one socket on addr, whatever the number of lanes: only Linux spreads datagrams over several.
func ListenUDP(addr netip.AddrPort, o UDPOptions) ([]*UDP, error) {
	if o.Multihome || o.Inherited != nil || o.SocketOptions != (SocketOptions{}) {
		return nil, fmt.Errorf("listen on UDP %v: %w", addr, errors.ErrUnsupported)
	}
	laddr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()))
	conn, err := net.ListenUDP(network("udp", addr.Addr(), o.V6Only), laddr)
	if err != nil {
		return nil, fmt.Errorf("listen on UDP %v: %w", addr, err)
	}
	// As much as the system allows: a smaller buffer is no reason not to serve.
	conn.SetReadBuffer(orDefault(o.RecvBuf, defaultSocketBuf))
	conn.SetWriteBuffer(orDefault(o.SendBuf, defaultSocketBuf))
	u := &UDP{conn: conn, local: conn.LocalAddr().(*net.UDPAddr).AddrPort(), closed: make(chan struct{}), narrow: make(chan netip.Addr, narrowMemory)}
	u.moves = newPlain(u, conn)
	return []*UDP{u}, nil
}

// overrun is not known here.
func overrun(syscall.Conn) uint64 { return 0 }
