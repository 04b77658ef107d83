package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Overlaps describes where networks meant for clients overlap what the host reaches through a device other than
// exceptDevice: whatever is in both would be cut off (S087). Default routes, halved ones too, do not count.
func Overlaps(nets []netip.Prefix, exceptDevice string) ([]string, error) {
	theirs, err := hostNets()
	if err != nil {
		return nil, fmt.Errorf("list the host's networks: %w", err)
	}
	var found []string
	for _, ours := range nets {
		for _, t := range theirs {
			if t.device != exceptDevice && t.net.Overlaps(ours) {
				found = append(found, fmt.Sprintf("%v overlaps %v, which is behind %s", ours.Masked(), t.net, t.device))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// A hostNet is a network that the host knows its way to.
type hostNet struct {
	net    netip.Prefix
	device string
}

// hostNets lists the networks of the host's addresses and of its main routing table. A listing that was changed
// under way is good enough.
func hostNets() ([]hostNet, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	var all []hostNet
	names := map[int]string{}
	add := func(n *net.IPNet, device string) {
		if p, ok := prefix(n); ok && !everything(p) && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast() {
			all = append(all, hostNet{p, device})
		}
	}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, err
		}
		for _, a := range addrs {
			add(a.IPNet, l.Attrs().Name)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, err
		}
		for _, r := range routes {
			if r.Type != unix.RTN_UNICAST { // blackholes and the like lead nowhere
				continue
			}
			if len(r.MultiPath) == 0 {
				add(r.Dst, names[r.LinkIndex])
			}
			for _, hop := range r.MultiPath {
				add(r.Dst, names[hop.LinkIndex])
			}
		}
	}
	return all, nil
}

// prefix converts a network; a default route may have none.
func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	if bits == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, ones).Masked(), true
}

// everything is whether a route leads to the world and not to a network.
func everything(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() <= 1
	}
	return p.Bits() <= 3 // 2000::/3 is the global unicast space
}
