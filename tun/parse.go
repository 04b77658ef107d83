package tun

import (
	"bytes"
	"encoding/binary"
)

// kind is what the Coalescer may do with a packet.
type kind uint8

const (
	strange   kind = iota // neither TCP nor UDP as it knows them: its flow is not known
	lone                  // of a known flow, but to be written by itself
	mergeable             // may begin or join a superpacket
)

// parsed is what the Coalescer wants to know of a packet.
type parsed struct {
	tcp, v4      bool
	dontFragment bool // IPv4's DF
	flags        uint8
	id           uint16
	l4, hlen     int // where TCP or UDP begins, and the payload
	size         int // of the payload
	seq          uint32
	ports        uint32
	src, dst     [2]uint64 // zero filled for IPv4
}

func (p *parsed) proto() uint8 {
	if p.tcp {
		return protoTCP
	}
	return protoUDP
}

func (p *parsed) sameFlow(o *parsed) bool {
	return p.ports == o.ports && p.tcp == o.tcp && p.v4 == o.v4 && p.src == o.src && p.dst == o.dst
}

// parse reads the headers of pkt.
func parse(pkt []byte) (p parsed, k kind) {
	if len(pkt) < ipv4HeaderLen {
		return p, strange
	}
	var proto uint8
	switch pkt[0] >> 4 {
	case 4:
		frag := binary.BigEndian.Uint16(pkt[6:])
		if pkt[0] != 0x45 || int(binary.BigEndian.Uint16(pkt[2:])) != len(pkt) || frag&ipv4MoreOrFrag != 0 {
			return p, strange
		}
		p.v4, p.l4, proto = true, ipv4HeaderLen, pkt[9]
		p.id, p.dontFragment = binary.BigEndian.Uint16(pkt[4:]), frag&0x4000 != 0
		p.src[0] = uint64(binary.BigEndian.Uint32(pkt[12:]))
		p.dst[0] = uint64(binary.BigEndian.Uint32(pkt[16:]))
	case 6:
		if len(pkt) < ipv6HeaderLen || ipv6HeaderLen+int(binary.BigEndian.Uint16(pkt[4:])) != len(pkt) {
			return p, strange
		}
		p.l4, proto = ipv6HeaderLen, pkt[6]
		p.src = [2]uint64{binary.BigEndian.Uint64(pkt[8:]), binary.BigEndian.Uint64(pkt[16:])}
		p.dst = [2]uint64{binary.BigEndian.Uint64(pkt[24:]), binary.BigEndian.Uint64(pkt[32:])}
	default:
		return p, strange
	}
	l4 := pkt[p.l4:]
	switch {
	case proto == protoTCP && len(l4) >= tcpHeaderLen:
		p.tcp = true
		p.hlen = p.l4 + int(l4[12]>>4)*4
		p.flags = l4[13]
		p.seq = binary.BigEndian.Uint32(l4[4:])
	case proto == protoUDP && len(l4) >= udpHeaderLen:
		p.hlen = p.l4 + udpHeaderLen
	default:
		return p, strange
	}
	p.ports = binary.BigEndian.Uint32(l4)
	p.size = len(pkt) - p.hlen
	k = mergeable
	switch {
	case p.size <= 0: // nothing to merge, or a header that is longer than the packet
		k = lone
	case p.v4 && pkt[6]&0x80 != 0:
		k = lone // the reserved bit
	case p.tcp && (p.hlen < p.l4+tcpHeaderLen || l4[12]&0xf != 0 || p.flags&^flagPSH != flagACK):
		k = lone
	case !p.tcp && (int(binary.BigEndian.Uint16(l4[4:])) != len(l4) || binary.BigEndian.Uint16(l4[6:]) == 0):
		k = lone // zero: sent without a checksum, which a superpacket cannot say
	}
	return p, k
}

// sameHeader reports whether a and b, two packets of one flow with headers of equal length, agree in all that the kernel
// copies into every packet that it cuts; p is b parsed.
func sameHeader(a, b []byte, p *parsed) bool {
	if p.v4 {
		if a[1] != b[1] || a[6] != b[6] || a[8] != b[8] { // TOS, DF, TTL
			return false
		}
	} else if !bytes.Equal(a[0:4], b[0:4]) || a[7] != b[7] { // traffic class and flow label, hop limit
		return false
	}
	if !p.tcp {
		return true
	}
	a, b = a[p.l4:p.hlen], b[p.l4:p.hlen]
	return bytes.Equal(a[8:12], b[8:12]) && // acknowledgement
		bytes.Equal(a[14:16], b[14:16]) && // window
		bytes.Equal(a[18:], b[18:]) // urgent pointer, options
}

// intact reports whether the checksums of pkt, IPv4's and that of TCP or UDP, are right.
func (p *parsed) intact(pkt []byte) bool {
	if p.v4 && fold(sum(pkt[:ipv4HeaderLen])) != 0xffff {
		return false
	}
	l4 := pkt[p.l4:]
	return fold(pseudoSum(addrs(pkt), p.proto(), len(l4))+sum(l4)) == 0xffff
}
