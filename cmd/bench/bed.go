package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"postern/cmd/lab"
)

// A bed is where servers are tested: each in a lab of its own, so that they share nothing but the machine. A server is
// started when a case first wants it.
type bed struct {
	ctx                         context.Context // of the measurement that is under way
	dir                         string
	postern, vpnload, wireguard string // programs
	pki                         string
	gateways                    map[site]*gateway
	used                        []site // by the measurement
	watch                       *watch // of the measurement that is under way; nil: it is not profiled
	dismiss                     func() // ends the guard
}

// A site is a kind of server in an outfit.
type site struct {
	kind   string
	outfit outfit
}

// The kinds of servers.
const (
	openvpn   = "OpenVPN"
	wireguard = "wireguard-go"
	postern   = "Postern"
)

// An outfit is whom a server is for, and what is special in its configuration.
type outfit string

const (
	few       outfit = "few"       // four stock clients, and sessions of vpnload
	crowd     outfit = "crowd"     // thousands of sessions of vpnload
	stream    outfit = "stream"    // likewise, over TCP
	unclamped outfit = "unclamped" // sessions of vpnload; segment sizes are left alone
	clamped   outfit = "clamped"   // they are lowered, as without a line
	policies  outfit = "policies"  // and every packet is judged by the rules of a policy
	limited   outfit = "limited"   // and counted against a limit, which it keeps
)

// lines are what an outfit adds to a configuration.
func (o outfit) lines() (lines []string) {
	switch o {
	case crowd, stream:
		return []string{"server 10.84.0.0 255.255.192.0", "max-clients 12000"}
	case unclamped:
		lines = []string{"mssfix 0"}
	case policies, limited:
		// Two that the sessions do not have, and ten rules that do not fit before the one that does.
		for _, name := range []string{"admins", "guests", "everybody"} {
			lines = append(lines, "policy "+name, "match "+map[bool]string{true: "any", false: "user " + name}[name == "everybody"])
			for i := range 10 {
				lines = append(lines, fmt.Sprintf("deny tcp 10.%d.0.0/16 443", i+1))
			}
			lines = append(lines, "allow any")
			if o == limited {
				lines = append(lines, "limit down 100gbit up 100gbit")
			}
			lines = append(lines, "end")
		}
	}
	return append(lines, "server 10.84.0.0 255.255.255.0")
}

// A gateway is a server under measurement and what stands around it.
type gateway struct {
	site
	b      *bed
	lab    *lab.Lab
	server *lab.Process
	conf   string
	logs   int
}

const stations = 4 // stock clients of a gateway: hosts c1 to c4

// newBed makes an empty bed, and sees to it that nothing of it outlives the bench.
func newBed(ctx context.Context) (*bed, error) {
	lab.Sweep()
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return nil, err
	}
	b := &bed{ctx: ctx, dir: dir, gateways: make(map[site]*gateway)}
	if b.dismiss, err = startGuard(dir); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("the guard: %w", err)
	}
	return b, nil
}

func (b *bed) close() {
	for at := range b.gateways {
		b.raze(at)
	}
	sweepSockets()
	os.RemoveAll(b.dir)
	b.dismiss()
}

// raze takes a gateway away, if it is there.
func (b *bed) raze(at site) {
	if g := b.gateways[at]; g != nil {
		g.lab.Close()
		os.RemoveAll(g.lab.Dir)
		delete(b.gateways, at)
	}
}

// A meter is a measurement and how long it may take.
type meter struct {
	measure  func(*bed, options) (figures, error)
	patience time.Duration
	watch    *watch // has the server profiled; nil: not
}

// measure takes one measurement. What it used when it failed is built anew for the next.
func (b *bed) measure(o options, m meter) (figures, error) {
	outer := b.ctx
	ctx, cancel := context.WithTimeout(outer, m.patience)
	defer cancel()
	b.ctx, b.used, b.watch = ctx, nil, m.watch
	if m.watch != nil {
		o.seconds = m.watch.seconds + 1
	}
	f, err := m.measure(b, o)
	if ctx.Err() == context.DeadlineExceeded {
		err = fmt.Errorf("not done within %v: %w", m.patience, err)
	}
	if err != nil {
		for _, at := range b.used {
			b.raze(at)
		}
	}
	b.ctx, b.watch = outer, nil
	return f, err
}

// gateway returns a server.
func (b *bed) gateway(kind string, o outfit) (*gateway, error) {
	at := site{kind, o}
	b.used = append(b.used, at)
	if g := b.gateways[at]; g != nil {
		return g, nil
	}
	dir := filepath.Join(b.dir, kind+"-"+string(o))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := lab.New(dir)
	if err != nil {
		return nil, err
	}
	g := &gateway{site: at, b: b, lab: l}
	b.gateways[at] = g
	if err := g.set(); err != nil {
		b.raze(at)
		return nil, fmt.Errorf("set up %s: %w", kind, err)
	}
	return g, nil
}

// run runs a program on one of the hosts, for as long as the measurement may take.
func (g *gateway) run(host string, args ...string) (string, error) {
	return g.lab.Host(host).Run(g.b.ctx, args...)
}

// set builds what stands around the server, starts it, and connects the stock clients.
func (g *gateway) set() error {
	router, lan := g.lab.Host("router"), g.lab.Host("lan")
	if _, err := g.run("router", "sysctl", "-qw", "net.ipv4.ip_forward=1"); err != nil {
		return err
	}
	if _, err := g.run("lan", "ip", "route", "add", "default", "via", lab.RouterLan4); err != nil {
		return err
	}
	peer, err := lan.Start("peer.log", g.b.vpnload, "peer", "-listen", lab.Lan4+":5201")
	if err != nil {
		return err
	}
	if err := peer.Expect("peer serves", 1, 10*time.Second); err != nil {
		return err
	}
	if _, err := g.lab.AddHost("load"); err != nil {
		return err
	}
	switch g.outfit {
	case few:
	case crowd, stream:
		if err := g.addresses(); err != nil {
			return err
		}
		return g.start()
	default:
		return g.start()
	}
	for i := range stations {
		if _, err := g.lab.AddHost(station(i)); err != nil {
			return err
		}
		sink, err := lan.Start("iperf.log", "iperf3", "-s", "-p", iperfPort(i), "--forceflush")
		if err != nil {
			return err
		}
		if err := sink.Expect("Server listening", 1, 10*time.Second); err != nil {
			return err
		}
	}
	if g.kind == wireguard {
		return g.startWireGuard()
	}
	if err := g.start(); err != nil {
		return err
	}
	for i := range stations {
		name := station(i)
		c, err := g.lab.Host(name).Start(name+".log", "openvpn", "--client", "--dev", "tun", "--nobind", "--verb", "3", "--connect-retry", "1", "1",
			"--remote", router.Wan4.String(), "1194", "udp", "--ca", g.b.pki+"/ca.crt", "--cert", g.b.pki+"/issued/"+name+".crt",
			"--key", g.b.pki+"/private/"+name+".key", "--remote-cert-tls", "server")
		if err != nil {
			return err
		}
		if err := c.Expect("Initialization Sequence Completed", 1, 30*time.Second); err != nil {
			return fmt.Errorf("%w\n%s\n%s", err, c.Output(), g.server.Output())
		}
	}
	return nil
}

func station(i int) string   { return fmt.Sprintf("c%d", i+1) }
func iperfPort(i int) string { return fmt.Sprint(5301 + i) }

// sources are addresses of the load host besides its own, since servers limit what one source may begin.
const sources = 60

func (g *gateway) addresses() error {
	var batch strings.Builder
	for i := range sources {
		fmt.Fprintf(&batch, "addr add %v/24 dev eth0\n", source(i))
	}
	file := filepath.Join(g.lab.Dir, "addresses")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		return err
	}
	_, err := g.run("load", "ip", "-batch", file)
	return err
}

func source(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 0, byte(100 + i)}) }

func sourceList() string {
	var list []string
	for i := range sources {
		list = append(list, source(i).String())
	}
	return strings.Join(list, ",")
}

// start starts a server of the OpenVPN protocol.
func (g *gateway) start() error {
	dir, pki := g.lab.Dir, g.b.pki
	conf := []string{"dev tun", "topology subnet", `push "route 172.29.7.0 255.255.255.0"`,
		"ca " + pki + "/ca.crt", "cert " + pki + "/issued/gateway.crt", "key " + pki + "/private/gateway.key", "dh none",
		"keepalive 10 60", "verb 1", "data-ciphers AES-256-GCM"}
	switch {
	case g.kind == postern:
		conf = append(conf, "control-socket "+dir+"/control.sock", "local 0.0.0.0 1194 udp", "local 0.0.0.0 1194 tcp-server")
	case g.outfit == stream:
		conf = append(conf, "proto tcp-server")
	default:
		conf = append(conf, "proto udp", "connect-freq-initial 100000 10") // else it answers ten a second
	}
	conf = append(conf, g.outfit.lines()...)
	g.conf = filepath.Join(dir, "server.conf")
	if err := os.WriteFile(g.conf, []byte(strings.Join(conf, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return g.launch()
}

func (g *gateway) launch(env ...string) error {
	args := []string{"openvpn"}
	if g.kind == postern {
		args = []string{g.b.postern, "serve", "--pprof", "unix:" + g.profilesAt()}
	}
	if len(env) > 0 {
		args = append(append([]string{"env"}, env...), args...)
	}
	g.logs++
	var err error
	if g.server, err = g.lab.Host("router").Start(fmt.Sprintf("server%d.log", g.logs), append(args, "--config", g.conf)...); err != nil {
		return err
	}
	// Both have their device when they serve.
	return lab.Until(20*time.Second, func() error {
		_, err := g.run("router", "ip", "-4", "addr", "show", "dev", "tun0", "scope", "global")
		select {
		case <-g.server.Done():
			return lab.Hopeless(fmt.Errorf("the server ended: %s", g.server.Output()))
		default:
			return err
		}
	})
}

// again starts the server anew, so that nothing of former sessions is left in it, with what is added to its environment.
func (g *gateway) again(env ...string) error {
	if err := g.server.Stop(); err != nil && !strings.Contains(err.Error(), "signal") {
		return err
	}
	return g.launch(env...)
}

// merge has the router's outer interface merge datagrams as they come in, as good hardware does, or not.
func (g *gateway) merge(on bool) error {
	word, timeout, defer_ := "off", "0", "0"
	if on {
		word, timeout, defer_ = "on", "50000", "2"
	}
	router := g.lab.Host("router")
	if _, err := g.run("router", "ethtool", "-K", "eth0", "gro", word, "rx-udp-gro-forwarding", word); err != nil {
		return err
	}
	// The other end of the cable takes part: as long as it could send TCP in superpackets, a veth pair merges only what
	// comes straight from a socket, and ours comes over a bridge.
	tso := "on"
	if on {
		tso = "off"
	}
	wan := strings.TrimSuffix(router.NS, "router") + "wan"
	if out, err := exec.Command("ip", "netns", "exec", wan, "ethtool", "-K", "p-router", "tso", tso).CombinedOutput(); err != nil {
		return fmt.Errorf("ethtool on the wan: %w: %s", err, out)
	}
	for file, value := range map[string]string{"gro_flush_timeout": timeout, "napi_defer_hard_irqs": defer_} {
		if _, err := g.run("router", "sh", "-c", "echo "+value+" > /sys/class/net/eth0/"+file); err != nil {
			return err
		}
	}
	return nil
}

var errNothing = errors.New("nothing was moved")

// build compiles what is measured and what measures, and makes a CA.
func (b *bed) build() error {
	bin := filepath.Join(b.dir, "bin")
	b.postern, b.vpnload, b.wireguard = filepath.Join(bin, "postern"), filepath.Join(bin, "vpnload"), filepath.Join(bin, "wireguard-go")
	for _, p := range []struct{ dir, bin, pkg string }{
		{".", b.postern, "postern/cmd/postern"}, {".", b.vpnload, "postern/cmd/vpnload"},
		{"cmd/bench/wireguard", b.wireguard, "golang.zx2c4.com/wireguard"},
	} {
		cmd := exec.CommandContext(b.ctx, "go", "build", "-C", p.dir, "-o", p.bin, p.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", p.pkg, err, out)
		}
	}
	b.pki = filepath.Join(b.dir, "pki")
	for _, args := range [][]string{{"init"}, {"server", "gateway"}, {"client", "c1"}, {"client", "c2"}, {"client", "c3"}, {"client", "c4"}} {
		if out, err := exec.Command(b.postern, append([]string{"pki", args[0], "--dir", b.pki}, args[1:]...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("pki %s: %w: %s", args[0], err, out)
		}
	}
	return nil
}
