package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

func setServer(d *draft, l *directive) error {
	if err := (choice("nopool"))(d, &directive{args: l.args[2:]}); err != nil {
		return err
	}
	p, err := network4(l.args[0], l.args[1])
	switch {
	case err != nil:
		return err
	case hostBits(p):
		return fmt.Errorf("network/netmask combination is invalid: with this mask the network is %s", p.Masked().Addr())
	case p.Bits() < 16:
		return errors.New("netmask allows for too many host addresses (subnet must be 255.255.0.0 (/16) or higher)")
	case p.Bits() > 29:
		return errors.New("must define a subnet of 255.255.255.248 (/29) or lower: there would be no addresses left for clients")
	}
	d.server, d.noPool = p, l.arg(2) == "nopool"
	d.serverMode, d.tlsServer = true, true
	return nil
}

func setServer6(d *draft, l *directive) error {
	p, err := network6(l.args[0])
	if err != nil {
		return err
	}
	if p.Bits() < 64 || p.Bits() > 124 {
		return fmt.Errorf("network must be between /64 and /124 (not /%d)", p.Bits())
	}
	if hostBits(p) {
		d.notice(l, "the address has bits behind its prefix length and is taken as OpenVPN does, as the base to count from; %s was probably meant", p.Masked())
	}
	d.server6 = p
	d.serverMode, d.tlsServer = true, true
	return nil
}

// expandMacros does what server-ipv6, server, keepalive and tcp-nodelay stand for, in OpenVPN's order: it is the order
// of their pushes on the wire.
func (d *draft) expandMacros() {
	shared := slices.Clone(d.cfg.Push)
	if d.server6.IsValid() {
		d.expandServer6()
	}
	if d.server.IsValid() {
		d.expandServer()
	}
	if d.bridge.given {
		d.expandBridge()
	}
	own := len(d.cfg.Push)
	if d.keepalive[0] > 0 {
		ping, timeout := d.keepalive[0], d.keepalive[1]
		d.cfg.Ping = time.Duration(ping) * time.Second
		d.cfg.PingRestart = 2 * time.Duration(timeout) * time.Second
		d.push("ping %d", ping)
		d.push("ping-restart %d", timeout)
	}
	if d.pushNoDelay {
		d.push("socket-flags TCP_NODELAY")
	}
	d.shared, d.behind = shared, slices.Clone(d.cfg.Push[own:])
}

func (d *draft) push(format string, args ...any) {
	d.cfg.Push = append(d.cfg.Push, fmt.Sprintf(format, args...))
}

func (d *draft) expandServer6() {
	l, c, p := d.last["server-ipv6"], d.cfg, d.server6
	if d.has("ifconfig-ipv6") || d.has("ifconfig-ipv6-pool") {
		d.refuse(l, "it already stands for ifconfig-ipv6 and ifconfig-ipv6-pool: remove those, or this line")
		return
	}
	step := uint64(2)
	if p.Bits() < 112 {
		step = 0x1000
	}
	own, err := offset(p.Addr(), 1)
	first, err2 := offset(p.Addr(), step)
	if err != nil || err2 != nil || !p.Contains(own) || !p.Contains(first) {
		d.refuse(l, "the network ends before the pool begins: write the network's first address, %s", p.Masked())
		return
	}
	c.Addr6 = netip.PrefixFrom(own, p.Bits())
	c.Pool6, c.Pool6Bits = pool6(first, p), p.Bits()
	d.push("tun-ipv6")
}

func (d *draft) expandServer() {
	l, c, p := d.last["server"], d.cfg, d.server
	if d.has("ifconfig") {
		d.refuse(l, "it already stands for ifconfig: remove that, or this line")
		return
	}
	if d.has("ifconfig-pool") && !d.noPool {
		d.refuse(l, "it already defines an ifconfig-pool, so you can't also specify ifconfig-pool explicitly: write `server %s %s nopool`, or remove ifconfig-pool", p.Addr(), maskOf(p.Bits()))
		return
	}
	net, broadcast := word4(p.Addr()), word4(last4(p))
	own := addr4(net + 1)
	c.Addr4 = netip.PrefixFrom(own, p.Bits())
	first, last := net+2, broadcast-1
	if c.Topology != Subnet {
		first, last = net+4, broadcast-4
		if p.Bits() == 29 {
			last = broadcast
		}
		c.Peer4 = addr4(net + 2)
	}
	if !d.noPool {
		c.Pool4 = Range{addr4(first), addr4(last)}
	}
	if c.Topology == Subnet && !c.PushConstraint.IsValid() {
		c.PushConstraint = p
	}
	switch c.Topology {
	case Subnet:
		d.push("route-gateway %s", own)
		if !c.Tap {
			d.push("topology subnet")
		}
	case Net30:
		if c.ClientToClient {
			d.push("route %s %s", p.Addr(), maskOf(p.Bits()))
		} else {
			d.push("route %s", own)
		}
		d.push("topology net30")
	case P2P:
		if c.ClientToClient {
			d.push("route %s %s", p.Addr(), maskOf(p.Bits()))
		}
		d.push("topology p2p")
	}
}
