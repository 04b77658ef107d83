package tun

import "net/netip"

// A Route sends a network into the tunnel.
type Route struct {
	Net     netip.Prefix
	Gateway netip.Addr // of the same family, or the zero Addr for none
	Metric  int        // 0 is the system's default
	Table   int        // 0 is the main one
}
