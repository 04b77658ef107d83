package server

import (
	"encoding/binary"
	"net/netip"
)

// checksum is the Internet checksum over parts.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	odd := false
	for _, p := range parts {
		for _, b := range p {
			if odd {
				sum += uint32(b)
			} else {
				sum += uint32(b) << 8
			}
			odd = !odd
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// ipPacket puts an IP header before l4, whose checksum is at at.
func ipPacket(src, dst netip.Addr, proto byte, l4 []byte, at int) []byte {
	pseudo := append(append([]byte{}, src.AsSlice()...), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(l4)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(proto))
	binary.BigEndian.PutUint16(l4[at:], checksum(pseudo, l4))
	if src.Is4() {
		h := make([]byte, 20)
		h[0], h[6], h[8], h[9] = 0x45, 0x40, 64, proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, l4...)
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(l4)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, l4...)
}

// udp is a UDP packet.
func udp(src, dst netip.Addr, payload []byte) []byte {
	l4 := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(l4, 5000)
	binary.BigEndian.PutUint16(l4[2:], 5001)
	binary.BigEndian.PutUint16(l4[4:], uint16(8+len(payload)))
	return ipPacket(src, dst, 17, append(l4, payload...), 6)
}

// tcp is a TCP packet with the ACK flag.
func tcp(src, dst netip.Addr, seq uint32, payload []byte) []byte {
	return tcpWith(src, dst, seq, 0x10, nil, payload)
}

// syn is a TCP packet that asks for a connection, with segments of at most mss.
func syn(src, dst netip.Addr, mss uint16) []byte {
	return tcpWith(src, dst, 1, 0x02, []byte{2, 4, byte(mss >> 8), byte(mss)}, nil)
}

func tcpWith(src, dst netip.Addr, seq uint32, flags byte, options, payload []byte) []byte {
	l4 := make([]byte, 20)
	binary.BigEndian.PutUint16(l4, 5000)
	binary.BigEndian.PutUint16(l4[2:], 5001)
	binary.BigEndian.PutUint32(l4[4:], seq)
	l4[12], l4[13] = byte((20+len(options))/4)<<4, flags
	binary.BigEndian.PutUint16(l4[14:], 65535)
	l4 = append(append(l4, options...), payload...)
	return ipPacket(src, dst, 6, l4, 16)
}
