package tun_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"postern/tun"
)

// recorder is a queue that keeps copies of what is written.
type recorder struct {
	tcp, udp bool
	err      error // what Write returns
	got      []tun.Packet
}

func (r *recorder) Offload() (bool, bool)       { return r.tcp, r.udp }
func (r *recorder) Read() ([]tun.Packet, error) { return nil, os.ErrClosed }
func (r *recorder) Close() error                { return nil }
func (r *recorder) Write(frags [][]byte, g tun.GSO) error {
	r.got = append(r.got, tun.Packet{Bytes: slices.Concat(frags...), GSO: g})
	return r.err
}

// all returns what was written, cut again.
func (r *recorder) all(t testing.TB) [][]byte {
	t.Helper()
	var out [][]byte
	for i := range r.got {
		p := r.got[i]
		p.Bytes = slices.Clone(p.Bytes)
		segs, err := cutAll(&p)
		if err != nil {
			t.Fatalf("write %d cannot be cut: %v\n%+v % x", i, err, p.GSO, p.Bytes[:min(len(p.Bytes), 80)])
		}
		out = append(out, segs...)
	}
	return out
}

// counts are the numbers of packets in each write.
func (r *recorder) counts() []int {
	var n []int
	for i := range r.got {
		p := r.got[i]
		p.Bytes = slices.Clone(p.Bytes)
		n = append(n, p.Segments())
	}
	return n
}

func coalesce(t testing.TB, r *recorder, pkts [][]byte) tun.CoalescerStats {
	t.Helper()
	c := tun.NewCoalescer(r)
	for _, p := range pkts {
		c.Add(slices.Clone(p))
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return c.Stats()
}

// train returns n packets of p's flow, one behind the other.
func train(p packet, n int) [][]byte {
	whole := p
	whole.payload = counting(n * len(p.payload))
	return whole.pieces(len(p.payload))
}

func TestCoalesce(t *testing.T) {
	alter := func(pkts [][]byte, i int, f func(b []byte)) [][]byte {
		f(pkts[i])
		return pkts
	}
	// rebuilt returns three packets in sequence, the second made from p after vary.
	rebuilt := func(p packet, vary func(p *packet)) [][]byte {
		pkts := train(p, 3)
		q := p
		q.id++
		q.seq += uint32(len(p.payload))
		vary(&q)
		pkts[1] = q.build()
		return pkts
	}
	udpNoSum := func(b []byte) { b[26], b[27] = 0, 0 }
	v4udp := udp4
	noDF := tcp4
	noDF.df = false
	short := func(p *packet) { p.payload = p.payload[:500] }
	tests := []struct {
		name string
		pkts [][]byte
		want []int // packets in each write
	}{
		{"TCP", train(tcp4, 5), []int{5}},
		{"TCP over IPv6", train(tcp6, 5), []int{5}},
		{"UDP", train(udp4, 5), []int{5}},
		{"UDP over IPv6", train(udp6, 5), []int{5}},
		{"one", train(tcp4, 1), []int{1}},
		{"a short one ends it", append(rebuilt(tcp4, short)[:2], train(tcp4, 3)[2]), []int{2, 1}},
		{"a longer one begins anew", rebuilt(tcp4, func(p *packet) { p.payload = counting(1200) }), []int{1, 1, 1}},
		{"PSH ends it", rebuilt(tcp4, func(p *packet) { p.flags |= psh }), []int{2, 1}},
		{"PSH first", train(psh1(tcp4), 1), []int{1}},
		{"FIN", rebuilt(tcp4, func(p *packet) { p.flags |= fin }), []int{1, 1, 1}},
		{"ECE", rebuilt(tcp4, func(p *packet) { p.flags |= ece }), []int{1, 1, 1}},
		{"CWR", rebuilt(tcp4, func(p *packet) { p.flags |= cwr }), []int{1, 1, 1}},
		{"RST", rebuilt(tcp4, func(p *packet) { p.flags |= rst }), []int{1, 1, 1}},
		{"no ACK", rebuilt(tcp4, func(p *packet) { p.flags = 0 }), []int{1, 1, 1}},
		{"another acknowledgement", rebuilt(tcp4, func(p *packet) { p.ack++ }), []int{1, 1, 1}},
		{"another window", rebuilt(tcp4, func(p *packet) { p.window++ }), []int{1, 1, 1}},
		{"another timestamp", rebuilt(tcp4, func(p *packet) { p.tcpOptions = bytes.Repeat([]byte{1}, 12) }), []int{1, 1, 1}},
		{"fewer options", rebuilt(tcp4, func(p *packet) { p.tcpOptions = nil }), []int{1, 1, 1}},
		{"another TTL", rebuilt(tcp4, func(p *packet) { p.ttl-- }), []int{1, 1, 1}},
		{"another TOS", rebuilt(tcp4, func(p *packet) { p.tos = 3 }), []int{1, 1, 1}},
		{"a gap", rebuilt(tcp4, func(p *packet) { p.seq++ }), []int{1, 1, 1}},
		{"another id without DF", rebuilt(noDF, func(p *packet) { p.id++ }), []int{1, 1, 1}},
		{"ids in sequence without DF", train(noDF, 3), []int{3}},
		{"DF on one", rebuilt(noDF, func(p *packet) { p.df = true }), []int{1, 1, 1}},
		{"IPv4 options", rebuilt(tcp4, func(p *packet) { p.ipOptions = []byte{1, 1, 1, 0} }), []int{1, 1, 1}},
		{"no payload", rebuilt(tcp4, func(p *packet) { p.payload = nil }), []int{1, 1, 1}},
		{"another flow label", rebuilt(tcp6, func(p *packet) { p.label++ }), []int{1, 1, 1}},
		{"another traffic class", rebuilt(tcp6, func(p *packet) { p.tos++ }), []int{1, 1, 1}},
		{"another hop limit", rebuilt(tcp6, func(p *packet) { p.ttl++ }), []int{1, 1, 1}},
		{"extension header", rebuilt(tcp6, func(p *packet) { p.ext, p.ipOptions = 60, []byte{6, 0, 1, 4, 0, 0, 0, 0} }), []int{1, 1, 1}},
		{"a fragment", alter(train(udp4, 3), 1, func(b []byte) { b[6] |= 0x20 }), []int{1, 1, 1}},
		{"UDP without checksum", alter(train(v4udp, 3), 1, udpNoSum), []int{1, 1, 1}},
		{"UDP of no bytes", rebuilt(udp4, func(p *packet) { p.payload = nil }), []int{1, 1, 1}},
		{"UDP, a short one", rebuilt(udp4, short), []int{2, 1}},
		{"payload damaged", alter(train(tcp4, 3), 1, func(b []byte) { b[500] ^= 1 }), []int{1, 1, 1}},
		{"first payload damaged", alter(train(tcp4, 3), 0, func(b []byte) { b[500] ^= 1 }), []int{1, 2}},
		{"last payload damaged", alter(train(tcp6, 3), 2, func(b []byte) { b[500] ^= 1 }), []int{2, 1}},
		{"UDP damaged", alter(train(udp6, 3), 1, func(b []byte) { b[500] ^= 1 }), []int{1, 1, 1}},
		{"IP header damaged", alter(train(tcp4, 3), 1, func(b []byte) { b[11] ^= 1 }), []int{1, 1, 1}},
		{"IP length wrong", alter(train(tcp4, 3), 1, func(b []byte) { b[3] ^= 1 }), []int{1, 1, 1}},
		{"TCP header longer than the packet", alter(train(tcp4, 1), 0, func(b []byte) { b[32] = 0xf0 }), []int{1}},
		{"64 KB and more", train(tcp4, 70), []int{65, 5}},
		{"more than a superpacket may have", train(tiny(tcp4), 150), []int{128, 22}},
		{"20 bytes", [][]byte{tcp4.build()[:20]}, []int{1}},
		{"nothing in it", [][]byte{{}, {}}, []int{1, 1}},
		{"rubbish", [][]byte{{0x60}, {0x45, 1}, {1, 2, 3}}, []int{1, 1, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &recorder{tcp: true, udp: true}
			stats := coalesce(t, r, tt.pkts)
			if got := r.counts(); !slices.Equal(got, tt.want) {
				t.Errorf("writes of %v packets, want %v", got, tt.want)
			}
			if err := diffPackets(r.all(t), tt.pkts); err != nil {
				t.Error(err)
			}
			if stats.Packets != uint64(len(tt.pkts)) || stats.Writes != uint64(len(tt.want)) {
				t.Errorf("stats %+v", stats)
			}
			for _, p := range r.got {
				if len(p.Bytes) > 0xffff {
					t.Errorf("%d bytes in a packet", len(p.Bytes))
				}
			}
		})
	}
}

func psh1(p packet) packet { p.flags |= psh; return p }

func tiny(p packet) packet { p.payload = p.payload[:10]; return p }

func TestCoalescerCountsCorruption(t *testing.T) {
	pkts := train(tcp4, 4)
	pkts[2][100] ^= 0x10
	stats := coalesce(t, &recorder{tcp: true}, pkts)
	if want := (tun.CoalescerStats{Packets: 4, Writes: 3, Corrupt: 1}); stats != want {
		t.Errorf("stats %+v, want %+v", stats, want)
	}
}

func TestCoalesceWithoutOffload(t *testing.T) {
	for _, r := range []*recorder{{}, {tcp: true}, {udp: true}} {
		pkts := slices.Concat(train(tcp4, 3), train(udp6, 3), train(tcp6, 3), train(udp4, 3))
		coalesce(t, r, pkts)
		for i, p := range r.got {
			if p.GSO.Type == tun.GSOUDPL4 && !r.udp || p.GSO.Type != tun.GSOUDPL4 && p.GSO.Type != 0 && !r.tcp {
				t.Errorf("tcp %v, udp %v: write %d is of type %d", r.tcp, r.udp, i, p.GSO.Type)
			}
		}
		want := 12
		if r.tcp || r.udp {
			want = 8
		}
		if len(r.got) != want {
			t.Errorf("tcp %v, udp %v: %d writes, want %d", r.tcp, r.udp, len(r.got), want)
		}
	}
}

// F34: what the kernel does not take is counted and ends nothing; a closed queue is told once, by Flush.
func TestCoalescerErrors(t *testing.T) {
	r := &recorder{tcp: true, err: tun.ErrDropped}
	c := tun.NewCoalescer(r)
	for _, p := range train(tcp4, 3) {
		c.Add(p)
	}
	if err := c.Flush(); err != nil {
		t.Errorf("flush of dropped packets: %v", err)
	}
	if got := c.Stats().Dropped; got != 3 {
		t.Errorf("%d dropped, want 3", got)
	}
	r.err = os.ErrClosed
	c.Add(udp4.build())
	if err := c.Flush(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("flush to a closed queue: %v", err)
	}
	if err := c.Flush(); err != nil {
		t.Errorf("flush of nothing: %v", err)
	}
}

func TestCoalescerAllocates(t *testing.T) {
	r := &discard{}
	c := tun.NewCoalescer(r)
	var pkts, backup [][]byte
	for flow := range 20 {
		p := tcp4
		p.sport += uint16(flow)
		pkts = append(pkts, train(p, 4)...)
	}
	pkts = append(pkts, train(udp6, 4)...)
	for _, p := range pkts {
		backup = append(backup, slices.Clone(p))
	}
	n := testing.AllocsPerRun(100, func() {
		for i, p := range pkts {
			copy(p, backup[i])
			c.Add(p)
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a batch, want 0", n)
	}
}

type discard struct{ recorder }

func (*discard) Offload() (bool, bool)         { return true, true }
func (*discard) Write([][]byte, tun.GSO) error { return nil }

// flowOf names the flow of a packet as far as it can be told, and the two hosts.
func flowOf(b []byte) (flow, hosts string) {
	if len(b) < 20 {
		return "", fmt.Sprintf("%x", b[:min(1, len(b))])
	}
	header := map[byte]int{6: 20, 17: 8} // by protocol
	switch {
	case b[0]>>4 == 4:
		hosts = fmt.Sprintf("%x", b[12:20])
		if b[0] == 0x45 && b[6]&0x3f == 0 && b[7] == 0 && header[b[9]] > 0 && len(b) >= 20+header[b[9]] {
			flow = fmt.Sprintf("%s %d %x", hosts, b[9], b[20:24])
		}
	case b[0]>>4 == 6 && len(b) >= 40:
		hosts = fmt.Sprintf("%x", b[8:40])
		if header[b[6]] > 0 && len(b) >= 40+header[b[6]] {
			flow = fmt.Sprintf("%s %d %x", hosts, b[6], b[40:44])
		}
	}
	return flow, hosts
}

// sameOrder compares what went in with what came out, flow by flow; packets of which the flow is not known count to
// every flow between their hosts.
func sameOrder(in, out [][]byte) error {
	if len(in) != len(out) {
		return fmt.Errorf("%d packets in, %d out", len(in), len(out))
	}
	type key struct{ flow, hosts string }
	of := func(pkts [][]byte) map[key][][]byte {
		known := map[string]map[string]bool{} // flows between hosts
		for _, p := range pkts {
			flow, hosts := flowOf(p)
			if known[hosts] == nil {
				known[hosts] = map[string]bool{}
			}
			known[hosts][flow] = true
		}
		flows := map[key][][]byte{}
		for _, p := range pkts {
			flow, hosts := flowOf(p)
			if flow != "" {
				flows[key{flow, hosts}] = append(flows[key{flow, hosts}], p)
				continue
			}
			for flow := range known[hosts] {
				flows[key{flow, hosts}] = append(flows[key{flow, hosts}], p)
			}
		}
		return flows
	}
	got := of(out)
	for k, want := range of(in) {
		if err := diffPackets(got[k], want); err != nil {
			return fmt.Errorf("flow %q: %w", k.flow, err)
		}
	}
	return nil
}

// stream returns packets of a few flows mixed, most in sequence, some altered in one way or another: other flags, lengths,
// numbers, options and headers of any length, marks of congestion on one or from one on, extension headers, fragments of
// both families, damage anywhere behind the IP header, and neighbours that have changed places.
func stream(rnd *rand.Rand, n int) [][]byte {
	flows := make([]packet, 1+rnd.IntN(25))
	for i := range flows {
		p := []packet{tcp4, tcp6, udp4, udp6}[rnd.IntN(4)]
		p.sport += uint16(i)
		p.df = rnd.IntN(2) == 0
		p.tcpOptions = [][]byte{nil, timestamps, options(rnd)}[rnd.IntN(3)]
		p.payload = counting([]int{1, 33, 512, 1388}[rnd.IntN(4)])
		flows[i] = p
	}
	var out [][]byte
	for len(out) < n {
		f := &flows[rnd.IntN(len(flows))]
		for range 1 + rnd.IntN(8) {
			p := *f
			for i := range p.payload {
				p.payload[i] = byte(rnd.Uint32())
			}
			switch rnd.IntN(28) {
			case 0:
				p.flags |= psh
			case 1:
				p.flags |= []uint8{fin, syn, rst, ece, cwr}[rnd.IntN(5)]
			case 2:
				p.payload = p.payload[:rnd.IntN(len(p.payload)+1)]
			case 3:
				p.seq += uint32(rnd.IntN(3000))
				f.seq = p.seq
			case 4:
				f.ack++
			case 5:
				f.tos = uint8(rnd.IntN(4))
			case 6:
				if p.src[0] == 'f' {
					p.ext, p.ipOptions = 60, []byte{p.proto(), 0, 1, 4, 0, 0, 0, 0}
				} else {
					p.ipOptions = []byte{1, 1, 1, 0}
				}
			case 7:
				p.tos |= 3 // congestion was met, on the way of this one
			case 8:
				p.tcpOptions = options(rnd)
			case 9:
				if p.src[0] == 'f' { // a fragment: the first, a later, or one that is all there is
					p.ext, p.ipOptions = 44, []byte{p.proto(), 0, 0, [...]byte{0, 1, 8, 9}[rnd.IntN(4)], 1, 2, 3, 4}
				}
			}
			b := p.build()
			switch rnd.IntN(40) {
			case 0: // damaged
				at := 20
				if b[0]>>4 == 6 {
					at = 40
				}
				b[at+rnd.IntN(len(b)-at)] ^= 1 << rnd.IntN(8)
			case 1: // a fragment
				if b[0] == 0x45 {
					b[6], b[7], b[10], b[11] = 0x20, byte(rnd.IntN(2)), 0, 0
					s := ^slowSum(b[:20])
					b[10], b[11] = byte(s>>8), byte(s)
				}
			case 2: // UDP without a checksum
				if b[0] == 0x45 && b[9] == 17 {
					b[26], b[27] = 0, 0
				}
			}
			out = append(out, b)
			if n := len(out); n > 1 && rnd.IntN(30) == 0 {
				out[n-1], out[n-2] = out[n-2], out[n-1]
			}
			f.seq += uint32(len(p.payload))
			f.id++
		}
	}
	return out
}

// options returns TCP options of any length that there can be, all to be passed over.
func options(rnd *rand.Rand) []byte { return bytes.Repeat([]byte{1}, 4*rnd.IntN(11)) }

// Whatever is merged, the same packets come out of it when it is cut again, flow by flow in their order; but the ids of
// IPv4 packets with DF, which say nothing.
func TestCoalesceThenSegment(t *testing.T) {
	merged := 0
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		in := stream(rnd, 200)
		r := &recorder{tcp: true, udp: true}
		coalesce(t, r, in)
		out := r.all(t)
		if err := sameOrder(canonical(in), canonical(out)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		merged += len(out) - len(r.got)
	}
	if merged < 60*20 {
		t.Errorf("only %d packets were merged: the streams prove little", merged)
	}
}

// A superpacket cut and merged again is the same superpacket.
func TestSegmentThenCoalesce(t *testing.T) {
	for name, p := range map[string]packet{"tcp4": tcp4, "tcp6": tcp6, "udp4": udp4, "udp6": udp6} {
		for _, n := range []int{1001, 30000, 65000} {
			p.payload = counting(n)
			super := p.super(1000)
			want := slices.Clone(super.Bytes)
			segs, err := cutAll(&super)
			if err != nil {
				t.Fatal(err)
			}
			r := &recorder{tcp: true, udp: true}
			coalesce(t, r, segs)
			if len(r.got) != 1 {
				t.Fatalf("%s of %d bytes: %d writes, want 1", name, n, len(r.got))
			}
			got := r.got[0]
			if got.GSO.HdrLen != uint16(len(want)-n) {
				t.Errorf("%s: header length %d", name, got.GSO.HdrLen)
			}
			got.GSO.HdrLen = super.GSO.HdrLen
			if got.GSO != super.GSO {
				t.Errorf("%s: %+v, want %+v", name, got.GSO, super.GSO)
			}
			if got.Bytes[0] == 0x45 { // its header checksum was not right, as nobody looks at it
				clear(want[10:12])
				s := ^slowSum(want[:20])
				want[10], want[11] = byte(s>>8), byte(s)
			}
			if !bytes.Equal(got.Bytes, want) {
				t.Errorf("%s of %d bytes differs\n got % x\nwant % x", name, n, got.Bytes[:80], want[:80])
			}
		}
	}
}

// Packets made of anything: what is merged comes out again as it was.
func FuzzCoalesce(f *testing.F) {
	join := func(pkts [][]byte) (b []byte) {
		for _, p := range pkts {
			b = append(b, byte(len(p)>>8), byte(len(p)))
			b = append(b, p...)
		}
		return b
	}
	small := func(p packet) packet { p.payload = counting(9); return p }
	f.Add(join(slices.Concat(train(small(tcp4), 4), train(small(udp6), 4))))
	f.Add(join(slices.Concat(train(small(tcp6), 3), train(small(udp4), 3), [][]byte{{1}, {}, {0x60}})))
	f.Fuzz(func(t *testing.T, b []byte) {
		var in [][]byte
		for len(b) >= 2 {
			n := min(int(b[0])<<8|int(b[1]), len(b)-2)
			in = append(in, b[2:2+n])
			b = b[2+n:]
		}
		r := &recorder{tcp: true, udp: true}
		coalesce(t, r, in)
		out := r.all(t)
		if err := sameOrder(canonical(in), canonical(out)); err != nil {
			t.Fatal(err)
		}
	})
}

// canonical returns pkts without what a Coalescer may change: the id where DF is set, and which of the two zeros a TCP or
// UDP checksum is.
func canonical(pkts [][]byte) [][]byte {
	out := make([][]byte, len(pkts))
	for i, b := range pkts {
		b = slices.Clone(b)
		out[i] = b
		l4, proto := 0, uint8(0)
		switch {
		case len(b) >= 20 && b[0] == 0x45:
			l4, proto = 20, b[9]
			if b[6]&0x40 != 0 && slowSum(b[:20]) == 0xffff {
				clear(b[4:6])
				clear(b[10:12])
			}
		case len(b) >= 40 && b[0]>>4 == 6:
			l4, proto = 40, b[6]
		}
		at := 0
		switch {
		case proto == 6:
			at = l4 + 16
		case proto == 17:
			at = l4 + 6
		}
		if at > 0 && at+1 < len(b) && b[at] == 0xff && b[at+1] == 0xff {
			b[at], b[at+1] = 0, 0
		}
	}
	return out
}

func BenchmarkCoalesce(b *testing.B) {
	for _, n := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("%dflows", n), func(b *testing.B) {
			c := tun.NewCoalescer(&discard{})
			var pkts [][]byte
			bytes := 0
			p := tcp4
			p.payload = counting(1348)
			for i := range n {
				p.sport = uint16(i)
				pkts = append(pkts, train(p, 64/n)...)
			}
			heads := make([][60]byte, len(pkts))
			for i, p := range pkts {
				copy(heads[i][:], p)
				bytes += len(p)
			}
			b.SetBytes(int64(bytes))
			for b.Loop() {
				for i, p := range pkts {
					copy(p, heads[i][:])
					c.Add(p)
				}
				if err := c.Flush(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
