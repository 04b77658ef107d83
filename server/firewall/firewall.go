// Package firewall keeps the packet filter rules of one server: an nftables table of its own, which other tables
// never notice.
//
//	                        prerouting                         forward       postrouting
//	priority      raw            mangle                        filter        srcnat        srcnat+10
//	           +---------+    +-----------------------+     +----------+   +-----------+  +--------------+
//	packet --> | untrack | -> | guard                 | -+->| between  |-->| masquerade|->| spare        | -->
//	           |         |    |                       |  |  | clients  |   |           |  |              |
//	           | the VPN |    | tunnel: inside source?|  |  | none to  |   | inside -> |  | never a port |
//	           | itself  |    | beyond: answers only  |  |  | none, or |   | outside   |  | of the VPN   |
//	           +---------+    +-----------------------+  |  | policies |   +-----------+  +--------------+
//	                                                     |  +----------+
//	                                                     |  | gateway  |  input: the host's own services
//	                                                     +->+----------+
//
// # Policies
//
// A set of addresses for each policy and family says whose packets it judges: a client that connects, leaves, or moves
// to another policy is an element added, removed, or both, in one transaction. Packets of connections that clients have
// opened are judged one by one, those to clients by the same rules with the ends exchanged, so that a right that is gone
// is gone at once in both directions, whatever the kernel tracks. What a client answers to a connection that another
// end has opened, by its own rights, needs none. The chains:
//
//	between_clients --answers to a client's device--> to_clients --destination in policy_NAME_4--> answer_NAME_4: its rules, drop
//	                --from a client's device--> from_clients --source in policy_NAME_4--> forward_NAME_4: its rules, drop
//	gateway ----------from a client's device--> to_gateway ----source in policy_NAME_4--> gateway_NAME_4: its rules, drop
//	answers ----------answers to a client's device--> from_gateway --destination in policy_NAME_4--> from_gateway_NAME_4
//	                                                 +-- in none: drop
//
// and the same with _6: a chain is for packets of one family, so that its rules need not ask. Rules ask first what is
// cheap and most packets fail at: every packet of every client and every answer meets them.
//
// It only ever takes away. A packet that another table drops stays dropped, whatever is accepted here: on a host
// whose forward chains drop by default the administrator lets the TUN device through there (Obstacles finds them).
//
// Packets of the VPN itself are not tracked, so the host's own rules for its port must not ask for a connection
// state: "udp dport 1194 accept", not "ct state new udp dport 1194 accept".
package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Rules is what a table is made from.
type Rules struct {
	// Zones are the server's devices and who is behind them. The table is named after the first one's device.
	Zones []Zone
	Ports []Port // where the server listens

	// ClientToClient lets the host forward packets from client to client. It says nothing where there are policies.
	ClientToClient bool
	// Reachable lets hosts beyond other devices open connections to clients. Without it they only get to answer.
	Reachable bool
	// Metadata lets clients reach the cloud's metadata service, which knows the host's credentials. Policies do that by
	// naming its address.
	Metadata bool
	// Closed keeps clients from the host itself, but for answers, what Gateway and policies allow, and pings: of its
	// address in the client's zone where there are policies, of any otherwise.
	Closed  bool
	Gateway []Rule
	// Policies are what decides about every packet from a client, if there are any: its address is in at most one of
	// them, and where none allows a packet it dies.
	Policies []Policy
}

// A Zone is a TUN device and the clients behind it.
type Zone struct {
	Device string
	Own    []netip.Addr   // the host's addresses on the device
	Pools  []netip.Prefix // of the clients' own addresses
	Behind []netip.Prefix // networks behind clients
	// NAT lets packets of the zone leave the host under the host's own address.
	NAT bool
}

// nets is where clients of the zone are.
func (z *Zone) nets() []netip.Prefix { return slices.Concat(z.Pools, z.Behind) }

// A Policy is what some clients may do. Update says which.
type Policy struct {
	Name  string
	Rules []Rule // the first one that a packet fits decides; without one it is dropped
}

// A Rule allows or denies packets. It has one destination.
type Rule struct {
	Allow    bool
	Protocol string       // "tcp", "udp", "icmp" for both kinds of it; "": any
	To       netip.Prefix // a network; with Gateway, one of the host's addresses
	Any      bool         // all but other clients and the host
	Gateway  bool         // the host itself
	Policy   string       // the clients of this one
	Ports    []PortRange  // of tcp and udp; none: all
}

// A PortRange is ports, both ends included.
type PortRange struct{ First, Last uint16 }

// A Port is one that the server listens at, on any of the host's addresses.
type Port struct {
	Network string // "udp" or "tcp"
	Number  uint16
}

var (
	// ErrUnsupported says that the kernel has no nftables, or lacks a part of it.
	ErrUnsupported = errors.New("the kernel does not support it (nftables with nf_nat, nft_ct and nft_fib)")
	// ErrTaken says that a running process owns the table, so that there are two servers for one device name.
	ErrTaken = errors.New("the table belongs to another process that is still running")
)

// maxDevice is the longest name of a network device; maxPolicy is ours of a policy, which names of sets are made of.
const (
	maxDevice = 15
	maxPolicy = 64
)

// tableName is the name of the table for a device.
func tableName(device string) string { return "postern_" + device }

func (r *Rules) validate() error {
	if len(r.Zones) == 0 {
		return errors.New("no device")
	}
	for _, z := range r.Zones {
		if z.Device == "" || len(z.Device) > maxDevice {
			return fmt.Errorf("device name %q", z.Device)
		}
		for _, net := range z.nets() {
			if !net.IsValid() {
				return fmt.Errorf("invalid network %v", net)
			}
		}
	}
	known := func(name string) bool {
		return slices.ContainsFunc(r.Policies, func(p Policy) bool { return p.Name == name })
	}
	for i, p := range r.Policies {
		if p.Name == "" || len(p.Name) > maxPolicy || slices.ContainsFunc(r.Policies[:i], func(o Policy) bool { return o.Name == p.Name }) {
			return fmt.Errorf("policy name %q", p.Name)
		}
		for _, rule := range p.Rules {
			if err := rule.validate(known); err != nil {
				return fmt.Errorf("policy %s: %w", p.Name, err)
			}
		}
	}
	for _, rule := range r.Gateway {
		if err := rule.validate(known); err != nil || !rule.Gateway {
			return fmt.Errorf("rule for the gateway: %+v: %w", rule, err)
		}
	}
	for _, p := range r.Ports {
		if p.Network != "udp" && p.Network != "tcp" || p.Number == 0 {
			return fmt.Errorf("port %d of %q", p.Number, p.Network)
		}
	}
	return nil
}

func (r *Rule) validate(known func(policy string) bool) error {
	switch r.Protocol {
	case "tcp", "udp":
	case "", "icmp":
		if len(r.Ports) > 0 {
			return fmt.Errorf("ports of protocol %q", r.Protocol)
		}
	default:
		return fmt.Errorf("protocol %q", r.Protocol)
	}
	if r.Policy != "" && !known(r.Policy) {
		return fmt.Errorf("unknown policy %q", r.Policy)
	}
	if !r.Any && !r.Gateway && r.Policy == "" && !r.To.IsValid() {
		return errors.New("a rule to nowhere")
	}
	return nil
}

// A Change moves a client's address, or a network behind it, from one policy to another.
type Change struct {
	Net      netip.Prefix // a single address, or a network
	From, To string       // "": none
}
