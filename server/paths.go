package server

import (
	"net/netip"

	"postern/server/datachan"
	"postern/tun"
)

const (
	// pathCheck is how often, in seconds, a path is looked at that has given no cause: one that was narrow may be wide
	// again.
	pathCheck = 30
	// ordinaryMTU is what a path of the internet takes. Beyond it packets are fragmented outside, as everywhere.
	ordinaryMTU = 1500
)

// way is what is known of a path. The zero value is a way that nobody has looked at, and that takes everything.
type way struct {
	mtu   int // of packets outside; 0: not known
	room4 int // the largest packet inside that fits, by its family; 0: any
	room6 int
	seen  bool // it has been looked at
}

// refuses reports whether an IP packet is too large for the way and must not be cut into fragments.
func (w *way) refuses(pkt []byte) bool {
	return w.room4 != 0 && len(pkt) > w.room4 && (pkt[0]>>4 == 4 || len(pkt) > w.room6) && tun.Fragile(pkt)
}

// wayOf is a way with an MTU, to a client that gets packets under key. Where the kernel may fragment, an ordinary way
// takes everything; with strict it must not, and what does not fit is lost.
func wayOf(mtu int, outer6, strict bool, key *datachan.Key) way {
	w := way{mtu: mtu, seen: true}
	if mtu >= ordinaryMTU && !strict {
		return w
	}
	head := ip4Head + udpHead
	if outer6 {
		head = ip6Head + udpHead
	}
	fit := key.Fit(mtu - head)
	w.room4, w.room6 = max(fit, tun.MinMTU4), max(fit, tun.MinMTU6)
	return w
}

// learnPaths asks the kernel about clients' paths: those that are new, those that a socket found too narrow, and now and
// then each.
func (s *Server) learnPaths(clients []*client, clock int64) {
	ask := s.parts.PathMTU
	if ask == nil || s.bridge != nil { // frames are not answered
		return
	}
	narrow := s.narrowAddrs()
	for _, c := range clients {
		m := c.member.Load()
		if m == nil || c.stream || c.gone.Load() {
			continue
		}
		p := c.path.Load()
		if p.seen && !narrow[p.addr.Addr()] && (clock+int64(m.peer))%pathCheck != 0 {
			continue
		}
		mtu, err := ask(p.addr, p.local)
		if err != nil {
			mtu = ordinaryMTU // without a route nothing is sent anyway
		}
		c.learnPath(p, mtu)
	}
}

// narrowAddrs is the addresses that sockets had packets too large for.
func (s *Server) narrowAddrs() (addrs map[netip.Addr]bool) {
	const most = 100 // of one socket, in a second
	for _, l := range s.parts.UDP {
		for _, sock := range l.Sockets {
			teller, ok := sock.(interface{ Narrow() (netip.Addr, bool) })
			if !ok {
				continue
			}
			for range most {
				a, ok := teller.Narrow()
				if !ok {
					break
				}
				if addrs == nil {
					addrs = make(map[netip.Addr]bool)
				}
				addrs[a] = true
			}
		}
	}
	return addrs
}

// learnPath makes mtu what is known of the path p, unless the client has moved meanwhile.
func (c *client) learnPath(p *path, mtu int) {
	key := c.ring.Sending()
	if key == nil {
		return
	}
	cfg := c.srv.live.Load().cfg
	outer6 := p.addr.Addr().Is6()
	w := wayOf(mtu, outer6, cfg.MTUDisc == "yes", key)
	if w == p.way {
		return
	}
	next := *p
	next.way = w
	if !c.path.CompareAndSwap(p, &next) {
		return
	}
	mss4, mss6 := mss(cfg.MSSFix, outer6, false, key)
	c.srv.table.setMSS(c, fitMSS(mss4, w.room4-ip4Head-tcpHead), fitMSS(mss6, w.room4-ip6Head-tcpHead))
	if w.room4 != p.room4 {
		c.log.Info().Int("mtu", mtu).Int("inside", w.room4).Msg("path MTU")
	}
}

// fitMSS lowers a segment size to what the way has room for, where that is limited and segments are.
func fitMSS(mss uint16, room int) uint16 {
	if room <= 0 {
		return mss
	}
	return uint16(min(int(mss), room))
}

// setMSS changes the segment sizes of a member.
func (t *table) setMSS(c *client, mss4, mss6 uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := c.member.Load()
	if m == nil || m.mss4 == mss4 && m.mss6 == mss6 {
		return
	}
	changed := *m
	changed.mss4, changed.mss6 = mss4, mss6
	c.member.Store(&changed)
}

// tooBig is the error for who sent pkt, which does not fit the way p to a client that is m; it comes from the client's own
// address, since the kernel takes no packet that claims to come from itself, and where the client has none of that family,
// with a network behind it, from pkt's destination. nil when none is due: cause has had its share.
func (s *Server) tooBig(m *member, p *path, pkt []byte, cause *client) []byte {
	if m == nil {
		return nil
	}
	from, room := m.addr4, p.room4
	if pkt[0]>>4 == 6 {
		from, room = m.addr6, p.room6
	}
	if !from.IsValid() {
		from, _ = tun.Destination(pkt)
	}
	if !cause.errors.allow(s.clock.Load()) {
		return nil
	}
	return tun.AppendTooBig(nil, pkt, from, room)
}

// blockedFrom is who tells that IPv6 is blocked where the server has no IPv6 address inside.
var blockedFrom = netip.MustParseAddr("fe80::1")

// noRoute is the error for an IPv6 packet of c that is not forwarded; nil when none is due.
func (s *Server) noRoute(c *client, pkt []byte) []byte {
	if !c.errors.allow(s.clock.Load()) {
		return nil
	}
	from := s.live.Load().cfg.Addr6.Addr()
	if !from.IsValid() {
		from = blockedFrom
	}
	return tun.AppendNoRoute(nil, pkt, from)
}
