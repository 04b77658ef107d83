package server

import (
	"context"
	"net/netip"
	"time"

	"postern/server/link"
	"postern/tlsctl"
)

// control takes one packet that is not data: to the session it names, or to the gate. Lanes call it; it copies and
// never waits.
func (s *Server) control(u *uplink, from netip.AddrPort, pkt []byte) {
	_, _, sid, ok := tlsctl.PeekSession(pkt)
	if !ok {
		s.drops.add(dropMalformed)
		return
	}
	if c := s.table.control(from, sid); c != nil {
		c.rx.bytes.Add(uint64(len(pkt)))
		c.session.Deliver(pkt)
		return
	}
	if u.gate == nil {
		s.drops.add(dropStranger) // another session on somebody's stream
		return
	}
	u.gate.put(u, from, pkt)
}

// greetings is how many strangers' packets may wait for the gatekeeper; maxGreeting is the longest one (S020).
const (
	greetings   = 256
	maxGreeting = 2560
)

// A gatekeeper answers the strangers of one listener in a goroutine of its own, so that no lane pays for them.
type gatekeeper struct {
	srv   *Server
	gate  *tlsctl.Gate
	queue chan *greeting
	spare chan *greeting // all greetings that are not queued: the bound on memory
}

type greeting struct {
	u    *uplink
	from netip.AddrPort
	n    int
	buf  [maxGreeting]byte
}

func newGatekeeper(s *Server, g *tlsctl.Gate) *gatekeeper {
	k := &gatekeeper{srv: s, gate: g, queue: make(chan *greeting, greetings), spare: make(chan *greeting, greetings)}
	for range greetings {
		k.spare <- new(greeting)
	}
	return k
}

// put queues a copy of pkt, or drops it.
func (k *gatekeeper) put(u *uplink, from netip.AddrPort, pkt []byte) {
	if len(pkt) > maxGreeting {
		k.srv.drops.add(dropMalformed)
		return
	}
	select {
	case g := <-k.spare:
		g.u, g.from, g.n = u, from, copy(g.buf[:], pkt)
		k.queue <- g // never full: it has room for all there are
	default:
		k.srv.drops.add(dropGateBusy)
	}
}

// run greets until ctx is done.
func (k *gatekeeper) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case g := <-k.queue:
			if k.srv.closing.Load() {
				// Whoever got a cookie now would wait for a server that is gone; unanswered, it asks the next one.
				k.spare <- g
				continue
			}
			reply, o := k.gate.Greet(time.Now(), g.from, g.buf[:g.n])
			switch {
			case o != nil:
				k.srv.open(ctx, k.gate, o, &path{sock: g.u.sock, addr: g.from, home: g.u.lane.sender}, false)
			case reply != nil:
				one := [1]link.Train{{Addr: g.from, Bytes: reply, Size: len(reply)}}
				_ = g.u.sock.Send(one[:]) // a full send buffer drops it (S006)
			default:
				k.srv.drops.add(dropStranger)
			}
			k.spare <- g
		}
	}
}

// open starts a session for a client that has proved its address. It returns nil when there is no room for it.
func (s *Server) open(ctx context.Context, g *tlsctl.Gate, o *tlsctl.Opening, p *path, stream bool) *client {
	settle := func(authorised bool) { g.Settle(time.Now(), o, authorised) }
	if s.closing.Load() || !s.half.enter(p.addr.Addr()) {
		settle(false)
		return nil
	}
	c := &client{srv: s, sid: o.Client, opened: time.Now(), source: p.addr.Addr(), stream: stream, open: true, settle: settle}
	c.path.Store(p)
	c.rx.last.Store(s.clock.Load())
	c.tx.last.Store(s.clock.Load())
	cfg := *s.ctl.Load()
	cfg.Log = s.log
	c.session = tlsctl.New(&cfg, c, o)
	c.log = s.log.With().Str("session", c.session.Name()).Stringer("addr", p.addr).Logger()
	older, ok := s.table.enter(c, p.addr, s.live.Load().cfg.MaxClients)
	if !ok {
		c.leaveHalfOpen()
		return nil
	}
	if older != nil {
		s.end(older, "the client began again")
	}
	s.wg.Go(func() {
		err := c.session.Run(ctx)
		s.closed(c, err)
	})
	return c
}
