package tun

import "encoding/binary"

// ClampMSS lowers the maximum segment size that a TCP SYN announces to mss4 or mss6, by the packet's IP version, and
// reports whether it did; zero leaves that version alone. Only a whole, well-formed SYN is touched: no fragment but the
// first, no IPv6 extension headers, and an MSS option is never added or raised. The TCP checksum follows the change;
// with needsCsum, when it still lacks everything but the pseudo header (GSO.NeedsCsum), it stays as it is.
func ClampMSS(pkt []byte, mss4, mss6 uint16, needsCsum bool) bool {
	if len(pkt) < ipv4HeaderLen {
		return false
	}
	var tcp []byte
	var limit uint16
	switch pkt[0] >> 4 {
	case 4:
		ihl, total := int(pkt[0]&0xf)*4, int(binary.BigEndian.Uint16(pkt[2:]))
		if pkt[9] != protoTCP || binary.BigEndian.Uint16(pkt[6:])&0x1fff != 0 ||
			ihl < ipv4HeaderLen || total < ihl || total > len(pkt) {
			return false
		}
		tcp, limit = pkt[ihl:total], mss4
	case 6:
		if pkt[6] != protoTCP || len(pkt) < ipv6HeaderLen {
			return false
		}
		end := ipv6HeaderLen + int(binary.BigEndian.Uint16(pkt[4:]))
		if end > len(pkt) {
			return false
		}
		tcp, limit = pkt[ipv6HeaderLen:end], mss6
	}
	if limit == 0 || len(tcp) < tcpHeaderLen || tcp[13]&flagSYN == 0 {
		return false
	}
	hlen := int(tcp[12]>>4) * 4
	if hlen < tcpHeaderLen || hlen > len(tcp) {
		return false
	}
	at := findMSS(tcp[:hlen])
	if at == 0 {
		return false
	}
	old := binary.BigEndian.Uint16(tcp[at:])
	if old <= limit {
		return false
	}
	binary.BigEndian.PutUint16(tcp[at:], limit)
	if !needsCsum {
		// RFC 1624: HC' = ~(~HC + ~m + m'). A value at an odd offset has its bytes in each other's columns.
		minus, plus := ^old, limit
		if at%2 == 1 {
			minus, plus = minus<<8|minus>>8, plus<<8|plus>>8
		}
		sum := uint32(^binary.BigEndian.Uint16(tcp[16:])) + uint32(minus) + uint32(plus)
		binary.BigEndian.PutUint16(tcp[16:], ^fold(sum))
	}
	return true
}

// findMSS returns where in a TCP header the value of the MSS option is, or 0. Options that overrun the header, or an
// MSS of the wrong length, end the search.
func findMSS(header []byte) int {
	for i := tcpHeaderLen; i < len(header); {
		switch header[i] {
		case 0: // end of options
			return 0
		case 1: // no operation
			i++
			continue
		}
		if i+2 > len(header) {
			return 0
		}
		n := int(header[i+1])
		if n < 2 || i+n > len(header) {
			return 0
		}
		if header[i] == 2 {
			if n != 4 {
				return 0
			}
			return i + 2
		}
		i += n
	}
	return 0
}
