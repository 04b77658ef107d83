package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/server/link"
)

var (
	loopback4 = netip.MustParseAddrPort("127.0.0.1:0")
	loopback6 = netip.MustParseAddrPort("[::1]:0")
	any6      = netip.MustParseAddrPort("[::]:0")
)

func listenUDP(t testing.TB, addr netip.AddrPort, o link.UDPOptions) *link.UDP {
	t.Helper()
	socks, err := link.ListenUDP(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range socks {
		t.Cleanup(func() { s.Close() })
	}
	return socks[0]
}

// train makes a train of n packets that are recognised by their contents; the last is last bytes long.
func train(to netip.AddrPort, seed uint64, size, n, last int) link.Train {
	b := make([]byte, (n-1)*size+last)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return link.Train{Addr: to, Bytes: b, Size: size}
}

// cutTrain is the packets of a train.
func cutTrain(tr link.Train) [][]byte {
	var packets [][]byte
	for rest := tr.Bytes; len(rest) > 0; {
		n := min(tr.Size, len(rest))
		packets = append(packets, rest[:n])
		rest = rest[n:]
	}
	return packets
}

// receivePackets receives until it has n packets, all from from, and checks what Receive promises of each train.
func receivePackets(t testing.TB, s link.Socket, from netip.AddrPort, n int) (packets [][]byte, trains int) {
	t.Helper()
	watchdog := time.AfterFunc(20*time.Second, func() { s.Close() })
	defer watchdog.Stop()
	for len(packets) < n {
		got, err := s.Receive()
		if err != nil {
			t.Fatalf("after %d of %d packets: %v", len(packets), n, err)
		}
		for _, tr := range got {
			if tr.Addr != from {
				t.Fatalf("train from %v, want %v", tr.Addr, from)
			}
			if tr.Size <= 0 || tr.Size > len(tr.Bytes) {
				t.Fatalf("train of %d bytes has size %d", len(tr.Bytes), tr.Size)
			}
			if cap(tr.Bytes) < len(tr.Bytes)+link.Slack {
				t.Fatalf("train of %d bytes has capacity %d", len(tr.Bytes), cap(tr.Bytes))
			}
			for _, p := range cutTrain(tr) {
				packets = append(packets, bytes.Clone(p))
			}
			trains++
		}
	}
	return packets, trains
}

func equalPackets(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d packets, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d: got %d bytes, want %d, or other contents", i, len(got[i]), len(want[i]))
		}
	}
}

// Whatever the two ends are, the packets of a Send arrive whole and in order, both ways, and an IPv4 address is an
// IPv4 address on a socket for both families too.
func TestUDPTrains(t *testing.T) {
	shapes := [][]link.Train{
		{train(netip.AddrPort{}, 1, 1400, 1, 1400)},
		{train(netip.AddrPort{}, 2, 1, 1, 1)},
		{train(netip.AddrPort{}, 3, 1400, 46, 1400)},
		{train(netip.AddrPort{}, 4, 1400, 46, 3)},
		{train(netip.AddrPort{}, 5, 1400, 100, 700)}, // more than a message holds
		{train(netip.AddrPort{}, 6, 20, 500, 20)},    // more than the kernel splits
		{train(netip.AddrPort{}, 7, 100, 64, 100), train(netip.AddrPort{}, 8, 100, 1, 50), train(netip.AddrPort{}, 9, 9000, 7, 1)},
		{train(netip.AddrPort{}, 10, 65507, 1, 65507)},
		{{Bytes: []byte("no size")}},
		{{Bytes: []byte("size too large"), Size: 100}},
	}
	var alternating []link.Train // more messages than a system call takes
	for i := range 150 {
		alternating = append(alternating, train(netip.AddrPort{}, uint64(100+i), 300, 1+i%2, 1+i))
	}
	shapes = append(shapes, alternating)
	ends := []struct {
		name           string
		server, client netip.AddrPort
		reach          netip.Addr
	}{
		{"IPv4", loopback4, loopback4, loopback4.Addr()},
		{"IPv6", loopback6, loopback6, loopback6.Addr()},
		{"IPv4 to both", any6, loopback4, loopback4.Addr()},
		{"IPv6 to both", any6, loopback6, loopback6.Addr()},
	}
	for _, end := range ends {
		for _, plain := range [][2]bool{{false, false}, {false, true}, {true, false}, {true, true}} {
			t.Run(fmt.Sprintf("%s/plain %v to %v", end.name, plain[0], plain[1]), func(t *testing.T) {
				client := listenUDP(t, end.client, link.UDPOptions{Plain: plain[0]})
				server := listenUDP(t, end.server, link.UDPOptions{Plain: plain[1]})
				serverAddr := netip.AddrPortFrom(end.reach, server.LocalAddr().Port())
				for i, shape := range shapes {
					roundTrip := func(from, to *link.UDP, fromAddr, toAddr netip.AddrPort) {
						var want [][]byte
						trains := make([]link.Train, len(shape))
						for i, tr := range shape {
							tr.Addr = toAddr
							trains[i] = tr
							if tr.Size == 0 {
								tr.Size = len(tr.Bytes)
							}
							want = append(want, cutTrain(tr)...)
						}
						if err := from.Send(trains); err != nil {
							t.Fatalf("shape %d: %v", i, err)
						}
						got, _ := receivePackets(t, to, fromAddr, len(want))
						equalPackets(t, got, want)
					}
					roundTrip(client, server, client.LocalAddr(), serverAddr)
					roundTrip(server, client, serverAddr, client.LocalAddr())
				}
				for _, s := range []*link.UDP{client, server} {
					if st := s.Stats(); st.Dropped != 0 || st.PacketsIn != st.PacketsOut || st.BytesIn != st.BytesOut {
						t.Errorf("both ways carried the same, but %+v", st)
					} else if st.Singly != 0 {
						t.Errorf("the kernel refused %d trains: %v", st.Singly, st.SendErrors)
					}
				}
			})
		}
	}
}

// Any number of goroutines may send; each one's packets stay in order.
func TestUDPConcurrentSend(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			const senders, sends, perSend = 8, 40, 5
			from := listenUDP(t, loopback4, link.UDPOptions{Plain: plain})
			to := listenUDP(t, loopback4, link.UDPOptions{})
			var wg sync.WaitGroup
			for sender := range senders {
				wg.Go(func() {
					for i := range sends {
						b := make([]byte, perSend*200)
						for p := range perSend {
							binary.BigEndian.PutUint32(b[p*200:], uint32(sender))
							binary.BigEndian.PutUint32(b[p*200+4:], uint32(i*perSend+p))
						}
						if err := from.Send([]link.Train{{Addr: to.LocalAddr(), Bytes: b, Size: 200}}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			got, _ := receivePackets(t, to, from.LocalAddr(), senders*sends*perSend)
			wg.Wait()
			var next [senders]uint32
			for _, p := range got {
				sender, seq := binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:])
				if seq != next[sender] {
					t.Fatalf("sender %d: got packet %d, want %d", sender, seq, next[sender])
				}
				next[sender]++
			}
		})
	}
}

// The data path runs without the garbage collector.
func TestUDPAllocs(t *testing.T) {
	for _, plain := range []bool{false, true} {
		for _, addr := range []netip.AddrPort{loopback4, loopback6, any6} {
			t.Run(fmt.Sprintf("plain %v/%v", plain, addr.Addr()), func(t *testing.T) {
				from := listenUDP(t, addr, link.UDPOptions{Plain: plain})
				to := listenUDP(t, addr, link.UDPOptions{Plain: plain})
				reach := to.LocalAddr()
				if addr == any6 {
					reach = netip.AddrPortFrom(loopback4.Addr(), reach.Port())
				}
				trains := []link.Train{train(reach, 1, 1200, 20, 100), train(reach, 2, 300, 1, 300)}
				defer time.AfterFunc(time.Minute, func() { to.Close() }).Stop() // a lost packet fails the test, not its run
				allocs := testing.AllocsPerRun(100, func() {
					if err := from.Send(trains); err != nil {
						t.Fatal(err)
					}
					for n := 0; n < 21; {
						got, err := to.Receive()
						if err != nil {
							t.Fatal(err)
						}
						for _, tr := range got {
							n += (len(tr.Bytes) + tr.Size - 1) / tr.Size
						}
					}
				})
				if allocs != 0 {
					t.Errorf("Send and Receive allocate %v times", allocs)
				}
			})
		}
	}
}

// A datagram of any length is either one packet or, when it is empty, none (S020).
func TestUDPSizes(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			server := listenUDP(t, loopback4, link.UDPOptions{Plain: plain})
			conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(server.LocalAddr()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			from := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			sizes := []int{65507}
			for n := range 2562 {
				sizes = append(sizes, n)
			}
			sent := make([]byte, 65507)
			rand.NewChaCha8([32]byte{}).Read(sent)
			for _, n := range sizes {
				if _, err := conn.Write(sent[:n]); err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					continue // shows in the counter below
				}
				got, _ := receivePackets(t, server, from, 1)
				equalPackets(t, got, [][]byte{sent[:n]})
			}
			if st := server.Stats(); st.Empty != 1 || st.Truncated != 0 {
				t.Errorf("counted %d empty and %d truncated, want 1 and 0", st.Empty, st.Truncated)
			}
		})
	}
}

// Packets that the kernel refuses are lost and counted, their neighbours are not; nor does the ICMP error of a port
// where nobody listens end anything (F35, F36).
func TestUDPErrorsEndNothing(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			from := listenUDP(t, loopback4, link.UDPOptions{Plain: plain})
			to := listenUDP(t, loopback4, link.UDPOptions{Plain: plain})
			gone := listenUDP(t, loopback4, link.UDPOptions{})
			gone.Close()
			refused := []netip.AddrPort{
				{},                                     // no address at all
				netip.MustParseAddrPort("[::1]:1194"),  // the wrong family
				netip.MustParseAddrPort("127.0.0.1:0"), // EINVAL
			}
			var trains []link.Train
			var want [][]byte
			for i, addr := range append(refused, gone.LocalAddr()) {
				bad, good := train(addr, uint64(i), 500, 3, 500), train(to.LocalAddr(), uint64(10+i), 500, 3, 20)
				trains = append(trains, bad, good)
				want = append(want, cutTrain(good)...)
			}
			tooLong := train(to.LocalAddr(), 20, 65508, 1, 65508)
			last := train(to.LocalAddr(), 21, 500, 1, 500)
			trains = append(trains, tooLong, last)
			want = append(want, cutTrain(last)...)
			for range 3 {
				if err := from.Send(trains); err != nil {
					t.Fatal(err)
				}
				got, _ := receivePackets(t, to, from.LocalAddr(), len(want))
				equalPackets(t, got, want)
				// The ICMP answers from gone have come back by now: loopback delivers in the sender's call.
				if err := to.Send([]link.Train{{Addr: from.LocalAddr(), Bytes: []byte("still there?")}}); err != nil {
					t.Fatal(err)
				}
				got, _ = receivePackets(t, from, to.LocalAddr(), 1)
				equalPackets(t, got, [][]byte{[]byte("still there?")})
			}
			st := from.Stats()
			if st.Dropped != 3*(3*3+1) {
				t.Errorf("%d packets dropped, want 30: %v", st.Dropped, st.SendErrors)
			}
			if st.SendErrors[syscall.EMSGSIZE] == 0 || st.SendErrors[syscall.EINVAL] == 0 {
				t.Errorf("errors counted: %v, want EMSGSIZE and EINVAL among them", st.SendErrors)
			}
		})
	}
}

func TestUDPClose(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			s := listenUDP(t, loopback4, link.UDPOptions{Plain: plain})
			ended := make(chan error)
			go func() {
				_, err := s.Receive()
				ended <- err
			}()
			time.AfterFunc(10*time.Millisecond, func() { s.Close() }) // before or after Receive waits: either must do
			if err := <-ended; err != net.ErrClosed {
				t.Errorf("Receive returned %v, want net.ErrClosed", err)
			}
			if _, err := s.Receive(); err != net.ErrClosed {
				t.Errorf("Receive after Close returned %v, want net.ErrClosed", err)
			}
			if err := s.Send([]link.Train{train(s.LocalAddr(), 1, 100, 2, 100)}); err != net.ErrClosed {
				t.Errorf("Send after Close returned %v, want net.ErrClosed", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
		})
	}
}

// 0.0.0.0 is not [::], and with V6Only neither is the other way round.
func TestUDPFamilies(t *testing.T) {
	any4 := netip.MustParseAddrPort("0.0.0.0:0")
	four := listenUDP(t, any4, link.UDPOptions{})
	if !four.LocalAddr().Addr().Is4() {
		t.Errorf("asked for 0.0.0.0, got %v", four.LocalAddr())
	}
	six := netip.AddrPortFrom(any6.Addr(), four.LocalAddr().Port())
	listenUDP(t, six, link.UDPOptions{V6Only: true}) // fails if it wants IPv4 too
	if _, err := link.ListenUDP(six, link.UDPOptions{}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("[::] beside 0.0.0.0: %v, want EADDRINUSE", err)
	}
}
