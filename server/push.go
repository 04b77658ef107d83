package server

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"postern/server/config"
	"postern/tlsctl"
)

// Addresses are what a client has inside the tunnel. Those that it has not are zero.
type Addresses struct {
	V4, V6 netip.Addr
	Peer4  netip.Addr // the server's end of V4, in topology net30
}

// PushList compiles what a client is pushed, in order: what the configuration and its client file push, and its
// addresses, in the form that the client takes by what it says about itself. What the session adds by itself is not
// among it.
func PushList(cfg *config.Config, set *config.Client, a Addresses, peer tlsctl.PeerInfo) []string {
	l := compilePush(cfg, set, a, peer)
	texts := make([]string, len(l.options))
	for i, o := range l.options {
		texts[i] = o.text
	}
	return texts
}

func compilePush(cfg *config.Config, set *config.Client, a Addresses, peer tlsctl.PeerInfo) *pushList {
	l := &pushList{cfg: cfg, to: newPushTarget(peer)}
	for _, text := range set.Pushes(cfg.Push) {
		l.add(text)
	}
	l.addAddresses(set, a)
	l.leaveOut()
	l.suitTopology()
	l.suitRoutes()
	l.guard()
	l.suitDNS()
	return l
}

// A pushTarget is what a client's version and system take. All of it is claimed only: it decides how things are said
// to the client, nothing else.
type pushTarget struct {
	core3    bool // OpenVPN 3 and what is built on it
	release  tlsctl.Release
	platform string // "" if it does not say
	dns      bool   // takes dns options in place of dhcp-option DNS
}

func newPushTarget(peer tlsctl.PeerInfo) pushTarget {
	r := peer.Release()
	return pushTarget{core3: r.Major >= 3, release: r, platform: peer.Platform(), dns: peer.Can(tlsctl.FeatureDNS)}
}

// since reports whether the client is OpenVPN 3, or an OpenVPN 2 of at least 2.minor.
func (t *pushTarget) since(minor int) bool {
	return t.core3 || t.release.Compare(tlsctl.Release{Major: 2, Minor: minor}) >= 0
}

// A pushOption is one option, as it goes on the wire and in words.
type pushOption struct {
	text  string
	words []string // never empty
}

func (o *pushOption) name() string { return o.words[0] }

// arg is a word behind the name, "" when there are not so many.
func (o *pushOption) arg(i int) string {
	if i+1 < len(o.words) {
		return o.words[i+1]
	}
	return ""
}

// A pushList is what one client is to be pushed, in the making.
type pushList struct {
	cfg     *config.Config
	to      pushTarget
	options []pushOption
}

func parsePush(text string) pushOption {
	words, err := config.Words(text)
	if err != nil || len(words) == 0 {
		words = []string{text} // nothing below knows it
	}
	return pushOption{text, words}
}

func (l *pushList) add(text string) { l.options = append(l.options, parsePush(text)) }

// insert puts options before the one at i.
func (l *pushList) insert(i int, texts ...string) {
	var more []pushOption
	for _, t := range texts {
		more = append(more, parsePush(t))
	}
	l.options = slices.Insert(l.options, i, more...)
}

// find returns where the first option of a name is, -1 when there is none.
func (l *pushList) find(name string) int {
	return slices.IndexFunc(l.options, func(o pushOption) bool { return o.name() == name })
}

func (l *pushList) remove(unwanted func(o *pushOption) bool) {
	l.options = slices.DeleteFunc(l.options, func(o pushOption) bool { return unwanted(&o) })
}

// addAddresses adds the client's own addresses, IPv6 first, unless its file suppresses them.
func (l *pushList) addAddresses(set *config.Client, a Addresses) {
	cfg := l.cfg
	if a.V6.IsValid() && !removed(set, "ifconfig-ipv6") {
		bits, gw := cfg.Pool6Bits, cfg.Addr6.Addr()
		if p := set.IfconfigPush6; p.IsValid() {
			bits = p.Bits()
			if set.Gateway6.IsValid() {
				gw = set.Gateway6
			}
		}
		l.add(fmt.Sprintf("ifconfig-ipv6 %v/%d %v", a.V6, bits, gw))
	}
	if a.V4.IsValid() && !removed(set, "ifconfig") {
		second := set.IfconfigMask
		switch {
		case set.IfconfigPush4.IsValid():
		case cfg.Topology == config.Net30:
			second = a.Peer4
		case cfg.Topology == config.P2P:
			second = cfg.Addr4.Addr()
		default:
			second = maskOf(cfg.Addr4)
		}
		own := a.V4
		if set.Alias4.IsValid() {
			own = set.Alias4
		}
		l.add(fmt.Sprintf("ifconfig %v %v", own, second))
	}
}

// removed reports whether a client file suppresses the address itself.
func removed(set *config.Client, what string) bool {
	return slices.ContainsFunc(set.PushRemove, func(r config.PushRemove) bool { return r.Prefix == what })
}

// leaveOut takes out what would be of no use to the client, or would harm it.
func (l *pushList) leaveOut() {
	windows := l.to.platform == "win" || l.to.platform == ""
	l.remove(func(o *pushOption) bool {
		switch o.name() {
		case "block-outside-dns":
			return !windows
		case "block-ipv4": // no OpenVPN 2 knows it
			return !l.to.core3
		case "tun-mtu": // the session pushes the server's to all that take one
			return true
		}
		return false
	})
}

// suitTopology turns p2p into subnet where p2p ends the connection (OpenVPN 3) or is not to be had (Windows). For the
// server, which carries packets for one address, both are the same.
func (l *pushList) suitTopology() {
	if !l.to.core3 && l.to.platform != "win" {
		return
	}
	at := slices.IndexFunc(l.options, func(o pushOption) bool { return o.name() == "topology" && o.arg(0) == "p2p" })
	if at < 0 {
		return
	}
	l.options[at] = parsePush("topology subnet")
	if own := l.find("ifconfig"); own >= 0 {
		if a, err := netip.ParseAddr(l.options[own].arg(0)); err == nil {
			l.options[own] = parsePush(fmt.Sprintf("ifconfig %v %v", a, maskOf(netip.PrefixFrom(a, commonBits(l.cfg.Addr4, a)))))
		}
	}
	if l.find("route-gateway") < 0 && l.cfg.Addr4.IsValid() {
		l.insert(at, "route-gateway "+l.cfg.Addr4.Addr().String())
	}
}

// commonBits is the length of a network that holds both the server's address and a client's.
func commonBits(server netip.Prefix, a netip.Addr) int {
	if server.Contains(a) {
		return server.Bits()
	}
	bits := 30
	for bits > 1 && !netip.PrefixFrom(server.Addr(), bits).Contains(a) {
		bits--
	}
	return bits
}

// suitRoutes writes routes so that OpenVPN 3 takes them: it leaves out those with bits behind the mask, or with a
// gateway that is an address.
func (l *pushList) suitRoutes() {
	if !l.to.core3 {
		return
	}
	gateway := ""
	if i := l.find("route-gateway"); i >= 0 {
		gateway = l.options[i].arg(0)
	}
	for i := range l.options {
		o := &l.options[i]
		words := slices.Clone(o.words)
		at := 0 // where the gateway stands
		switch {
		case o.name() == "route" && len(words) > 2:
			at = 3
			if net, ok := config.PushedRoute(o.text); ok {
				words[1], words[2] = net.Masked().Addr().String(), maskOf(net).String()
			}
		case o.name() == "route-ipv6" && len(words) > 1:
			at = 2
			if net, ok := config.PushedRoute(o.text); ok {
				words[1] = net.Masked().String()
			}
		default:
			continue
		}
		if at < len(words) {
			switch words[at] {
			case gateway, "default", l.cfg.Addr4.Addr().String(), l.cfg.Addr6.Addr().String():
				words[at] = "vpn_gateway"
			}
		}
		if !slices.Equal(words, o.words) {
			*o = pushOption{strings.Join(words, " "), words}
		}
	}
}
