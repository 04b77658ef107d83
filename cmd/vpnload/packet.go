package main

import (
	"encoding/binary"
	"net/netip"
)

// Inner packets, made and read without a device: IPv4 and IPv6, with UDP, TCP and echoes of ICMP inside.

const (
	protoICMP  = 1
	protoTCP   = 6
	protoUDP   = 17
	protoICMP6 = 58
)

// sum adds up b as the Internet checksum does, unfolded.
func sum(b []byte) (s uint64) {
	for ; len(b) >= 8; b = b[8:] {
		v := binary.BigEndian.Uint64(b)
		s += v>>32 + v&0xffffffff
	}
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// ipLen is how long the IP header is between addresses of a's family.
func ipLen(a netip.Addr) int {
	if a.Is4() {
		return 20
	}
	return 40
}

// putIP writes the header of a packet that is as long as b.
func putIP(b []byte, src, dst netip.Addr, proto uint8) {
	if src.Is4() {
		clear(b[:20])
		b[0], b[6], b[8], b[9] = 0x45, 0x40, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		s, d := src.As4(), dst.As4()
		copy(b[12:], s[:])
		copy(b[16:], d[:])
		binary.BigEndian.PutUint16(b[10:], ^fold(sum(b[:20])))
		return
	}
	clear(b[:40])
	b[0], b[6], b[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
}

// pseudo is the sum of the pseudo header of a packet with an IP header of ihl bytes.
func pseudo(b []byte, ihl int, proto uint8) uint64 {
	at := 12
	if ihl == 40 {
		at = 8
	}
	return sum(b[at:ihl]) + uint64(proto) + uint64(len(b)-ihl)
}

// putSum fills in the checksum at offset within the transport header.
func putSum(b []byte, ihl int, proto uint8, at int) {
	l4 := b[ihl:]
	l4[at], l4[at+1] = 0, 0
	s := sum(l4)
	if proto != protoICMP {
		s += pseudo(b, ihl, proto)
	}
	c := ^fold(s)
	if c == 0 && proto == protoUDP {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(l4[at:], c)
}

// An inner is a parsed packet. Its slices are of the packet.
type inner struct {
	src, dst netip.Addr
	proto    uint8
	ihl      int
	l4       []byte
	whole    []byte
}

// parseInner reads a packet; it takes no options, fragments or extension headers.
func parseInner(b []byte) (p inner, ok bool) {
	switch {
	case len(b) >= 20 && b[0] == 0x45 && binary.BigEndian.Uint16(b[6:])&0x3fff == 0:
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 20 || n > len(b) {
			return p, false
		}
		b = b[:n]
		p = inner{netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], 20, b[20:], b}
	case len(b) >= 40 && b[0]>>4 == 6:
		n := 40 + int(binary.BigEndian.Uint16(b[4:]))
		if n > len(b) {
			return p, false
		}
		b = b[:n]
		p = inner{netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], 40, b[40:], b}
	default:
		return p, false
	}
	switch p.proto {
	case protoTCP:
		return p, len(p.l4) >= 20 && int(p.l4[12]>>4)*4 >= 20 && int(p.l4[12]>>4)*4 <= len(p.l4)
	default:
		return p, len(p.l4) >= 8
	}
}

// multicast reports whether a packet is for a group; its header may have options.
func multicast(b []byte) bool {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return b[16]>>4 == 0xe
	case len(b) >= 40 && b[0]>>4 == 6:
		return b[24] == 0xff
	}
	return false
}

// intact reports whether the checksums of the packet are right.
func (p *inner) intact() bool {
	if p.ihl == 20 && fold(sum(p.whole[:20])) != 0xffff {
		return false
	}
	s := sum(p.l4)
	if p.proto != protoICMP {
		s += pseudo(p.whole, p.ihl, p.proto)
	}
	return fold(s) == 0xffff
}

// appendEcho appends an echo request that carries stamp.
func appendEcho(b []byte, src, dst netip.Addr, id, seq uint16, stamp uint64) []byte {
	start, ihl := len(b), ipLen(src)
	b = append(b, make([]byte, ihl+16)...)
	pkt := b[start:]
	proto, kind := uint8(protoICMP), uint8(8)
	if !src.Is4() {
		proto, kind = protoICMP6, 128
	}
	putIP(pkt, src, dst, proto)
	l4 := pkt[ihl:]
	l4[0] = kind
	binary.BigEndian.PutUint16(l4[4:], id)
	binary.BigEndian.PutUint16(l4[6:], seq)
	binary.BigEndian.PutUint64(l4[8:], stamp)
	putSum(pkt, ihl, proto, 2)
	return b
}

// echoed reads an echo reply that appendEcho's request brought.
func (p *inner) echoed() (id, seq uint16, stamp uint64, ok bool) {
	reply := p.proto == protoICMP && p.l4[0] == 0 || p.proto == protoICMP6 && p.l4[0] == 129
	if !reply || len(p.l4) < 16 {
		return 0, 0, 0, false
	}
	return binary.BigEndian.Uint16(p.l4[4:]), binary.BigEndian.Uint16(p.l4[6:]), binary.BigEndian.Uint64(p.l4[8:]), true
}

// answerEcho turns an echo request into its reply, in place, and reports whether it was one.
func (p *inner) answerEcho() bool {
	var reply uint8
	switch {
	case p.proto == protoICMP && p.l4[0] == 8:
		reply = 0
	case p.proto == protoICMP6 && p.l4[0] == 128:
		reply = 129
	default:
		return false
	}
	proto := p.proto
	putIP(p.whole, p.dst, p.src, proto)
	p.l4[0] = reply
	putSum(p.whole, p.ihl, proto, 2)
	return true
}

// appendUDP appends a datagram.
func appendUDP(b []byte, src, dst netip.AddrPort, payload []byte) []byte {
	start, ihl := len(b), ipLen(src.Addr())
	b = append(append(b, make([]byte, ihl+8)...), payload...)
	pkt := b[start:]
	putIP(pkt, src.Addr(), dst.Addr(), protoUDP)
	l4 := pkt[ihl:]
	binary.BigEndian.PutUint16(l4[0:], src.Port())
	binary.BigEndian.PutUint16(l4[2:], dst.Port())
	binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	putSum(pkt, ihl, protoUDP, 6)
	return b
}

// TCP flags.
const (
	flagFIN = 1
	flagSYN = 2
	flagRST = 4
	flagPSH = 8
	flagACK = 16
)

// appendTCP appends a segment; options must be a multiple of four bytes.
func appendTCP(b []byte, src, dst netip.AddrPort, seq, ack uint32, flags uint8, window uint16, options, payload []byte) []byte {
	start, ihl := len(b), ipLen(src.Addr())
	b = append(append(append(b, make([]byte, ihl+20)...), options...), payload...)
	pkt := b[start:]
	putIP(pkt, src.Addr(), dst.Addr(), protoTCP)
	l4 := pkt[ihl:]
	binary.BigEndian.PutUint16(l4[0:], src.Port())
	binary.BigEndian.PutUint16(l4[2:], dst.Port())
	binary.BigEndian.PutUint32(l4[4:], seq)
	binary.BigEndian.PutUint32(l4[8:], ack)
	l4[12] = uint8(20+len(options)) << 2
	l4[13] = flags
	binary.BigEndian.PutUint16(l4[14:], window)
	putSum(pkt, ihl, protoTCP, 16)
	return b
}
