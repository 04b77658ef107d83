package config

import (
	"errors"
	"fmt"
	"net/netip"
)

// A bridged is what a server-bridge line says.
type bridged struct {
	given   bool
	gateway netip.Prefix // zero: clients ask a DHCP server
	pool    Range
	noGW    bool
}

func setServerBridge(d *draft, l *directive) error {
	b := bridged{given: true}
	switch len(l.args) {
	case 0:
	case 1:
		if l.args[0] != "nogw" {
			return errors.New("write IP MASK START END, nogw, or nothing")
		}
		b.noGW = true
	case 4:
		p, err := network4(l.args[0], l.args[1])
		if err != nil {
			return err
		}
		if p.Bits() < 16 || p.Bits() > 30 {
			return fmt.Errorf("the network must be between /16 and /30, not /%d", p.Bits())
		}
		b.gateway = p
		for i, end := range []*netip.Addr{&b.pool.First, &b.pool.Last} {
			a, err := ipv4(l.args[2+i])
			if err != nil {
				return err
			}
			if !p.Contains(a) {
				return fmt.Errorf("%s is not in the bridge's network %s", a, p.Masked())
			}
			*end = a
		}
		switch {
		case b.pool.Last.Less(b.pool.First):
			return fmt.Errorf("the pool ends before it begins: %s comes before %s", b.pool.Last, b.pool.First)
		case inside(b.pool, p):
			return fmt.Errorf("the bridge's own address %s is among the clients': leave it out", p.Addr())
		}
	default:
		return errors.New("write IP MASK START END, nogw, or nothing")
	}
	d.bridge = b
	d.cfg.Bridge = true
	d.serverMode, d.tlsServer = true, true
	return nil
}

// expandBridge does what server-bridge stands for.
func (d *draft) expandBridge() {
	l, c := d.last["server-bridge"], d.cfg
	switch {
	case !c.Tap:
		d.refuse(l, "needs a tap device: write `dev tap`, or `server NET MASK` for tun")
		return
	case d.server.IsValid() || d.has("ifconfig-pool") || d.has("ifconfig"):
		d.refuse(l, "it already stands for addresses and pool: remove server, ifconfig and ifconfig-pool, or this line")
		return
	case c.NAT:
		d.refuse(l, "packets on a bridge are not routed: remove `nat yes`, or write `server NET MASK`")
		return
	}
	switch b := d.bridge; {
	case b.gateway.IsValid():
		c.Addr4, c.Pool4 = b.gateway, b.pool
		d.push("route-gateway %s", b.gateway.Addr())
	case !b.noGW:
		d.push("route-gateway dhcp")
	}
}

// checkTap holds what is only for one kind of device against the other.
func (d *draft) checkTap() {
	if !d.cfg.Tap {
		if l := d.last["lladdr"]; l != nil && l.entry.Verdict != Refused {
			d.refuse(l, "a tun device has no hardware address: remove the line, or write `dev tap`")
		}
		return
	}
	for name, why := range map[string]string{
		"topology":    "on a tap device all clients share one network",
		"passtos":     "frames are not looked into",
		"block-ipv6":  "frames are not looked into",
		"tun-offload": "a tap device always passes one frame at a time",
	} {
		if l := d.last[name]; l != nil && l.entry.Verdict != Refused {
			d.ignore(l, "%s", why)
		}
	}
	if l := d.last["learn-address"]; l != nil && l.entry.Verdict != Refused {
		d.refuse(l, "on a tap device hardware addresses are learned, and no script is asked about those: remove the line, and filter at the bridge")
	}
	d.cfg.Topology, d.cfg.PassTOS, d.cfg.BlockIPv6 = Subnet, false, false
}
