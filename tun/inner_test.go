package tun_test

import (
	"bytes"
	"slices"
	"testing"

	"postern/tun"
)

// S083: truncated packets, wrong lengths and long or overflowing extension chains are dropped.
func TestValid(t *testing.T) {
	six := func(ext uint8, chain []byte) []byte {
		p := udp6
		p.ext, p.ipOptions = ext, chain
		return p.build()
	}
	options := func(next uint8, n int) []byte { // n destination option headers
		return append(bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, n-1), next, 0, 1, 4, 0, 0, 0, 0)
	}
	set := func(b []byte, at int, v ...byte) []byte {
		copy(b[at:], v)
		return b
	}
	tests := []struct {
		name string
		pkt  []byte
		want bool
	}{
		{"TCP", tcp4.build(), true},
		{"TCP over IPv6", tcp6.build(), true},
		{"UDP", udp4.build(), true},
		{"UDP over IPv6", udp6.build(), true},
		{"bytes behind", append(udp4.build(), 0, 0), true},
		{"ICMP, header only", set(udp4.build()[:20], 2, 0, 20, 0, 0, 0, 0, 64, 1), true},
		{"first fragment", set(udp4.build(), 6, 0x20, 0), true},
		{"later fragment, 4 bytes", set(udp4.build()[:24], 2, 0, 24, 0, 0, 0, 3), true},
		{"no next header", set(udp6.build(), 6, 59), true},
		{"8 extension headers", six(60, options(17, 8)), true},
		{"authentication header", six(51, []byte{17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), true},
		{"fragment header", six(44, []byte{17, 0, 0, 1, 0, 0, 0, 9}), true},

		{"nothing", nil, false},
		{"one byte", []byte{0x45}, false},
		{"19 bytes", udp4.build()[:19], false},
		{"version 5", set(udp4.build(), 0, 0x55), false},
		{"header of 16 bytes", set(udp4.build(), 0, 0x44), false},
		{"header longer than the packet", set(udp4.build()[:28], 0, 0x4f, 0, 0, 28), false},
		{"length below the header", set(udp4.build(), 2, 0, 19), false},
		{"truncated", udp4.build()[:1027], false},
		{"IPv6 truncated", udp6.build()[:1047], false},
		{"IPv6 header truncated", udp6.build()[:39], false},
		{"TCP header truncated", set(tcp4.build()[:39], 2, 0, 39), false},
		{"TCP header of 16 bytes", set(tcp4.build(), 32, 0x40), false},
		{"TCP options beyond the end", set(tcp4.build()[:50], 2, 0, 50), false},
		{"UDP header truncated", set(udp4.build()[:27], 2, 0, 27), false},
		{"UDP length beyond the end", set(udp4.build(), 24, 0xff, 0xff), false},
		{"UDP length below its header", set(udp4.build(), 24, 0, 7), false},
		{"UDP length beyond the end, IPv6", set(udp6.build(), 44, 0xff, 0xff), false},
		{"9 extension headers", six(60, options(17, 9)), false},
		{"8 and a fragment header", six(60, append(options(44, 8), 17, 0, 0, 1, 0, 0, 0, 9)), false},
		{"extension length beyond the end", six(60, []byte{17, 255, 1, 4, 0, 0, 0, 0}), false},
		{"authentication length beyond the end", six(51, []byte{17, 255, 0, 0, 0, 0, 0, 1}), false},
		{"extension header truncated", set(udp6.build()[:44], 4, 0, 4, 60, 64), false},
		{"fragment header truncated", set(udp6.build()[:47], 4, 0, 7, 44, 64), false},
		{"UDP behind an extension header truncated", set(six(60, options(17, 1))[:55], 4, 0, 15), false},
	}
	for _, tt := range tests {
		if got := tun.Valid(tt.pkt); got != tt.want {
			t.Errorf("%s: %v, want %v\n% x", tt.name, got, tt.want, tt.pkt[:min(80, len(tt.pkt))])
		}
	}
}

// No packet makes Valid, Source or Destination read beyond it, and what holds still holds with bytes behind it.
func FuzzValid(f *testing.F) {
	for _, p := range []packet{tcp4, tcp6, udp4, udp6} {
		f.Add(p.build())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = slices.Clip(b)
		ok := tun.Valid(b)
		_, src := tun.Source(b)
		_, dst := tun.Destination(b)
		if ok && (!src || !dst) {
			t.Error("valid, but without addresses")
		}
		if ok && !tun.Valid(append(b, 0)) {
			t.Error("valid, but not with a byte behind it")
		}
	})
}
