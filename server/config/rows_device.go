package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

var deviceRows = []row{
	use("dev", "tun|tunN|tap|tapN|NAME", "The TUN device, for IP packets, or the TAP device, for Ethernet frames; without a number it takes the next free one. Another name needs `dev-type`.", setDev),
	use("dev-type", "tun|tap", "What kind of device `dev` names.", setDevType),
	use("dev-node", "PATH", "Ignored: the device file is always /dev/net/tun.", checkDevNode),
	use("topology", "subnet|net30|p2p", "How clients are addressed: all in one network; four addresses for each; one for each, and the server as its other end. Default subnet, as in OpenVPN 2.7 (older versions: net30).", setTopology),
	use("ifconfig", "ADDRESS MASK|PEER", "The server's own IPv4 address, where no `server` line gives it: with the network's mask, or in net30 and p2p the other end's address.", setIfconfig),
	use("ifconfig-ipv6", "ADDRESS/BITS GATEWAY", "The server's own IPv6 address, where no `server-ipv6` line gives it.", setIfconfig6),
	use("ifconfig-noexec", "", "Leave the device's addresses to someone else.", switchOn(func(c *Config) *bool { return &c.NoIfconfig })),
	accept("ifconfig-nowarn", "", "the warning it silences does not exist here"),
	use("tun-mtu", "N [OCC]", "The device's MTU, 68 to 65535; default 1500. Pushed to clients that understand it.", count(68, 65535, func(c *Config) *int { return &c.MTU })),
	accept("tun-mtu-max", "N", "buffers hold whatever a packet can be"),
	accept("tun-mtu-extra", "N", "there is no extra room on a tun device"),
	accept("link-mtu", "N", "it only appears in a consistency check that clients no longer act on"),
	accept("udp-mtu", "N", "it only appears in a consistency check that clients no longer act on"),
	use("mssfix", "[N [mtu|fixed]]", "Lower TCP's segment size so that encrypted packets have at most N bytes: of UDP payload, with `mtu` of the whole outer packet, with `fixed` inside. Default 1450, as in OpenVPN up to 2.5, or with another tun-mtu that value fixed; 0 switches it off.", setMSSFix),
	refuse("fragment", "remove the line, also in profiles: fragments of datagrams are not supported, and `mssfix` keeps packets small enough"),
	accept("mtu-test", "", "clients start such tests, and are answered"),
	use("max-packet-size", "N", "The largest control packet with its IP and UDP headers, 154 to 2048; default 1250. Without `mssfix` it also sets that, as `mtu`.", setMaxPacket),
	refuse("mtu-dynamic", "OpenVPN has removed it: remove the line"),
	use("txqueuelen", "PACKETS", "The device's queue length; default the kernel's.", count(1, 1<<20, func(c *Config) *int { return &c.TxQueue })),
	refuse("shaper", "not possible in a server: remove the line, and shape the device with tc"),
	use("lladdr", "MAC", "The hardware address of a tap device.", setLLAddr),
	accept("iproute", "PROGRAM", "addresses and routes are set without an external program"),
	accept("persist-tun", "", "the device stays open through every reload"),
	accept("persist-key", "", "a reload that fails keeps the keys that are in use"),
	accept("persist-local-ip", "", "the listening addresses are those of the configuration"),
	accept("persist-remote-ip", "", "clients only"),
	accept("tun-ipv6", "", "IPv6 needs no switch since OpenVPN 2.4"),
	use("block-ipv6", "", "Answer IPv6 packets of clients with an error instead of forwarding them, so that their programs take IPv4 at once.", switchOn(func(c *Config) *bool { return &c.BlockIPv6 })),
	accept("disable-dco", "", "there is no kernel data path to switch off"),
	accept("client-nat", "snat|dnat NET MASK ALIAS", "clients only"),
	refuse("allow-recursive-routing", "not possible in a server: remove the line"),
	later("vlan-tagging", "", "remove the line: clients are all in one network, whose frames keep the tags they have"),
	later("vlan-accept", "all|tagged|untagged", "remove the line: clients are all in one network, whose frames keep the tags they have"),
	later("vlan-pvid", "N", "remove the line: clients are all in one network, whose frames keep the tags they have"),
	accept("windows-driver", "NAME", "Windows only"),
	accept("win-sys", "PATH|env", "Windows only"),
	accept("ip-win32", "...", "Windows only"),
	accept("tap-sleep", "N", "Windows only"),
	accept("dhcp-renew", "", "Windows only"),
	accept("dhcp-release", "", "Windows only"),
	accept("dhcp-pre-release", "", "Windows only"),
	accept("dhcp-internal", "...", "Windows only"),
	accept("dhcp-option", "...", "it acts where it stands; to reach clients write `push \"dhcp-option ...\"`"),
	accept("register-dns", "", "Windows only"),
	accept("block-outside-dns", "", "Windows only; to reach clients write `push block-outside-dns`"),
	accept("rdns-internal", "", "Windows only"),
	accept("show-net-up", "", "Windows only"),
	accept("pause-exit", "", "Windows only"),
	accept("service", "...", "Windows only"),
	accept("allow-nonadmin", "[NAME]", "Windows only"),
}

func setDev(d *draft, l *directive) error {
	name := l.args[0]
	switch {
	case name == "null":
		return errors.New("a server needs a device: write `dev tun`")
	}
	if err := checkDeviceName(name); err != nil {
		return err
	}
	d.cfg.Dev = name
	return nil
}

func checkDeviceName(name string) error {
	if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t:%") || name == "." || name == ".." {
		return fmt.Errorf("%q cannot be the name of a network device: at most 15 bytes, without / and blanks", name)
	}
	return nil
}

func setDevType(d *draft, l *directive) error {
	if kind := l.args[0]; kind != "tun" && kind != "tap" {
		return fmt.Errorf("%q is no kind of device: write tun or tap", kind)
	}
	d.devType = l.args[0]
	return nil
}

func setLLAddr(d *draft, l *directive) error {
	a, err := net.ParseMAC(l.args[0])
	if err != nil || len(a) != 6 || a[0]&1 != 0 {
		return fmt.Errorf("%q is not the hardware address of one device, such as 02:00:5e:10:00:01", l.args[0])
	}
	d.cfg.LLAddr = a
	return nil
}

func checkDevNode(d *draft, l *directive) error {
	if strings.HasPrefix(l.args[0], "unix:") {
		return errors.New("a device behind a socket is not supported: remove the line")
	}
	d.ignore(l, "the device file is always /dev/net/tun, which leads to the same driver")
	return nil
}

func setTopology(d *draft, l *directive) error {
	switch l.args[0] {
	case "subnet":
		d.cfg.Topology = Subnet
	case "net30":
		d.cfg.Topology = Net30
	case "p2p":
		d.cfg.Topology = P2P
	default:
		return fmt.Errorf("%q is no topology: write subnet, which every client since OpenVPN 2.1 understands, or net30 or p2p", l.args[0])
	}
	return nil
}

// setIfconfig remembers the line; what its second word means is known with the topology.
func setIfconfig(d *draft, l *directive) error {
	if _, err := ipv4(l.args[0]); err != nil {
		return err
	}
	_, err := ipv4(l.args[1])
	return err
}

// finishIfconfig takes the server's own address from an ifconfig line, if there is one and no macro.
func (d *draft) finishIfconfig() {
	l := d.last["ifconfig"]
	if l == nil || l.entry.Verdict == Refused || d.server.IsValid() {
		return
	}
	if err := d.takeIfconfig(l); err != nil {
		d.refuse(l, "%v", err)
	}
}

func (d *draft) takeIfconfig(l *directive) error {
	if d.cfg.Topology != Subnet {
		own, peer := netip.MustParseAddr(l.args[0]), netip.MustParseAddr(l.args[1])
		if peer.As4()[0] == 255 {
			return fmt.Errorf("%s is a mask, and topology %s wants the address of the other end", peer, d.cfg.Topology)
		}
		if own == peer {
			return errors.New("both ends have one address")
		}
		d.cfg.Addr4, d.cfg.Peer4 = netip.PrefixFrom(own, 32), peer
		return nil
	}
	p, err := network4(l.args[0], l.args[1])
	if err != nil {
		return err
	}
	if p.Addr() == p.Masked().Addr() || p.Addr() == last4(p) {
		return fmt.Errorf("%s is the network's own or its broadcast address: take one between", p.Addr())
	}
	d.cfg.Addr4 = p
	return nil
}

func setIfconfig6(d *draft, l *directive) error {
	p, err := network6(l.args[0])
	if err != nil {
		return err
	}
	if _, err := ipv6(l.args[1]); err != nil {
		return err
	}
	d.cfg.Addr6, d.cfg.Pool6Bits = p, p.Bits()
	return nil
}

func setMSSFix(d *draft, l *directive) error {
	if len(l.args) == 0 {
		return nil
	}
	n, err := number(l.args[0], 0, 65535)
	if err != nil {
		return err
	}
	m := MSSFix{Max: n}
	switch l.arg(1) {
	case "":
	case "mtu":
		m.Mode = MSSMTU
	case "fixed":
		m.Mode = MSSFixed
	default:
		return fmt.Errorf("%q is neither mtu nor fixed", l.args[1])
	}
	if n != 0 && n < 100 {
		return fmt.Errorf("%d bytes leave no room for data: write 0 to switch it off, or 576 and more", n)
	}
	d.cfg.MSSFix, d.mssfixGiven = m, true
	return nil
}

func setMaxPacket(d *draft, l *directive) error {
	d.maxPacketGiven = true
	return count(154, 2048, func(c *Config) *int { return &c.MaxPacket })(d, l)
}

// finishDevice checks the device against its kind and fills in what follows from the MTU.
func (d *draft) finishDevice() {
	c := d.cfg
	switch {
	case d.devType != "":
		c.Tap = d.devType == "tap"
	case strings.HasPrefix(c.Dev, "tap"):
		c.Tap = true
	case !strings.HasPrefix(c.Dev, "tun") && d.last["dev"].entry.Verdict != Refused:
		d.refuse(d.last["dev"], "the name does not say what kind of device it is: add `dev-type tun`")
	}
	d.checkTap()
	if d.mssfixGiven {
		return
	}
	switch {
	case d.maxPacketGiven:
		c.MSSFix = MSSFix{Max: c.MaxPacket, Mode: MSSMTU}
	case c.MTU == 1500:
		c.MSSFix = MSSFix{Max: 1450}
	default:
		c.MSSFix = MSSFix{Max: c.MTU, Mode: MSSFixed}
	}
}

// hostBits reports whether p has bits set behind its prefix length.
func hostBits(p netip.Prefix) bool { return p != p.Masked() }
