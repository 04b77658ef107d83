package tlsctl

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Why a session ended, where the server may care. Besides these Run returns a *Denial for a refused client, a
// *TLSError, the cause of its context, the reason given to End, or what else went wrong.
var (
	// ErrExit: the client said that it leaves.
	ErrExit = errors.New("client left")
	// ErrHandshakeTimeout: the client was not authorised in time, or its last key is over and no new one was agreed on.
	ErrHandshakeTimeout = errors.New("handshake timed out")
	// ErrShutdown: Shutdown was called.
	ErrShutdown = errors.New("server shuts down")
	// ErrLimit: the client sent more than any honest one does.
	ErrLimit = errors.New("control channel limit exceeded")
	// ErrSilent: the client acknowledges nothing any more.
	ErrSilent = errors.New("client does not answer")
)

// Bounds of what a client may make a session do.
const (
	inboxSize       = 64  // packets that wait for Run
	streamInboxSize = 256 // where none may be dropped
	maxFed          = 64 << 10
	maxPackets      = 128 // both before a negotiation is decided (S024)
	ratePackets     = 100 // in a second
	rateBytes       = 64 << 10
	ratePeriod      = 10 * time.Second // for rateBytes (S025)
	pushInterval    = 30 * time.Second // between answers to PUSH_REQUEST
	softResetPause  = time.Second      // between renegotiations the client begins
	defaultPacket   = 1200
)

// A Session is one client's control channel, from its proved address to its goodbye: a run of negotiations, one
// after the other, of which the newest that was decided carries the messages.
//
//	Deliver --> inbox --+                       +--> Owner.Send
//	Tell, End, ... -----+--> Run: packets, -----+
//	negotiate ----------+    messages, timers   +--> Owner.Install
//	   ^      bytes, decisions       |
//	   +-----------------------------+  TLS handshake, key exchange, Owner.Admit: one goroutine each
type Session struct {
	// Immutable.
	cfg    *Config
	timing Timing
	owner  Owner
	open   *Opening
	name   string
	log    zerolog.Logger
	kick   chan struct{} // there is something in the inbox, in orders, or to take from a conn
	wg     sync.WaitGroup

	updates atomic.Bool // the client is established and takes PUSH_UPDATE

	mu     sync.Mutex
	inbox  [][]byte
	orders []func(now time.Time) // for Run to do
	closed bool                  // Run has ended: take no more

	// All below is Run's.
	wrap        wrapper
	exported    keyBlock // what the wrap of renegotiations will be made of, if one was agreed on
	dynamic     wrapper  // that wrap, once it was needed
	dynamicZero bool     // the client has moved key id 0 to it too, as OpenVPN 3 does
	unproven    bool     // the address is not proved yet: answer no more than is asked
	heard       bool     // something came in since the last transmission
	negotiated  []*negotiation
	current     *negotiation // the newest that was decided: sends messages; nil before the first is
	next        *negotiation // under way, if it is not the first
	lastKey     KeyID        // the last key id that both ends know of
	begun       time.Time    // when the last negotiation began
	renegotiate time.Time    // when to begin the next; zero: never
	wanted      bool         // Renegotiate was called
	expires     time.Time    // when the only key left is over; zero: not known to be
	identity    *Hello       // the first negotiation's; nil until authorised
	granted     []string     // the options that it was granted
	terms       *terms       // settled with it
	token       string       // of the last grant that had one, or a later one
	owed        []Message    // said or to be said, and not known to be heard
	asked       bool         // PUSH_REQUEST came before we could answer
	pushed      time.Time    // last PUSH_REPLY
	left        bool         // Owner.Leaving was called
	leaving     error        // why the session ends, which only waits for last words to arrive
	until       time.Time    // not longer than this
	lastWords   *negotiation // and not longer than they need here, if set
	verdict     Message      // AUTH_FAILED, as long as it is not sent
	verdictAt   time.Time    // when to send it
	verdictOn   *negotiation // where
	ended       bool
	err         error
	rate        clientRate
	wake        time.Time // next timer
	buffer      []byte    // for packets going out
}

// named puts a session's name on its log lines. A logger that carries the field is half a kilobyte for each session.
type named string

// Run implements zerolog.Hook.
func (n named) Run(e *zerolog.Event, _ zerolog.Level, _ string) { e.Str("session", string(n)) }

// New prepares a session and starts nothing.
func New(cfg *Config, owner Owner, o *Opening) *Session {
	name := hex.EncodeToString(o.Server[:4])
	return &Session{
		cfg:      cfg,
		timing:   cfg.Timing.withDefaults(),
		owner:    owner,
		open:     o,
		name:     name,
		log:      cfg.Log.Hook(named(name)),
		kick:     make(chan struct{}, 1),
		wrap:     o.wrap,
		unproven: o.first == nil && !o.Stream,
	}
}

func (t Timing) withDefaults() Timing {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.HandWindow, defaultHandWindow},
		{&t.TLSTimeout, 2 * time.Second},
		{&t.Renegotiate, time.Hour},
		{&t.Transition, time.Hour},
		{&t.FirstByte, 10 * time.Second},
		{&t.Progress, 15 * time.Second},
		{&t.RefusalDelay, 2 * time.Second},
		{&t.Linger, 5 * time.Second},
		{&t.Farewell, 2 * time.Second},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return t
}

// Name is a short id for log lines.
func (s *Session) Name() string { return s.name }

// Client is the client's session id.
func (s *Session) Client() SessionID { return s.open.Client }

// Deliver hands the session one control packet from the client. It copies pkt, never blocks and may be called from
// any goroutine. When the session is behind, pkt is dropped: the client will send it again. On a stream, where some
// clients do not, the session ends with ErrLimit instead.
func (s *Session) Deliver(pkt []byte) {
	limit := inboxSize
	if s.open.Stream {
		limit = streamInboxSize
	}
	s.mu.Lock()
	full := len(s.inbox) >= limit
	if !full && !s.closed {
		s.inbox = append(s.inbox, slices.Clone(pkt))
	}
	s.mu.Unlock()
	if full && s.open.Stream {
		s.End(ErrLimit)
	}
	s.poke()
}

// Renegotiate begins a renegotiation as soon as what was told the client is acknowledged, unless one is under way.
func (s *Session) Renegotiate() {
	s.order(func(time.Time) { s.wanted = s.current != nil && s.next == nil })
}

// Tell sends a message to an established client. To one that is not it is lost.
func (s *Session) Tell(m Message) {
	s.order(func(time.Time) {
		if s.current != nil && s.leaving == nil {
			s.say(s.current, m)
		}
	})
}

// order has Run call f.
func (s *Session) order(f func(now time.Time)) {
	s.mu.Lock()
	if !s.closed {
		s.orders = append(s.orders, f)
	}
	s.mu.Unlock()
	s.poke()
}

func (s *Session) poke() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run runs the session until it ends and says why. It returns once all goroutines of the session have ended.
func (s *Session) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		if p := recover(); p != nil {
			err = s.survive(p)
		}
		cancel(err)
		for _, n := range s.negotiated {
			n.conn.fail(err)
		}
		s.wg.Wait()
		s.mu.Lock()
		s.closed, s.inbox, s.orders = true, nil, nil
		s.mu.Unlock()
		defer func() {
			if p := recover(); p != nil {
				err = s.survive(p)
			}
		}()
		s.leaveOnce(err)
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	s.begin(ctx, time.Now())
	for {
		now := time.Now()
		s.work(ctx, now)
		if s.ended {
			return s.err
		}
		timer.Reset(s.wake.Sub(now))
		select {
		case <-ctx.Done():
			s.work(ctx, time.Now()) // what was told before is said
			switch {
			case s.ended:
				return s.err
			case s.leaving != nil:
				return s.leaving
			}
			return context.Cause(ctx)
		case <-s.kick:
		case <-timer.C:
		}
	}
}

// begin opens the first negotiation.
func (s *Session) begin(ctx context.Context, now time.Time) {
	if s.open.first == nil {
		n := s.add(now, 0, 0)
		n.rel.receive(0, OpHardResetClientV2, nil) // the gate has seen it
		n.rel.queue(OpHardResetServerV2, nil)
		s.heard = true
		return
	}
	s.add(now, 0, 1)
	s.receive(now, s.open.first)
}

// work does what has come up and finds out when to be called again at the latest.
func (s *Session) work(ctx context.Context, now time.Time) {
	s.mu.Lock()
	inbox, orders := s.inbox, s.orders
	s.inbox, s.orders = nil, nil
	s.mu.Unlock()

	s.wake = now.Add(time.Hour)
	for _, pkt := range inbox {
		s.receive(now, pkt)
	}
	for _, f := range orders {
		f(now)
	}
	for _, n := range s.negotiated {
		n.conn.take(n.rel, s.chunk(n.key)) // what was acknowledged makes room, and may be waited for
	}
	s.keepTime(now)
	for _, n := range s.negotiated {
		// TLS begins when our reset is acknowledged, so that the client's address is proved, and there is something to
		// do: a client that says nothing costs no TLS.
		if n.cancel == nil && !n.over && n.fed > 0 && n.rel.outstanding() == 0 {
			s.start(ctx, n)
		}
	}
	s.transmit(now)
}

// add opens a negotiation whose message ids begin with id.
func (s *Session) add(now time.Time, key KeyID, id PacketID) *negotiation {
	n := &negotiation{
		key:      key,
		first:    len(s.negotiated) == 0,
		started:  now,
		cfg:      s.cfg,
		deadline: now.Add(s.timing.HandWindow),
		lastByte: now,
		conn:     newConn(s.poke),
		rel:      newReliable(id, s.timing.TLSTimeout),
	}
	if !n.first {
		s.next, s.wanted = n, false // who began it does not matter
		if s.cfg.Current != nil {
			n.cfg = s.cfg.Current()
		}
	}
	s.begun = now
	s.negotiated = append(s.negotiated, n)
	return n
}

// start begins TLS.
func (s *Session) start(ctx context.Context, n *negotiation) {
	ctx, n.cancel = context.WithCancelCause(ctx)
	n.tls = tls.Server(n.conn, n.tlsConfig())
	s.wg.Go(func() {
		err := s.negotiate(ctx, n)
		s.order(func(now time.Time) { s.decided(now, n, err) })
	})
}

// next is the key id after k: 0 is the first negotiation's alone.
func (k KeyID) next() KeyID { return k%7 + 1 }
