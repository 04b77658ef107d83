package firewall

import (
	"net/netip"
	"slices"
)

// A span is the addresses from first to last.
type span struct{ first, last netip.Addr }

// spans covers the networks of one address family.
func spans(nets []netip.Prefix, is6 bool) []span { return spansBut(nets, nil, is6) }

// spansBut covers the networks of one address family, without what lies in more specific ones among others.
func spansBut(nets, others []netip.Prefix, is6 bool) []span {
	var all []span
	for _, net := range nets {
		if net.Addr().Is6() != is6 {
			continue
		}
		inner := slices.DeleteFunc(slices.Clone(others), func(o netip.Prefix) bool { return o.Bits() <= net.Bits() || !net.Contains(o.Addr()) })
		first := net.Masked().Addr()
		for _, s := range spans(inner, is6) {
			if first.Less(s.first) {
				all = append(all, span{first, s.first.Prev()})
			}
			first = s.last.Next()
		}
		if end := last(net); first.IsValid() && !end.Less(first) {
			all = append(all, span{first, end})
		}
	}
	return merged(all)
}

// merged puts spans in order, with nothing twice and no two of them touching: the kernel takes no overlapping intervals.
func merged(all []span) []span {
	slices.SortFunc(all, func(a, b span) int { return a.first.Compare(b.first) })
	var list []span
	for _, s := range all {
		if n := len(list); n > 0 {
			prev := &list[n-1]
			next := prev.last.Next() // invalid, which is less than any address, at the end of all
			if !next.IsValid() || s.first.Compare(next) <= 0 {
				if s.last.Compare(prev.last) > 0 {
					prev.last = s.last
				}
				continue
			}
		}
		list = append(list, s)
	}
	return list
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
