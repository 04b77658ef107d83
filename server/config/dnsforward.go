package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A DNSForward is a name server that the gateway asks for its clients.
type DNSForward struct {
	Server netip.AddrPort
	Zones  []string // for names in these alone; none: for all
}

func addDNSForward(d *draft, l *directive) error {
	return parseDNSForward(l.args, &d.cfg.DNSForward)
}

func addPoolDNSForward(d *draft, l *directive) error {
	return parseDNSForward(l.args, &d.open.pool.DNSForward)
}

func parseDNSForward(args []string, into *[]DNSForward) error {
	f := DNSForward{Zones: args[1:]}
	if a, err := netip.ParseAddr(args[0]); err == nil {
		f.Server = netip.AddrPortFrom(a.Unmap(), 53)
	} else if f.Server, err = netip.ParseAddrPort(args[0]); err != nil || f.Server.Port() == 0 {
		return fmt.Errorf("%q is not the address of a name server, such as 10.0.0.53, 10.0.0.53:5353 or [fd00::53]:53", args[0])
	}
	for _, z := range f.Zones {
		if err := checkZone(z); err != nil {
			return err
		}
	}
	*into = append(*into, f)
	return nil
}

// checkZone wants the name of a DNS zone in letters, digits, hyphens and underscores.
func checkZone(z string) error {
	name := strings.TrimSuffix(z, ".")
	if name == "" || len(name) > 253 {
		return fmt.Errorf("%q is not the name of a zone, such as corp.example", z)
	}
	for label := range strings.SplitSeq(name, ".") {
		bad := func(c rune) bool {
			return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_')
		}
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, bad) {
			return fmt.Errorf("%q is not the name of a zone, such as corp.example", z)
		}
	}
	return nil
}

// checkDNSForward looks at what clients are told of name servers that are asked for them.
func (d *draft) checkDNSForward() {
	c := d.cfg
	if c.Tap && len(c.DNSForward) > 0 {
		d.refuse(d.last["dns-forward"], "there is no address of clients to know them by on a tap device: write `dev tun`")
		return
	}
	if len(c.DNSForward) > 0 && !c.Addr4.IsValid() && !c.Addr6.IsValid() {
		d.refuse(d.last["dns-forward"], "there is no pool outside of blocks: write it into a pool's block")
		return
	}
	for _, p := range c.AllPools() {
		if len(p.DNSForward) == 0 {
			continue
		}
		l := d.last["dns-forward"]
		if p.own {
			l = d.poolLine(p.Name)
		}
		push := slices.Clone(p.Push)
		for _, policy := range c.Policies {
			if policy.Pool == p.Name {
				push = append(push, policy.Push...)
			}
		}
		own := p.Addr4.Addr()
		if !own.IsValid() {
			own = p.Addr6.Addr()
		}
		if !slices.ContainsFunc(push, func(s string) bool {
			return strings.Contains(s, own.String()) && (strings.Contains(s, "DNS") || strings.HasPrefix(s, "dns "))
		}) {
			d.notice(l, "clients are not told to ask %s: add `push \"dhcp-option DNS %s\"`, or in a block `dns %s`", own, own, own)
		}
	}
}
