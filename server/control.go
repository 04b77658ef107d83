package server

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"postern/server/link"
	"postern/server/management"
	"postern/tlsctl"
)

// control takes one packet that is not data: to the session it names, or to the gate. Lanes call it; it copies and
// never waits.
func (s *Server) control(u *uplink, from outside, pkt []byte) {
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

// handshakeQueue is how many handshakes may wait for a processor before strangers are left outside (S011).
const handshakeQueue = 256

// NewWorkers returns who computes for newcomers: half of the processors, so that the other half is for packets (S011).
func NewWorkers() *tlsctl.Workers {
	return tlsctl.NewWorkers(max(runtime.GOMAXPROCS(0)/2, 1), handshakeQueue)
}

// A gatekeeper answers the strangers of one listener in a goroutine of its own, so that no lane pays for them.
type gatekeeper struct {
	srv   *Server
	gate  *tlsctl.Gate
	queue chan *greeting
	spare chan *greeting // all greetings that are not queued: the bound on memory
}

type greeting struct {
	u    *uplink
	from outside
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
func (k *gatekeeper) put(u *uplink, from outside, pkt []byte) {
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
			k.greet(ctx, g)
			k.spare <- g
		}
	}
}

// greet answers one packet, or opens a session for its sender.
func (k *gatekeeper) greet(ctx context.Context, g *greeting) {
	defer func() {
		if p := recover(); p != nil {
			k.srv.panicked(nil, p)
		}
	}()
	if k.srv.closing.Load() {
		return // whoever got a cookie now would wait for a server that is gone; unanswered, it asks the next one
	}
	if k.srv.crowded() {
		k.srv.drops.add(dropCrowded)
		return
	}
	reply, o := k.gate.GreetAt(time.Now(), g.from.addr, g.from.local.Addr, g.buf[:g.n])
	switch {
	case o != nil:
		k.srv.open(ctx, k.gate, o, &path{outside: g.from, sock: g.u.sock, home: g.u.lane.sender}, false)
	case reply != nil:
		k.srv.attempts.greet(g.from.addr.Addr(), true, time.Now())
		one := [1]link.Train{g.from.train(reply)}
		_ = g.u.sock.Send(one[:]) // a full send buffer drops it (S006)
	default:
		k.srv.attempts.greet(g.from.addr.Addr(), false, time.Now())
		k.srv.drops.add(dropStranger)
	}
}

var errHalfOpen = errors.New("too many logins of this address, or in all, are under way")

// open starts a session for a client that has proved its address. It returns nil when there is no room for it.
func (s *Server) open(ctx context.Context, g *tlsctl.Gate, o *tlsctl.Opening, p *path, stream bool) *client {
	var once sync.Once
	c := &client{srv: s, id: management.ClientID(s.clientIDs.Add(1) - 1), sid: o.Client, opened: time.Now(), source: p.addr.Addr(), stream: stream,
		scripts: s.parts.Scripts.Session(), over: make(chan struct{})}
	c.settle = func(authorised bool) { once.Do(func() { g.Settle(time.Now(), o, authorised) }) }
	if s.closing.Load() || !stream && !s.pace.allows(s.live.Load().cfg.ConnectFreq, time.Now()) {
		c.settle(false)
		return nil
	}
	c.path.Store(p)
	c.session = tlsctl.New(s.ctl.Load(), c, o)
	c.log = s.log.Hook(origin{c.session.Name(), p.addr})
	c.attempt = s.attempts.begin(c, c.opened)
	evicted, ok := s.half.enter(c)
	if evicted != nil {
		s.end(evicted, "too many half-open sessions")
	}
	if !ok {
		s.attempts.over(c.attempt, errHalfOpen)
		c.settle(false)
		return nil
	}
	older, ok := s.table.enter(c)
	if !ok {
		s.attempts.over(c.attempt, errHalfOpen)
		c.leaveHalfOpen()
		return nil
	}
	if older != nil {
		s.end(older, "the client began again")
	}
	s.departures.enter()
	s.wg.Go(func() {
		defer s.departures.leave()
		err := s.verifyKey(ctx, o.Metadata)
		if err == nil {
			err = c.session.Run(ctx)
		}
		s.closed(c, err)
	})
	return c
}
