package firewall_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"postern/server/firewall"
)

const table = "postern_" + device

// TestMain lets the test binary play a server that ends badly.
func TestMain(m *testing.M) {
	switch os.Getenv("FIREWALL_TEST_CHILD") {
	case "":
		os.Exit(m.Run())
	case "hang":
		exitOn(applied())
		fmt.Println("applied")
		io.Copy(io.Discard, os.Stdin)
	case "crowd":
		r, members := crowd()
		f, err := firewall.Apply(r)
		exitOn(nil, err)
		exitOn(nil, f.Replace(r, members...))
		fmt.Println("applied")
		io.Copy(io.Discard, os.Stdin)
	case "drop":
		f, err := applied()
		exitOn(nil, err)
		exitOn(nil, syscall.Setgid(65534))
		exitOn(nil, syscall.Setuid(65534))
		if err := f.Replace(rules()); !errors.Is(err, os.ErrPermission) {
			exitOn(nil, fmt.Errorf("replace without privileges: %v", err))
		}
		exitOn(nil, f.Remove())
	case "unprivileged":
		exitOn(nil, syscall.Setuid(65534))
		_, err := applied()
		fmt.Println(err)
	}
}

func applied() (*firewall.Firewall, error) { return firewall.Apply(rules()) }

func exitOn(_ any, err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// child is the test binary in the server's namespace, told to play a part.
func child(part string) *exec.Cmd {
	cmd := exec.Command("ip", "netns", "exec", server, os.Args[0])
	cmd.Env = append(os.Environ(), "FIREWALL_TEST_CHILD="+part)
	return cmd
}

// rules are those of a server with NAT.
func rules(change ...func(*firewall.Rules)) firewall.Rules {
	r := firewall.Rules{
		Zones: []firewall.Zone{{Device: device, Own: []netip.Addr{inside4, inside6}, Pools: pools, NAT: true}},
		Ports: []firewall.Port{{"udp", 1194}, {"tcp", 443}},
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

// apply applies rules in the server's namespace until the test ends.
func apply(t *testing.T, change ...func(*firewall.Rules)) *firewall.Firewall {
	t.Helper()
	var f *firewall.Firewall
	within(t, server, func() (err error) {
		f, err = firewall.Apply(rules(change...))
		return err
	})
	t.Cleanup(func() {
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func replace(t *testing.T, f *firewall.Firewall, change ...func(*firewall.Rules)) {
	t.Helper()
	if err := f.Replace(rules(change...)); err != nil {
		t.Fatal(err)
	}
}

func ruleset(t *testing.T) string {
	t.Helper()
	return run(t, "ip netns exec "+server+" nft list ruleset")
}

func TestNAT(t *testing.T) {
	newLab(t)
	apply(t)
	for _, c := range []struct{ client, public, far netip.Addr }{
		{alice4, public4, beyond4},
		{alice6, public6, beyond6},
	} {
		if err := ping(alice, c.far); err != nil {
			t.Errorf("ping %v: %v", c.far, err)
		}

		far := listen(t, beyond, c.far, 5000)
		near := listen(t, alice, c.client, 0)
		send(t, near, "to", c.far, 5000)
		from := expect(t, far, "to")
		if from.Addr() != c.public {
			t.Errorf("a packet of %v arrived from %v, want %v", c.client, from.Addr(), c.public)
		}
		send(t, far, "fro", from.Addr(), from.Port())
		expect(t, near, "fro")

		var l net.Listener
		within(t, beyond, func() (err error) {
			l, err = net.Listen("tcp", netip.AddrPortFrom(c.far, 5000).String())
			return err
		})
		defer l.Close()
		var conn net.Conn
		within(t, alice, func() (err error) {
			conn, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
			return err
		})
		defer conn.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		if got := peer.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != c.public {
			t.Errorf("a connection of %v arrived from %v, want %v", c.client, got, c.public)
		}
	}
}

func TestWithoutNAT(t *testing.T) {
	newLab(t)
	routeBack(t)
	apply(t, func(r *firewall.Rules) { r.Zones[0].NAT = false })
	for client, far := range map[netip.Addr]netip.Addr{alice4: beyond4, alice6: beyond6} {
		c := listen(t, beyond, far, 5000)
		send(t, listen(t, alice, client, 6000), "x", far, 5000)
		if got, want := expect(t, c, "x"), netip.AddrPortFrom(client, 6000); got != want {
			t.Errorf("a packet of %v arrived from %v", want, got)
		}
		if err := ping(alice, far); err != nil {
			t.Errorf("ping %v: %v", far, err)
		}
	}
}

// S086: nobody beyond speaks to a client that has not spoken first.
func TestOnlyAnswersReachClients(t *testing.T) {
	newLab(t)
	routeBack(t)
	f := apply(t)
	reachable := func(r *firewall.Rules) { r.Reachable = true }
	for _, c := range []struct{ client, inside, far netip.Addr }{
		{alice4, inside4, beyond4},
		{alice6, inside6, beyond6},
	} {
		client := listen(t, alice, c.client, 6000)
		far, near := listen(t, beyond, c.far, 5000), listen(t, server, c.inside, 5000)
		send(t, far, "injected", c.client, 6000)
		send(t, near, "from the server itself", c.client, 6000)
		expect(t, client, "from the server itself")

		// Nor at the server's address in the tunnel.
		send(t, far, "injected", c.inside, 5000)
		send(t, client, "from a client", c.inside, 5000)
		expect(t, near, "from a client")

		replace(t, f, reachable)
		send(t, far, "welcome", c.client, 6000)
		expect(t, client, "welcome")
		replace(t, f)
	}
}

// S086: what comes out of the tunnel bears an address from within it.
func TestSourceMustBeInside(t *testing.T) {
	newLab(t)
	f := apply(t)
	site := []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24"), netip.MustParsePrefix("fd99::/64")}
	for _, c := range []struct{ forged, client, far netip.Addr }{
		{netip.MustParseAddr("10.99.0.2"), alice4, beyond4},
		{netip.MustParseAddr("fd99::2"), alice6, beyond6},
	} {
		run(t, fmt.Sprintf("ip -n %s addr add %v dev tun nodad", alice, c.forged))
		far := listen(t, beyond, c.far, 5000)
		forged, honest := listen(t, alice, c.forged, 6000), listen(t, alice, c.client, 6000)
		send(t, forged, "forged", c.far, 5000)
		send(t, honest, "honest", c.far, 5000)
		expect(t, far, "honest")

		// A network behind a client is inside too.
		replace(t, f, func(r *firewall.Rules) { r.Zones[0].Behind = site })
		send(t, forged, "from the site", c.far, 5000)
		expect(t, far, "from the site")
		replace(t, f)
	}
}

func TestClientToClient(t *testing.T) {
	newLab(t)
	f := apply(t)
	for _, c := range []struct{ alice, bob, inside netip.Addr }{{alice4, bob4, inside4}, {alice6, bob6, inside6}} {
		from, to := listen(t, alice, c.alice, 6000), listen(t, bob, c.bob, 6000)
		send(t, from, "from alice", c.bob, 6000)
		send(t, listen(t, server, c.inside, 6000), "from the server", c.bob, 6000)
		expect(t, to, "from the server")

		replace(t, f, func(r *firewall.Rules) { r.ClientToClient = true })
		send(t, from, "from alice", c.bob, 6000)
		expect(t, to, "from alice")
		replace(t, f)
	}
}

// S084: the cloud's metadata service is for the host.
func TestMetadata(t *testing.T) {
	newLab(t)
	f := apply(t)
	for _, c := range []struct{ client, metadata, far netip.Addr }{
		{alice4, netip.MustParseAddr("169.254.169.254"), beyond4},
		{alice6, netip.MustParseAddr("fd00:ec2::254"), beyond6},
	} {
		run(t, fmt.Sprintf("ip -n %s addr add %v dev lo", beyond, c.metadata))
		run(t, fmt.Sprintf("ip -n %s route add %v via %v", server, c.metadata, c.far))
		service := listen(t, beyond, netip.Addr{}, 5000)
		client := listen(t, alice, c.client, 6000)
		send(t, client, "for the host", c.metadata, 5000)
		send(t, client, "for all", c.far, 5000)
		expect(t, service, "for all")

		replace(t, f, func(r *firewall.Rules) { r.Metadata = true })
		send(t, client, "for the host", c.metadata, 5000)
		expect(t, service, "for the host")
		replace(t, f)
		service.Close()
	}
}

// S085: a client that sends from the VPN's own port number does not get what others send to the VPN.
func TestPortShadow(t *testing.T) {
	newLab(t)
	apply(t)
	for _, c := range []struct{ client, public, far netip.Addr }{
		{alice4, public4, beyond4},
		{alice6, public6, beyond6},
	} {
		vpn := listen(t, server, netip.Addr{}, 1194)
		attacker := listen(t, alice, c.client, 1194)
		victim := listen(t, beyond, c.far, 5000)
		send(t, attacker, "open a door", c.far, 5000)
		if from := expect(t, victim, "open a door"); from == netip.AddrPortFrom(c.public, 1194) {
			t.Error("the client was given the VPN's port")
		}
		send(t, victim, "for the VPN", c.public, 1194)
		from := expect(t, vpn, "for the VPN")
		send(t, vpn, "from the VPN", from.Addr(), from.Port())
		if got, want := expect(t, victim, "from the VPN"), netip.AddrPortFrom(c.public, 1194); got != want {
			t.Errorf("the answer came from %v, want %v", got, want)
		}
		if flows := tracked(t, 1194); len(flows) != 1 { // the attacker's
			t.Errorf("connections tracked with port 1194: %v", flows)
		}

		// The VPN does not run through itself, while the host's other ports are reachable.
		other := listen(t, server, netip.Addr{}, 1195)
		send(t, attacker, "tunnel in tunnel", c.public, 1194)
		send(t, attacker, "other port", c.public, 1195)
		expect(t, other, "other port")
		send(t, victim, "again", c.public, 1194)
		expect(t, vpn, "again")
		for _, c := range []io.Closer{vpn, other, attacker} {
			c.Close()
		}
		within(t, server, func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	}
}

// tracked lists the connections that the server's kernel tracks and that have the port at either end.
func tracked(t *testing.T, port uint16) (flows []string) {
	t.Helper()
	within(t, server, func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			list, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				return err
			}
			for _, f := range list {
				if f.Forward.SrcPort == port || f.Forward.DstPort == port || f.Reverse.DstPort == port {
					flows = append(flows, f.String())
				}
			}
		}
		return nil
	})
	return flows
}

// S085: the random port of a masqueraded packet is never the VPN's. Here every eighth port is.
func TestPortsAreSpared(t *testing.T) {
	newLab(t)
	apply(t, func(r *firewall.Rules) {
		for port := 0; port < 1<<16; port += 8 {
			r.Ports = append(r.Ports, firewall.Port{"udp", uint16(max(port, 1))})
		}
	})
	far := listen(t, beyond, beyond4, 5001)
	for i := range 150 {
		near := listen(t, alice, alice4, 0)
		text := fmt.Sprint("packet ", i)
		// What was dropped is sent again, as any client would.
		b := make([]byte, 100)
		for arrived := false; !arrived; {
			send(t, near, text, beyond4, 5001)
			far.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			n, from, err := far.ReadFromUDPAddrPort(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			if from.Port()%8 == 0 {
				t.Errorf("%s came from port %d", b[:n], from.Port())
			}
			arrived = string(b[:n]) == text
		}
	}
}

func TestRemoveLeavesNoTrace(t *testing.T) {
	newLab(t)
	nft(t, `
		table inet postern_tun9 { chain c { type filter hook forward priority 0; accept; }; }
		table ip filter { chain FORWARD { type filter hook forward priority 0; accept; }; }`)
	before := ruleset(t)
	f := apply(t)
	if during := ruleset(t); !strings.Contains(during, table) || !strings.Contains(during, "10.77.0.0/24") {
		t.Errorf("applied:\n%s", during)
	}
	for range 2 { // removing twice does no harm
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
		if after := ruleset(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	}
}

// stale is what a crashed server left on a kernel without table owners: here it lets nothing through.
const stale = "table inet " + table + " { set nets4 { type ether_addr; }; chain guard { type filter hook forward priority 0; policy drop; }; }"

func TestApplyReplacesStaleTable(t *testing.T) {
	newLab(t)
	nft(t, stale)
	apply(t)
	if err := ping(alice, beyond4); err != nil {
		t.Errorf("ping: %v", err)
	}
}

func TestRemoveStale(t *testing.T) {
	newLab(t)
	nft(t, "table inet postern_tun9 { }")
	before := ruleset(t)
	remove := func() error { return firewall.RemoveStale(device) }
	within(t, server, remove) // nothing there
	nft(t, stale)
	within(t, server, remove)
	if after := ruleset(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// While its server runs nobody else touches the table, not even a flush of everything.
func TestTableIsOwned(t *testing.T) {
	newLab(t)
	apply(t)
	within(t, server, func() error {
		if _, err := firewall.Apply(rules()); !errors.Is(err, firewall.ErrTaken) {
			t.Errorf("a second server: %v, want %v", err, firewall.ErrTaken)
		}
		return nil
	})
	nft(t, "flush ruleset")
	if err := ping(alice, beyond4); err != nil {
		t.Errorf("ping after a flush: %v", err)
	}
}

// A server that is killed takes its table along, however much is in it, and the next one puts as much there (F01).
func TestCrashRemovesTable(t *testing.T) {
	newLab(t)
	for _, part := range []string{"hang", "crowd"} {
		for range 2 {
			cmd := child(part)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			said := make([]byte, len("applied"))
			if _, err := io.ReadFull(stdout, said); err != nil || string(said) != "applied" {
				t.Fatalf("%s: the child said %q, %v", part, said, err)
			}
			during := ruleset(t)
			if !strings.Contains(during, table) {
				t.Errorf("%s: no table while the server runs", part)
			}
			if n := strings.Count(during, "10.77."); part == "crowd" && n < 5000 {
				t.Errorf("%d addresses in the kernel, want those of 5,000 clients", n)
			}
			cmd.Process.Kill()
			cmd.Wait()
			if got := ruleset(t); strings.Contains(got, table) {
				t.Errorf("%s: after the crash:\n%s", part, got)
			}
		}
	}
}

// A server that has given up its privileges still cleans up (S105).
func TestRemoveWithoutPrivileges(t *testing.T) {
	newLab(t)
	if out, err := child("drop").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if got := ruleset(t); strings.Contains(got, table) {
		t.Errorf("afterwards:\n%s", got)
	}
}

func TestApplyWithoutPrivileges(t *testing.T) {
	newLab(t)
	out, err := child("unprivileged").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "CAP_NET_ADMIN") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestObstacles(t *testing.T) {
	newLab(t)
	apply(t)
	obstacles := func() (found []string) {
		within(t, server, func() (err error) {
			found, err = firewall.Obstacles()
			return err
		})
		return found
	}
	nft(t, `table ip filter {
		chain INPUT { type filter hook input priority 0; policy drop; }
		chain FORWARD { type filter hook forward priority 0; policy accept; }
	}`)
	if got := obstacles(); len(got) != 0 {
		t.Errorf("%q, want none", got)
	}
	nft(t, "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }")
	if got, want := obstacles(), []string{"ip filter FORWARD"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestApplyRefuses(t *testing.T) {
	for name, change := range map[string]func(*firewall.Rules){
		"no device":        func(r *firewall.Rules) { r.Zones[0].Device = "" },
		"device too long":  func(r *firewall.Rules) { r.Zones[0].Device = "sixteen-letters-" },
		"invalid network":  func(r *firewall.Rules) { r.Zones[0].Pools = []netip.Prefix{{}} },
		"unknown protocol": func(r *firewall.Rules) { r.Ports = []firewall.Port{{"sctp", 1}} },
		"port 0":           func(r *firewall.Rules) { r.Ports = []firewall.Port{{"udp", 0}} },
	} {
		if f, err := firewall.Apply(rules(change)); err == nil {
			f.Remove()
			t.Errorf("%s: accepted", name)
		}
	}
}
