package hostnet_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"postern/server/hostnet"
)

// S087: networks for clients must not overlap what the host has already.
func TestOverlaps(t *testing.T) {
	within := newHost(t, "lan0", "lan1", "pttun0")
	for _, line := range []string{
		"addr add 192.168.1.5/24 dev lan0",
		"addr add 203.0.113.9/32 dev lan0",
		"addr add 2001:db8:1::5/64 dev lan0 nodad",
		"addr add 10.8.0.1/24 dev pttun0",
		"route add default via 192.168.1.1 dev lan0",
		"route add 0.0.0.0/1 via 192.168.1.1 dev lan0",
		"route add 172.16.0.0/12 via 192.168.1.254",
		"route add 10.20.0.0/16 nexthop via 192.168.1.2 dev lan0 nexthop via 192.168.1.3 dev lan0",
		"route add blackhole 10.0.0.0/8",
		"route add 2001:db8:2::/48 dev lan1",
	} {
		run(t, "ip -n pthn-host "+line)
	}
	for _, c := range []struct{ name, nets, want string }{
		{"nothing asked", "", ""},
		{"none", "10.9.0.0/24 fd00:9::/64", ""},
		{"the tunnel's own", "10.8.0.0/24", ""},
		{"a connected network", "192.168.0.0/16", "192.168.0.0/16 overlaps 192.168.1.0/24, which is behind lan0"},
		{"part of a connected network", "192.168.1.128/25", "192.168.1.128/25 overlaps 192.168.1.0/24, which is behind lan0"},
		{"a routed network", "172.20.1.1/24", "172.20.1.0/24 overlaps 172.16.0.0/12, which is behind lan0"},
		{"a network over two ways", "10.20.30.0/24", "10.20.30.0/24 overlaps 10.20.0.0/16, which is behind lan0"},
		{"an address", "203.0.113.0/28", "203.0.113.0/28 overlaps 203.0.113.9/32, which is behind lan0"},
		{"IPv6", "2001:db8:2:7::/64 2001:db8::/32", "2001:db8:2:7::/64 overlaps 2001:db8:2::/48, which is behind lan1|" +
			"2001:db8::/32 overlaps 2001:db8:1::/64, which is behind lan0|2001:db8::/32 overlaps 2001:db8:2::/48, which is behind lan1"},
	} {
		var nets []netip.Prefix
		for _, s := range strings.Fields(c.nets) {
			nets = append(nets, netip.MustParsePrefix(s))
		}
		within(func() {
			got, err := hostnet.Overlaps(nets, "pttun0")
			var want []string
			if c.want != "" {
				want = strings.Split(c.want, "|")
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %q, error %v, want %q", c.name, got, err, want)
			}
		})
	}
}
