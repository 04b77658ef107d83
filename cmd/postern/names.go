package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/rs/zerolog"

	"postern/server/config"
	"postern/server/dnsforward"
)

// names are the name services of a server: one for each pool that has dns-forward lines, on the gateway's addresses in it.
type names struct {
	byPool map[string]*dnsforward.Forwarder
	allow  map[string][]netip.Prefix // by pool: who may ask; a pool's networks stay as long as the server runs
}

// listenNames opens the name services, while there are rights to.
func (h *host) listenNames(cfg *config.Config, log zerolog.Logger) error {
	h.names.byPool, h.names.allow = make(map[string]*dnsforward.Forwarder), make(map[string][]netip.Prefix)
	for _, p := range cfg.AllPools() {
		if len(p.DNSForward) == 0 {
			continue
		}
		// Its clients, and networks behind them.
		allow := p.Nets()
		for _, r := range p.Routes {
			allow = append(allow, r.Net.Masked())
		}
		rules, err := nameRules(&p, allow)
		if err != nil {
			return err
		}
		h.names.allow[p.Name] = allow
		var at []netip.AddrPort
		for _, a := range []netip.Prefix{p.Addr4, p.Addr6} {
			if a.IsValid() {
				at = append(at, netip.AddrPortFrom(a.Addr(), 53))
			}
		}
		f, err := dnsforward.Listen(at, rules, log)
		if err != nil {
			return fmt.Errorf("dns-forward: pool %s: %w", p.Name, err)
		}
		h.later(f.Close)
		h.names.byPool[p.Name] = f
	}
	return nil
}

// nameRules are whom a pool's name service asks, and for whom.
func nameRules(p *config.Pool, allow []netip.Prefix) (*dnsforward.Rules, error) {
	var zones []dnsforward.Zone
	add := func(name string, server netip.AddrPort) {
		for i := range zones {
			if zones[i].Name == name {
				zones[i].Upstreams = append(zones[i].Upstreams, server)
				return
			}
		}
		zones = append(zones, dnsforward.Zone{Name: name, Upstreams: []netip.AddrPort{server}})
	}
	for _, f := range p.DNSForward {
		if len(f.Zones) == 0 {
			add(".", f.Server)
		}
		for _, z := range f.Zones {
			add(dnsforward.Canonical(z), f.Server)
		}
	}
	rules, err := dnsforward.NewRules(zones, allow)
	if err != nil {
		return nil, fmt.Errorf("dns-forward: pool %s: %w", p.Name, err)
	}
	return rules, nil
}

// run serves until ctx is done. A service that breaks is told of; the server goes on without it.
func (n *names) run(ctx context.Context, running *sync.WaitGroup, log zerolog.Logger) {
	for pool, f := range n.byPool {
		running.Go(func() {
			if err := f.Run(ctx); err != nil {
				log.Error().Err(err).Str("alarm", "dns-forward").Str("pool", pool).Msg("clients cannot ask for names any more")
			}
		})
	}
}

// prepare returns what takes over whom to ask, and whether there is something that only a restart can change.
func (n *names) prepare(cfg *config.Config) (adopt func(), restart bool, err error) {
	next := make(map[string]*dnsforward.Rules)
	for _, p := range cfg.AllPools() {
		if len(p.DNSForward) == 0 {
			continue
		}
		if next[p.Name], err = nameRules(&p, n.allow[p.Name]); err != nil {
			return nil, false, err
		}
		restart = restart || n.byPool[p.Name] == nil
	}
	for pool := range n.byPool {
		restart = restart || next[pool] == nil
	}
	return func() {
		for pool, f := range n.byPool {
			if rules := next[pool]; rules != nil {
				f.Use(rules)
			}
		}
	}, restart, nil
}
