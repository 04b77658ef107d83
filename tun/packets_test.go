package tun_test

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"postern/tun"
)

// TCP flags.
const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	psh = 0x08
	ack = 0x10
	ece = 0x40
	cwr = 0x80
)

// packet describes a TCP or UDP packet. build makes it, with checksums by the book: a loop over words.
type packet struct {
	src, dst     string // addresses; the family is theirs
	udp          bool
	sport, dport uint16
	tos, ttl     uint8
	id           uint16
	df           bool
	label        uint32 // IPv6 flow label
	ipOptions    []byte // IPv4 options, or IPv6 extension headers with ext their first number
	ext          uint8
	seq, ack     uint32
	flags        uint8
	window       uint16
	tcpOptions   []byte
	payload      []byte
}

func (p packet) proto() uint8 {
	if p.udp {
		return 17
	}
	return 6
}

func (p packet) build() []byte {
	l4 := binary.BigEndian.AppendUint16(nil, p.sport)
	l4 = binary.BigEndian.AppendUint16(l4, p.dport)
	at := 6
	if p.udp {
		l4 = binary.BigEndian.AppendUint16(l4, uint16(8+len(p.payload)))
		l4 = append(l4, 0, 0)
	} else {
		at = 16
		l4 = binary.BigEndian.AppendUint32(l4, p.seq)
		l4 = binary.BigEndian.AppendUint32(l4, p.ack)
		l4 = append(l4, uint8(20+len(p.tcpOptions))/4<<4, p.flags)
		l4 = binary.BigEndian.AppendUint16(l4, p.window)
		l4 = append(l4, 0, 0, 0, 0)
		l4 = append(l4, p.tcpOptions...)
	}
	l4 = append(l4, p.payload...)
	src, dst := netip.MustParseAddr(p.src).AsSlice(), netip.MustParseAddr(p.dst).AsSlice()
	pseudo := slices.Concat(src, dst, []byte{byte(len(l4) >> 24), byte(len(l4) >> 16), byte(len(l4) >> 8), byte(len(l4)), 0, p.proto()})
	c := ^slowSum(slices.Concat(pseudo, l4))
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(l4[at:], c)
	return append(p.ip(len(l4)), l4...)
}

// ip returns the IP header of a packet with l4len bytes behind it.
func (p packet) ip(l4len int) []byte {
	src, dst := netip.MustParseAddr(p.src), netip.MustParseAddr(p.dst)
	if src.Is6() {
		next := p.proto()
		if len(p.ipOptions) > 0 {
			next = p.ext
		}
		h := binary.BigEndian.AppendUint32(nil, 6<<28|uint32(p.tos)<<20|p.label)
		h = binary.BigEndian.AppendUint16(h, uint16(len(p.ipOptions)+l4len))
		h = append(h, next, p.ttl)
		return slices.Concat(h, src.AsSlice(), dst.AsSlice(), p.ipOptions)
	}
	hlen := 20 + len(p.ipOptions)
	h := []byte{0x40 | uint8(hlen/4), p.tos}
	h = binary.BigEndian.AppendUint16(h, uint16(hlen+l4len))
	h = binary.BigEndian.AppendUint16(h, p.id)
	var frag uint16
	if p.df {
		frag = 0x4000
	}
	h = binary.BigEndian.AppendUint16(h, frag)
	h = append(h, p.ttl, p.proto(), 0, 0)
	h = slices.Concat(h, src.AsSlice(), dst.AsSlice(), p.ipOptions)
	binary.BigEndian.PutUint16(h[10:], ^slowSum(h))
	return h
}

// super returns p as the kernel hands it over to be cut into pieces of size: the checksum is the pseudo header's sum, and
// hdr_len is a lie.
func (p packet) super(size int) tun.Packet {
	b := p.build()
	l4 := len(p.ip(0))
	n := len(b) - l4
	src, dst := netip.MustParseAddr(p.src), netip.MustParseAddr(p.dst)
	g := tun.GSO{Type: tun.GSOTCPv4, NeedsCsum: true, HdrLen: 7, Size: uint16(size), CsumStart: uint16(l4), CsumOffset: 16}
	switch {
	case p.udp:
		g.Type, g.CsumOffset = tun.GSOUDPL4, 6
	case src.Is6():
		g.Type = tun.GSOTCPv6
	}
	pseudo := slices.Concat(src.AsSlice(), dst.AsSlice(), []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 0, p.proto()})
	binary.BigEndian.PutUint16(b[l4+int(g.CsumOffset):], slowSum(pseudo))
	return tun.Packet{Bytes: b, GSO: g}
}

// pieces returns the packets that p is to be cut into.
func (p packet) pieces(size int) [][]byte {
	var out [][]byte
	all := p.payload
	for i := 0; ; i++ {
		q := p
		n := min(size, len(all))
		q.payload, all = all[:n], all[n:]
		q.seq += uint32(i * size)
		q.id += uint16(i)
		if i > 0 {
			q.flags &^= cwr
		}
		if len(all) > 0 {
			q.flags &^= fin | psh
		}
		out = append(out, q.build())
		if len(all) == 0 {
			return out
		}
	}
}

// slowSum is RFC 1071, section 4.1.
func slowSum(b []byte) uint16 {
	var s uint32
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// counting returns n bytes that differ from place to place.
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8*13)
	}
	return b
}

// tcp4, tcp6, udp4 and udp6 are packets to vary.
var (
	timestamps = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}

	tcp4 = packet{src: "10.8.0.2", dst: "192.0.2.9", sport: 40000, dport: 443, ttl: 64, id: 0xfffe, df: true,
		seq: 0xfffffe00, ack: 77, flags: ack, window: 501, tcpOptions: timestamps, payload: counting(1000)}
	tcp6 = packet{src: "fd00::2", dst: "2001:db8::9", sport: 40000, dport: 443, ttl: 64, label: 0xabcde, tos: 2,
		seq: 5, ack: 77, flags: ack, window: 501, tcpOptions: timestamps, payload: counting(1000)}
	udp4 = packet{src: "10.8.0.2", dst: "192.0.2.9", udp: true, sport: 40000, dport: 443, ttl: 64, id: 9,
		payload: counting(1000)}
	udp6 = packet{src: "fd00::2", dst: "2001:db8::9", udp: true, sport: 40000, dport: 443, ttl: 64,
		payload: counting(1000)}
)
