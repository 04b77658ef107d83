package tun

import (
	"encoding/binary"
	"net/netip"
)

// The errors that are made here:
//
//	IPv4  | header, 20 | type 3, code 4  | checksum, 2 | 0, 2 | MTU, 2 | the packet, as much as 576 bytes hold  |
//	IPv6  | header, 40 | type and code   | checksum, 2 | MTU or 0, 4   | the packet, as much as 1280 bytes hold |
const (
	protoICMP, protoICMPv6 = 1, 58

	icmpHeaderLen      = 8
	maxICMP, maxICMPv6 = 576, 1280
	icmpUnreachable    = 3
	codeTooBig         = 4
	icmp6Unreachable   = 1
	icmp6TooBig        = 2
	codeNoRoute        = 0
	icmp6Informational = 128 // types from here on are no errors
	icmp6Redirect      = 137
)

// MinMTU4 and MinMTU6 are what AppendTooBig can ask for at least: IPv6 senders need not go lower, and IPv4 is not worth
// having below.
const (
	MinMTU4 = 576
	MinMTU6 = 1280
)

// Fragile reports whether an IP packet must not be cut into fragments by who passes it on: IPv6, and IPv4 that says so.
func Fragile(pkt []byte) bool {
	return len(pkt) >= ipv4HeaderLen && (pkt[0]>>4 == 6 || pkt[0]>>4 == 4 && pkt[6]&0x40 != 0)
}

// AppendTooBig appends to b the error that tells the sender of pkt, a valid IP packet, to send no more than mtu bytes at
// a time; it comes from from, which must be of pkt's family. It appends nothing where no error may be sent: about
// errors, about later fragments, and to who is not one host.
func AppendTooBig(b, pkt []byte, from netip.Addr, mtu int) []byte {
	if !answerable(pkt) {
		return b
	}
	if pkt[0]>>4 == 6 {
		return appendICMPv6(b, pkt, from, icmp6TooBig, 0, uint32(max(mtu, MinMTU6)))
	}
	return appendICMP(b, pkt, from, icmpUnreachable, codeTooBig, uint32(min(max(mtu, MinMTU4), 0xffff)))
}

// AppendNoRoute appends to b the error that tells the sender of pkt, a valid IPv6 packet, that there is no way to its
// destination. Otherwise it is as AppendTooBig, and silent about packets for groups, too.
func AppendNoRoute(b, pkt []byte, from netip.Addr) []byte {
	dst, ok := Destination(pkt)
	if !ok || !dst.Is6() || dst.IsMulticast() || !answerable(pkt) {
		return b
	}
	return appendICMPv6(b, pkt, from, icmp6Unreachable, codeNoRoute, 0)
}

func appendICMP(b, pkt []byte, from netip.Addr, kind, code uint8, rest uint32) []byte {
	src, ok := Source(pkt)
	if !ok || !src.Is4() || !from.Is4() {
		return b
	}
	pkt = pkt[:min(len(pkt), maxICMP-ipv4HeaderLen-icmpHeaderLen)]
	start, to, us := len(b), src.As4(), from.As4()
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ipv4HeaderLen+icmpHeaderLen+len(pkt)))
	b = append(b, 0, 0, 0, 0, 64, protoICMP, 0, 0)
	b = append(append(b, us[:]...), to[:]...)
	binary.BigEndian.PutUint16(b[start+10:], ^fold(sum(b[start:start+ipv4HeaderLen])))
	body := len(b)
	b = append(b, kind, code, 0, 0)
	b = binary.BigEndian.AppendUint32(b, rest)
	b = append(b, pkt...)
	binary.BigEndian.PutUint16(b[body+2:], ^fold(sum(b[body:])))
	return b
}

func appendICMPv6(b, pkt []byte, from netip.Addr, kind, code uint8, rest uint32) []byte {
	src, ok := Source(pkt)
	if !ok || !src.Is6() || !from.Is6() {
		return b
	}
	pkt = pkt[:min(len(pkt), maxICMPv6-ipv6HeaderLen-icmpHeaderLen)]
	size := icmpHeaderLen + len(pkt)
	start, to, us := len(b), src.As16(), from.As16()
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = append(b, protoICMPv6, 64)
	b = append(append(b, us[:]...), to[:]...)
	body := len(b)
	b = append(b, kind, code, 0, 0)
	b = binary.BigEndian.AppendUint32(b, rest)
	b = append(b, pkt...)
	// The pseudo header: both addresses, the length, and the protocol.
	total := sum(b[start+8:body]) + uint32(size) + protoICMPv6 + sum(b[body:])
	binary.BigEndian.PutUint16(b[body+2:], ^fold(total))
	return b
}

// answerable reports whether an error may be sent to who sent pkt, a valid IP packet.
func answerable(pkt []byte) bool {
	src, ok := Source(pkt)
	if !ok || src.IsUnspecified() || src.IsMulticast() || src.IsLoopback() {
		return false
	}
	if src.Is4() {
		dst, _ := Destination(pkt)
		broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
		if src == broadcast || dst == broadcast || dst.IsMulticast() || binary.BigEndian.Uint16(pkt[6:])&0x1fff != 0 {
			return false
		}
		ihl := int(pkt[0]&0xf) * 4
		if pkt[9] != protoICMP {
			return true
		}
		if len(pkt) <= ihl {
			return false
		}
		switch pkt[ihl] {
		case 3, 4, 5, 11, 12:
			return false
		}
		return true
	}
	kind, is, ok := icmp6Type(pkt)
	return ok && (!is || kind >= icmp6Informational && kind != icmp6Redirect)
}

// icmp6Type walks an IPv6 packet's extension headers and reports whether ICMPv6 is behind them, and of which type. ok is
// false for later fragments, and where it cannot be told.
func icmp6Type(pkt []byte) (kind uint8, is, ok bool) {
	next, b := pkt[6], pkt[ipv6HeaderLen:]
	for n := 0; n <= maxExtHeaders; n++ {
		size := 0
		switch next {
		case protoICMPv6:
			if len(b) == 0 {
				return 0, true, false
			}
			return b[0], true, true
		case protoHopByHop, protoRouting, protoDestOpts, protoMobility, protoHIP, protoShim6:
			if len(b) < 8 {
				return 0, false, false
			}
			size = 8 + int(b[1])*8
		case protoAH:
			if len(b) < 8 {
				return 0, false, false
			}
			size = 8 + int(b[1])*4
		case protoFragment:
			if len(b) < 8 || binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 {
				return 0, false, false
			}
			size = 8
		default:
			return 0, false, true
		}
		if size > len(b) {
			return 0, false, false
		}
		next, b = b[0], b[size:]
	}
	return 0, false, false
}
