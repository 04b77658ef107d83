package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/rs/zerolog"

	"postern/server"
	"postern/server/config"
	"postern/server/firewall"
	"postern/server/hostnet"
)

// guard sets up forwarding, address translation and the policies' rules, as far as the configuration asks for them, and
// clears away what a killed run left. The filter is nil without policies.
func (h *host) guard(cfg *config.Config, log zerolog.Logger) (server.Filter, error) {
	pools := cfg.AllPools()
	nat := slices.ContainsFunc(pools, func(p config.Pool) bool { return p.NAT })
	if !guarded(cfg) {
		if err := firewall.RemoveStale(h.devices[0].Name()); err != nil {
			log.Debug().Err(err).Msg("no nftables here: nothing to clear away")
		}
		return nil, nil
	}
	fw, err := firewall.Apply(filterRules(cfg, h.devices))
	if err != nil {
		return nil, guardError(cfg, err)
	}
	h.later(fw.Remove)
	obstacles, err := firewall.Obstacles()
	if err != nil {
		return nil, guardError(cfg, err)
	}
	for _, o := range obstacles {
		log.Warn().Str("chain", o).Msgf("this chain drops what it does not know: let %s through there in both directions, or clients reach nothing", deviceNames(h.devices))
	}
	if nat {
		with := func(family func(p *config.Pool) netip.Prefix) bool {
			return slices.ContainsFunc(pools, func(p config.Pool) bool { return family(&p).IsValid() })
		}
		restore, err := hostnet.EnableForwarding(with(func(p *config.Pool) netip.Prefix { return p.Addr4 }), with(func(p *config.Pool) netip.Prefix { return p.Addr6 }))
		if err != nil {
			return nil, fmt.Errorf("nat: %w", err)
		}
		h.later(restore)
	}
	if len(cfg.Policies) == 0 {
		return nil, nil
	}
	return &filter{fw, h.devices}, nil
}

// guarded reports whether the configuration asks for rules in the packet filter.
func guarded(cfg *config.Config) bool {
	return len(cfg.Policies) > 0 || slices.ContainsFunc(cfg.AllPools(), func(p config.Pool) bool { return p.NAT })
}

// guardError says what cannot be had without a packet filter.
func guardError(cfg *config.Config, err error) error {
	if len(cfg.Policies) == 0 || !errors.Is(err, firewall.ErrUnsupported) {
		return fmt.Errorf("nat: %w", err)
	}
	names := make([]string, len(cfg.Policies))
	for i, p := range cfg.Policies {
		names[i] = p.Name
	}
	return fmt.Errorf("policy %s: their rules are held by the kernel's packet filter: %w: load nf_tables, or remove the policies", strings.Join(names, ", "), err)
}

// filter is the server's filter: the table of this process.
type filter struct {
	fw      *firewall.Firewall
	devices []*openDevice
}

func (f *filter) Update(changes []server.FilterChange) error {
	return f.fw.Update(filterChanges(changes))
}

func (f *filter) Replace(cfg *config.Config, holders []server.FilterChange) error {
	return f.fw.Replace(filterRules(cfg, f.devices), filterChanges(holders)...)
}

func filterChanges(changes []server.FilterChange) []firewall.Change {
	list := make([]firewall.Change, len(changes))
	for i, c := range changes {
		list[i] = firewall.Change(c)
	}
	return list
}

// filterRules are the rules that a configuration asks for.
func filterRules(cfg *config.Config, devices []*openDevice) firewall.Rules {
	r := firewall.Rules{ClientToClient: cfg.ClientToClient, Closed: true}
	for _, l := range cfg.Listen {
		r.Ports = append(r.Ports, firewall.Port{Network: l.Network, Number: l.Addr.Port()})
	}
	for i, p := range cfg.AllPools() {
		z := firewall.Zone{Device: devices[i].Name(), Pools: p.Nets(), NAT: p.NAT}
		for _, a := range []netip.Prefix{p.Addr4, p.Addr6} {
			if a.IsValid() {
				z.Own = append(z.Own, a.Addr())
			}
		}
		for _, route := range p.Routes {
			z.Behind = append(z.Behind, route.Net.Masked())
		}
		r.Zones = append(r.Zones, z)
		r.Gateway = append(r.Gateway, ownDNS(&p, z.Own, cfg.Policies)...)
	}
	for _, rule := range cfg.GatewayAccess {
		r.Gateway = append(r.Gateway, filterRule(rule))
	}
	for _, p := range cfg.Policies {
		policy := firewall.Policy{Name: p.Name}
		for _, rule := range p.Rules {
			policy.Rules = append(policy.Rules, filterRule(rule))
		}
		r.Policies = append(r.Policies, policy)
	}
	return r
}

func filterRule(rule config.Rule) firewall.Rule {
	out := firewall.Rule{Allow: rule.Allow, Protocol: rule.Proto, To: rule.Net, Any: rule.Any, Gateway: rule.Gateway, Policy: rule.Policy}
	for _, p := range rule.Ports {
		out.Ports = append(out.Ports, firewall.PortRange(p))
	}
	return out
}

// ownDNS lets clients ask the name server at the gateway's address in their pool, when it is ours or pushed to them.
func ownDNS(p *config.Pool, own []netip.Addr, policies []config.Policy) (rules []firewall.Rule) {
	push := slices.Clone(p.Push)
	for _, policy := range policies {
		if policy.Pool == p.Name {
			push = append(push, policy.Push...)
		}
	}
	for _, a := range own {
		if len(p.DNSForward) == 0 && !slices.ContainsFunc(push, func(text string) bool { return namesDNS(text, a) }) {
			continue
		}
		for _, proto := range []string{"udp", "tcp"} {
			rules = append(rules, firewall.Rule{Allow: true, Gateway: true, Protocol: proto, To: netip.PrefixFrom(a, a.BitLen()), Ports: []firewall.PortRange{{First: 53, Last: 53}}})
		}
	}
	return rules
}

// namesDNS reports whether a pushed option makes a a name server: dhcp-option DNS or DNS6, or dns server N address.
func namesDNS(text string, a netip.Addr) bool {
	words, err := config.Words(text)
	if err != nil || len(words) < 3 {
		return false
	}
	switch {
	case words[0] == "dhcp-option" && (words[1] == "DNS" || words[1] == "DNS6"):
		words = words[2:]
	case words[0] == "dns" && words[1] == "server" && len(words) > 4 && words[3] == "address":
		words = words[4:]
	default:
		return false
	}
	return slices.ContainsFunc(words, func(w string) bool {
		got, err := netip.ParseAddr(w)
		return err == nil && got == a
	})
}
