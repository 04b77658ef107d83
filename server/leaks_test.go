package server

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"postern/server/config"
)

// Each way past a tunnel is found, on the systems that have it, and none is made up.
func TestPaths(t *testing.T) {
	const dns, full = "dhcp-option DNS 10.8.0.1", "redirect-gateway def1"
	for _, c := range []struct {
		name   string
		push   string // options are separated by commas
		ipv6   bool
		guard  bool
		full   bool
		want   map[string]string // DNS, IPv6 and local networks of a system; "" is all others
		reason string            // in what Windows is told
	}{
		{"nothing", "route 172.16.0.0 255.255.0.0", true, true, false, map[string]string{"": "outside outside outside"}, ""},
		{"split, names through it", "route 172.16.0.0 255.255.0.0,dhcp-option DNS 172.16.0.53", true, true, false,
			map[string]string{"": "tunnel outside outside", "Linux, no DNS script": "outside outside outside"}, ""},
		{"split, the server's own name server", dns, true, true, false, map[string]string{"": "tunnel outside outside", "Linux, no DNS script": "outside outside outside"}, ""},
		{"split, name server elsewhere", "dhcp-option DNS 9.9.9.9", true, true, false, map[string]string{"": "outside outside outside"}, "push a route to it"},
		{"full, guarded", full + "," + dns, true, true, true, map[string]string{"": "tunnel tunnel blocked", "Linux, DNS script": "tunnel tunnel outside", "Linux, no DNS script": "leaks tunnel outside"}, ""},
		{"full, guarded, without IPv6", full + "," + dns, false, true, true, map[string]string{"": "tunnel blocked blocked", "Linux, DNS script": "tunnel blocked outside", "Linux, no DNS script": "leaks blocked outside"}, ""},
		{"full, guarded, without names", full, true, true, true, map[string]string{"": "leaks tunnel outside"}, "no name server is pushed"},
		{"full, by hand", full + " ipv6 block-local,block-outside-dns," + dns, true, false, true, map[string]string{"": "tunnel tunnel blocked", "Linux, no DNS script": "leaks tunnel blocked"}, ""},
		{"full, bare", full + "," + dns, true, false, true, map[string]string{"": "tunnel leaks outside", "Windows": "leaks leaks outside", "Linux, no DNS script": "leaks leaks outside"}, "block-outside-dns"},
		{"full, block-ipv6 alone", full + ",block-ipv6,block-outside-dns," + dns, false, false, true,
			map[string]string{"": "tunnel leaks outside", "Linux, no DNS script": "leaks leaks outside", "Android": "tunnel blocked outside", "iOS": "tunnel blocked outside"}, "block-ipv6 stops only"},
		{"full, IPv6 without an address", full + " ipv6,block-outside-dns," + dns, false, false, true, map[string]string{"": "tunnel leaks outside", "Linux, no DNS script": "leaks leaks outside"}, "no IPv6 address"},
		{"full by routes", "route 0.0.0.0 128.0.0.0,route 128.0.0.0 128.0.0.0,route-ipv6 2000::/3,block-outside-dns," + dns, true, false, true,
			map[string]string{"": "tunnel tunnel outside", "Linux, no DNS script": "leaks tunnel outside"}, ""},
		{"full, name server past it", full + " ipv6,block-outside-dns,dhcp-option DNS 9.9.9.9,route 9.9.9.0 255.255.255.0 net_gateway", true, false, true,
			map[string]string{"": "leaks tunnel outside"}, "9.9.9.9 is asked past the tunnel"},
		{"full, dns options", full + ",dns server 0 address 10.8.0.1:53", true, true, true,
			map[string]string{"": "tunnel tunnel blocked", "Linux, DNS script": "tunnel tunnel outside", "Linux, no DNS script": "leaks tunnel outside"}, ""},
		{"IPv6 alone", "redirect-gateway ipv6 !ipv4,dhcp-option DNS 9.9.9.9,block-outside-dns", true, true, true, map[string]string{"": "leaks tunnel outside"}, "asked past the tunnel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := subnetConfig()
			cfg.Pool4.First = netip.MustParseAddr("10.8.0.2")
			if c.ipv6 {
				cfg.Pool6.First = netip.MustParseAddr("fd00:8::1000")
			}
			cfg.NoLeakGuard = !c.guard
			cfg.Push = strings.Split(c.push, ",")
			list, full := Paths(cfg)
			if full != c.full || len(list) != len(platforms) {
				t.Errorf("full tunnel: %v; %d systems", full, len(list))
			}
			for _, p := range list {
				want, ok := c.want[p.Platform]
				if !ok {
					want = c.want[""]
				}
				if got := fmt.Sprint(p.DNS, " ", p.IPv6, " ", p.Local); got != want {
					t.Errorf("%s: %s, want %s", p.Platform, got, want)
				}
				if strings.Contains(want, Leaks) && p.Why == nil {
					t.Errorf("%s: a leak without a reason", p.Platform)
				}
				if why := strings.Join(p.Why, "\n"); p.Platform == "Windows" && (c.reason == "" && why != "" || !strings.Contains(why, c.reason)) {
					t.Errorf("Windows is told %q, want %q in it", why, c.reason)
				}
			}
		})
	}
}

// Topologies make no difference.
func TestPathsTopologies(t *testing.T) {
	for _, topology := range []config.Topology{config.Subnet, config.Net30, config.P2P} {
		cfg := subnetConfig()
		cfg.Topology, cfg.Pool4.First, cfg.Pool6.First = topology, netip.MustParseAddr("10.8.0.4"), netip.MustParseAddr("fd00:8::1000")
		cfg.Push = []string{"topology " + topology.String(), "redirect-gateway def1", "dhcp-option DNS 10.8.0.1"}
		list, _ := Paths(cfg)
		for _, p := range list {
			if p.IPv6 != InTunnel {
				t.Errorf("%v: %+v", topology, p)
			}
		}
	}
}
