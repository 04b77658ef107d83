package main

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"
)

// What is made is read again, with right checksums, for both families.
func TestPackets(t *testing.T) {
	for _, ends := range [][2]string{{"10.8.0.2", "172.29.7.2"}, {"fd00:83::2", "fd00:29::2"}} {
		src, dst := netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
		from, to := netip.AddrPortFrom(src, 1000), netip.AddrPortFrom(dst, 2000)
		for name, b := range map[string][]byte{
			"udp":  appendUDP(nil, from, to, []byte("seven b")),
			"tcp":  appendTCP(nil, from, to, 1, 2, flagSYN, 3, []byte{2, 4, 5, 180}, []byte("odd")),
			"echo": appendEcho(nil, src, dst, 7, 8, 9),
		} {
			p, ok := parseInner(b)
			if !ok || p.src != src || p.dst != dst || !p.intact() {
				t.Errorf("%s between %v: ok %v, intact %v, %+v", name, ends, ok, ok && p.intact(), p)
				continue
			}
			b[len(b)-1] ^= 1
			if p.intact() {
				t.Errorf("%s between %v: damage went unseen", name, ends)
			}
			b[len(b)-1] ^= 1
		}
		p, _ := parseInner(appendEcho(nil, src, dst, 7, 8, 9))
		if !p.answerEcho() || !p.intact() {
			t.Errorf("the answer to an echo of %v is not intact", ends)
		}
		p, _ = parseInner(p.whole)
		if id, seq, stamp, ok := p.echoed(); !ok || id != 7 || seq != 8 || stamp != 9 || p.src != dst {
			t.Errorf("echo of %v came back as %d %d %d, %v", ends, id, seq, stamp, ok)
		}
	}
}

// The replay check of a stock client drops what is 64 ids late, not 63.
func TestStockWindow(t *testing.T) {
	var w stockWindow
	for _, c := range []struct {
		id   uint64
		late bool
	}{{1, false}, {100, false}, {37, false}, {36, true}, {101, false}, {37, true}} {
		if got := w.late(c.id); got != c.late {
			t.Errorf("id %d after %d: late %v", c.id, w.highest, got)
		}
	}
}

func TestPercentiles(t *testing.T) {
	var ts times
	for i := range 3 << 20 {
		ts.add(time.Duration(i%1000) * time.Millisecond)
	}
	p := ts.percentiles()
	if p.Count != 3<<20 || p.P50 < 490 || p.P50 > 510 || p.P99 < 980 || p.Max > 999 {
		t.Errorf("%+v", p)
	}
	if len(ts.all) >= 1<<20 {
		t.Errorf("%d kept", len(ts.all))
	}
}

// Whatever comes out of a tunnel is read without a panic.
func FuzzInner(f *testing.F) {
	src, dst := netip.MustParseAddr("10.8.0.2"), netip.MustParseAddr("172.29.7.2")
	f.Add(appendUDP(nil, netip.AddrPortFrom(src, 1), netip.AddrPortFrom(dst, 2), make([]byte, udpHead)))
	f.Add(appendTCP(nil, netip.AddrPortFrom(src, 1), netip.AddrPortFrom(dst, 2), 1, 2, flagSYN|flagACK, 3, []byte{2, 4, 5, 180}, nil))
	f.Add(appendEcho(nil, src, dst, 7, 8, 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseInner(bytes.Clone(b))
		if !ok {
			return
		}
		p.intact()
		p.echoed()
		if p.proto == protoUDP {
			if m, ok := parseMessage(p.l4[8:]); ok {
				var back [udpHead]byte
				m.put(back[:])
				if again, ok := parseMessage(back[:]); !ok || again != m {
					t.Errorf("%+v became %+v", m, again)
				}
			}
		}
		s := &session{crew: newCrew(options{sessions: 1, gso: true})}
		s.addrs.Store(&addresses{p.dst, p.dst})
		flow := newTCPFlow(s, netip.AddrPortFrom(p.src, 1), 'u')
		flow.src = netip.AddrPortFrom(p.dst, 2)
		if p.proto == protoTCP {
			flow.take(&p)
			flow.take(&p)
		}
		p.answerEcho()
	})
}

// What the server carries to groups is for everybody, with options in its header (IGMP) or without.
func TestMulticast(t *testing.T) {
	for text, want := range map[string]bool{
		"46c00028000040000102000000000000e0000016940400002200":                                       true, // IGMP to 224.0.0.22
		"4500001c00004000401100000a080002ac1d0702":                                                   false,
		"6000000000083aff" + "fe800000000000000000000000000001" + "ff020000000000000000000000000002": true,
		"6000000000083aff" + "fe800000000000000000000000000001" + "fd000008000000000000000000001000": false,
		"2a187bf3": false, // no packet
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := multicast(b); got != want {
			t.Errorf("multicast(%s) = %v", text, got)
		}
	}
}
