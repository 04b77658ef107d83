package firewall_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests' world: two clients, the server and a host beyond it, each in a network namespace. The tunnel is a
// bridge in the server's, so that packets from client to client enter and leave by the same device, as they would
// with a TUN device.
//
//	alice ---+
//	         +--- [pttun0] server [wan] --- beyond
//	bob -----+
var (
	alice  = prefix + "alice"
	bob    = prefix + "bob"
	server = prefix + "server"
	beyond = prefix + "beyond"

	// prefix is that of this process: other runs have theirs.
	prefix = fmt.Sprintf("ptfw%d-", os.Getpid())
)

const device = "pttun0"

var (
	alice4, alice6   = netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")
	bob4, bob6       = netip.MustParseAddr("10.77.0.3"), netip.MustParseAddr("fd77::3")
	inside4, inside6 = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1") // the server's, in the tunnel
	public4, public6 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	beyond4, beyond6 = netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")

	pools = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24"), netip.MustParsePrefix("fd77::/64")}
)

// link is the server's end of a namespace's veth pair.
func link(ns string) string { return "to-" + strings.TrimPrefix(ns, prefix) }

// newLab builds the world and takes it down after the test.
func newLab(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs network namespaces")
	}
	raze := func() {
		for _, line := range strings.Split(run(t, "ip netns list"), "\n") {
			name, _, _ := strings.Cut(line, " ")
			pid, _, _ := strings.Cut(strings.TrimPrefix(name, "ptfw"), "-")
			owner, err := strconv.Atoi(pid)
			if !strings.HasPrefix(name, "ptfw") || err != nil || owner != os.Getpid() && unix.Kill(owner, 0) == nil {
				continue // not ours, nor of a run that was killed
			}
			run(t, "ip netns delete "+name)
		}
	}
	raze()
	t.Cleanup(raze)

	for _, ns := range []string{alice, bob, server, beyond} {
		run(t, "ip netns add "+ns)
		within(t, ns, func() error { // no seconds lost on looking for duplicate addresses
			return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644)
		})
		run(t, "ip -n "+ns+" link set lo up")
	}
	run(t, "ip -n "+server+" link add "+device+" type bridge")
	for ns, addrs := range map[string][2]netip.Addr{alice: {alice4, alice6}, bob: {bob4, bob6}} {
		run(t, fmt.Sprintf("ip -n %s link add %s type veth peer name tun netns %s", server, link(ns), ns))
		run(t, fmt.Sprintf("ip -n %s link set %s master %s up", server, link(ns), device))
		run(t, "ip -n "+ns+" link set tun up")
		for i, via := range []netip.Addr{inside4, inside6} {
			run(t, fmt.Sprintf("ip -n %s addr add %v dev tun nodad", ns, addrs[i]))
			run(t, fmt.Sprintf("ip -n %s route add %v dev tun", ns, via))
			run(t, fmt.Sprintf("ip -n %s route add default via %v", ns, via)+map[bool]string{true: " dev tun"}[via.Is6()])
		}
	}
	run(t, "ip -n "+server+" link add wan type veth peer name wan netns "+beyond)
	for _, addr := range []string{
		server + " " + device + " 10.77.0.1/24", server + " " + device + " fd77::1/64",
		server + " wan 192.0.2.1/24", server + " wan 2001:db8::1/64",
		beyond + " wan 192.0.2.2/24", beyond + " wan 2001:db8::2/64",
	} {
		f := strings.Fields(addr)
		run(t, fmt.Sprintf("ip -n %s addr add %s dev %s nodad", f[0], f[2], f[1]))
		run(t, fmt.Sprintf("ip -n %s link set %s up", f[0], f[1]))
	}
	// A TUN device knows no neighbours, and asks for none. Nor does any other here: to ask takes its time on a busy machine.
	neighbours := func(ns, dev, other, otherDev string, addrs ...netip.Addr) {
		mac := strings.TrimSpace(run(t, "ip netns exec "+other+" cat /sys/class/net/"+otherDev+"/address"))
		for _, addr := range addrs {
			run(t, fmt.Sprintf("ip -n %s neigh replace %v lladdr %s dev %s", ns, addr, mac, dev))
		}
	}
	neighbours(alice, "tun", server, device, inside4, inside6)
	neighbours(bob, "tun", server, device, inside4, inside6)
	neighbours(server, device, alice, "tun", alice4, alice6)
	neighbours(server, device, bob, "tun", bob4, bob6)
	neighbours(server, "wan", beyond, "wan", beyond4, beyond6)
	neighbours(beyond, "wan", server, "wan", public4, public6)
	within(t, server, func() error {
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0o644); err != nil {
				return err
			}
		}
		return os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/send_redirects", []byte("0"), 0o644)
	})
}

// routeBack tells the host beyond where the clients are; by itself it knows only the server.
func routeBack(t *testing.T) {
	t.Helper()
	for _, pool := range pools {
		via := public4
		if pool.Addr().Is6() {
			via = public6
		}
		run(t, fmt.Sprintf("ip -n %s route add %v via %v", beyond, pool, via))
	}
}

// run runs a command and returns what it prints.
func run(t testing.TB, command string) string {
	t.Helper()
	f := strings.Fields(command)
	out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// nft feeds a script to nft in the server's namespace.
func nft(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", server, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	return string(out)
}

// within calls f in a namespace. Sockets that f opens stay there.
func within(t testing.TB, ns string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			file, err := os.Open("/run/netns/" + ns)
			if err != nil {
				return err
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		t.Fatalf("in %s: %v", ns, err)
	}
}

// listen opens a UDP socket in a namespace.
func listen(t *testing.T, ns string, addr netip.Addr, port uint16) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	within(t, ns, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t *testing.T, c *net.UDPConn, text string, to netip.Addr, port uint16) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), netip.AddrPortFrom(to, port)); err != nil {
		t.Fatal(err)
	}
}

// expect reads the next packet, which must be the one wanted, and returns its sender. What was sent before it
// should not have come through.
func expect(t *testing.T, c *net.UDPConn, want string) netip.AddrPort {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 100)
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatalf("waiting for %q: %v", want, err)
	}
	if !bytes.Equal(b[:n], []byte(want)) {
		t.Fatalf("received %q, want %q", b[:n], want)
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func ping(ns string, to netip.Addr) error {
	return exec.Command("ip", "netns", "exec", ns, "ping", "-c1", "-W2", to.String()).Run()
}
