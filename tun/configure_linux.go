package tun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Configure gives the device its addresses, MTU and queue length, and sets it up. An address is given as the host's own
// with the length of its network; those the device already has are kept. mtu and txqueuelen are left alone when 0. It
// may be called again.
func Configure(name string, addrs []netip.Prefix, mtu, txqueuelen int) error {
	if err := configure(name, addrs, mtu, txqueuelen); err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	return nil
}

func configure(name string, addrs []netip.Prefix, mtu, txqueuelen int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	// Only what differs is set, so that a device prepared by the administrator needs no privilege.
	if mtu != 0 && mtu != link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("set MTU %d: %w", mtu, err)
		}
	}
	if txqueuelen != 0 && txqueuelen != link.Attrs().TxQLen {
		if err := netlink.LinkSetTxQLen(link, txqueuelen); err != nil {
			return fmt.Errorf("set queue length %d: %w", txqueuelen, err)
		}
	}
	has, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, p := range addrs {
		a := &netlink.Addr{IPNet: ipNet(p.Addr(), p.Bits())}
		if slices.ContainsFunc(has, func(h netlink.Addr) bool { return h.IPNet.String() == a.IPNet.String() }) {
			continue
		}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // nobody else is on this link, and the address is to work at once
		}
		if err := netlink.AddrReplace(link, a); err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
	}
	return nil
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}

// AddRoutes sends networks into the device, which must be up. undo takes away what was added; routes that were there
// already through this device stay, and none at all that went with the device is an error. When one route fails, those
// before it are taken away again.
func AddRoutes(name string, routes []Route) (undo func() error, err error) {
	var added []*netlink.Route
	undo = func() error {
		var errs []error
		for _, r := range slices.Backward(added) {
			err := netlink.RouteDel(r)
			if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("remove route %s from %s: %w", r.Dst, name, err))
			}
		}
		added = nil
		return errors.Join(errs...)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("add routes to %s: %w", name, err)
	}
	for _, r := range routes {
		nr := r.netlink(link.Attrs().Index)
		err := netlink.RouteAdd(nr)
		if errors.Is(err, unix.EEXIST) && isRouted(nr) {
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("add route %s to %s: %w", r.Net, name, err), undo())
		}
		added = append(added, nr)
	}
	return undo, nil
}

func (r *Route) netlink(index int) *netlink.Route {
	n := r.Net.Masked()
	nr := &netlink.Route{LinkIndex: index, Dst: ipNet(n.Addr(), n.Bits()), Priority: r.Metric, Table: r.Table}
	if r.Gateway.IsValid() {
		// The device has no neighbours, so any gateway is as good as on the link.
		nr.Gw, nr.Flags = r.Gateway.AsSlice(), int(netlink.FLAG_ONLINK)
	}
	return nr
}

// isRouted reports whether the network of r is routed through r's device already.
func isRouted(r *netlink.Route) bool {
	family := netlink.FAMILY_V6
	if r.Dst.IP.To4() != nil {
		family = netlink.FAMILY_V4
	}
	filter := netlink.RT_FILTER_OIF | netlink.RT_FILTER_DST
	if r.Table != 0 {
		filter |= netlink.RT_FILTER_TABLE
	}
	found, err := netlink.RouteListFiltered(family, r, filter)
	return err == nil && len(found) > 0
}
