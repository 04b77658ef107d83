package tun_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"postern/tun"
)

// cutAll returns copies of all segments of p.
func cutAll(p *tun.Packet) ([][]byte, error) {
	var out [][]byte
	for i := range p.Segments() {
		seg, err := p.Segment(i)
		if err != nil {
			return nil, err
		}
		out = append(out, slices.Clone(seg))
	}
	return out, nil
}

func diffPackets(got, want [][]byte) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d packets, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			return fmt.Errorf("packet %d\n got % x\nwant % x", i, got[i], want[i])
		}
	}
	return nil
}

func TestSegment(t *testing.T) {
	bases := map[string]packet{"tcp4": tcp4, "tcp6": tcp6, "udp4": udp4, "udp6": udp6}
	variations := map[string]func(*packet){
		"as it is":              func(*packet) {},
		"no TCP options":        func(p *packet) { p.tcpOptions = nil },
		"40 bytes of options":   func(p *packet) { p.tcpOptions = bytes.Repeat([]byte{1}, 40) },
		"FIN, PSH":              func(p *packet) { p.flags |= fin | psh },
		"CWR, ECE":              func(p *packet) { p.flags |= cwr | ece },
		"ECN CE in TOS":         func(p *packet) { p.tos = 3 },
		"no payload":            func(p *packet) { p.payload = nil },
		"odd payload":           func(p *packet) { p.payload = p.payload[:999] },
		"64 KB":                 func(p *packet) { p.payload = counting(65400) },
		"payload of ones":       func(p *packet) { p.payload = bytes.Repeat([]byte{0xff}, 3000) },
		"checksum would be nil": func(p *packet) { p.payload = zeroing(*p) },
		"IP options": func(p *packet) {
			p.ipOptions = bytes.Repeat([]byte{1}, 12)
			if p.src[0] == 'f' {
				p.ext, p.ipOptions = 60, []byte{p.proto(), 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			}
		},
	}
	for base, p := range bases {
		for how, vary := range variations {
			for _, size := range []int{1, 7, 100, 333, 999, 1000, 1388, 65535} {
				p := p
				vary(&p)
				if len(p.payload) > 3000 && size < 100 {
					continue // more segments than any device makes
				}
				t.Run(fmt.Sprintf("%s/%s/%d", base, how, size), func(t *testing.T) {
					super := p.super(size)
					got, err := cutAll(&super)
					if err != nil {
						t.Fatal(err)
					}
					if err := diffPackets(got, p.pieces(size)); err != nil {
						t.Fatal(err)
					}
				})
			}
		}
	}
}

// zeroing returns a payload with which p's checksum comes out as zero.
func zeroing(p packet) []byte {
	p.payload = counting(98)
	b := p.build()
	at := len(p.ip(0)) + 16
	if p.udp {
		at = len(p.ip(0)) + 6
	}
	p.payload = append(p.payload, 0, 0)
	b = p.build()
	return append(p.payload[:98], b[at], b[at+1])
}

func TestSegmentCompletesChecksum(t *testing.T) {
	for name, p := range map[string]packet{"tcp4": tcp4, "tcp6": tcp6, "udp4": udp4, "udp6": udp6} {
		one := p.super(1)
		one.GSO.Type, one.GSO.Size = tun.GSONone, 0
		for range 2 { // a second time nothing is to be done
			if n := one.Segments(); n != 1 {
				t.Fatalf("%s: %d segments", name, n)
			}
			got, err := one.Segment(0)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if want := p.build(); !bytes.Equal(got, want) {
				t.Errorf("%s\n got % x\nwant % x", name, got, want)
			}
		}
	}
	plain := tun.Packet{Bytes: []byte{1, 2, 3}}
	if got, err := plain.Segment(0); err != nil || !bytes.Equal(got, []byte{1, 2, 3}) {
		t.Errorf("a plain packet became % x, %v", got, err)
	}
}

// A segment leaves the payloads to come alone, and needs no bytes before it but the header of the one before.
func TestSegmentIsInPlace(t *testing.T) {
	p := tcp4
	super := p.super(300)
	want := p.pieces(300)
	for i := range super.Segments() {
		seg, err := super.Segment(i)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(seg, want[i]) {
			t.Fatalf("segment %d differs", i)
		}
		if &seg[0] != &super.Bytes[i*300] {
			t.Errorf("segment %d is not in the superpacket's buffer", i)
		}
		clear(super.Bytes[:i*300])
	}
}

func TestSegmentMalformed(t *testing.T) {
	tests := map[string]func(*tun.Packet){
		"no size":                  func(p *tun.Packet) { p.GSO.Size = 0 },
		"no checksum to complete":  func(p *tun.Packet) { p.GSO.NeedsCsum = false },
		"IPv6 type on IPv4":        func(p *tun.Packet) { p.GSO.Type = tun.GSOTCPv6 },
		"unknown type":             func(p *tun.Packet) { p.GSO.Type = 3 },
		"csum_start in IP header":  func(p *tun.Packet) { p.GSO.CsumStart = 8 },
		"csum_start behind header": func(p *tun.Packet) { p.GSO.CsumStart = 24 },
		"csum_start behind all":    func(p *tun.Packet) { p.GSO.CsumStart = 60000 },
		"IP header of 16 bytes":    func(p *tun.Packet) { p.Bytes[0], p.GSO.CsumStart = 0x44, 16 },
		"not IP":                   func(p *tun.Packet) { p.Bytes[0] = 0x75 },
		"data offset of 16":        func(p *tun.Packet) { p.Bytes[32] = 0x40 },
		"header behind the end":    func(p *tun.Packet) { p.Bytes = p.Bytes[:45] },
		"empty":                    func(p *tun.Packet) { p.Bytes = nil },
		"one byte":                 func(p *tun.Packet) { p.Bytes = p.Bytes[:1] },
	}
	for name, spoil := range tests {
		p := tcp4.super(100)
		spoil(&p)
		if n := p.Segments(); n != 1 {
			t.Errorf("%s: %d segments, want 1", name, n)
		}
		if _, err := p.Segment(0); !errors.Is(err, tun.ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
	p := tcp4.super(100)
	if _, err := p.Segment(1); !errors.Is(err, tun.ErrMalformed) {
		t.Errorf("out of order: error %v, want ErrMalformed", err)
	}
	for _, start := range []uint16{999, 65535} {
		p := tun.Packet{Bytes: tcp4.build()[:1000], GSO: tun.GSO{NeedsCsum: true, CsumStart: start, CsumOffset: 16}}
		if _, err := p.Segment(0); !errors.Is(err, tun.ErrMalformed) {
			t.Errorf("checksum at %d: error %v, want ErrMalformed", start, err)
		}
	}
}

func TestSegmentAllocates(t *testing.T) {
	super := tcp4.super(100)
	backup := slices.Clone(super.Bytes)
	g := super.GSO
	n := testing.AllocsPerRun(100, func() {
		copy(super.Bytes, backup)
		p := tun.Packet{Bytes: super.Bytes, GSO: g}
		for i := range p.Segments() {
			if _, err := p.Segment(i); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a superpacket, want 0", n)
	}
}

// Whatever comes, segments are within the buffer, and those of an accepted superpacket carry its payload and right
// checksums.
func FuzzSegment(f *testing.F) {
	for _, p := range []packet{tcp4, tcp6, udp4, udp6} {
		s := p.super(300)
		f.Add(s.Bytes, s.GSO.Type, s.GSO.NeedsCsum, s.GSO.Size, s.GSO.CsumStart, s.GSO.CsumOffset)
		f.Add(s.Bytes, uint8(tun.GSONone), true, uint16(0), s.GSO.CsumStart, s.GSO.CsumOffset)
	}
	f.Fuzz(func(t *testing.T, b []byte, typ uint8, needs bool, size, start, offset uint16) {
		g := tun.GSO{Type: typ, NeedsCsum: needs, Size: size, CsumStart: start, CsumOffset: offset}
		before := slices.Clone(b)
		p := tun.Packet{Bytes: b, GSO: g}
		var payload []byte
		var hlen int
		for i := range p.Segments() {
			seg, err := p.Segment(i)
			if err != nil {
				if i > 0 {
					t.Fatalf("segment %d of an accepted superpacket: %v", i, err)
				}
				return
			}
			if typ == tun.GSONone {
				return
			}
			hlen = int(start) + 8
			if typ != tun.GSOUDPL4 {
				hlen = int(start) + int(seg[start+12]>>4)*4
			}
			payload = append(payload, seg[hlen:]...)
			if seg[0]>>4 == 4 {
				if s := slowSum(seg[:start]); s != 0xffff {
					t.Fatalf("segment %d: IP header sums to %#x", i, s)
				}
				if n := binary.BigEndian.Uint16(seg[2:]); int(n) != len(seg) {
					t.Fatalf("segment %d: length %d in the header of %d bytes", i, n, len(seg))
				}
			}
		}
		if !bytes.Equal(payload, before[hlen:]) {
			t.Fatalf("payload changed")
		}
	})
}

func BenchmarkSegment(b *testing.B) {
	p := tcp4
	p.payload = counting(64000)
	super := p.super(1388)
	buf := slices.Clone(super.Bytes)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		copy(buf, super.Bytes[:60]) // the payload does not matter
		q := tun.Packet{Bytes: buf, GSO: super.GSO}
		for i := range q.Segments() {
			if _, err := q.Segment(i); err != nil {
				b.Fatal(err)
			}
		}
	}
}
