package server

import (
	"net/netip"
	"strings"
	"testing"

	"postern/server/config"
)

// A fixed address that does not fit the topology or the network is told, since the client may not say what is wrong.
func TestOddAddresses(t *testing.T) {
	for _, c := range []struct {
		topology    config.Topology
		own, second string
		want        string // "": nothing
	}{
		{config.Subnet, "10.8.0.9", "255.255.255.0", ""},
		{config.Subnet, "10.8.0.9", "255.255.255.255", ""},
		{config.Subnet, "10.8.0.9", "10.8.0.10", "no mask"},
		{config.Subnet, "10.9.0.9", "255.255.255.0", "outside 10.8.0.0/24"},
		{config.Net30, "10.8.0.6", "10.8.0.5", ""},
		{config.Net30, "10.8.0.5", "10.8.0.6", ""},
		{config.Net30, "10.8.0.6", "10.8.0.1", "in the middle of four"},
		{config.Net30, "10.8.0.4", "10.8.0.7", "in the middle of four"},
		{config.Net30, "10.8.0.6", "255.255.255.0", "a mask"},
		{config.P2P, "10.8.0.6", "10.8.0.1", ""},
		{config.P2P, "10.8.0.6", "255.255.255.252", "a mask"},
	} {
		cfg := subnetConfig()
		cfg.Topology, cfg.PushConstraint = c.topology, netip.MustParsePrefix("10.8.0.0/24")
		set := fixedTo(c.own, c.second)
		if got := oddAddress(cfg, &set); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%v: %s %s: %q, want %q in it", c.topology, c.own, c.second, got, c.want)
		}
		if got := otherEnd(cfg, netip.MustParseAddr("10.8.0.6")).String(); got != map[config.Topology]string{config.Subnet: "255.255.255.0", config.Net30: "10.8.0.5", config.P2P: "10.8.0.1"}[c.topology] {
			t.Errorf("%v: the other end of 10.8.0.6 is %s", c.topology, got)
		}
	}
}
