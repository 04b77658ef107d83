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
)

// The bounds of S014: streams whose client is not authorised, and how long its packets may be before and after.
// The time for the first one is link's.
const (
	maxNewStreams          = 1024
	maxNewStreamsPerSource = 16
	frameLimitBefore       = 2560
	frameLimitAfter        = 16 << 10
	sealedRoom             = 256 // what is around a packet of the device when it is sealed, at most
)

// frameLimit is how long the packets of an authorised client may be, where the device takes packets of mtu bytes.
func frameLimit(mtu int) int { return max(frameLimitAfter, mtu+sealedRoom) }

// streams is all open TCP connections.
type streams struct {
	mu       sync.Mutex
	open     map[*link.Stream]struct{}
	most     int // of open; 0: no bound. Immutable
	fresh    int // of them, without a session yet
	bySource map[netip.Prefix]int
	closed   bool
}

// enter counts a fresh stream and reports whether there is room.
func (s *streams) enter(st *link.Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.fresh >= maxNewStreams || s.most > 0 && len(s.open) >= s.most {
		return false
	}
	if s.open == nil {
		s.open, s.bySource = make(map[*link.Stream]struct{}), make(map[netip.Prefix]int)
	}
	s.open[st] = struct{}{}
	s.fresh++
	return true
}

// from counts a fresh stream's source, as soon as that is known, and reports whether there is room for it. A stream
// that is refused is counted until it is settled, too.
func (s *streams) from(addr netip.Addr) bool {
	source, _ := sourceOf(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bySource[source]++
	return s.bySource[source] <= maxNewStreamsPerSource
}

// settled says that a stream is fresh no more: it has a session, which has limits of its own, or is over. from is
// its source, where that was counted.
func (s *streams) settled(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh--
	if !from.IsValid() {
		return
	}
	source, _ := sourceOf(from)
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
		if !s.streams.enter(st) {
			st.Close()
			continue
		}
		var from netip.Addr // a balancer's tells nothing: what it brings is counted when it has said for whom
		if !st.Balanced() {
			if from = st.RemoteAddr().Addr(); !s.streams.from(from) {
				st.Close()
				s.streams.settled(from)
				s.streams.leave(st)
				continue
			}
		}
		lane := s.lanes[n%len(s.lanes)]
		s.wg.Go(func() {
			s.serve(ctx, st, from, lane)
			st.Close()
			s.streams.leave(st)
		})
	}
}

// serve is one stream's life: a reset, which opens the session, then packets until either is over. counted is the source
// that it is counted for, if any.
func (s *Server) serve(ctx context.Context, st *link.Stream, counted netip.Addr, lane *lane) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(nil, p)
		}
	}()
	c, foreign := s.greet(ctx, st, counted, lane)
	if foreign {
		if err := s.sharer.carry(ctx, st); err != nil {
			s.drops.add(dropStranger)
			if !errors.Is(err, errShareFull) && !s.closing.Load() {
				s.alarmOnce("port-share", err)
			}
		}
	}
	if c == nil {
		return
	}
	u := &uplink{lane: lane, sock: st, door: st, only: c}
	err := u.run()
	if err == nil {
		err = errors.New("closed")
	}
	// Also when the session has ended and waits for its last words to arrive: they cannot any more.
	c.die()
	c.session.End(fmt.Errorf("connection: %w", err))
}

// greet waits for the first packet and opens a session for it; nil when there is nothing to serve. foreign is a
// connection for the service that shares the port.
func (s *Server) greet(ctx context.Context, st *link.Stream, counted netip.Addr, lane *lane) (c *client, foreign bool) {
	defer func() { s.streams.settled(counted) }()
	if st.Balanced() {
		if err := st.Introduce(); err != nil {
			s.drops.add(dropStranger)
			return nil, false
		}
		if counted = st.RemoteAddr().Addr(); !s.streams.from(counted) {
			return nil, false
		}
	}
	if s.sharer != nil {
		if foreign, err := st.Foreign(); err != nil || foreign {
			return nil, foreign
		}
	}
	st.SetLimit(frameLimitBefore)
	trains, err := st.Receive()
	if err != nil || len(trains) == 0 {
		return nil, false
	}
	if s.crowded() {
		s.drops.add(dropCrowded)
		return nil, false
	}
	from := st.RemoteAddr()
	o, err := s.streamGate.GreetStream(time.Now(), from, trains[0].Bytes)
	if err != nil || o == nil {
		s.drops.add(dropStranger)
		return nil, false
	}
	c = s.open(ctx, s.streamGate, o, &path{outside: outside{door: st, addr: from}, sock: st, home: lane.sender}, true)
	if c == nil {
		return nil, false
	}
	for _, t := range trains[1:] {
		if op, _, _, ok := tlsctl.PeekSession(t.Bytes); ok && op != tlsctl.OpDataV1 {
			c.session.Deliver(t.Bytes)
		}
	}
	return c, false
}
