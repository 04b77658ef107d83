// Package firewall keeps the packet filter rules of one server: an nftables table of its own, which other tables
// never notice.
//
//	                        prerouting                         forward       postrouting
//	priority      raw            mangle                        filter        srcnat        srcnat+10
//	           +---------+    +-----------------------+     +----------+   +-----------+  +--------------+
//	packet --> | untrack | -> | guard                 | --> | between  |-->| masquerade|->| spare        | -->
//	           |         |    |                       |     | clients  |   |           |  |              |
//	           | the VPN |    | tunnel: inside source?|     | none to  |   | inside -> |  | never a port |
//	           | itself  |    | beyond: answers only  |     | none     |   | outside   |  | of the VPN   |
//	           +---------+    +-----------------------+     +----------+   +-----------+  +--------------+
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
)

// Rules is what a table is made from.
type Rules struct {
	Device string         // the TUN device
	Nets   []netip.Prefix // where clients are: the pools, and the networks behind clients
	Ports  []Port         // where the server listens

	// NAT lets packets from Nets leave the host under the host's own address.
	NAT bool
	// ClientToClient lets the host forward packets from client to client.
	ClientToClient bool
	// Reachable lets hosts beyond other devices open connections to clients. Without it they only get to answer.
	Reachable bool
	// Metadata lets clients reach the cloud's metadata service, which knows the host's credentials.
	Metadata bool
}

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

// maxDevice is the longest name of a network device.
const maxDevice = 15

// tableName is the name of the table for a device.
func tableName(device string) string { return "postern_" + device }

func (r *Rules) validate() error {
	if r.Device == "" || len(r.Device) > maxDevice {
		return fmt.Errorf("device name %q", r.Device)
	}
	for _, net := range r.Nets {
		if !net.IsValid() {
			return fmt.Errorf("invalid network %v", net)
		}
	}
	for _, p := range r.Ports {
		if p.Network != "udp" && p.Network != "tcp" || p.Number == 0 {
			return fmt.Errorf("port %d of %q", p.Number, p.Network)
		}
	}
	return nil
}
