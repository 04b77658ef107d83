package link_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/server/link"
)

// A train leaves in one system call and, where nobody had to split it, arrives in one.
func TestUDPTrainsStayWhole(t *testing.T) {
	from := listenUDP(t, loopback4, link.UDPOptions{})
	to := listenUDP(t, loopback4, link.UDPOptions{})
	sent := []link.Train{train(to.LocalAddr(), 1, 1400, 46, 600), train(to.LocalAddr(), 2, 1000, 64, 1000)}
	if err := from.Send(sent); err != nil {
		t.Fatal(err)
	}
	got, trains := receivePackets(t, to, from.LocalAddr(), 46+64)
	equalPackets(t, got, append(cutTrain(sent[0]), cutTrain(sent[1])...))
	if st := from.Stats(); st.Sends != 1 || st.Singly != 0 {
		t.Errorf("%d system calls and %d trains sent singly, want 1 and 0", st.Sends, st.Singly)
	}
	if st := to.Stats(); trains != 2 || st.Receives != 1 {
		t.Errorf("received %d trains in %d system calls, want 2 in 1", trains, st.Receives)
	}
}

// Data packets of a peer id meet in one lane wherever they come from; other packets go by their address.
func TestUDPSteering(t *testing.T) {
	const lanes = 3
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			socks, err := link.ListenUDP(loopback4, link.UDPOptions{Lanes: lanes, Plain: plain})
			if err != nil {
				t.Fatal(err)
			}
			type arrival struct {
				lane   int
				from   netip.AddrPort
				packet [5]byte
			}
			arrivals := make(chan arrival)
			for lane, s := range socks {
				defer s.Close()
				if s.LocalAddr() != socks[0].LocalAddr() {
					t.Fatalf("lane %d is on %v, lane 0 on %v", lane, s.LocalAddr(), socks[0].LocalAddr())
				}
				go func() {
					for {
						trains, err := s.Receive()
						if err != nil {
							return
						}
						for _, tr := range trains {
							for _, p := range cutTrain(tr) {
								arrivals <- arrival{lane, tr.Addr, [5]byte(p)}
							}
						}
					}
				}()
			}
			ask := func(from *link.UDP, packet [5]byte) int {
				t.Helper()
				if err := from.Send([]link.Train{{Addr: socks[0].LocalAddr(), Bytes: packet[:]}}); err != nil {
					t.Fatal(err)
				}
				select {
				case a := <-arrivals:
					if a.packet != packet || a.from != from.LocalAddr() {
						t.Fatalf("sent %x from %v, got %+v", packet, from.LocalAddr(), a)
					}
					return a.lane
				case <-time.After(10 * time.Second):
					t.Fatalf("%x from %v arrived nowhere", packet, from.LocalAddr())
					panic("unreachable")
				}
			}
			controlLanes := make(map[int]bool)
			for range 40 {
				from := listenUDP(t, loopback4, link.UDPOptions{Plain: true})
				for _, id := range []uint32{0, 1, 2, 3, 0x10000, 0xfffffe} {
					for keyID := range byte(8) {
						packet := [5]byte{9<<3 | keyID, byte(id >> 16), byte(id >> 8), byte(id), 0xaa}
						if got, want := ask(from, packet), int(id%lanes); got != want {
							t.Fatalf("peer %d, key %d: in lane %d, want %d", id, keyID, got, want)
						}
					}
				}
				first := ask(from, [5]byte{7 << 3, 1, 2, 3, 4})
				for op := range byte(32) {
					if op == 9 {
						continue
					}
					if got := ask(from, [5]byte{op << 3, op, 0, op}); got != first {
						t.Fatalf("opcode %d: in lane %d, others from there in lane %d", op, got, first)
					}
				}
				controlLanes[first] = true
				from.Close()
			}
			// 40 addresses all in one lane of three: chance does that once in 10^18 runs.
			if len(controlLanes) < 2 {
				t.Errorf("control packets from all addresses are in one lane")
			}
		})
	}
}

// A second server on the same port is refused, though the lanes of the first share it among themselves.
func TestUDPPortIsTaken(t *testing.T) {
	for _, lanes := range []int{1, 2} {
		first := listenUDP(t, loopback4, link.UDPOptions{Lanes: lanes})
		for _, more := range []int{1, 2} {
			socks, err := link.ListenUDP(first.LocalAddr(), link.UDPOptions{Lanes: more})
			if !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%d lanes beside %d: %v, %v, want EADDRINUSE", more, lanes, socks, err)
			}
		}
	}
}

// namespaces makes two network namespaces joined by a veth pair, 192.0.2.1 in the first, 192.0.2.2 in the second,
// and IPv6 likewise. Their names begin with ptlk.
func namespaces(t *testing.T, mtu int) (a, b string) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root")
	}
	a, b = "ptlk-a", "ptlk-b"
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	remove := func() {
		for _, ns := range []string{a, b} {
			exec.Command("ip", "netns", "del", ns).Run() // fails where there is none
		}
	}
	remove()
	t.Cleanup(remove)
	ip("netns", "add", a)
	ip("netns", "add", b)
	ip("-n", a, "link", "add", "veth0", "mtu", fmt.Sprint(mtu), "type", "veth", "peer", "name", "veth0", "netns", b)
	for i, ns := range []string{a, b} {
		ip("-n", ns, "addr", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "veth0")
		ip("-n", ns, "addr", "add", fmt.Sprintf("2001:db8::%d/64", i+1), "dev", "veth0", "nodad")
		ip("-n", ns, "link", "set", "lo", "up")
		ip("-n", ns, "link", "set", "veth0", "mtu", fmt.Sprint(mtu), "up")
	}
	return a, b
}

// listenIn opens a socket in a network namespace.
func listenIn(t *testing.T, ns string, addr string, o link.UDPOptions) *link.UDP {
	t.Helper()
	var socks []*link.UDP
	within(t, ns, func() (err error) {
		socks, err = link.ListenUDP(netip.MustParseAddrPort(addr), o)
		return err
	})
	t.Cleanup(func() { socks[0].Close() })
	return socks[0]
}

// within runs f in a network namespace.
func within(t *testing.T, ns string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and its namespace with it
		file, err := os.Open("/run/netns/" + ns)
		if err == nil {
			defer file.Close()
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("in %s: %v", ns, err)
	}
}

// Packets too large for the path arrive all the same, as fragments, and the kernel is asked to split only once.
func TestUDPNarrowPath(t *testing.T) {
	a, b := namespaces(t, 1280)
	for _, addr := range [][2]string{{"192.0.2.1:0", "192.0.2.2:0"}, {"[2001:db8::1]:0", "[2001:db8::2]:0"}} {
		t.Run(addr[0], func(t *testing.T) {
			from := listenIn(t, a, addr[0], link.UDPOptions{})
			to := listenIn(t, b, addr[1], link.UDPOptions{})
			large := train(to.LocalAddr(), 1, 1400, 20, 300)
			small := train(to.LocalAddr(), 2, 1100, 20, 300)
			want := append(cutTrain(large), cutTrain(small)...)
			for range 3 {
				if err := from.Send([]link.Train{large, small}); err != nil {
					t.Fatal(err)
				}
				got, _ := receivePackets(t, to, from.LocalAddr(), len(want))
				equalPackets(t, got, want)
			}
			if st := from.Stats(); st.Singly != 1 || st.Dropped != 0 {
				t.Errorf("%d trains refused by the kernel, %d packets dropped, want 1 and 0: %v",
					st.Singly, st.Dropped, st.SendErrors)
			}
			if a, ok := from.Narrow(); !ok || a != to.LocalAddr().Addr() {
				t.Errorf("the path that was too narrow is %v, %v", a, ok)
			}
		})
	}
}

// An interface that takes next to nothing makes Send drop, not wait; once it takes packets again, so does Send.
func TestUDPClogged(t *testing.T) {
	a, b := namespaces(t, 1500)
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			tc := func(args ...string) {
				t.Helper()
				if out, err := exec.Command("tc", append([]string{"-n", a, "qdisc"}, args...)...).CombinedOutput(); err != nil {
					t.Fatalf("tc %v: %v\n%s", args, err, out)
				}
			}
			from := listenIn(t, a, "192.0.2.1:0", link.UDPOptions{SendBuf: 64 << 10, Plain: plain})
			to := listenIn(t, b, "192.0.2.2:0", link.UDPOptions{})
			if err := from.Send([]link.Train{{Addr: to.LocalAddr(), Bytes: []byte("ARP")}}); err != nil {
				t.Fatal(err)
			}
			receivePackets(t, to, from.LocalAddr(), 1)

			tc("add", "dev", "veth0", "root", "tbf", "rate", "8kbit", "burst", "3000", "limit", "100mb")
			flood := []link.Train{train(to.LocalAddr(), 1, 1200, 40, 1200)}
			for sent := 1; from.Stats().Dropped == 0; sent++ {
				if sent > 100 {
					t.Fatalf("100 trains sent through 8 kbit/s and none dropped: %+v", from.Stats())
				}
				if err := from.Send(flood); err != nil {
					t.Fatal(err)
				}
			}
			if n := from.Stats().SendErrors[syscall.EAGAIN]; n == 0 {
				t.Errorf("errors counted: %v, want EAGAIN", from.Stats().SendErrors)
			}
			tc("del", "dev", "veth0", "root") // frees what is queued in it
			dropped := from.Stats().Dropped
			if err := from.Send(flood); err != nil {
				t.Fatal(err)
			}
			if st := from.Stats(); st.Dropped != dropped {
				t.Errorf("the interface is free again, and %d packets of %d are dropped", st.Dropped-dropped, 40)
			}
		})
	}
}

// The interface of a socket goes away and comes back: the socket goes on (F35).
func TestUDPInterfaceFlaps(t *testing.T) {
	a, b := namespaces(t, 1500)
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", append([]string{"-n", a}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	server := listenIn(t, a, "0.0.0.0:0", link.UDPOptions{})
	client := listenIn(t, b, "192.0.2.2:0", link.UDPOptions{})
	serverAddr := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), server.LocalAddr().Port())
	received := make(chan error)
	go func() {
		for {
			_, err := server.Receive()
			received <- err
			if err != nil {
				return
			}
		}
	}()
	ping := []link.Train{{Addr: serverAddr, Bytes: []byte("ping")}}
	for range 3 {
		ip("link", "set", "veth0", "down")
		ip("addr", "del", "192.0.2.1/24", "dev", "veth0")
		before := server.Stats().SendErrors[syscall.ENETUNREACH]
		if err := server.Send([]link.Train{{Addr: client.LocalAddr(), Bytes: []byte("lost")}}); err != nil {
			t.Fatal(err)
		}
		if after := server.Stats().SendErrors[syscall.ENETUNREACH]; after != before+1 {
			t.Errorf("ENETUNREACH counted %d times, want once", after-before)
		}
		ip("addr", "add", "192.0.2.1/24", "dev", "veth0")
		ip("link", "set", "veth0", "up")
		arrived := false
		for tries := 0; !arrived; tries++ { // the carrier takes a moment to be back
			if tries == 100 {
				t.Fatal("nothing arrives after the interface is back")
			}
			if err := client.Send(ping); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-received:
				if err != nil {
					t.Fatalf("Receive: %v", err)
				}
				arrived = true
			case <-time.After(100 * time.Millisecond):
			}
		}
		for drained := false; !drained; { // pings that were late
			select {
			case <-received:
			case <-time.After(300 * time.Millisecond):
				drained = true
			}
		}
	}
	server.Close()
	if err := <-received; err == nil {
		t.Error("Receive went on after Close")
	}
}
