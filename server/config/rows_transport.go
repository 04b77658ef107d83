package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
)

var transportRows = []row{
	use("mode", "server", "What this program is: a server. Implied by `server` and `server-ipv6`.", setMode),
	use("server", "NET MASK [nopool]", "The IPv4 network inside the tunnel, /16 to /29. The server takes its first address, clients get the others; `nopool` leaves the pool out.", setServer),
	use("server-ipv6", "NET/BITS", "The IPv6 network inside the tunnel, /64 to /124. The server takes the first address; the pool starts at NET+1000 (hexadecimal), from /112 on at NET+2.", setServer6),
	use("server-bridge", "[IP|nogw] [MASK START END]", "With a tap device that is made part of a bridge, by an `up` script or by hand: clients get addresses from START to END in the bridge's network, and its address IP as their gateway. Without addresses they ask the network's DHCP server, which with `nogw` is to give no gateway.", setServerBridge),
	use("proto", "udp|udp4|udp6|tcp|tcp4|tcp6|tcp-server|tcp4-server|tcp6-server", "The transport; default udp. Without a 6 it is IPv4 unless `local` names an IPv6 address; with a 6 the socket takes both families unless `bind ipv6only`.", setProto),
	use("local", "ADDRESS|* [PORT [PROTO]]", "The address to listen on; default all. Several lines make several sockets, each with its own port and transport. Names are not looked up.", addLocal).each(),
	use("port", "N", "The port to listen on; default 1194.", setPort),
	use("lport", "N", "Same as `port`.", setPort).as("port"),
	accept("rport", "N", "clients only: a server answers where packets came from"),
	use("bind", "[ipv6only]", "`ipv6only` keeps IPv4 off a socket for IPv6.", setBind),
	refuse("nobind", "a server needs its port: remove the line"),
	use("multihome", "[same-interface]", "Over UDP answer from the address that was asked, where the socket has more than one; with `same-interface` also by the interface that the question came by. TCP always does.", setMultihome),
	use("bind-dev", "DEV", "Listen on this interface only, as with a VRF.", setBindDev),
	use("mark", "N", "The mark that packets to clients carry for the host's routing rules and firewall, 1 to 4294967295.", setMark),
	use("sndbuf", "BYTES", "The socket's send buffer; 0 leaves what Postern chooses.", count(0, 1<<30, func(c *Config) *int { return &c.SendBuf })),
	use("rcvbuf", "BYTES", "The socket's receive buffer; 0 leaves what Postern chooses.", count(0, 1<<30, func(c *Config) *int { return &c.RecvBuf })),
	use("socket-flags", "FLAG...", "Only TCP_NODELAY, which is always set.", checkSocketFlags),
	use("tcp-nodelay", "", "Pushes `socket-flags TCP_NODELAY`; the server's own streams always have it.", func(d *draft, _ *directive) error { d.pushNoDelay = true; return nil }),
	use("tcp-queue-limit", "PACKETS", "How many packets wait for a TCP client before more are dropped; default 64.", count(1, 65536, func(c *Config) *int { return &c.TCPQueue })),
	accept("bcast-buffers", "N", "there are no broadcasts on a tun device"),
	use("port-share", "HOST PORT [DIR]", "Over TCP hand connections that are not OpenVPN's to another service, what they said first included. In DIR a file for each is named after the connection's other end, as the service sees it, and holds the client's address.", setPortShare),
	use("mtu-disc", "no|maybe|yes", "What becomes of packets that are too large for the path to a client: `no` and `maybe` have them fragmented, `maybe` within what the kernel knows of the path; with `yes` they are dropped. Default the system's setting, on Linux maybe.", setMTUDisc),
	use("passtos", "", "Over UDP give outer packets the class (DSCP) of the packet inside.", switchOn(func(c *Config) *bool { return &c.PassTOS })),
	accept("proto-force", "udp|tcp", "clients only: picks among remotes"),
	accept("float", "", "clients that sent a peer id may always change their address, after a packet that authenticates"),
	refuse("remote", "a server has no remote: remove the line"),
	refuse("connection", "a server has no connection blocks: remove the block"),
	accept("remote-random", "", "clients only: picks among remotes"),
	accept("remote-random-hostname", "", "clients only: names of remotes"),
	accept("resolv-retry", "N|infinite", "clients only: names of remotes"),
	accept("preresolve", "", "clients only: names of remotes"),
	accept("ip-remote-hint", "ADDRESS", "clients only: names of remotes"),
	accept("connect-retry", "N [MAX]", "clients only: a server waits to be called"),
	accept("connect-retry-max", "N", "clients only: a server waits to be called"),
	accept("connect-timeout", "N", "clients only: a server waits to be called"),
	accept("server-poll-timeout", "N", "clients only: a server waits to be called"),
	refuse("http-proxy", "a server cannot be reached through a proxy it calls: remove the line"),
	refuse("http-proxy-option", "a server cannot be reached through a proxy it calls: remove the line"),
	refuse("http-proxy-user-pass", "a server cannot be reached through a proxy it calls: remove the block"),
	accept("http-proxy-retry", "", "it has no effect in OpenVPN either"),
	accept("http-proxy-timeout", "N", "clients only"),
	refuse("socks-proxy", "a server cannot be reached through a proxy it calls: remove the line"),
	accept("socks-proxy-retry", "", "it has no effect in OpenVPN either"),
}

// A local is one local line.
type local struct {
	from              *directive
	host, port, proto string
}

func setMode(d *draft, l *directive) error {
	if l.args[0] != "server" {
		return errors.New("only `mode server` is possible: Postern is a server for many clients")
	}
	d.serverMode = true
	return nil
}

var protos = []string{"udp", "udp4", "udp6", "tcp", "tcp4", "tcp6", "tcp-server", "tcp4-server", "tcp6-server"}

func setProto(d *draft, l *directive) error {
	if err := checkProto(l.args[0]); err != nil {
		return err
	}
	d.proto = l.args[0]
	return nil
}

func checkProto(proto string) error {
	if strings.HasSuffix(proto, "-client") {
		return fmt.Errorf("%s is for clients: write %s-server", proto, strings.TrimSuffix(proto, "-client"))
	}
	if !slices.Contains(protos, proto) {
		return fmt.Errorf("%q is no transport: write udp, udp6, tcp-server or tcp6-server", proto)
	}
	return nil
}

// services are the port names that are understood. /etc/services is not read: a configuration means the same on every
// machine.
var services = map[string]int{"openvpn": 1194, "https": 443, "http": 80, "domain": 53, "ntp": 123}

func parsePort(s string) (int, error) {
	if n, ok := services[s]; ok {
		return n, nil
	}
	n, err := number(s, 1, 65535)
	if err != nil {
		return 0, fmt.Errorf("Bad port number: %w", err)
	}
	return n, nil
}

func setPort(d *draft, l *directive) (err error) {
	n, err := parsePort(l.args[0])
	if err == nil {
		d.port = n
	}
	return err
}

func setBind(d *draft, l *directive) error {
	if err := choice("ipv6only")(d, l); err != nil {
		return err
	}
	d.v6only = l.arg(0) == "ipv6only"
	return nil
}

func setMultihome(d *draft, l *directive) error {
	d.cfg.Multihome, d.cfg.SameInterface = true, l.arg(0) == "same-interface"
	return choice("same-interface")(d, l)
}

func setBindDev(d *draft, l *directive) error {
	if err := checkDeviceName(l.args[0]); err != nil {
		return err
	}
	d.cfg.BindDev = l.args[0]
	return nil
}

func setMark(d *draft, l *directive) error {
	n, err := number(l.args[0], 1, math.MaxUint32)
	d.cfg.Mark = uint32(n)
	return err
}

func setMTUDisc(d *draft, l *directive) error {
	d.cfg.MTUDisc = l.args[0]
	return choice("no", "maybe", "yes")(d, l)
}

func setPortShare(d *draft, l *directive) error {
	port, err := parsePort(l.args[1])
	if err != nil {
		return err
	}
	if host := l.args[0]; host == "" || strings.ContainsAny(host, "/ []") {
		return fmt.Errorf("%q is no host: write a name or an address", host)
	}
	d.cfg.PortShare = PortShare{Host: l.args[0], Port: port, Dir: l.arg(2)}
	return nil
}

func checkSocketFlags(d *draft, l *directive) error {
	for _, f := range l.args {
		if f != "TCP_NODELAY" {
			return fmt.Errorf("unknown socket flag %q: only TCP_NODELAY", f)
		}
	}
	return nil
}

func addLocal(d *draft, l *directive) error {
	if p := l.arg(1); p != "" {
		if _, err := parsePort(p); err != nil {
			return err
		}
	}
	if p := l.arg(2); p != "" {
		if err := checkProto(p); err != nil {
			return err
		}
	}
	if _, err := hostAddr(l.args[0]); err != nil {
		return err
	}
	d.locals = append(d.locals, local{l, l.args[0], l.arg(1), l.arg(2)})
	return nil
}

// hostAddr reads an address to listen on; * is the zero Addr.
func hostAddr(host string) (netip.Addr, error) {
	if host == "*" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return a, fmt.Errorf("%q is not an address: names are not looked up, write the IPv4 or IPv6 address, or *", host)
	}
	return a, nil
}

// finishListen makes Listen of local, port, proto and bind.
func (d *draft) finishListen() {
	locals := d.locals
	if len(locals) == 0 {
		locals = []local{{host: "*"}}
	}
	for _, l := range locals {
		at, err := d.listenAt(l)
		switch {
		case l.from == nil:
		case err != nil:
			d.refuse(l.from, "%v", err)
			continue
		case slices.ContainsFunc(d.cfg.Listen, func(l Listen) bool { return l.Network == at.Network && l.Addr == at.Addr }):
			d.refuse(l.from, "another local line listens there already: give one of them another port or transport")
			continue
		}
		d.cfg.Listen = append(d.cfg.Listen, at)
	}
}

func (d *draft) listenAt(l local) (Listen, error) {
	port, proto := d.port, d.proto
	if l.port != "" {
		port, _ = parsePort(l.port)
	}
	if l.proto != "" {
		proto = l.proto
	}
	addr, _ := hostAddr(l.host)
	four, six := strings.Contains(proto, "4"), strings.Contains(proto, "6")
	switch {
	case !addr.IsValid() && six:
		addr = netip.IPv6Unspecified()
	case !addr.IsValid():
		addr = netip.IPv4Unspecified()
	case addr.Is4() && six || addr.Is6() && four:
		return Listen{}, fmt.Errorf("%s and the transport %s are of different address families", addr, proto)
	}
	at := Listen{Network: proto[:3], Proto: proto, Addr: netip.AddrPortFrom(addr, uint16(port))}
	if at.Network == "tcp" && !strings.HasSuffix(proto, "-server") {
		at.Proto += "-server"
	}
	at.V6Only = addr.Is6() && d.v6only
	at.Any4 = addr == netip.IPv4Unspecified()
	return at, nil
}

// overUDP and overTCP report whether any socket is of that kind.
func (d *draft) overUDP() bool { return d.listens("udp") }
func (d *draft) overTCP() bool { return d.listens("tcp") }

func (d *draft) listens(network string) bool {
	return slices.ContainsFunc(d.cfg.Listen, func(l Listen) bool { return l.Network == network })
}
