package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// DefaultPool is the name of the pool that server and server-ipv6 make.
const DefaultPool = "default"

// A Pool is a network of clients, which has a device of its own.
type Pool struct {
	Name         string
	Dev          string
	Addr4, Addr6 netip.Prefix // the gateway's own
	Range4       Range        // of clients; zero without
	Range6       Range
	Bits6        int     // prefix length pushed with IPv6 addresses
	Exclude      []Range // never leased
	Routes       []Route // kernel routes into the device
	NAT          bool
	Push         []string // all that is pushed to its clients, in order
	// Down and Up bound what all clients of the pool move together, in bits a second; 0: nothing does.
	Down, Up int64
	// DNSForward is whom the gateway asks for its clients; nobody: they are not served.
	DNSForward []DNSForward

	own bool // made by a block: nothing of it is in Config's own fields
}

// BlockPool is the pool that a block with these networks makes; a zero one is none.
func BlockPool(name string, net4, net6 netip.Prefix, push ...string) Pool {
	p := Pool{Name: name, Dev: "tun-" + name, Push: push, own: true}
	if net4.IsValid() {
		first := word4(net4.Addr())
		p.Addr4 = netip.PrefixFrom(addr4(first+1), net4.Bits())
		p.Range4 = Range{addr4(first + 2), addr4(word4(last4(net4)) - 1)}
	}
	if net6.IsValid() {
		step := uint64(2)
		if net6.Bits() < 112 {
			step = 0x1000
		}
		own, _ := offset(net6.Addr(), 1) // neither leaves the network
		first, _ := offset(net6.Addr(), step)
		p.Addr6, p.Bits6 = netip.PrefixFrom(own, net6.Bits()), net6.Bits()
		p.Range6 = pool6(first, net6)
	}
	return p
}

// Nets is the networks of the pool's own addresses.
func (p *Pool) Nets() (nets []netip.Prefix) {
	for _, a := range []netip.Prefix{p.Addr4, p.Addr6} {
		if a.IsValid() {
			nets = append(nets, a.Masked())
		}
	}
	return nets
}

// AllPools is every pool: the one that server and server-ipv6 make, if they do, and those of blocks.
func (c *Config) AllPools() []Pool {
	var all []Pool
	if c.Addr4.IsValid() || c.Addr6.IsValid() || len(c.Pools) == 0 {
		all = append(all, Pool{Name: DefaultPool, Dev: c.Dev, Addr4: c.Addr4, Addr6: c.Addr6, Range4: c.Pool4, Range6: c.Pool6,
			Bits6: c.Pool6Bits, Routes: c.Routes, NAT: c.NAT, Push: c.Push, DNSForward: c.DNSForward})
	}
	return append(all, c.Pools...)
}

// A Policy says who it is for and what these may do.
type Policy struct {
	Name    string
	Match   []Match // any of them is enough
	Pool    string  // by name; always set
	Rules   []Rule  // in order; what none allows is denied
	Push    []string
	Down    int64 // bits a second for each client; 0: unlimited
	Up      int64
	Hours   []Hours // none: always
	Timeout time.Duration
	// Sessions is how many one user may have at once; 0: as without policies. The one too many takes the place of the
	// oldest, or is refused.
	Sessions int
	Refuse   bool
	Factor   string // "totp", or none
}

// A Match is conditions that must hold together.
type Match struct {
	Any    bool
	Groups []string // DNs of directory groups, as written
	Units  []string // OUs of the certificate
	Users  []string
}

// A Rule allows or denies packets from clients.
type Rule struct {
	Allow   bool
	Proto   string       // tcp, udp, icmp (both kinds); "": all
	Net     netip.Prefix // where to; zero with Any, Gateway and Policy
	Any     bool         // everywhere but to other clients and to the gateway
	Gateway bool         // to the gateway's own addresses
	Policy  string       // to the clients of this policy
	Ports   []Ports      // none: all
}

// Ports is the ports from First to Last, both included.
type Ports struct{ First, Last uint16 }

// String writes the rule as it is written in a configuration.
func (r Rule) String() string {
	words := []string{"deny"}
	if r.Allow {
		words[0] = "allow"
	}
	if r.Proto != "" {
		words = append(words, r.Proto)
	}
	switch {
	case r.Any:
		words = append(words, "any")
	case r.Gateway:
		words = append(words, "gateway")
	case r.Policy != "":
		words = append(words, "policy", r.Policy)
	default:
		words = append(words, r.Net.String())
	}
	var ports []string
	for _, p := range r.Ports {
		if p.First == p.Last {
			ports = append(ports, fmt.Sprint(p.First))
		} else {
			ports = append(ports, fmt.Sprintf("%d-%d", p.First, p.Last))
		}
	}
	if ports != nil {
		words = append(words, strings.Join(ports, ","))
	}
	return strings.Join(words, " ")
}

// Hours is a span of the day on some days of the week. One that ends before it begins ends on the next day.
type Hours struct {
	Days     [7]bool // by time.Weekday
	From, To int     // minutes since midnight
	Zone     *time.Location
}

// Contains reports whether t is within.
func (h *Hours) Contains(t time.Time) bool {
	t = t.In(h.Zone)
	minute, day := t.Hour()*60+t.Minute(), t.Weekday()
	if h.From < h.To {
		return h.Days[day] && minute >= h.From && minute < h.To
	}
	return h.Days[day] && minute >= h.From || h.Days[(day+6)%7] && minute < h.To
}

// Open reports whether the policy lets anybody be connected at t.
func (p *Policy) Open(t time.Time) bool {
	return len(p.Hours) == 0 || slices.ContainsFunc(p.Hours, func(h Hours) bool { return h.Contains(t) })
}

// Policy returns the policy of a name, nil when there is none.
func (c *Config) Policy(name string) *Policy {
	for i := range c.Policies {
		if c.Policies[i].Name == name {
			return &c.Policies[i]
		}
	}
	return nil
}

// For returns the configuration as it is for clients of one pool and policy: with that pool's device, addresses and
// pushes, and behind these the policy's. A nil policy adds nothing.
func (c *Config) For(pool *Pool, policy *Policy) *Config {
	if !pool.own && policy == nil {
		return c
	}
	view := *c
	view.Push = slices.Clone(pool.Push)
	if policy != nil {
		view.Push = append(view.Push, policy.Push...)
	}
	if pool.own {
		view.Dev, view.Addr4, view.Addr6, view.Pool4, view.Pool6, view.Pool6Bits = pool.Dev, pool.Addr4, pool.Addr6, pool.Range4, pool.Range6, pool.Bits6
		view.Routes, view.NAT, view.Topology, view.Peer4 = pool.Routes, pool.NAT, Subnet, netip.Addr{}
	}
	return &view
}
