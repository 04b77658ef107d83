package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Inherited is a bound socket that was opened for this process, as by systemd: given to ListenUDP or ListenTCP it is
// used in place of one of their own.
type Inherited struct {
	Network string // udp or tcp
	Addr    netip.AddrPort
	V6Only  bool // on [::], and not for IPv4
	file    *os.File
}

// Inherit takes over an open descriptor. It stays open until Close, whatever becomes of the sockets made of it.
func Inherit(fd int) (*Inherited, error) {
	unix.CloseOnExec(fd)
	s := &Inherited{file: os.NewFile(uintptr(fd), fmt.Sprintf("descriptor %d", fd))}
	if err := s.look(fd); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// look finds out what the socket is.
func (s *Inherited) look(fd int) error {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("it is no socket: %w", err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("where it is bound: %w", err)
	}
	switch a := at.(type) {
	case *unix.SockaddrInet4:
		s.Addr = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		s.Addr = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err != nil {
			return fmt.Errorf("whether it is for IPv4 too: %w", err)
		}
		s.V6Only = only == 1 && s.Addr.Addr().IsUnspecified()
	default:
		return errors.New("it is neither IPv4 nor IPv6")
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	switch {
	case err != nil:
		return fmt.Errorf("whether it listens: %w", err)
	case kind == unix.SOCK_DGRAM:
		s.Network = "udp"
	case kind == unix.SOCK_STREAM && listens == 1:
		s.Network = "tcp"
	default:
		return errors.New("it neither is a UDP socket nor listens for TCP connections")
	}
	if s.Addr.Port() == 0 {
		return errors.New("it has no port")
	}
	return nil
}

// Close gives the descriptor back.
func (s *Inherited) Close() error { return s.file.Close() }

// packets is the socket as package net has it.
func (s *Inherited) packets() (net.PacketConn, error) { return net.FilePacketConn(s.file) }

// listener is the listening socket as package net has it.
func (s *Inherited) listener() (net.Listener, error) { return net.FileListener(s.file) }
