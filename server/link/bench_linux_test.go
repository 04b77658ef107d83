package link_test

import (
	"fmt"
	"testing"
	"time"

	"postern/server/link"
)

// perTurn is how many datagrams the benchmarks send or receive in a turn.
const perTurn = 64

// perPacket reports what one of n packets in each turn cost, in place of the turn.
func perPacket(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSend sends a train to one address: a system call for each datagram; one for all of them; one, and the kernel cuts
// what it is given. The receiving socket is full and merges nothing, so that no receiver's work is in it, and the cutting is.
func BenchmarkSend(b *testing.B) {
	for _, size := range []int{1400, 100} {
		for _, by := range []string{"single", "sendmmsg", "UDP_SEGMENT"} {
			b.Run(fmt.Sprintf("of=%dB/by=%s", size, by), func(b *testing.B) {
				from := listenUDP(b, loopback4, link.UDPOptions{})
				to := listenUDP(b, loopback4, link.UDPOptions{Plain: true, RecvBuf: 1})
				whole := train(to.LocalAddr(), 1, size, perTurn, size)
				turn := [][]link.Train{{whole}}
				if by != "UDP_SEGMENT" {
					link.WithoutSegmentation(from)
				}
				if by == "single" {
					turn = turn[:0]
					for _, packet := range cutTrain(whole) {
						turn = append(turn, []link.Train{{Addr: whole.Addr, Bytes: packet, Size: size}})
					}
				}
				b.SetBytes(int64(len(whole.Bytes)))
				b.ReportAllocs()
				for b.Loop() {
					for _, trains := range turn {
						if err := from.Send(trains); err != nil {
							b.Fatal(err)
						}
					}
				}
				perPacket(b, perTurn)
				if st := from.Stats(); st.Dropped != 0 || st.PacketsOut != uint64(b.N*perTurn) {
					b.Errorf("%d packets sent and %d dropped, want %d and none", st.PacketsOut, st.Dropped, b.N*perTurn)
				}
			})
		}
	}
}

// BenchmarkReceive takes datagrams from a socket where they lie: with a system call for each; with one for many; and many
// that have stayed together on the way, as an interface that merges leaves them. How they got there is not in it.
func BenchmarkReceive(b *testing.B) {
	for _, size := range []int{1400, 100} {
		for _, by := range []string{"single", "recvmmsg", "UDP_GRO"} {
			b.Run(fmt.Sprintf("of=%dB/by=%s", size, by), func(b *testing.B) {
				from := listenUDP(b, loopback4, link.UDPOptions{})
				to := listenUDP(b, loopback4, link.UDPOptions{Plain: by == "single"})
				if by == "recvmmsg" {
					link.WithoutGRO(b, to)
				}
				trains := []link.Train{train(to.LocalAddr(), 1, size, perTurn, size)}
				defer time.AfterFunc(time.Minute, func() { to.Close() }).Stop() // a lost packet fails the benchmark, not its run
				b.SetBytes(int64(len(trains[0].Bytes)))
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					if err := from.Send(trains); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					for n := 0; n < perTurn; {
						got, err := to.Receive()
						if err != nil {
							b.Fatal(err)
						}
						for _, t := range got {
							n += len(t.Bytes) / t.Size
						}
					}
				}
				perPacket(b, perTurn)
			})
		}
	}
}
