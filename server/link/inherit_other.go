//go:build !linux

package link

import (
	"errors"
	"net"
	"net/netip"
)

// Inherited is a socket that was opened for this process; only Linux has such.
type Inherited struct {
	Network string
	Addr    netip.AddrPort
	V6Only  bool
}

// Inherit fails.
func Inherit(int) (*Inherited, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (s *Inherited) Close() error { return nil }

func (s *Inherited) packets() (net.PacketConn, error) { return nil, errors.ErrUnsupported }
func (s *Inherited) listener() (net.Listener, error)  { return nil, errors.ErrUnsupported }
