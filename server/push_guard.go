package server

import (
	"net/netip"
	"slices"

	"postern/server/config"
)

// guard completes a full tunnel (S080), unless the configuration says leak-guard no. What leads all of IPv4 into the
// tunnel leads IPv6 there too, or blocks it where the client has no IPv6 address. Where name servers are pushed that the
// client uses without the user's help, it is kept off other ones and off its local networks, which could draw traffic
// out of the tunnel. Others have their name server there.
//
// A client without an IPv6 address is not given one for this: on a machine with IPv6 switched off that would be the
// end of OpenVPN 2. Routes without an address are taken, or at worst logged.
func (l *pushList) guard() {
	if l.cfg.NoLeakGuard {
		return
	}
	has := l.coverage()
	if !has.all4 {
		return
	}
	var flags []string
	if l.pushesDNS() && l.to.usesDNS() {
		if !has.local && !has.blockLocal && has.gateway >= 0 {
			flags = append(flags, "block-local")
		}
		if l.to.platform == "win" && l.find("block-outside-dns") < 0 {
			l.insert(has.gateway+1, "block-outside-dns")
		}
	}
	if !has.all6 {
		block := l.find("ifconfig-ipv6") < 0
		if !block || !l.to.core3 { // OpenVPN 3 needs no routes to block
			flags = append(flags, "ipv6")
		}
		if block && l.to.since(5) && l.find("block-ipv6") < 0 {
			at := len(l.options)
			if i := l.find("ifconfig"); i >= 0 {
				at = i
			}
			l.insert(at, "block-ipv6")
		}
	}
	switch {
	case len(flags) == 0:
	case has.gateway >= 0:
		o := &l.options[has.gateway]
		for _, f := range flags {
			*o = pushOption{o.text + " " + f, append(slices.Clip(o.words), f)}
		}
	default: // the tunnel is full by routes
		l.add("redirect-gateway !ipv4 ipv6")
	}
}

func (l *pushList) pushesDNS() bool {
	return slices.ContainsFunc(l.options, func(o pushOption) bool { return isDHCPAddress(&o) || isDNSServer(&o) })
}

// usesDNS reports whether the client uses pushed name servers without a script of the user's.
func (t *pushTarget) usesDNS() bool {
	switch t.platform {
	case "win", "mac", "android", "ios":
		return true
	}
	return t.core3 || t.dns
}

// coverage is what a push list leads into the tunnel.
type coverage struct {
	all4, all6 bool
	gateway    int  // the first redirect-gateway, -1 without
	local      bool // the server is in the client's own network
	blockLocal bool
	nets       []netip.Prefix // routes
	around     []netip.Prefix // routes past the tunnel
}

func (l *pushList) coverage() coverage {
	c := coverage{gateway: -1}
	var routed []netip.Prefix
	for i := range l.options {
		o := &l.options[i]
		switch o.name() {
		case "redirect-gateway":
			if c.gateway < 0 {
				c.gateway = i
			}
			c.all4 = c.all4 || !slices.Contains(o.words, "!ipv4")
			c.all6 = c.all6 || slices.Contains(o.words, "ipv6")
			c.local = c.local || slices.Contains(o.words, "local") || slices.Contains(o.words, "autolocal")
			c.blockLocal = c.blockLocal || slices.Contains(o.words, "block-local")
		case "redirect-private":
			c.blockLocal = c.blockLocal || slices.Contains(o.words, "block-local")
		case "route", "route-ipv6":
			net, ok := config.PushedRoute(o.text)
			switch {
			case !ok:
			case slices.Contains(o.words, "net_gateway"):
				c.around = append(c.around, net.Masked())
			default:
				routed = append(routed, net.Masked())
			}
		}
	}
	c.nets = routed
	c.all4 = c.all4 || coversAll(routed, netip.IPv4Unspecified())
	c.all6 = c.all6 || coversAll(routed, netip.IPv6Unspecified()) || slices.Contains(routed, global6)
	return c
}

// global6 is all of IPv6 that is in use in the Internet.
var global6 = netip.MustParsePrefix("2000::/3")

// coversAll reports whether routes hold a whole family: as one, or in two halves as redirect-gateway def1 does it.
func coversAll(nets []netip.Prefix, zero netip.Addr) bool {
	half := netip.PrefixFrom(zero, 1)
	b := zero.AsSlice()
	b[0] = 0x80
	upper, _ := netip.AddrFromSlice(b)
	return slices.Contains(nets, netip.PrefixFrom(zero, 0)) ||
		slices.Contains(nets, half) && slices.Contains(nets, netip.PrefixFrom(upper, 1))
}
