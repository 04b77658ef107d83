package link

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// PathMTU is what the kernel knows of the way from local to an address: the largest IP packet that goes there whole, by
// the interface and by what routers on the way have said. It sends nothing and does not wait.
func PathMTU(to netip.AddrPort, local Local, o SocketOptions) (int, error) {
	addr := to.Addr().Unmap()
	family, level, option := unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU
	if addr.Is4() {
		family, level, option = unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("path MTU of %v: %w", to, err)
	}
	defer unix.Close(fd)
	// Where these cannot be set, the usual way is the best guess.
	if o.Mark != 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(o.Mark))
	}
	if o.Device != "" {
		_ = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, o.Device)
	}
	if local.Addr.IsValid() {
		_ = unix.Bind(fd, socketAddress(netip.AddrPortFrom(local.Addr, 0)))
	}
	if err := unix.Connect(fd, socketAddress(netip.AddrPortFrom(to.Addr(), to.Port()))); err != nil {
		return 0, fmt.Errorf("path MTU of %v: %w", to, err)
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		return 0, fmt.Errorf("path MTU of %v: %w", to, err)
	}
	return mtu, nil
}

func socketAddress(a netip.AddrPort) unix.Sockaddr {
	addr := a.Addr().Unmap()
	if addr.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: addr.As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: addr.As16()}
	fmt.Sscan(addr.Zone(), &sa.ZoneId) // take gives zones as numbers
	return sa
}
