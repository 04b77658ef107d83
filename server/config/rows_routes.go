package config

import (
	"errors"
	"fmt"
	"net/netip"
)

var routeRows = []row{
	use("route", "NET [MASK [GATEWAY [METRIC]]]", "A route of this machine into the tunnel, for a network behind a client. MASK is one host's by default; GATEWAY may be `default` or `vpn_gateway`.", addRoute).each(),
	use("route-ipv6", "NET/BITS [GATEWAY [METRIC]]", "The same for IPv6.", addRoute6).each(),
	use("route-gateway", "ADDRESS", "The gateway of `route` lines that name none; by default they lead to the device.", setGateway),
	use("route-ipv6-gateway", "ADDRESS", "The same for IPv6.", setGateway6),
	use("route-metric", "N", "The metric of routes that name none.", func(d *draft, l *directive) (err error) { d.metric, err = number(l.args[0], 0, maxSeconds); return err }),
	use("route-table", "N", "The table of the kernel that `route` and `route-ipv6` lines go to; default the main one.", count(0, 1<<31-1, func(c *Config) *int { return &c.RouteTable })),
	use("route-noexec", "", "Leave routes to someone else.", switchOn(func(c *Config) *bool { return &c.NoRouteExec })),
	refuse("route-delay", "not possible in a server: remove the line"),
	refuse("up-delay", "not possible in a server: remove the line"),
	accept("route-method", "...", "Windows only"),
	accept("max-routes", "N", "it has no effect since OpenVPN 2.4 either"),
	refuse("redirect-gateway", "it would redirect the server itself: push it instead, `push \"redirect-gateway def1\"`"),
	accept("redirect-private", "...", "it sets nothing on a server; to reach clients write `push \"redirect-private ...\"`"),
	inClientFile("iroute", "NET [MASK]", "A network behind this client. The server's own `route` for it stands in the configuration."),
	inClientFile("iroute-ipv6", "NET/BITS", "The same for IPv6."),
	inClientFile("ifconfig-push", "ADDRESS MASK|PEER", "This client's fixed IPv4 address, with the network's mask, or in net30 and p2p the other end's address."),
	inClientFile("ifconfig-ipv6-push", "ADDRESS[/BITS] [GATEWAY]", "This client's fixed IPv6 address."),
	inClientFile("disable", "", "Keep this client out."),
	inClientFile("push-reset", "", "Push nothing that stands above or in the configuration, not even `topology` and `route-gateway`."),
	inClientFile("push-remove", "TEXT", "Do not push what begins with TEXT among what stands above or in the configuration. `ifconfig` and `ifconfig-ipv6` suppress the address."),
}

// A pendingRoute is a route whose gateway and metric may still come from other directives.
type pendingRoute struct {
	from      *directive
	net       netip.Prefix
	gateway   string
	metric    int
	hasMetric bool
}

func addRoute(d *draft, l *directive) error {
	mask := l.arg(1)
	if mask == "default" {
		mask = ""
	}
	p, err := network4(l.args[0], mask)
	if err != nil {
		return err
	}
	return d.addRoute(l, p, l.arg(2), l.arg(3))
}

func addRoute6(d *draft, l *directive) error {
	p, err := network6(l.args[0])
	if err != nil {
		return err
	}
	return d.addRoute(l, p, l.arg(1), l.arg(2))
}

func (d *draft) addRoute(l *directive, p netip.Prefix, gateway, metric string) error {
	r := pendingRoute{from: l, net: p, gateway: gateway}
	switch gateway {
	case "", "default", "vpn_gateway":
		r.gateway = ""
	case "net_gateway", "remote_host":
		return fmt.Errorf("%s leads out of the tunnel: routes of a server lead into it", gateway)
	default:
		a, err := netip.ParseAddr(gateway)
		if err != nil || a.Is4() != p.Addr().Is4() {
			return fmt.Errorf("%q is not a gateway for this route: write an address of the same family, or default", gateway)
		}
	}
	if metric != "" && metric != "default" {
		n, err := number(metric, 0, maxSeconds)
		if err != nil {
			return err
		}
		r.metric, r.hasMetric = n, true
	}
	if hostBits(p) {
		d.notice(l, "taken as %s: the address had bits behind its mask", p.Masked())
		r.net = p.Masked()
	}
	d.routes = append(d.routes, r)
	return nil
}

func setGateway(d *draft, l *directive) (err error) {
	if l.args[0] == "dhcp" {
		return errors.New("dhcp is for clients with tap: write an address, or remove the line")
	}
	d.gateway4, err = ipv4(l.args[0])
	return err
}

func setGateway6(d *draft, l *directive) (err error) {
	d.gateway6, err = ipv6(l.args[0])
	return err
}

// finishRoutes makes Routes, once the defaults for gateway and metric are known.
func (d *draft) finishRoutes() {
	for _, r := range d.routes {
		out := Route{Net: r.net, Metric: d.metric}
		if r.hasMetric {
			out.Metric = r.metric
		}
		switch {
		case r.gateway != "":
			out.Gateway = netip.MustParseAddr(r.gateway)
		case r.net.Addr().Is4():
			out.Gateway = d.gateway4
		default:
			out.Gateway = d.gateway6
		}
		d.cfg.Routes = append(d.cfg.Routes, out)
	}
}
