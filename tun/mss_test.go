package tun_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"postern/tun"
)

func mssOption(n uint16) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }

// S083: MSS rewriting touches only well-formed TCP SYN options.
func TestClampMSS(t *testing.T) {
	pad := func(b ...[]byte) []byte { // options filled up to a multiple of four
		o := slices.Concat(b...)
		return append(o, make([]byte, -len(o)&3)...)
	}
	syn4, syn6 := tcp4, tcp6
	syn4.flags, syn4.payload = syn, nil
	syn6.flags, syn6.payload = syn|ack, nil
	tests := []struct {
		name    string
		base    packet
		options []byte
		vary    func(*packet)
		want    []byte // options; nil: untouched
	}{
		{name: "lowered", base: syn4, options: mssOption(1460), want: mssOption(1400)},
		{name: "IPv6, SYN and ACK", base: syn6, options: mssOption(1440), want: mssOption(1380)},
		{name: "odd place", base: syn4, options: pad([]byte{1}, mssOption(1460)), want: pad([]byte{1}, mssOption(1400))},
		{name: "odd place, IPv6", base: syn6, options: pad([]byte{3, 3, 7}, mssOption(0xffff)), want: pad([]byte{3, 3, 7}, mssOption(1380))},
		{name: "behind others", base: syn4, options: pad([]byte{4, 2, 1, 1}, mssOption(1401)), want: pad([]byte{4, 2, 1, 1}, mssOption(1400))},
		{name: "IP options", base: syn4, options: mssOption(1460), want: mssOption(1400),
			vary: func(p *packet) { p.ipOptions = []byte{1, 1, 1, 0} }},
		{name: "with data", base: syn4, options: mssOption(1460), want: mssOption(1400),
			vary: func(p *packet) { p.payload = counting(5) }},
		{name: "equal", base: syn4, options: mssOption(1400)},
		{name: "lower already", base: syn4, options: mssOption(536)},
		{name: "no option", base: syn4},
		{name: "not a SYN", base: syn4, options: mssOption(1460), vary: func(p *packet) { p.flags = ack }},
		{name: "UDP", base: udp4, vary: func(p *packet) { p.payload = tcp4.build() }},
		{name: "behind the end of options", base: syn4, options: pad([]byte{0}, mssOption(1460))},
		{name: "option of length 0", base: syn4, options: pad([]byte{9, 0}, mssOption(1460))},
		{name: "option of length 1", base: syn4, options: pad([]byte{9, 1}, mssOption(1460))},
		{name: "option overruns the header", base: syn4, options: pad([]byte{1, 1, 9, 30}, mssOption(1460))},
		{name: "MSS of length 3", base: syn4, options: []byte{2, 3, 5, 1}},
		{name: "MSS cut off", base: syn4, options: []byte{1, 1, 2, 4}},
		{name: "MSS without length", base: syn4, options: []byte{1, 1, 1, 2}},
		{name: "IPv6 extension header", base: syn6, options: mssOption(1460),
			vary: func(p *packet) { p.ext, p.ipOptions = 60, []byte{6, 0, 1, 4, 0, 0, 0, 0} }},
	}
	for _, tt := range tests {
		p := tt.base
		p.tcpOptions = tt.options
		if tt.vary != nil {
			tt.vary(&p)
		}
		got, want := p.build(), p.build()
		if tt.want != nil {
			p.tcpOptions = tt.want
			want = p.build()
		}
		if changed := tun.ClampMSS(got, 1400, 1380, false); changed != (tt.want != nil) {
			t.Errorf("%s: changed is %v", tt.name, changed)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got % x\nwant % x", tt.name, got, want)
		}
	}
}

func TestClampMSSLeaves(t *testing.T) {
	p := tcp4
	p.flags, p.tcpOptions = syn, mssOption(1460)
	whole := p.build()
	tests := map[string]func(b []byte) []byte{
		"a later fragment":             func(b []byte) []byte { b[7] = 1; return b },
		"the header cut off":           func(b []byte) []byte { return b[:39] },
		"options cut off":              func(b []byte) []byte { return b[:42] },
		"a length beyond the packet":   func(b []byte) []byte { b[2] = 0xff; return b },
		"a length before the header":   func(b []byte) []byte { b[2], b[3] = 0, 19; return b },
		"an IP header of 16 bytes":     func(b []byte) []byte { b[0] = 0x44; return b },
		"an IP header beyond the data": func(b []byte) []byte { b[0] = 0x4f; return b[:50] },
		"a TCP header of 16 bytes":     func(b []byte) []byte { b[32] = 0x40; return b },
		"another version":              func(b []byte) []byte { b[0] = 0x55; return b },
	}
	for name, spoil := range tests {
		b := spoil(slices.Clone(whole))
		before := slices.Clone(b)
		if tun.ClampMSS(b, 100, 100, false) || !bytes.Equal(b, before) {
			t.Errorf("%s was touched", name)
		}
	}
	if tun.ClampMSS(slices.Clone(whole), 0, 100, false) {
		t.Error("touched though switched off")
	}
}

// A checksum that holds only the pseudo header's sum is completed after the change, so the change must not be in it.
func TestClampMSSBeforeCompletion(t *testing.T) {
	for _, base := range []packet{tcp4, tcp6} {
		p := base
		p.flags, p.tcpOptions, p.payload = syn, mssOption(1460), nil
		one := p.super(0)
		one.GSO.Type = tun.GSONone
		if !tun.ClampMSS(one.Bytes, 1200, 1200, true) {
			t.Fatal("not changed")
		}
		got, err := one.Segment(0)
		if err != nil {
			t.Fatal(err)
		}
		p.tcpOptions = mssOption(1200)
		if want := p.build(); !bytes.Equal(got, want) {
			t.Errorf("\n got % x\nwant % x", got, want)
		}
	}
}

// Whatever comes, at most the MSS and the checksum change, and a checksum that was right stays right.
func FuzzClampMSS(f *testing.F) {
	for _, base := range []packet{tcp4, tcp6, udp4} {
		p := base
		p.flags, p.payload = syn, nil
		for _, o := range [][]byte{nil, mssOption(1460), {1, 2, 4, 5, 180, 0, 0, 0}, {4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0}} {
			p.tcpOptions = o
			f.Add(p.build(), uint16(1300))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, limit uint16) {
		before := slices.Clone(b)
		changed := tun.ClampMSS(b, limit, limit, false)
		if !changed {
			if !bytes.Equal(b, before) {
				t.Fatal("changed and did not say so")
			}
			return
		}
		var at []int
		for i := range b {
			if b[i] != before[i] {
				at = append(at, i)
			}
		}
		if len(at) > 4 {
			t.Fatalf("bytes %v changed", at)
		}
		l4, end := 40, 40+int(binary.BigEndian.Uint16(b[4:]))
		if b[0]>>4 == 4 {
			l4, end = int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
		}
		// The pseudo header is the same before and after, so both sums are equal; 0 and 0xffff are one number.
		was, is := slowSum(before[l4:end]), slowSum(b[l4:end])
		if was%0xffff != is%0xffff {
			t.Fatalf("TCP sums to %#x, before to %#x", is, was)
		}
	})
}
