package tun

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071). A sum here is a ones' complement sum of big-endian 16-bit words, folded to 16 bits
// and not complemented; sums add up in a uint32 and are folded once more.

// sum adds up b; an odd last byte counts as if a zero followed.
//
// Ones' complement addition does not care about byte order, nor about the width of the words added, so this adds
// little-endian words of 64 bits in chains of carries, two at a time since each waits for itself, and swaps the result.
func sum(b []byte) uint32 {
	var s, c, s2, c2 uint64
	for ; len(b) >= 128; b = b[128:] {
		s, c = add64((*[64]byte)(b), s, c)
		s2, c2 = add64((*[64]byte)(b[64:]), s2, c2)
	}
	if len(b) >= 64 {
		s, c = add64((*[64]byte)(b), s, c)
		b = b[64:]
	}
	for ; len(b) >= 8; b = b[8:] {
		s2, c2 = bits.Add64(s2, binary.LittleEndian.Uint64(b), c2)
	}
	var tail uint64 // at most seven bytes, in their places
	shift := 0
	if len(b) >= 4 {
		tail = uint64(binary.LittleEndian.Uint32(b))
		b, shift = b[4:], 32
	}
	if len(b) >= 2 {
		tail |= uint64(binary.LittleEndian.Uint16(b)) << shift
		b, shift = b[2:], shift+16
	}
	if len(b) == 1 {
		tail |= uint64(b[0]) << shift
	}
	s, c = bits.Add64(s, tail, c)
	s, c = bits.Add64(s, s2, c)
	s, c = bits.Add64(s, c2, c)
	s += c
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	return uint32(bits.ReverseBytes16(fold(uint32(s))))
}

// add64 adds w to the chain that stands at s with carry c.
func add64(w *[64]byte, s, c uint64) (uint64, uint64) {
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[0:8]), c)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[8:16]), c)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[16:24]), c)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[24:32]), c)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[32:40]), c)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[40:48]), c)
	s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[48:56]), c)
	return bits.Add64(s, binary.LittleEndian.Uint64(w[56:64]), c)
}

// fold brings a sum of sums back to 16 bits.
func fold(s uint32) uint16 {
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s)
}

// pseudoSum is the sum of the pseudo header that TCP and UDP checksums begin with, for l4len bytes of proto between the
// addresses addrs (source and destination as they lie in the header).
func pseudoSum(addrs []byte, proto uint8, l4len int) uint32 {
	return uint32(fold(sum(addrs) + uint32(proto) + uint32(l4len>>16) + uint32(l4len&0xffff)))
}

// complement is the checksum that belongs into the header for a sum over everything else. UDP reads zero as "no
// checksum"; as TCP cannot tell the two zeros apart, both get the other one, as the kernel does it.
func complement(s uint32) uint16 {
	if c := ^fold(s); c != 0 {
		return c
	}
	return 0xffff
}
