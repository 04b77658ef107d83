package tun

import "encoding/binary"

// IP protocol and IPv6 extension header numbers.
const (
	protoHopByHop  = 0
	protoTCP       = 6
	protoUDP       = 17
	protoRouting   = 43
	protoFragment  = 44
	protoAH        = 51
	protoDestOpts  = 60
	protoMobility  = 135
	protoHIP       = 139
	protoShim6     = 140
	maxExtHeaders  = 8
	ipv4HeaderLen  = 20
	ipv6HeaderLen  = 40
	tcpHeaderLen   = 20
	udpHeaderLen   = 8
	ipv4MoreOrFrag = 0x3fff // more-fragments flag and fragment offset
)

// maxPacket is the longest IP packet: IPv6 does not count its header.
const maxPacket = ipv6HeaderLen + 0xffff

// Valid reports whether pkt is an IP packet whose lengths all hold: the header's and the packet's, those of at most 8
// IPv6 extension headers, and those of a TCP or UDP header where the packet is no fragment. Checksums and addresses are
// not looked at. Bytes behind the packet's own length are not minded, as the kernel cuts them off.
func Valid(pkt []byte) bool {
	if len(pkt) < ipv4HeaderLen {
		return false
	}
	switch pkt[0] >> 4 {
	case 4:
		ihl, total := int(pkt[0]&0xf)*4, int(binary.BigEndian.Uint16(pkt[2:]))
		if ihl < ipv4HeaderLen || total < ihl || total > len(pkt) {
			return false
		}
		if binary.BigEndian.Uint16(pkt[6:])&ipv4MoreOrFrag != 0 {
			return true
		}
		return validL4(pkt[9], pkt[ihl:total])
	case 6:
		if len(pkt) < ipv6HeaderLen {
			return false
		}
		payload := int(binary.BigEndian.Uint16(pkt[4:]))
		if ipv6HeaderLen+payload > len(pkt) {
			return false
		}
		return validChain(pkt[6], pkt[ipv6HeaderLen:ipv6HeaderLen+payload])
	}
	return false
}

// validChain walks the extension headers in b, the first of which is of type next.
func validChain(next uint8, b []byte) bool {
	for n := 0; ; n++ {
		var size int
		switch next {
		case protoHopByHop, protoRouting, protoDestOpts, protoMobility, protoHIP, protoShim6:
			if len(b) < 8 {
				return false
			}
			size = 8 + int(b[1])*8
		case protoAH:
			if len(b) < 8 {
				return false
			}
			size = 8 + int(b[1])*4
		case protoFragment:
			// What follows is a piece of something, not to be read as a header.
			return len(b) >= 8 && n < maxExtHeaders
		default:
			return validL4(next, b)
		}
		if n == maxExtHeaders || size > len(b) {
			return false
		}
		next, b = b[0], b[size:]
	}
}

func validL4(proto uint8, b []byte) bool {
	switch proto {
	case protoTCP:
		if len(b) < tcpHeaderLen {
			return false
		}
		doff := int(b[12]>>4) * 4
		return doff >= tcpHeaderLen && doff <= len(b)
	case protoUDP:
		if len(b) < udpHeaderLen {
			return false
		}
		n := int(binary.BigEndian.Uint16(b[4:]))
		return n >= udpHeaderLen && n <= len(b)
	}
	return true
}
