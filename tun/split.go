package tun

import "encoding/binary"

// Cutting a superpacket in place. Segment i is made contiguous by writing its header over the end of segment i-1, which
// the caller has already used:
//
//	superpacket   [ header | payload 0 | payload 1 | payload 2 ]
//	Segment(0)    [ header | payload 0 ]
//	Segment(1)              . . [ header | payload 1 ]
//	Segment(2)                          . . [ header | payload 2 ]
//
// so a payload is never copied. Each header is made from the one before it.

// cut is where a Packet stands between two calls of Segment. The sums are over the parts of the header that all
// segments have in common.
type cut struct {
	n, next  int // segments in all; the one to come
	l4, hlen int // where TCP or UDP begins, and the payload
	tcp, v4  bool
	flags    uint8 // TCP flags of the superpacket
	id       uint16
	seq      uint32
	ipSum    uint32 // IPv4 header without length, id and checksum
	l4Sum    uint32 // pseudo header without length; TCP header without seq, flags and checksum; UDP ports
}

// TCP flags.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagPSH = 0x08
	flagACK = 0x10
	flagCWR = 0x80
)

// Segments is how many packets p is to be cut into: 1 for an ordinary packet, and for a malformed superpacket, whose
// Segment(0) fails.
func (p *Packet) Segments() int {
	if p.GSO.Type == GSONone {
		return 1
	}
	if p.cut.n == 0 && !p.prepare() {
		return 1
	}
	return p.cut.n
}

// Segment returns packet i of p, contiguous and complete with lengths and checksums. Segments are taken in order from
// 0 to Segments()-1, once. What is returned lies in p.Bytes and may be read until the next call, not written to, since
// the next header is made from this one. The error is ErrMalformed; p is then to be dropped.
func (p *Packet) Segment(i int) ([]byte, error) {
	if p.GSO.Type == GSONone {
		if i != 0 || p.GSO.NeedsCsum && !p.complete() {
			return nil, ErrMalformed
		}
		p.GSO.NeedsCsum = false
		return p.Bytes, nil
	}
	if p.cut.n == 0 && !p.prepare() {
		return nil, ErrMalformed
	}
	c := &p.cut
	if i != c.next || i >= c.n {
		return nil, ErrMalformed
	}
	c.next++
	size := int(p.GSO.Size)
	start := i * size
	end := min(start+c.hlen+size, len(p.Bytes))
	seg := p.Bytes[start:end:end]
	if i > 0 {
		copy(seg[:c.hlen], p.Bytes[start-size:]) // may overlap where a payload is shorter than the header
	}
	c.finish(seg, i, size)
	return seg, nil
}

// finish writes into segment i what differs from segment to segment.
func (c *cut) finish(seg []byte, i, size int) {
	if c.v4 {
		id := c.id + uint16(i)
		binary.BigEndian.PutUint16(seg[2:], uint16(len(seg)))
		binary.BigEndian.PutUint16(seg[4:], id)
		binary.BigEndian.PutUint16(seg[10:], ^fold(c.ipSum+uint32(len(seg))+uint32(id)))
	} else {
		binary.BigEndian.PutUint16(seg[4:], uint16(len(seg)-ipv6HeaderLen))
	}
	l4 := seg[c.l4:]
	s := c.l4Sum + uint32(len(l4)) + sum(seg[c.hlen:])
	if !c.tcp {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		binary.BigEndian.PutUint16(l4[6:], complement(s+uint32(len(l4))))
		return
	}
	seq := c.seq + uint32(i*size)
	flags := c.flags
	if i > 0 {
		flags &^= flagCWR
	}
	if i < c.n-1 {
		flags &^= flagFIN | flagPSH
	}
	binary.BigEndian.PutUint32(l4[4:], seq)
	l4[13] = flags
	binary.BigEndian.PutUint16(l4[16:], complement(s+seq>>16+seq&0xffff+uint32(flags)))
}

// prepare checks the superpacket's headers and fills p.cut.
func (p *Packet) prepare() bool {
	b, g := p.Bytes, p.GSO
	c := cut{l4: int(g.CsumStart), tcp: g.Type != GSOUDPL4}
	if g.Size == 0 || !g.NeedsCsum || len(b) < ipv4HeaderLen || len(b) > maxPacket {
		return false
	}
	var addrs []byte
	switch {
	case g.Type != GSOTCPv4 && g.Type != GSOTCPv6 && g.Type != GSOUDPL4:
		return false
	case b[0]>>4 == 4 && g.Type != GSOTCPv6:
		c.v4 = true
		if ihl := int(b[0]&0xf) * 4; ihl < ipv4HeaderLen || c.l4 != ihl {
			return false
		}
		addrs = b[12:20]
	case b[0]>>4 == 6 && g.Type != GSOTCPv4:
		if c.l4 < ipv6HeaderLen || len(b) < ipv6HeaderLen {
			return false
		}
		addrs = b[8:40]
	default:
		return false
	}
	proto := uint8(protoUDP)
	if c.tcp {
		if proto = protoTCP; len(b) < c.l4+tcpHeaderLen {
			return false
		}
		doff := int(b[c.l4+12]>>4) * 4
		if doff < tcpHeaderLen {
			return false
		}
		c.hlen = c.l4 + doff
	} else {
		c.hlen = c.l4 + udpHeaderLen
	}
	if len(b) < c.hlen || c.v4 && min(c.hlen+int(g.Size), len(b)) > 0xffff {
		return false
	}
	if c.v4 {
		c.id = binary.BigEndian.Uint16(b[4:])
		c.ipSum = sum(b[0:2]) + sum(b[6:10]) + sum(b[12:c.l4])
	}
	l4 := b[c.l4:c.hlen]
	c.l4Sum = pseudoSum(addrs, proto, 0)
	if c.tcp {
		c.seq = binary.BigEndian.Uint32(l4[4:])
		c.flags = l4[13]
		c.l4Sum += sum(l4[0:4]) + sum(l4[8:12]) + uint32(l4[12])<<8 + sum(l4[14:16]) + sum(l4[18:])
	} else {
		c.l4Sum += sum(l4[0:4])
	}
	c.n = max(1, (len(b)-c.hlen+int(g.Size)-1)/int(g.Size))
	p.cut = c
	return true
}

// complete finishes the checksum of an ordinary packet, whose field holds the sum of the pseudo header.
func (p *Packet) complete() bool {
	start, at := int(p.GSO.CsumStart), int(p.GSO.CsumStart)+int(p.GSO.CsumOffset)
	if at+2 > len(p.Bytes) {
		return false
	}
	binary.BigEndian.PutUint16(p.Bytes[at:], complement(sum(p.Bytes[start:])))
	return true
}
