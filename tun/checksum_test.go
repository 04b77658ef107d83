package tun

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

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

// The two zeros of ones' complement are one number, but which of them comes out matters to a checksum field.
func TestSum(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := range 400 {
		random := make([]byte, n)
		for i := range random {
			random[i] = byte(rnd.Uint32())
		}
		for _, b := range [][]byte{random, bytes.Repeat([]byte{0xff}, n), make([]byte, n)} {
			if got, want := uint16(sum(b)), slowSum(b); got != want {
				t.Fatalf("sum of %d bytes % x = %#04x, want %#04x", n, b, got, want)
			}
		}
	}
	big := bytes.Repeat([]byte{0xff, 0xff, 0xff, 0xfe}, 1<<14)
	if got, want := uint16(sum(big)), slowSum(big); got != want {
		t.Errorf("sum of 64 KB = %#04x, want %#04x", got, want)
	}
}

func TestVnetHdrRoundTrip(t *testing.T) {
	want := GSO{Type: GSOTCPv6, NeedsCsum: true, HdrLen: 1, Size: 2, CsumStart: 3, CsumOffset: 4}
	b := bytes.Repeat([]byte{0xff}, vnetHdrLen)
	want.put(b)
	if got, ok := parseVnetHdr(b); !ok || got != want {
		t.Errorf("got %+v %v, want %+v", got, ok, want)
	}
	b[1] |= vnetECN
	if got, ok := parseVnetHdr(b); !ok || got != want {
		t.Errorf("with the ECN bit: got %+v %v, want %+v", got, ok, want)
	}
	if _, ok := parseVnetHdr(b[:vnetHdrLen-1]); ok {
		t.Error("a short header was taken")
	}
}

func FuzzVnetHdr(f *testing.F) {
	f.Add([]byte{1, 1, 66, 0, 0x78, 5, 20, 0, 16, 0})
	f.Add([]byte{0, 0x84, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		g, ok := parseVnetHdr(b)
		if !ok {
			return
		}
		again := make([]byte, vnetHdrLen)
		g.put(again)
		if h, ok := parseVnetHdr(again); !ok || h != g {
			t.Errorf("%+v became %+v", g, h)
		}
	})
}

// BenchmarkSum adds up a packet in words as RFC 1071 has it, and as the package does.
func BenchmarkSum(b *testing.B) {
	p := make([]byte, 1388)
	for _, way := range []struct {
		by  string
		sum func([]byte)
	}{{"16-bit", func(p []byte) { slowSum(p) }}, {"64-bit", func(p []byte) { sum(p) }}} {
		b.Run("by="+way.by, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				way.sum(p)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/packet")
			b.ReportMetric(0, "ns/op")
		})
	}
}
