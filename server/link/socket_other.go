//go:build !linux

package link

import (
	"errors"
	"net/netip"
	"syscall"
)

// set fails when there is anything to set: only Linux has these options.
func (o SocketOptions) set(syscall.RawConn, netip.Addr) error {
	if o != (SocketOptions{}) {
		return errors.ErrUnsupported
	}
	return nil
}
