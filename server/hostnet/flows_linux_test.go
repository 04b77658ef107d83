package hostnet_test

import (
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"postern/server/hostnet"
)

// Connections of an address are forgotten in both families and at either end, and no others, however many ask at once.
func TestForgetFlows(t *testing.T) {
	within := newHost(t)
	within(func() {
		for _, line := range []string{"ip link set lo up", "ip addr add 10.9.0.2/32 dev lo", "ip addr add 10.9.0.3/32 dev lo", "ip addr add fd09::2/128 dev lo nodad"} {
			f := strings.Fields(line)
			if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", line, err, out)
			}
		}
		nft := exec.Command("nft", "-f", "-")
		nft.Stdin = strings.NewReader("table inet t { chain c { type filter hook output priority 0; ct state new accept; }; }")
		if out, err := nft.CombinedOutput(); err != nil {
			t.Errorf("nft: %v: %s", err, out)
		}
		say := func(from, to string) {
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: 5000})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = c.Write([]byte("x"))
		}
		say("10.9.0.2", "127.0.0.1")
		say("127.0.0.1", "10.9.0.2")
		say("10.9.0.3", "127.0.0.1")
		say("fd09::2", "::1")
		count := func(a string) (n int) {
			for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
				flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
				if err != nil {
					t.Error(err)
				}
				for _, f := range flows {
					if f.Forward.SrcIP.String() == a || f.Forward.DstIP.String() == a {
						n++
					}
				}
			}
			return n
		}
		if a, b, c := count("10.9.0.2"), count("10.9.0.3"), count("fd09::2"); a != 2 || b != 1 || c != 1 {
			t.Errorf("tracked before: %d, %d, %d", a, b, c)
		}
		var flows hostnet.Flows
		if err := flows.Forget(netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd09::2")); err != nil {
			t.Error(err)
		}
		if a, b, c := count("10.9.0.2"), count("10.9.0.3"), count("fd09::2"); a != 0 || b != 1 || c != 0 {
			t.Errorf("tracked behind it: %d, %d, %d", a, b, c)
		}
	})
	var flows hostnet.Flows
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := flows.Forget(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})); err != nil { // of nobody
				t.Error(err)
			}
		})
	}
	all.Wait()
}
