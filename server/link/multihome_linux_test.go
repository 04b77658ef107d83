package link_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/server/link"
)

// A multihomed socket tells which address packets came to, and answers from there: trains and single packets, in both
// families, IPv4 on a socket for both too, and without the garbage collector.
func TestUDPMultihome(t *testing.T) {
	a, b := namespaces(t, 1500)
	for _, args := range [][]string{{"192.0.2.9/24"}, {"2001:db8::9/64", "nodad"}} {
		out, err := exec.Command("ip", append([]string{"-n", b, "addr", "add", "dev", "veth0"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, c := range []struct{ client, server string }{
		{"192.0.2.1:0", "0.0.0.0:0"}, {"[2001:db8::1]:0", "[::]:0"}, {"192.0.2.1:0", "[::]:0"},
	} {
		for _, same := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s to %s, same interface %v", c.client, c.server, same), func(t *testing.T) {
				from := listenIn(t, a, c.client, link.UDPOptions{})
				to := listenIn(t, b, c.server, link.UDPOptions{Multihome: true, SameInterface: same})
				defer time.AfterFunc(20*time.Second, func() { from.Close(); to.Close() }).Stop()
				addrs := []string{"192.0.2.2", "192.0.2.9"}
				if from.LocalAddr().Addr().Is6() {
					addrs = []string{"2001:db8::2", "2001:db8::9"}
				}
				for _, at := range addrs {
					at := netip.AddrPortFrom(netip.MustParseAddr(at), to.LocalAddr().Port())
					asked, answer := []link.Train{train(at, 1, 1200, 1, 1200)}, [2]link.Train{}
					exchange := func() {
						if err := from.Send(asked); err != nil {
							t.Fatal(err)
						}
						got, err := to.Receive()
						if err != nil {
							t.Fatal(err)
						}
						if l := got[0].Local; l.Addr != at.Addr() || (l.Interface != 0) != same {
							t.Fatalf("asked at %v: told %+v", at, l)
						}
						// The second one is longer than the path allows: the kernel splits no such train.
						answer[0], answer[1] = got[0], got[0]
						answer[0].Bytes, answer[0].Size = asked[0].Bytes, 300
						answer[1].Bytes, answer[1].Size = asked[0].Bytes, 700
						if err := to.Send(answer[:]); err != nil {
							t.Fatal(err)
						}
						for n := 0; n < 2*1200; {
							trains, err := from.Receive()
							if err != nil {
								t.Fatal(err)
							}
							for _, tr := range trains {
								if tr.Addr != at {
									t.Fatalf("asked %v, answered by %v", at, tr.Addr)
								}
								n += len(tr.Bytes)
							}
						}
					}
					if allocs := testing.AllocsPerRun(20, exchange); allocs != 0 {
						t.Errorf("%v allocations", allocs)
					}
				}
			})
		}
	}
}

// What the kernel refuses to split leaves singly from the same address and in the same class.
func TestUDPMultihomeNarrowPath(t *testing.T) {
	a, b := namespaces(t, 1280)
	if out, err := exec.Command("ip", "-n", b, "addr", "add", "192.0.2.9/24", "dev", "veth0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	to := listenIn(t, a, "192.0.2.1:0", link.UDPOptions{})
	from := listenIn(t, b, "0.0.0.0:0", link.UDPOptions{Multihome: true})
	large := train(to.LocalAddr(), 1, 1400, 20, 300)
	large.Local.Addr, large.Class = netip.MustParseAddr("192.0.2.9"), 0x48
	if err := from.Send([]link.Train{large}); err != nil {
		t.Fatal(err)
	}
	got, _ := receivePackets(t, to, netip.AddrPortFrom(large.Local.Addr, from.LocalAddr().Port()), 20)
	equalPackets(t, got, cutTrain(large))
	if st := from.Stats(); st.Singly != 1 || st.Dropped != 0 {
		t.Errorf("%d trains refused by the kernel, %d packets dropped, want 1 and 0", st.Singly, st.Dropped)
	}
}

// Packets leave in the class that their train has.
func TestUDPClass(t *testing.T) {
	for _, c := range []struct{ from, to netip.AddrPort }{{loopback4, loopback4}, {loopback6, loopback6}, {any6, loopback4}} {
		t.Run(fmt.Sprint(c.from.Addr(), " to ", c.to.Addr()), func(t *testing.T) {
			from := listenUDP(t, c.from, link.UDPOptions{})
			family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
			if c.to.Addr().Is6() {
				family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: c.to.Addr().As16()}
			}
			fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			level, recv := unix.IPPROTO_IP, unix.IP_RECVTOS
			if family == unix.AF_INET6 {
				level, recv = unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS
			}
			for _, err := range []error{unix.Bind(fd, sa), unix.SetsockoptInt(fd, level, recv, 1),
				unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})} {
				if err != nil {
					t.Fatal(err)
				}
			}
			bound, err := unix.Getsockname(fd)
			if err != nil {
				t.Fatal(err)
			}
			port := 0
			switch b := bound.(type) {
			case *unix.SockaddrInet4:
				port = b.Port
			case *unix.SockaddrInet6:
				port = b.Port
			}
			to := netip.AddrPortFrom(c.to.Addr(), uint16(port))
			marked, plain := train(to, 1, 100, 5, 100), train(to, 2, 100, 1, 100)
			marked.Class = 0xb8
			if err := from.Send([]link.Train{marked, plain}); err != nil {
				t.Fatal(err)
			}
			for i := range 6 {
				var b, oob [512]byte
				_, n, _, _, err := unix.Recvmsg(fd, b[:], oob[:], 0)
				if err != nil {
					t.Fatal(err)
				}
				msgs, err := unix.ParseSocketControlMessage(oob[:n])
				if err != nil || len(msgs) != 1 {
					t.Fatal(msgs, err)
				}
				if got, want := msgs[0].Data[0], []byte{0xb8, 0}[i/5]; got != want {
					t.Errorf("packet %d has class %#x, want %#x", i, got, want)
				}
			}
		})
	}
}

// The options reach the sockets of either transport. What the host does not have is an error that names it.
func TestSocketOptions(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	o := link.SocketOptions{Device: "lo", Mark: 77, Discover: link.DiscoverYes}
	u := listenUDP(t, any6, link.UDPOptions{SocketOptions: o})
	to := listenUDP(t, loopback4, link.UDPOptions{})
	tr := train(netip.AddrPortFrom(loopback4.Addr(), to.LocalAddr().Port()), 1, 100, 1, 100)
	if err := u.Send([]link.Train{tr}); err != nil {
		t.Fatal(err)
	}
	receivePackets(t, to, netip.AddrPortFrom(loopback4.Addr(), u.LocalAddr().Port()), 1)
	for _, opt := range link.SocketOptionsOf(t, u) {
		if opt.Got != opt.Want {
			t.Errorf("%s is %d, want %d", opt.Name, opt.Got, opt.Want)
		}
	}
	if l, err := link.ListenTCP(loopback4, link.TCPOptions{SocketOptions: o}); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	if _, err := link.ListenUDP(loopback4, link.UDPOptions{SocketOptions: link.SocketOptions{Device: "nosuch0"}}); err == nil {
		t.Error("a device that is not there was taken")
	}
}
