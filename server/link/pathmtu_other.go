//go:build !linux

package link

import (
	"errors"
	"net/netip"
)

// PathMTU fails: only Linux tells.
func PathMTU(netip.AddrPort, Local, SocketOptions) (int, error) { return 0, errors.ErrUnsupported }
