package firewall

import (
	"net/netip"
	"slices"
)

// A span is the addresses from first to last.
type span struct{ first, last netip.Addr }

// spans covers the networks of one address family, in order, with nothing twice and no two of them touching: the
// kernel takes no overlapping intervals.
func spans(nets []netip.Prefix, is6 bool) []span {
	var all []span
	for _, net := range nets {
		if net.Addr().Is6() == is6 {
			all = append(all, span{net.Masked().Addr(), last(net)})
		}
	}
	slices.SortFunc(all, func(a, b span) int { return a.first.Compare(b.first) })
	var merged []span
	for _, s := range all {
		if n := len(merged); n > 0 {
			prev := &merged[n-1]
			next := prev.last.Next() // invalid, which is less than any address, at the end of all
			if !next.IsValid() || s.first.Compare(next) <= 0 {
				if s.last.Compare(prev.last) > 0 {
					prev.last = s.last
				}
				continue
			}
		}
		merged = append(merged, s)
	}
	return merged
}

// last returns the last address of a network.
func last(net netip.Prefix) netip.Addr {
	b := net.Addr().AsSlice()
	for bit := net.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}
