package hooks

import (
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Daemon is what every script is told about the server. It is not changed once it was handed over.
type Daemon struct {
	Config      string // path of the configuration file as it was given
	PID         int
	Started     time.Time
	Verb        int
	Background  bool // daemon
	LogRedirect bool // log or log-append
	Listeners   []Listener

	Dev     string // name of the device
	DevType string // "tun" or "tap"
	MTU     int

	Local4  netip.Prefix // the server's own address inside, and its network's length
	Remote4 netip.Addr   // the other end in net30 and p2p, told in place of the netmask
	Local6  netip.Prefix
	Remote6 netip.Addr

	Routes          []Route    // of the server itself: the directives route and route-ipv6
	VPNGateway      netip.Addr // where routes without a gateway of their own lead; told when there are routes
	NetGateway      netip.Addr // the host's default gateway, 0.0.0.0 without one; told when there are routes
	NetGateway6     netip.Addr // the same for IPv6, told when there are IPv6 routes and one
	RedirectGateway bool

	SetEnv [][2]string // setenv of the configuration, in order; these names pass as they are
}

// A Listener is one pair of protocol and port.
type Listener struct {
	Proto      string     // "udp", "tcp-server", ...: as the configuration says
	Local      netip.Addr // told when the configuration names one
	Port       uint16
	RemotePort uint16
}

// A Route leads into the tunnel on the server's side.
type Route struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
	Metric  int // told when it is not 0
}

// A CertInfo is one certificate of a client's chain, as scripts see it.
type CertInfo struct {
	Subject string // "C=DE, O=Lab Org, CN=client1"
	Fields  []Var  // its parts, as X509_n_NAME
	Serial  *big.Int
	SHA1    [20]byte
	SHA256  [32]byte
	DER     []byte // for tls-export-cert; else unused
}

// ClientInfo is what is known of a client so far; what is not known yet is left zero, and scripts are not told it.
//
// From tls-verify on: Chain, Untrusted and, when the client's own certificate is looked at, CommonName. From
// auth-user-pass-verify on: Username, Peer and the token's session. From client-crresponse on: Trusted. From
// client-connect on: Since and the addresses. It is not changed while a call uses it.
type ClientInfo struct {
	Chain      []CertInfo // verified; the client's own certificate first
	CommonName string     // the user name, with username-as-common-name, once that is decided
	Username   string
	Untrusted  netip.AddrPort // where it comes from
	Trusted    netip.AddrPort // the same, once it has logged in
	Peer       []Var          // what it says about itself; names other than IV_ and UV_ are dropped

	SessionID    string // with auth-gen-token
	SessionState string // Initial, Authenticated, ...

	Since time.Time // when it has connected

	Remote4  netip.Addr // the address it is given
	Netmask4 netip.Addr // of the network, in subnet topology
	Local4   netip.Addr // the server's end, in net30 topology
	Remote6  netip.Addr
	Local6   netip.Addr
	Netbits6 int
}

// Environment is what a script is told of the server and, if c is not nil, of a client: all that does not depend on
// the hook. The management interface tells the same.
func Environment(d *Daemon, c *ClientInfo) Env {
	e := d.environment()
	if c != nil {
		e.addClient(c, 0)
	}
	return e
}

// environment sets the configuration's variables first: they cannot hide what the hook defines.
func (d *Daemon) environment() Env {
	e := make(Env, 0, 80)
	for _, v := range d.SetEnv {
		if goodName(v[0]) {
			e.set(v[0], v[1])
		}
	}
	e.set("daemon", flag(d.Background))
	e.set("daemon_log_redirect", flag(d.LogRedirect))
	e.set("daemon_start_time", strconv.FormatInt(d.Started.Unix(), 10))
	e.setInt("daemon_pid", d.PID)
	e.setInt("verb", d.Verb)
	e.set("config", d.Config)
	for i, l := range d.Listeners {
		n := strconv.Itoa(i + 1)
		e.set("proto_"+n, l.Proto)
		e.setAddr("local_"+n, l.Local)
		e.setInt("local_port_"+n, int(l.Port))
		e.setInt("remote_port_"+n, int(l.RemotePort))
	}
	e.set("dev", d.Dev)
	e.set("dev_type", d.DevType)
	e.setInt("tun_mtu", d.MTU)
	if d.Local4.IsValid() {
		e.setAddr("ifconfig_local", d.Local4.Addr())
		if d.Remote4.IsValid() {
			e.setAddr("ifconfig_remote", d.Remote4)
		} else {
			e.set("ifconfig_netmask", netmask(d.Local4))
		}
	}
	if d.Local6.IsValid() {
		e.setAddr("ifconfig_ipv6_local", d.Local6.Addr())
		e.setInt("ifconfig_ipv6_netbits", d.Local6.Bits())
		e.setAddr("ifconfig_ipv6_remote", d.Remote6)
	}
	d.addRoutes(&e)
	e.set("script_context", "init")
	return e
}

func (d *Daemon) addRoutes(e *Env) {
	if len(d.Routes) == 0 {
		return
	}
	e.setAddr("route_vpn_gateway", d.VPNGateway)
	e.setAddr("route_net_gateway", d.NetGateway)
	if slices.ContainsFunc(d.Routes, func(r Route) bool { return r.Prefix.Addr().Is6() }) {
		e.setAddr("net_gateway_ipv6", d.NetGateway6)
	}
	n4, n6 := 0, 0
	for _, r := range d.Routes {
		if r.Prefix.Addr().Is4() {
			n4++
			n := strconv.Itoa(n4)
			e.setAddr("route_network_"+n, r.Prefix.Addr())
			e.set("route_netmask_"+n, netmask(r.Prefix))
			e.setAddr("route_gateway_"+n, r.Gateway)
			if r.Metric != 0 {
				e.setInt("route_metric_"+n, r.Metric)
			}
			continue
		}
		n6++
		n := strconv.Itoa(n6)
		e.set("route_ipv6_network_"+n, r.Prefix.String())
		e.setAddr("route_ipv6_gateway_"+n, r.Gateway)
		if r.Metric != 0 {
			e.setInt("route_ipv6_metric_"+n, r.Metric)
		}
	}
}

// addClient adds what is known of a client, with the certificates of its chain from depth on.
func (e *Env) addClient(c *ClientInfo, depth int) {
	for i := len(c.Chain) - 1; i >= depth; i-- {
		c.Chain[i].addTo(e, i)
	}
	e.setSource("untrusted", c.Untrusted)
	if depth > 0 {
		return
	}
	if c.CommonName != "" {
		e.set("common_name", c.CommonName)
	}
	if c.Username != "" {
		e.set("username", c.Username)
	}
	for _, v := range c.Peer {
		if peerName(v.Name) {
			e.set(v.Name, v.Value)
		}
	}
	if c.SessionID != "" {
		e.set("session_id", c.SessionID)
		e.set("session_state", c.SessionState)
	}
	e.setSource("trusted", c.Trusted)
	if !c.Since.IsZero() {
		e.set("time_ascii", c.Since.Format(time.DateTime))
		e.set("time_unix", strconv.FormatInt(c.Since.Unix(), 10))
	}
	e.setAddr("ifconfig_pool_remote_ip", c.Remote4)
	e.setAddr("ifconfig_pool_netmask", c.Netmask4)
	e.setAddr("ifconfig_pool_local_ip", c.Local4)
	if c.Remote6.IsValid() {
		e.setAddr("ifconfig_pool_remote_ip6", c.Remote6)
		e.setAddr("ifconfig_pool_local_ip6", c.Local6)
		e.setInt("ifconfig_pool_ip6_netbits", c.Netbits6)
	}
}

func (c *CertInfo) addTo(e *Env, depth int) {
	n := strconv.Itoa(depth)
	e.set("tls_id_"+n, c.Subject)
	e.set("tls_digest_"+n, colons(c.SHA1[:]))
	e.set("tls_digest_sha256_"+n, colons(c.SHA256[:]))
	if c.Serial != nil {
		e.set("tls_serial_"+n, c.Serial.String())
		e.set("tls_serial_hex_"+n, colons(c.Serial.Bytes()))
	}
	prefix := "X509_" + n + "_"
	for _, f := range c.Fields {
		name := prefix + fieldName(f.Name)
		for again := 1; ; again++ { // a repeated field gets _1, _2, ...
			if _, taken := e.Get(name); !taken {
				break
			}
			name = fmt.Sprintf("%s%s_%d", prefix, fieldName(f.Name), again)
		}
		e.set(name, f.Value)
	}
}

// fieldName is a name that a variable can end with; the dots of an object identifier cannot.
func fieldName(s string) string {
	b := []byte(s)
	for i, c := range b {
		if !(c == '_' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9') {
			b[i] = '_'
		}
	}
	return string(b)
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func netmask(p netip.Prefix) string { return net.IP(net.CIDRMask(p.Bits(), 32)).String() }

// colons writes bytes as 0a:1b:2c.
func colons(b []byte) string {
	const hex = "0123456789abcdef"
	if len(b) == 0 {
		return "00"
	}
	s := make([]byte, 0, 3*len(b))
	for i, c := range b {
		if i > 0 {
			s = append(s, ':')
		}
		s = append(s, hex[c>>4], hex[c&15])
	}
	return string(s)
}
