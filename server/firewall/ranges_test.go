package firewall

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestSpans(t *testing.T) {
	for _, c := range []struct {
		name, nets string
		want4      string
		want6      string
	}{
		{"nothing", "", "", ""},
		{"a host bit set", "10.8.0.1/24", "10.8.0.0-10.8.0.255", ""},
		{"both families", "10.8.0.0/24 fd00::/64", "10.8.0.0-10.8.0.255", "fd00::-fd00::ffff:ffff:ffff:ffff"},
		{"one within the other", "10.0.0.0/8 10.8.0.0/24 10.255.0.0/16", "10.0.0.0-10.255.255.255", ""},
		{"twice the same", "10.8.0.0/24 10.8.0.0/24", "10.8.0.0-10.8.0.255", ""},
		{"side by side, out of order", "10.8.1.0/24 10.8.0.0/24", "10.8.0.0-10.8.1.255", ""},
		{"apart", "10.8.2.0/24 10.8.0.0/24", "10.8.0.0-10.8.0.255 10.8.2.0-10.8.2.255", ""},
		{"everything", "0.0.0.0/0 255.255.255.255/32 ::/0", "0.0.0.0-255.255.255.255", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"a host", "192.0.2.7/32", "192.0.2.7-192.0.2.7", ""},
	} {
		var nets []netip.Prefix
		for _, s := range strings.Fields(c.nets) {
			nets = append(nets, netip.MustParsePrefix(s))
		}
		for is6, want := range map[bool]string{false: c.want4, true: c.want6} {
			var got []string
			for _, s := range spans(nets, is6) {
				got = append(got, s.first.String()+"-"+s.last.String())
			}
			if !slices.Equal(got, strings.Fields(want)) {
				t.Errorf("%s: %v, want %v", c.name, got, want)
			}
		}
	}
}
