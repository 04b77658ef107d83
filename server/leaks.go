package server

import (
	"fmt"
	"net/netip"
	"slices"

	"postern/server/config"
	"postern/tlsctl"
)

// Where a kind of traffic goes while a client is connected.
const (
	InTunnel = "tunnel"
	Blocked  = "blocked" // nowhere
	Leaks    = "leaks"   // past the tunnel, though the tunnel is to take everything
	Outside  = "outside" // past the tunnel, as in a split tunnel is meant
)

// A PlatformPath says where clients of one system send what people expect a VPN to carry.
type PlatformPath struct {
	Platform string   `json:"platform"`
	DNS      string   `json:"dns"`
	IPv6     string   `json:"ipv6"`
	Local    string   `json:"local_networks"`
	Why      []string `json:"why,omitempty"` // of each leak, and what to do
}

// A platform is a system with the client that most people have there.
type platform struct {
	name   string
	peer   string // what that client says about itself
	script bool   // somebody has seen to it that pushed name servers are used
}

var platforms = []platform{
	{name: "Windows", peer: "IV_VER=2.6.14\nIV_PLAT=win\nIV_PROTO=990\nIV_MTU=1600\n"},
	{name: "macOS", peer: "IV_VER=2.6.14\nIV_PLAT=mac\nIV_PROTO=990\nIV_MTU=1600\n"},
	{name: "Linux, DNS script", peer: "IV_VER=2.6.14\nIV_PLAT=linux\nIV_PROTO=990\nIV_MTU=1600\n", script: true},
	{name: "Linux, no DNS script", peer: "IV_VER=2.6.14\nIV_PLAT=linux\nIV_PROTO=990\nIV_MTU=1600\n"},
	{name: "Linux, OpenVPN 2.7", peer: "IV_VER=2.7.0\nIV_PLAT=linux\nIV_PROTO=8094\nIV_MTU=1600\n"},
	{name: "Android", peer: "IV_VER=3.11.3\nIV_PLAT=android\nIV_PROTO=8094\nIV_MTU=1600\n"},
	{name: "iOS", peer: "IV_VER=3.11.3\nIV_PLAT=ios\nIV_PROTO=8094\nIV_MTU=1600\n"},
}

// Paths tells, for each platform, where a client without a file of its own sends its names, its IPv6 and the traffic for
// its local networks, by what the configuration pushes to it. full reports whether the tunnel is to take everything;
// then all that goes past it is a leak.
//
// What a client's own network does to it is not seen here: whoever runs that can draw single addresses out of a tunnel by
// routes of his (TunnelVision), and no push prevents it (S081).
func Paths(cfg *config.Config) (list []PlatformPath, full bool) {
	a := Addresses{V4: cfg.Pool4.First, V6: cfg.Pool6.First}
	if cfg.Topology == config.Net30 && a.V4.IsValid() {
		a.Peer4 = a.V4 // which one does not matter
	}
	for _, p := range platforms {
		l := compilePush(cfg, &config.Client{}, a, tlsctl.ParsePeerInfo(p.peer))
		path, f := l.path(&p)
		list, full = append(list, path), full || f
	}
	return list, full
}

func (l *pushList) path(p *platform) (path PlatformPath, full bool) {
	c := l.coverage()
	full = c.all4 || c.all6
	path = PlatformPath{Platform: p.name, Local: Outside}
	if c.blockLocal {
		path.Local = Blocked
	}
	if !full {
		path.IPv6 = Outside
		path.DNS = l.splitDNS(&c, p, &path)
		return path, full
	}
	path.DNS = l.fullDNS(&c, p, &path)
	path.IPv6 = l.fullIPv6(&c, &path)
	for _, net := range c.around {
		path.Why = append(path.Why, fmt.Sprintf("what goes to %v goes past the tunnel: it is pushed with net_gateway", net))
	}
	return path, full
}

// applies reports whether the client uses pushed name servers.
func (l *pushList) applies(p *platform) bool { return p.script || l.to.usesDNS() }

const noScript = "OpenVPN up to 2.6 leaves the name server as it is: use NetworkManager, a script such as update-resolv-conf, or OpenVPN 2.7"

func (l *pushList) splitDNS(c *coverage, p *platform, path *PlatformPath) string {
	servers := l.nameServers()
	if len(servers) == 0 {
		return Outside
	}
	if !l.applies(p) {
		path.Why = append(path.Why, noScript)
		return Outside
	}
	for _, s := range servers {
		if !l.reaches(c, s) {
			path.Why = append(path.Why, fmt.Sprintf("the name server %v is not behind the tunnel: push a route to it", s))
			return Outside
		}
	}
	return InTunnel
}

func (l *pushList) fullDNS(c *coverage, p *platform, path *PlatformPath) string {
	why := func(text string) string {
		path.Why = append(path.Why, text)
		return Leaks
	}
	servers := l.nameServers()
	switch {
	case len(servers) == 0:
		return why(`no name server is pushed, so the one of the local network is asked for every name: push "dhcp-option DNS ADDRESS"`)
	case !l.applies(p):
		return why(noScript)
	case l.to.platform == "win" && l.find("block-outside-dns") < 0:
		return why("Windows asks the name servers of all networks at once: push block-outside-dns, or write leak-guard yes")
	}
	for _, s := range servers {
		if slices.ContainsFunc(c.around, func(n netip.Prefix) bool { return n.Contains(s) }) || s.Is4() && !c.all4 && !l.reaches(c, s) || s.Is6() && !c.all6 && !l.reaches(c, s) {
			return why(fmt.Sprintf("the name server %v is asked past the tunnel", s))
		}
	}
	return InTunnel
}

func (l *pushList) fullIPv6(c *coverage, path *PlatformPath) string {
	address, block := l.find("ifconfig-ipv6") >= 0, l.find("block-ipv6") >= 0
	switch {
	case block && (l.to.core3 || c.all6):
		return Blocked
	case c.all6 && address:
		return InTunnel
	case c.all6:
		path.Why = append(path.Why, "IPv6 is led into the tunnel, where the client has no IPv6 address: add server-ipv6, or push block-ipv6")
	case block:
		path.Why = append(path.Why, `block-ipv6 stops only what is led into the tunnel: push "redirect-gateway def1 ipv6", or write leak-guard yes`)
	default:
		path.Why = append(path.Why, `IPv6 goes past the tunnel: push "redirect-gateway def1 ipv6", or write leak-guard yes`)
	}
	return Leaks
}

// nameServers are the addresses of the name servers in a list, in either language.
func (l *pushList) nameServers() (list []netip.Addr) {
	for i := range l.options {
		o := &l.options[i]
		var words []string
		switch {
		case isDHCPAddress(o):
			words = o.words[2:]
		case isDNSServer(o) && o.arg(2) == "address":
			words = o.words[4:]
		}
		for _, w := range words {
			if a, err := netip.ParseAddr(w); err == nil {
				list = append(list, a)
			} else if p, err := netip.ParseAddrPort(w); err == nil {
				list = append(list, p.Addr())
			}
		}
	}
	return list
}

// reaches reports whether an address is behind the tunnel by routes, or is in the server's network.
func (l *pushList) reaches(c *coverage, a netip.Addr) bool {
	return slices.ContainsFunc(append(slices.Clone(c.nets), l.cfg.Addr4.Masked(), l.cfg.Addr6.Masked()), func(n netip.Prefix) bool { return n.Contains(a) })
}
