package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/cmd/lab"
)

// The stock client in topology net30 and p2p: an address of the pool, one of a client file, packets of every size and
// between clients, and the file that remembers addresses.
func TestE2ETopology(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ topology, alice, bob, remembered string }{
		{"net30", "ifconfig 10.83.0.6 10.83.0.5", "ifconfig 10.83.0.21 10.83.0.22", "alice,10.83.0.4,fd00:83::1000"},
		{"p2p", "ifconfig 10.83.0.4 10.83.0.1", "ifconfig 10.83.0.21 10.83.0.1", "alice,10.83.0.4,fd00:83::1000"},
	} {
		t.Run(c.topology, func(t *testing.T) {
			t.Parallel()
			f := newField(t, "alice", "bob")
			ccd := filepath.Join(f.Dir, "ccd")
			f.must(os.Mkdir(ccd, 0o755))
			f.write("ccd/bob", strings.Replace(c.bob, "ifconfig", "ifconfig-push", 1))
			persist := filepath.Join(f.Dir, "ipp.txt")
			f.serve("topology "+c.topology, "client-config-dir "+ccd, "client-to-client", "ifconfig-pool-persist "+persist)
			alice, bob := f.connect("alice"), f.connect("bob")
			for v, want := range map[*vpn]string{alice: c.alice, bob: c.bob} {
				if log := v.Output(); !strings.Contains(log, ","+want+",") || !strings.Contains(log, "topology "+c.topology+",") {
					t.Errorf("the client's log lacks topology %s or %q", c.topology, want)
				}
				v.ping(lab.Lan4, 5, 56)
				v.ping(lab.Lan4, 5, 1400)
				v.ping("10.83.0.1", 3, 56)
			}
			alice.ping(lab.Lan6, 5, 1200)
			alice.ping("10.83.0.21", 5, 56)
			alice.move(5_000_000)
			f.must(lab.Until(5*time.Second, func() error {
				b, err := os.ReadFile(persist)
				if err == nil && strings.TrimSpace(string(b)) != c.remembered {
					t.Errorf("%s holds %q, want %q", persist, b, c.remembered)
				}
				return err
			}))
			for _, v := range []*vpn{alice, bob} {
				v.stop()
				if log := v.Output(); strings.Contains(log, "WARNING: ifconfig") || strings.Contains(log, "Options error") {
					t.Error("the client complains about its addresses")
				}
			}
		})
	}
}

// A server without IPv6 that takes the whole of a client's traffic leaves no way past the tunnel: the stock client
// answers IPv6 itself, at once (S080). With IPv6 it goes through the tunnel, too; and a client whose machine has IPv6
// switched off comes in as ever.
func TestE2EFullTunnel(t *testing.T) {
	t.Parallel()
	const far4, far6 = "203.0.113.1", "2001:db8:1::1" // somewhere in the Internet
	for _, c := range []struct {
		name     string
		ipv6     bool // inside
		disabled bool // on the client's machine
	}{{"both families", true, false}, {"IPv4 only", false, false}, {"IPv4 only, client without IPv6", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newField(t, "alice")
			f.must(f.OnWan(far4+"/32", far6+"/128"))
			alice := f.Host("alice")
			for _, far := range []string{far4, far6} {
				if p, err := alice.Ping(f.ctx, far, 1, 56, 50*time.Millisecond); err != nil || p.Lost() > 0 {
					t.Fatalf("without a tunnel %s does not answer: %v", far, err)
				}
			}
			conf := f.serverConf(`push "redirect-gateway def1"`)
			if !c.ipv6 {
				b, err := os.ReadFile(conf)
				f.must(err)
				var lines []string
				for line := range strings.Lines(string(b)) {
					if !strings.Contains(line, "ipv6") {
						lines = append(lines, strings.TrimSpace(line))
					}
				}
				conf = f.write("server.conf", lines...)
			}
			f.serveConf(conf)
			if c.disabled {
				_, err := alice.Run(f.ctx, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
				f.must(err)
			}
			v := f.connect("alice")
			v.ping(far4, 3, 56)
			out, err := alice.Run(f.ctx, "ip", "route", "get", far4)
			if err != nil || !strings.Contains(out, "dev tun0") {
				t.Errorf("IPv4 goes past the tunnel: %s %v", out, err)
			}
			switch {
			case c.disabled:
			case c.ipv6:
				v.ping(far6, 3, 56)
				out, err := alice.Run(f.ctx, "ip", "route", "get", far6)
				if err != nil || !strings.Contains(out, "dev tun0") {
					t.Errorf("IPv6 goes past the tunnel: %s %v", out, err)
				}
			default:
				out, _ := alice.Run(f.ctx, "ping", "-n", "-c", "1", "-W", "2", far6)
				if !strings.Contains(out, "Destination unreachable") {
					t.Errorf("IPv6 is not blocked: %s", out)
				}
			}
			v.stop()
		})
	}
}

// What a push can do against a hostile local network, and what it cannot (S080, S081): with block-local the local network
// itself is led into the tunnel, all but the server; a route that is more special than the tunnel's, which whoever hands
// out addresses there can send along, goes past it.
func TestE2EHostileNetwork(t *testing.T) {
	t.Parallel()
	const far, server = "203.0.113.1", "192.0.2.10" // where the server is in the local network, OpenVPN leaves that alone
	f := newField(t, "alice")
	f.must(f.OnWan(far + "/32"))
	f.must(f.Host("router").Afar(netip.MustParseAddr(server)))
	f.addHost("printer")
	f.serve(`push "redirect-gateway def1 block-local"`, "local "+server)
	v := f.connect("alice", "remote "+server+" 1194 udp", "explicit-exit-notify 1")
	device := func(to string) string {
		out, err := v.host.Run(f.ctx, "ip", "route", "get", to)
		f.must(err)
		_, rest, _ := strings.Cut(out, "dev ")
		dev, _, _ := strings.Cut(rest, " ")
		return dev
	}
	for to, want := range map[string]string{far: "tun0", f.Host("printer").Wan4.String(): "tun0", server: "eth0"} {
		if got := device(to); got != want {
			t.Errorf("%s is reached through %s, want %s", to, got, want)
		}
	}
	v.ping(far, 3, 56)
	v.ping(lab.Lan4, 3, 56)
	_, err := v.host.Run(f.ctx, "ip", "route", "add", far+"/32", "via", "198.18.0.254", "dev", "eth0")
	f.must(err)
	if got := device(far); got != "eth0" {
		t.Errorf("a hostile route has no effect (%s): docs/full-tunnel.md says it has", got)
	}
	v.stop()
}
