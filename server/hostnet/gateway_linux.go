package hostnet

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// DefaultGateways are the addresses of the host's default gateways; without one 0.0.0.0, and nothing for IPv6.
func DefaultGateways() (v4, v6 netip.Addr, err error) {
	v4 = netip.IPv4Unspecified()
	for _, f := range []struct {
		family int
		found  *netip.Addr
	}{{netlink.FAMILY_V4, &v4}, {netlink.FAMILY_V6, &v6}} {
		routes, err := netlink.RouteList(nil, f.family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return v4, v6, fmt.Errorf("list routes: %w", err)
		}
		metric := -1
		for _, r := range routes {
			if r.Dst != nil {
				if bits, _ := r.Dst.Mask.Size(); bits > 0 {
					continue
				}
			}
			if a, ok := netip.AddrFromSlice(r.Gw); ok && (metric < 0 || r.Priority < metric) {
				*f.found, metric = a.Unmap(), r.Priority
			}
		}
	}
	return v4, v6, nil
}
