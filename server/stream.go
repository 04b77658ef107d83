package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"postern/server/link"
	"postern/tlsctl"
	"postern/tun"
)

// The bounds of S014: streams whose client is not authorised, and how long its packets may be before and after.
// The time for the first one is link's.
const (
	maxNewStreams          = 1024
	maxNewStreamsPerSource = 16
	frameLimitBefore       = 2560
	frameLimitAfter        = 16 << 10
)

// streams is all open TCP connections.
type streams struct {
	mu       sync.Mutex
	open     map[*link.Stream]struct{}
	fresh    int // of them, without a session yet
	bySource map[netip.Prefix]int
	closed   bool
}

// enter counts a fresh stream and reports whether there is room.
func (s *streams) enter(st *link.Stream, from netip.Addr) bool {
	source, _ := sourceOf(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.fresh >= maxNewStreams || s.bySource[source] >= maxNewStreamsPerSource {
		return false
	}
	if s.open == nil {
		s.open, s.bySource = make(map[*link.Stream]struct{}), make(map[netip.Prefix]int)
	}
	s.open[st] = struct{}{}
	s.fresh++
	s.bySource[source]++
	return true
}

// settled says that a stream is fresh no more: it has a session, which has limits of its own, or is over.
func (s *streams) settled(from netip.Addr) {
	source, _ := sourceOf(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh--
	if s.bySource[source]--; s.bySource[source] <= 0 {
		delete(s.bySource, source)
	}
}

func (s *streams) leave(st *link.Stream) {
	s.mu.Lock()
	delete(s.open, st)
	s.mu.Unlock()
}

func (s *streams) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for st := range s.open {
		st.Close()
	}
}

// accept takes clients from one listener until it is closed.
func (s *Server) accept(ctx context.Context, l StreamListener) error {
	for n := 0; ; n++ {
		st, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if !s.streams.enter(st, st.RemoteAddr().Addr()) {
			st.Close()
			continue
		}
		lane := s.lanes[n%len(s.lanes)]
		s.wg.Go(func() {
			s.serve(ctx, st, lane)
			st.Close()
			s.streams.leave(st)
		})
	}
}

// serve is one stream's life: a reset, which opens the session, then packets until either is over.
func (s *Server) serve(ctx context.Context, st *link.Stream, lane *lane) {
	from := st.RemoteAddr()
	defer func() {
		if p := recover(); p != nil {
			s.panicked(nil, p)
		}
	}()
	c := s.greet(ctx, st, from, lane)
	if c == nil {
		return
	}
	u := &uplink{lane: lane, sock: st, door: st, only: c, merge: tun.NewCoalescer(lane.queue)}
	err := u.run()
	if err == nil {
		err = errors.New("closed")
	}
	// Also when the session has ended and waits for its last words to arrive: they cannot any more.
	c.die()
	c.session.End(fmt.Errorf("connection: %w", err))
}

// greet waits for the first packet and opens a session for it; nil when there is nothing to serve.
func (s *Server) greet(ctx context.Context, st *link.Stream, from netip.AddrPort, lane *lane) *client {
	defer s.streams.settled(from.Addr())
	st.SetLimit(frameLimitBefore)
	trains, err := st.Receive()
	if err != nil || len(trains) == 0 {
		return nil
	}
	o, err := s.streamGate.GreetStream(time.Now(), from, trains[0].Bytes)
	if err != nil || o == nil {
		s.drops.add(dropStranger)
		return nil
	}
	c := s.open(ctx, s.streamGate, o, &path{outside{door: st, addr: from}, st, lane.sender}, true)
	if c == nil {
		return nil
	}
	for _, t := range trains[1:] {
		if op, _, _, ok := tlsctl.PeekSession(t.Bytes); ok && op != tlsctl.OpDataV1 {
			c.session.Deliver(t.Bytes)
		}
	}
	return c
}
