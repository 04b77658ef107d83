package link_test

import (
	"net/netip"
	"testing"

	"postern/server/link"
)

// With DiscoverYes what is too large for the path is dropped, and told of; and the kernel says what fits.
func TestPathMTU(t *testing.T) {
	a, b := namespaces(t, 1280)
	for _, addr := range [][2]string{{"192.0.2.1:0", "192.0.2.2:0"}, {"[2001:db8::1]:0", "[2001:db8::2]:0"}} {
		t.Run(addr[0], func(t *testing.T) {
			from := listenIn(t, a, addr[0], link.UDPOptions{SocketOptions: link.SocketOptions{Discover: link.DiscoverYes}})
			to := listenIn(t, b, addr[1], link.UDPOptions{})
			if _, ok := from.Narrow(); ok {
				t.Error("a path is too narrow before anything was sent")
			}
			small := train(to.LocalAddr(), 2, 1100, 2, 1100)
			if err := from.Send([]link.Train{train(to.LocalAddr(), 1, 1400, 1, 1400), train(to.LocalAddr(), 1, 1400, 3, 1400), small}); err != nil {
				t.Fatal(err)
			}
			got, _ := receivePackets(t, to, from.LocalAddr(), 2)
			equalPackets(t, got, cutTrain(small))
			if st := from.Stats(); st.Dropped != 4 {
				t.Errorf("%d packets dropped, want 4", st.Dropped)
			}
			if got, ok := from.Narrow(); !ok || got != to.LocalAddr().Addr() {
				t.Errorf("the path that was too narrow is %v, %v", got, ok)
			}
			within(t, a, func() error {
				for _, local := range []link.Local{{}, {Addr: from.LocalAddr().Addr()}} {
					mtu, err := link.PathMTU(to.LocalAddr(), local, link.SocketOptions{Device: "veth0", Mark: 7})
					if err != nil || mtu != 1280 {
						t.Errorf("path MTU from %v: %d, %v, want 1280", local.Addr, mtu, err)
					}
				}
				if mtu, err := link.PathMTU(netip.MustParseAddrPort("203.0.113.1:9"), link.Local{}, link.SocketOptions{}); err == nil {
					t.Errorf("path MTU to nowhere: %d", mtu)
				}
				return nil
			})
		})
	}
}
