package link

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// set applies the options to a socket that will be bound to addr.
func (o SocketOptions) set(c syscall.RawConn, addr netip.Addr) error {
	return controlRaw(c, func(fd int) error {
		if o.Device != "" {
			if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, o.Device); err != nil {
				return fmt.Errorf("bind to device %s: %w", o.Device, err)
			}
		}
		if o.Mark != 0 {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(o.Mark)); err != nil {
				return fmt.Errorf("mark packets with %d: %w", o.Mark, err)
			}
		}
		if o.Discover == DiscoverDefault {
			return nil
		}
		how := map[Discover]int{DiscoverNo: unix.IP_PMTUDISC_DONT, DiscoverMaybe: unix.IP_PMTUDISC_WANT, DiscoverYes: unix.IP_PMTUDISC_DO}[o.Discover]
		// A socket for both families has both options.
		err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how)
		if err == nil && !addr.Unmap().Is4() {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, how)
		}
		if err != nil {
			return fmt.Errorf("set path MTU discovery: %w", err)
		}
		return nil
	})
}
