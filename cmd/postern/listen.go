package main

import (
	"fmt"
	"net/netip"

	"postern/server"
	"postern/server/config"
	"postern/server/link"
)

// listen opens the sockets, but for those that systemd has opened.
func (h *host) listen(cfg *config.Config, parts *server.Parts) error {
	both := link.SocketOptions{Device: cfg.BindDev, Mark: cfg.Mark, Discover: discover[cfg.MTUDisc]}
	if cfg.MTUDisc != "no" {
		parts.PathMTU = func(to netip.AddrPort, local link.Local) (int, error) { return link.PathMTU(to, local, both) }
	}
	socks, err := takePassed()
	if err != nil {
		return err
	}
	defer func() { giveBack(socks) }()
	for _, l := range cfg.Listen {
		opened, err := claim(&socks, l)
		if err != nil {
			return err
		}
		if opened != nil {
			defer opened.Close() // the listener has a descriptor of its own
		}
		switch l.Network {
		case "udp":
			socks, err := link.ListenUDP(l.Addr, link.UDPOptions{SocketOptions: both, Lanes: parts.Lanes, V6Only: l.V6Only, RecvBuf: cfg.RecvBuf, SendBuf: cfg.SendBuf,
				Plain: cfg.NoOffload && !cfg.Multihome && !cfg.PassTOS, Inherited: opened, Multihome: cfg.Multihome, SameInterface: cfg.SameInterface})
			if err != nil {
				return fmt.Errorf("listen on udp %v: %w", l.Addr, err)
			}
			u := server.UDPListener{Local: l.Addr}
			for _, s := range socks {
				u.Sockets = append(u.Sockets, s)
				h.later(s.Close)
			}
			parts.UDP = append(parts.UDP, u)
		case "tcp":
			ln, err := link.ListenTCP(l.Addr, link.TCPOptions{SocketOptions: both, V6Only: l.V6Only, RecvBuf: cfg.RecvBuf, SendBuf: cfg.SendBuf, QueuePackets: cfg.TCPQueue, Inherited: opened, Balancers: cfg.Balancers})
			if err != nil {
				return fmt.Errorf("listen on tcp %v: %w", l.Addr, err)
			}
			parts.TCP = append(parts.TCP, ln)
			h.later(ln.Close)
		}
		h.listening = append(h.listening, l.Network+" "+l.Addr.String())
	}
	return unclaimed(socks)
}

// discover is what mtu-disc's words mean to a socket.
var discover = map[string]link.Discover{"no": link.DiscoverNo, "maybe": link.DiscoverMaybe, "yes": link.DiscoverYes}
