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
	dir                         string
	postern, vpnload, wireguard string // programs
	pki                         string
	gateways                    map[string]*gateway
}

// A gateway is a server under measurement and what stands around it.
type gateway struct {
	b      *bed
	kind   string
	crowd  bool // for thousands of sessions of vpnload; otherwise for a few stock clients
	lab    *lab.Lab
	server *lab.Process
	conf   string
	logs   int
}

// The kinds of servers.
const (
	openvpn   = "OpenVPN"
	wireguard = "wireguard-go"
	postern   = "Postern"
)

const stations = 4 // stock clients of a gateway: hosts c1 to c4

func (b *bed) close() {
	for _, g := range b.gateways {
		g.lab.Close()
	}
}

// gateway returns a server of a kind, for few or many.
func (b *bed) gateway(kind string, crowd bool) (*gateway, error) {
	name := kind
	if crowd {
		name += "-crowd"
	}
	if g := b.gateways[name]; g != nil {
		return g, nil
	}
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := lab.New(dir)
	if err != nil {
		return nil, err
	}
	g := &gateway{b: b, kind: kind, crowd: crowd, lab: l}
	if b.gateways == nil {
		b.gateways = make(map[string]*gateway)
	}
	b.gateways[name] = g
	if err := g.set(); err != nil {
		l.Close()
		delete(b.gateways, name) // the next case may have more luck
		return nil, err
	}
	return g, nil
}

// set builds what stands around the server, starts it, and connects the stock clients.
func (g *gateway) set() error {
	ctx := context.Background()
	router, lan := g.lab.Host("router"), g.lab.Host("lan")
	if _, err := router.Run(ctx, "sysctl", "-qw", "net.ipv4.ip_forward=1"); err != nil {
		return err
	}
	if _, err := lan.Run(ctx, "ip", "route", "add", "default", "via", lab.RouterLan4); err != nil {
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
	if g.crowd {
		if err := g.addresses(); err != nil {
			return err
		}
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
	_, err := g.lab.Host("load").Run(context.Background(), "ip", "-batch", file)
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
	if g.crowd {
		conf = append(conf, "server 10.84.0.0 255.255.192.0", "max-clients 12000")
	} else {
		conf = append(conf, "server 10.84.0.0 255.255.255.0")
	}
	args := []string{"openvpn"}
	if g.kind == postern {
		conf = append(conf, "control-socket "+dir+"/control.sock", "local 0.0.0.0 1194 udp", "local 0.0.0.0 1194 tcp-server")
		args = []string{g.b.postern, "serve"}
	} else {
		conf = append(conf, "proto udp", "connect-freq-initial 100000 10") // else it answers ten a second
	}
	g.conf = filepath.Join(dir, "server.conf")
	if err := os.WriteFile(g.conf, []byte(strings.Join(conf, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return g.launch(args)
}

func (g *gateway) launch(args []string) error {
	g.logs++
	var err error
	if g.server, err = g.lab.Host("router").Start(fmt.Sprintf("server%d.log", g.logs), append(args, "--config", g.conf)...); err != nil {
		return err
	}
	// Both have their device when they serve.
	return lab.Until(20*time.Second, func() error {
		_, err := g.lab.Host("router").Run(context.Background(), "ip", "-4", "addr", "show", "dev", "tun0", "scope", "global")
		select {
		case <-g.server.Done():
			return lab.Hopeless(fmt.Errorf("the server ended: %s", g.server.Output()))
		default:
			return err
		}
	})
}

// again starts the server anew, so that nothing of former sessions is left in it.
func (g *gateway) again() error {
	if err := g.server.Stop(); err != nil && !strings.Contains(err.Error(), "signal") {
		return err
	}
	args := []string{"openvpn"}
	if g.kind == postern {
		args = []string{g.b.postern, "serve"}
	}
	return g.launch(args)
}

// merge has the router's outer interface merge datagrams as they come in, as good hardware does, or not.
func (g *gateway) merge(on bool) error {
	word, timeout, defer_ := "off", "0", "0"
	if on {
		word, timeout, defer_ = "on", "50000", "2"
	}
	ctx := context.Background()
	router := g.lab.Host("router")
	if _, err := router.Run(ctx, "ethtool", "-K", "eth0", "gro", word, "rx-udp-gro-forwarding", word); err != nil {
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
		if _, err := router.Run(ctx, "sh", "-c", "echo "+value+" > /sys/class/net/eth0/"+file); err != nil {
			return err
		}
	}
	return nil
}

var errNothing = errors.New("nothing was moved")
