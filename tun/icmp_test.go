package tun_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"postern/tun"
)

var (
	said4, said6 = netip.MustParseAddr("10.8.0.2"), netip.MustParseAddr("fd00:8::2")
)

// checkICMP wants e to be an error of a type and code about pkt, from from to who sent pkt, with both checksums right. It
// returns the word behind the checksum.
func checkICMP(t testing.TB, e, pkt []byte, from netip.Addr, kind, code byte, most int) uint32 {
	t.Helper()
	src, _ := tun.Source(e)
	dst, _ := tun.Destination(e)
	sender, _ := tun.Source(pkt)
	if !tun.Valid(e) || src != from || dst != sender || len(e) > most {
		t.Fatalf("%x is no error from %v to %v of at most %d bytes", e, from, sender, most)
	}
	head, pseudo := 20, []byte(nil)
	if from.Is6() {
		head = 40
		n := len(e) - 40
		pseudo = slices.Concat(e[8:40], []byte{0, 0, byte(n >> 8), byte(n), 0, 0, 0, 58})
		if e[6] != 58 {
			t.Errorf("next header %d", e[6])
		}
	} else {
		if e[9] != 1 || slowSum(e[:20]) != 0xffff {
			t.Errorf("IPv4 header %x", e[:20])
		}
	}
	if slowSum(slices.Concat(pseudo, e[head:])) != 0xffff {
		t.Error("wrong checksum")
	}
	if e[head] != kind || e[head+1] != code {
		t.Errorf("type %d, code %d, want %d, %d", e[head], e[head+1], kind, code)
	}
	if quoted := e[head+8:]; !bytes.HasPrefix(pkt, quoted) || len(quoted) < len(pkt) && len(e) < most {
		t.Errorf("%d bytes of %d are quoted, or others", len(quoted), len(pkt))
	}
	return binary.BigEndian.Uint32(e[head+4:])
}

// The errors that tell who sends too much, or to nowhere, are as the kernel's.
func TestICMP(t *testing.T) {
	front := []byte("front")
	for _, c := range []struct {
		name  string
		pkt   []byte
		from  netip.Addr
		mtu   int
		heard uint32
	}{
		{"IPv4", udp4.build(), said4, 1300, 1300},
		{"IPv4, too small to ask for", tcp4.build(), said4, 68, tun.MinMTU4},
		{"IPv6", udp6.build(), said6, 1400, 1400},
		{"IPv6, too small to ask for", tcp6.build(), said6, 1200, tun.MinMTU6},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := tun.AppendTooBig(slices.Clone(front), c.pkt, c.from, c.mtu)
			if !bytes.HasPrefix(b, front) {
				t.Fatal("what was there is gone")
			}
			kind, code, most := byte(3), byte(4), 576
			if c.from.Is6() {
				kind, code, most = 2, 0, 1280
			}
			if got := checkICMP(t, b[len(front):], c.pkt, c.from, kind, code, most); got != c.heard {
				t.Errorf("MTU %d, want %d", got, c.heard)
			}
		})
	}
	if got := checkICMP(t, tun.AppendNoRoute(nil, udp6.build(), said6), udp6.build(), said6, 1, 0, 1280); got != 0 {
		t.Errorf("no route: %d behind the checksum", got)
	}
}

// No error is sent about errors, about later fragments, to groups, or in another family (S083).
func TestICMPKeepsSilent(t *testing.T) {
	set := func(b []byte, at int, v ...byte) []byte {
		copy(b[at:], v)
		return b
	}
	icmp6 := func(kind byte, chain ...byte) []byte {
		p := udp6
		p.payload = nil
		b := p.build()[:40]
		b[6] = 58
		if len(chain) > 0 {
			b[6] = 60
		}
		b = append(append(b, chain...), kind, 0, 0, 0, 0, 0, 0, 0)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		return b
	}
	options := []byte{58, 0, 1, 4, 0, 0, 0, 0}
	for _, c := range []struct {
		name   string
		pkt    []byte
		speaks bool
	}{
		{"ICMP echo", set(udp4.build(), 9, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 8), true},
		{"ICMP unreachable", set(udp4.build(), 9, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 3), false},
		{"ICMP time exceeded", set(udp4.build(), 9, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 11), false},
		{"first fragment", set(udp4.build(), 6, 0x20, 0), true},
		{"later fragment", set(udp4.build(), 6, 0, 1), false},
		{"from nowhere", set(udp4.build(), 12, 0, 0, 0, 0), false},
		{"from a group", set(udp4.build(), 12, 224, 0, 0, 1), false},
		{"from oneself", set(udp4.build(), 12, 127, 0, 0, 1), false},
		{"to a group", set(udp4.build(), 16, 224, 0, 0, 1), false},
		{"to all", set(udp4.build(), 16, 255, 255, 255, 255), false},
		{"ICMPv6 echo", icmp6(128), true},
		{"ICMPv6 too big", icmp6(2), false},
		{"ICMPv6 redirect", icmp6(137), false},
		{"ICMPv6 unreachable behind options", icmp6(1, options...), false},
		{"ICMPv6 echo behind options", icmp6(128, options...), true},
		{"later fragment, IPv6", append(set(udp6.build()[:40], 4, 0, 8, 44), 17, 0, 0, 8, 0, 0, 0, 9), false},
		{"IPv6 from nowhere", set(udp6.build(), 8, make([]byte, 16)...), false},
	} {
		from := said4
		if c.pkt[0]>>4 == 6 {
			from = said6
		}
		if got := len(tun.AppendTooBig(nil, c.pkt, from, 1300)) > 0; got != c.speaks {
			t.Errorf("%s: an error %v, want %v", c.name, got, c.speaks)
		}
	}
	if b := tun.AppendTooBig(nil, udp4.build(), said6, 1300); len(b) > 0 {
		t.Errorf("another family: %x", b)
	}
	for _, pkt := range [][]byte{udp4.build(), set(udp6.build(), 24, 0xff, 2)} {
		if b := tun.AppendNoRoute(nil, pkt, said6); len(b) > 0 {
			t.Errorf("no route for %x: %x", pkt, b)
		}
	}
}

// Only IPv6 and IPv4 that says so must not be cut.
func TestFragile(t *testing.T) {
	whole, cut := udp4, udp4
	whole.df, cut.df = true, false
	for _, c := range []struct {
		pkt  []byte
		want bool
	}{{whole.build(), true}, {cut.build(), false}, {udp6.build(), true}, {nil, false}} {
		if got := tun.Fragile(c.pkt); got != c.want {
			t.Errorf("%.8x: %v", c.pkt, got)
		}
	}
}

// Whatever valid packet there is an error about, the error is well formed, and there is none about it in turn.
func FuzzICMP(f *testing.F) {
	for _, b := range [][]byte{udp4.build(), tcp4.build(), udp6.build(), tcp6.build(), nil} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if !tun.Valid(pkt) {
			return
		}
		from, kind, code, most := said4, byte(3), byte(4), 576
		if pkt[0]>>4 == 6 {
			from, kind, code, most = said6, 2, 0, 1280
		}
		e := tun.AppendTooBig(nil, pkt, from, 1300)
		if len(e) > 0 {
			checkICMP(t, e, pkt, from, kind, code, most)
			if again := tun.AppendTooBig(nil, e, from, 1300); len(again) > 0 {
				t.Fatalf("an error about the error %x", e)
			}
		}
		if e := tun.AppendNoRoute(nil, pkt, said6); len(e) > 0 {
			checkICMP(t, e, pkt, said6, 1, 0, 1280)
		}
	})
}
