package tun_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/tun"
)

// perTurn is how many packets the benchmarks move in a turn: what fills a superpacket.
const perTurn = 44

// perPacket reports what one of the packets of a turn cost, in place of the turn.
func perPacket(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perTurn), "ns/packet")
	b.ReportMetric(0, "ns/op")
}

// turns are the packets of one flow, and their size, by protocol.
func turns() map[string][][]byte {
	tcp, udp := tcp4, udp4
	tcp.payload, udp.payload = counting(1348), counting(1372)
	return map[string][][]byte{"TCP": train(tcp, perTurn), "UDP": train(udp, perTurn)}
}

func total(pkts [][]byte) (n int64) {
	for _, p := range pkts {
		n += int64(len(p))
	}
	return n
}

// forwarding opens two devices in a namespace whose kernel forwards from the first to the second.
func forwarding(b *testing.B, in, out tun.Options) (inQ, outQ tun.Queue) {
	b.Helper()
	ns := newNamespace(b, strings.NewReplacer("/", "-", "=", "-").Replace(b.Name()))
	ns.sysctl("net.ipv4.ip_forward", "1")
	ns.sysctl("net.ipv6.conf.default.disable_ipv6", "1") // the kernel has nothing to say of its own
	in.Name, out.Name = "in0", "out0"
	_, ins := ns.open(in, 1, "10.8.0.1/24")
	_, outs := ns.open(out, 1)
	ns.must(func() error {
		_, err := tun.AddRoutes("out0", []tun.Route{{Net: netip.MustParsePrefix("192.0.2.0/24")}})
		return err
	})
	return ins[0], outs[0]
}

// BenchmarkWrite writes packets of a flow to a device, from where the kernel forwards them to one that is full: one by one
// as they are; one by one behind virtio headers; as the superpackets that the Coalescer makes of them, which it verifies
// first.
func BenchmarkWrite(b *testing.B) {
	for _, of := range []string{"TCP", "UDP"} {
		for _, by := range []string{"single", "virtio", "coalescer"} {
			b.Run("of="+of+"/by="+by, func(b *testing.B) {
				q, _ := forwarding(b, tun.Options{Plain: by == "single"}, tun.Options{})
				pkts := turns()[of]
				heads := make([][60]byte, len(pkts))
				for i, p := range pkts {
					copy(heads[i][:], p)
				}
				one := make([][]byte, 1)
				c := tun.NewCoalescer(q)
				b.SetBytes(total(pkts))
				b.ReportAllocs()
				for b.Loop() {
					for i, p := range pkts {
						if by == "coalescer" {
							copy(p, heads[i][:]) // which the turn before has changed
							c.Add(p)
							continue
						}
						one[0] = p
						if err := q.Write(one, tun.GSO{}); err != nil {
							b.Fatal(err)
						}
					}
					if err := c.Flush(); err != nil {
						b.Fatal(err)
					}
				}
				perPacket(b)
				if s := c.Stats(); s.Dropped != 0 || s.Writes != s.Packets/perTurn {
					b.Errorf("%d packets in %d writes, %d dropped", s.Packets, s.Writes, s.Dropped)
				}
			})
		}
	}
}

// BenchmarkRead has the kernel forward a superpacket to a device that is read: one packet for each call, cut by the kernel;
// or what there is, cut here, with its checksums. The kernel's work is in both.
func BenchmarkRead(b *testing.B) {
	for _, of := range []string{"TCP", "UDP"} {
		for _, by := range []string{"single", "superpacket"} {
			b.Run("of="+of+"/by="+by, func(b *testing.B) {
				in, out := forwarding(b, tun.Options{}, tun.Options{Plain: by == "single"})
				defer time.AfterFunc(time.Minute, func() { out.Close() }).Stop() // a lost packet fails the benchmark, not its run
				pkts := turns()[of]
				r := &recorder{tcp: true, udp: true}
				coalesce(b, r, pkts)
				if len(r.got) != 1 {
					b.Fatalf("%d packets were coalesced to %d", len(pkts), len(r.got))
				}
				super := [][]byte{r.got[0].Bytes}
				b.SetBytes(total(pkts))
				b.ReportAllocs()
				for b.Loop() {
					if err := in.Write(super, r.got[0].GSO); err != nil {
						b.Fatal(err)
					}
					for n := 0; n < perTurn; {
						got, err := out.Read()
						if err != nil {
							b.Fatal(err)
						}
						for i := range got {
							for j := range got[i].Segments() {
								if _, err := got[i].Segment(j); err != nil {
									b.Fatal(err)
								}
								n++
							}
						}
					}
				}
				perPacket(b)
			})
		}
	}
}
