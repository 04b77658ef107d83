package firewall

import (
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// metadata is where clouds keep what only the host should know.
var metadata = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254")}

// A rule is one line of a chain.
type rule struct {
	chain string
	exprs []expr.Any
}

// rules writes the rules. Each is preceded by what nft would show, for a device tun0.
func (r *Rules) rules() []rule {
	var list []rule
	add := func(chain string, parts ...[]expr.Any) {
		list = append(list, rule{chain, slices.Concat(parts...)})
	}
	services := []struct {
		protocol byte
		ports    string
	}{{unix.IPPROTO_UDP, setUDP}, {unix.IPPROTO_TCP, setTCP}}
	// iifname != tun0, and of all other zones too
	var beyond, outward []expr.Any
	for _, z := range r.Zones {
		beyond = append(beyond, from(z.Device, false)...)
		outward = append(outward, to(z.Device, false)...)
	}

	for _, s := range services {
		// Connection tracking would let a client take over the VPN's port for another's packets ("port shadow").
		// udp dport @udp_ports iifname != tun0 fib daddr type local notrack
		add(chainUntrack, port(s.protocol, destination, s.ports), beyond, toHost(), untrack())
		// udp sport @udp_ports notrack
		add(chainUntrackOwn, port(s.protocol, source, s.ports), untrack())
		for _, z := range r.Zones {
			// udp dport @udp_ports iifname tun0 fib daddr type local drop
			add(chainGuard, port(s.protocol, destination, s.ports), from(z.Device, true), toHost(), drop())
		}
		// A random source port that is the VPN's would shadow it too. The client tries again and gets another.
		// udp sport @udp_ports oifname != tun0 ct status snat drop
		add(chainSpare, port(s.protocol, source, s.ports), outward, translated(), drop())
	}
	for i, z := range r.Zones {
		for _, f := range families {
			nets := zoneSet(i, f.is6)
			// meta nfproto ipv4 iifname tun0 ip saddr != @nets4 drop
			add(chainGuard, f.only(), from(z.Device, true), f.address(source, nets, false), drop())
			if !r.Reachable {
				// meta nfproto ipv4 iifname != tun0 iifname != lo ip daddr @nets4 ct state != { established, related } drop
				add(chainGuard, f.only(), beyond, from("lo", false), f.address(destination, nets, true), unanswered(), drop())
			}
			if z.NAT {
				// meta nfproto ipv4 oifname != tun0 ip saddr @nets4 masquerade fully-random
				add(chainMasquerade, f.only(), outward, f.address(source, nets, true), masquerade())
			}
		}
	}
	named := slices.ContainsFunc(r.Policies, func(p Policy) bool { return slices.ContainsFunc(p.Rules, isMetadata) })
	if !r.Metadata && !named {
		for _, z := range r.Zones {
			for _, addr := range metadata {
				// ip daddr 169.254.169.254 iifname tun0 drop
				add(chainGuard, is(destination, addr), from(z.Device, true), drop())
			}
		}
	}
	list = append(list, r.gatewayRules()...)
	if len(r.Policies) > 0 {
		return append(list, r.policyRules(named)...)
	}
	if !r.ClientToClient {
		for _, z := range r.Zones {
			for _, other := range r.Zones {
				// iifname tun0 oifname tun0 drop
				add(chainBetween, from(z.Device, true), to(other.Device, true), drop())
			}
		}
	}
	return list
}

// isMetadata reports whether a rule is about the metadata service alone.
func isMetadata(r Rule) bool {
	return r.To.IsValid() && slices.ContainsFunc(metadata, func(a netip.Addr) bool { return r.To == netip.PrefixFrom(a, a.BitLen()) })
}

// A way is one of the two that packets of a connection go which a client has opened. Both are judged, packet by packet,
// by the client's policy as it is then: whoever loses a right sends nothing more by it, and gets nothing more either.
type way struct {
	chain  string                               // where such packets are judged
	policy func(policy string, is6 bool) string // the chain of a policy there, for packets of a family
	far    side                                 // of what the policy's rules speak of
	allow  func() []expr.Any
}

// near is the client's side.
func (w *way) near() side {
	if w.far == source {
		return destination
	}
	return source
}

var (
	asking    = way{chainFromClients, forwardChain, destination, accept}
	answering = way{chainToClients, answerChain, source, giveBack} // another client that answers is judged as any client

	askingGateway  = way{chainToGateway, gatewayChain, destination, accept}
	gatewayAnswers = way{chainFromGateway, gatewayAnswerChain, source, giveBack}
)

// gatewayRules keep clients from the host itself.
func (r *Rules) gatewayRules() (list []rule) {
	if !r.Closed {
		return nil
	}
	add := func(chain string, parts ...[]expr.Any) {
		list = append(list, rule{chain, slices.Concat(parts...)})
	}
	for _, z := range r.Zones {
		// iifname tun0 jump to_gateway
		add(chainGateway, from(z.Device, true), jump(chainToGateway))
		if len(r.Policies) > 0 {
			// oifname tun0 ct state established ct direction reply jump from_gateway
			add(chainAnswers, to(z.Device, true), replying(), jump(chainFromGateway))
		}
	}
	list = append(list, answersOf(chainToGateway)...)
	if len(r.Policies) == 0 {
		for _, p := range []byte{unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
			// meta l4proto icmp accept
			add(chainToGateway, protocol(p), accept())
		}
	}
	ways := []way{askingGateway}
	if len(r.Policies) > 0 {
		ways = append(ways, gatewayAnswers)
	}
	for _, w := range ways {
		if len(r.Policies) > 0 {
			for _, z := range r.Zones {
				device := from(z.Device, true)
				if w.far == source {
					device = to(z.Device, true)
				}
				for _, own := range z.Own {
					f := ipv4
					if own.Is6() {
						f = ipv6
					}
					// iifname tun0 meta l4proto icmp ip daddr 10.8.0.1 accept
					add(w.chain, device, protocol(f.icmp), is(w.far, own), w.allow())
				}
			}
		}
		for _, g := range r.Gateway {
			for _, f := range families {
				for _, exprs := range g.expressions(&w, f) {
					add(w.chain, f.only(), exprs)
				}
			}
		}
		list = append(list, r.dispatch(&w)...)
		for _, p := range r.Policies {
			for _, f := range families {
				for _, rule := range p.Rules {
					if rule.Gateway {
						for _, exprs := range rule.expressions(&w, f) {
							add(w.policy(p.Name, f.is6), exprs)
						}
					}
				}
				// drop
				add(w.policy(p.Name, f.is6), drop())
			}
		}
		add(w.chain, drop())
	}
	return list
}

// answersOf lets those packets of clients through that need no right of their own: whoever opened the connection had it.
func answersOf(chain string) (list []rule) {
	// ct state established ct direction reply accept
	list = append(list, rule{chain, slices.Concat(replying(), accept())})
	for _, p := range []byte{unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
		// meta l4proto icmp ct state related accept
		list = append(list, rule{chain, slices.Concat(protocol(p), related(), accept())})
	}
	return list
}

// policyRules judge what is forwarded from clients, and what answers them. named is whether a policy speaks of the
// metadata service.
func (r *Rules) policyRules(named bool) (list []rule) {
	add := func(chain string, parts ...[]expr.Any) {
		list = append(list, rule{chain, slices.Concat(parts...)})
	}
	for _, z := range r.Zones {
		// oifname tun0 ct state established ct direction reply jump to_clients
		add(chainBetween, to(z.Device, true), replying(), jump(chainToClients))
	}
	for _, z := range r.Zones {
		// iifname tun0 jump from_clients
		add(chainBetween, from(z.Device, true), jump(chainFromClients))
	}
	list = append(list, answersOf(chainFromClients)...)
	for _, w := range []way{asking, answering} {
		list = append(list, r.dispatch(&w)...)
		for _, p := range r.Policies {
			for _, f := range families {
				list = append(list, p.forwarded(&w, f, named)...)
			}
		}
		add(w.chain, drop())
	}
	return list
}

// forwarded writes the chain of a policy for one family. named is as policyRules has it.
func (p *Policy) forwarded(w *way, f family, named bool) (list []rule) {
	add := func(parts ...[]expr.Any) {
		list = append(list, rule{w.policy(p.Name, f.is6), slices.Concat(parts...)})
	}
	write := func(r *Rule) {
		for _, exprs := range r.expressions(w, f) {
			add(exprs)
		}
	}
	if named {
		for _, r := range p.Rules {
			if isMetadata(r) {
				write(&r)
			}
		}
		for _, addr := range metadata {
			if addr.Is6() == f.is6 {
				// ip daddr 169.254.169.254 drop
				add(f.within(w.far, netip.PrefixFrom(addr, addr.BitLen())), drop())
			}
		}
	}
	for _, r := range p.Rules {
		if !r.Gateway && !isMetadata(r) {
			write(&r)
		}
	}
	add(drop())
	return list
}

// dispatch sends the packets of each policy's clients to its chain. A client's own address comes before a network that
// another has behind it.
func (r *Rules) dispatch(w *way) (list []rule) {
	for _, set := range []func(policy string, is6 bool) string{setOf, netSetOf} {
		for _, p := range r.Policies {
			for _, f := range families {
				// meta nfproto ipv4 ip saddr @policy_staff_4 goto forward_staff_4
				list = append(list, rule{w.chain, slices.Concat(f.only(), f.address(w.near(), set(p.Name, f.is6), true), goTo(w.policy(p.Name, f.is6)))})
			}
		}
	}
	return list
}

// expressions writes a rule as lines, for packets that are known to be of a family: one for each set and range of ports.
func (r *Rule) expressions(w *way, f family) (lines [][]expr.Any) {
	verdict := drop
	if r.Allow {
		verdict = w.allow
	}
	var proto []expr.Any
	switch r.Protocol {
	case "tcp":
		proto = protocol(unix.IPPROTO_TCP)
	case "udp":
		proto = protocol(unix.IPPROTO_UDP)
	case "icmp":
		proto = protocol(f.icmp)
	}
	// Allowing a network is not allowing the clients in it.
	notClients := []expr.Any(nil)
	if r.Allow {
		notClients = f.address(w.far, poolSet(f.is6), false)
	}
	var where [][]expr.Any
	switch {
	case r.Policy != "":
		for _, set := range []string{setOf(r.Policy, f.is6), netSetOf(r.Policy, f.is6)} {
			where = append(where, slices.Concat(f.address(w.far, set, true), proto))
		}
	case r.To.IsValid() && r.To.Addr().Is6() != f.is6:
	case r.Gateway && r.To.IsValid():
		where = append(where, slices.Concat(f.within(w.far, r.To), proto))
	case r.Gateway:
		where = append(where, proto)
	case r.Any:
		where = append(where, slices.Concat(notClients, proto))
	default:
		where = append(where, slices.Concat(f.within(w.far, r.To), notClients, proto))
	}
	for _, match := range where {
		if len(r.Ports) == 0 {
			lines = append(lines, slices.Concat(match, verdict()))
		}
		for _, p := range r.Ports {
			lines = append(lines, slices.Concat(match, portsWithin(w.far, p), verdict()))
		}
	}
	return lines
}

func poolSet(is6 bool) string {
	if is6 {
		return setPools6
	}
	return setPools4
}
