package tlsctl

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
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

// New prepares a session and starts nothing.
func New(cfg *Config, owner Owner, o *Opening) *Session {
	name := hex.EncodeToString(o.Server[:4])
	return &Session{
		cfg:      cfg,
		timing:   cfg.Timing.withDefaults(),
		owner:    owner,
		open:     o,
		name:     name,
		log:      cfg.Log.With().Str("session", name).Logger(),
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

// Shutdown is Dismiss with ErrShutdown.
func (s *Session) Shutdown(m Message) { s.Dismiss(m, ErrShutdown) }

// Dismiss ends the session, and Run returns reason, after m (none if empty) was acknowledged by an established client or
// Timing.Farewell is over.
func (s *Session) Dismiss(m Message, reason error) {
	s.order(func(now time.Time) {
		if s.current == nil || m == "" {
			s.end(reason)
			return
		}
		if s.leaving != nil {
			return // the client hears something already
		}
		s.leave(reason)
		s.say(s.current, m)
		s.until, s.lastWords = now.Add(s.timing.Farewell), s.current
	})
}

// End ends the session at once, without a word to the client; Run returns reason.
func (s *Session) End(reason error) {
	s.order(func(time.Time) { s.end(reason) })
}

// Deny ends the session with AUTH_FAILED; Run returns d once the client can have heard it. A client that is not
// established yet hears nothing.
func (s *Session) Deny(d *Denial) {
	s.order(func(now time.Time) {
		switch {
		case s.leaving != nil:
		case s.current == nil:
			s.end(d)
		default:
			s.refuse(s.current, d, now)
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

// wakeAt asks for work at t, unless it is zero.
func (s *Session) wakeAt(t time.Time) {
	if !t.IsZero() && t.Before(s.wake) {
		s.wake = t
	}
}

// passed reports whether a timer is over, and asks for work when it will be. A zero one never is.
func (s *Session) passed(now, t time.Time) bool {
	if t.IsZero() {
		return false
	}
	if now.Before(t) {
		s.wakeAt(t)
		return false
	}
	return true
}

// keepTime looks at all timers but those of single packets.
func (s *Session) keepTime(now time.Time) {
	if s.leaving != nil {
		if s.verdict != "" && s.passed(now, s.verdictAt) && s.verdictOn.conn.idle() {
			s.say(s.verdictOn, s.verdict)
			s.verdict, s.until = "", now.Add(s.timing.Linger)
		}
		if s.passed(now, s.until) || s.lastWords != nil && s.lastWords.conn.idle() {
			s.end(s.leaving)
		}
		return
	}
	for _, n := range s.negotiated {
		s.watch(now, n)
	}
	if s.passed(now, s.expires) {
		s.end(ErrHandshakeTimeout)
	}
	// The control channel of an older key is read as long as its client may not have moved on.
	s.negotiated = slices.DeleteFunc(s.negotiated, func(n *negotiation) bool {
		return s.current != nil && n.over && n != s.current && s.passed(now, s.current.started.Add(2*s.timing.HandWindow))
	})
	if s.current == nil || s.next != nil {
		return
	}
	s.forgetDebts()
	if s.passed(now, s.renegotiate) {
		s.wanted = true
	}
	if s.wanted && s.current.conn.idle() {
		n := s.add(now, s.lastKey.next(), 0)
		n.rel.queue(OpSoftReset, nil)
	}
}

// watch ends a negotiation that takes too long. Acknowledgements and retransmissions are no progress.
func (s *Session) watch(now time.Time, n *negotiation) {
	if n.over {
		if n == s.current && n.rel.exhausted(now) {
			s.end(ErrSilent)
		}
		return
	}
	s.pursue(now, n)
	late := s.passed(now, n.deadline)
	if n.first && !n.readable {
		if n.fed == 0 {
			late = late || s.passed(now, n.started.Add(s.timing.FirstByte))
		} else {
			late = late || s.passed(now, n.lastByte.Add(s.timing.Progress))
		}
	}
	if late {
		s.abort(now, n, ErrHandshakeTimeout)
	}
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

// abort ends a negotiation that is under way.
func (s *Session) abort(now time.Time, n *negotiation, err error) {
	if n.cancel == nil {
		s.decided(now, n, err)
		return
	}
	n.cancel(err) // negotiate will report
}

// decided takes the outcome of a negotiation.
func (s *Session) decided(now time.Time, n *negotiation, err error) {
	if n.cancel != nil {
		n.cancel(nil)
	}
	n.over = true
	if n == s.next {
		s.next = nil
		if n.heard {
			s.lastKey = n.key
		}
	}
	defer n.forgetSecrets()
	if s.leaving != nil || s.ended {
		return // that decision was final
	}
	if err == nil {
		err = s.authorise(now, n)
	}
	var denied *Denial
	var panicked *panicError
	switch {
	case err == nil:
	case errors.As(err, &denied):
		// All logins that fail are told so at one time after they came, so that the time tells nothing about the
		// reason (S045). In a renegotiation the silence of the data channel has told already.
		at := now
		if later := n.asked.Add(s.timing.RefusalDelay); n.first && denied.Challenge == "" && later.After(now) {
			at = later
		}
		s.refuse(n, denied, at)
	case n.first && n.alerted(err):
		// The alert goes out again until it has arrived: a client that hears nothing waits for a minute.
		s.leave(err)
		s.until, s.lastWords = now.Add(s.timing.Linger), n
	case n.first, errors.As(err, &panicked):
		s.end(err)
	default:
		// The old key goes on, until its time is over, and we do not try again at once.
		s.log.Info().Err(err).Uint8("key", uint8(n.key)).Msg("renegotiation failed")
		n.dead = true
		if n.installed {
			s.owner.Withdraw(n.key)
		}
		if s.expires.IsZero() {
			s.expires = n.started.Add(s.timing.Transition)
		}
		if !s.renegotiate.IsZero() {
			s.renegotiate = n.started.Add(2 * s.timing.HandWindow)
		}
		s.payDebts()
	}
}

func (n *negotiation) forgetSecrets() {
	for _, x := range []*exchange{n.theirs, n.ours} {
		if x != nil {
			x.wipe()
		}
	}
	n.theirs, n.ours = nil, nil
}

// authorise is the one way to a data key and to PUSH_REPLY. It wants a negotiation that decide has found good.
func (s *Session) authorise(now time.Time, n *negotiation) error {
	if n.grant == nil || n.hello == nil {
		return &Denial{Err: errors.New("not admitted")}
	}
	if n.first {
		if err := s.prepare(n); err != nil {
			return &Denial{Temporary: true, Public: "temporary failure, try again later", Err: err}
		}
	}
	if !n.installed {
		if err := s.install(n); err != nil {
			return err
		}
	}
	s.owner.Confirm(n.key)
	s.log.Debug().Uint8("key", uint8(n.key)).Uint16("tls", n.state.Version).Msg("negotiated")
	// Beside the new one only the one before goes on being read.
	s.negotiated = slices.DeleteFunc(s.negotiated, func(o *negotiation) bool { return o.over && o != n && o != s.current })
	s.current = n
	s.lastKey = n.key
	s.expires = time.Time{}
	s.renegotiate = time.Time{}
	if d := s.timing.Renegotiate; d > 0 {
		// Not all clients at once.
		s.renegotiate = n.started.Add(d - time.Duration(rand.Int64N(int64(d/10)+1)))
	}
	if !n.first {
		s.payDebts()
		s.setToken(n.grant.Token)
	}
	if s.asked || n.first && n.hello.Peer.Can(FeatureRequestPush) {
		s.push(now)
	}
	return nil
}

// prepare settles for the whole session what the first negotiation decides.
func (s *Session) prepare(n *negotiation) error {
	// TLS 1.2 without extended master secret exports nothing.
	exported, err := exportKeys(&n.state, exportDynamic)
	t, bad := newTerms(s.cfg, n.hello, n.grant, err == nil)
	if bad != nil {
		return bad
	}
	if _, err := t.replies(n.grant.Push, n.hello.Peer, n.grant.Token); err != nil {
		return err
	}
	if t.dynamic {
		s.exported = exported
	} else {
		clear(exported)
	}
	if theirs := optionValue(n.hello.Options, "auth"); t.digest != "" && theirs != "" && !strings.EqualFold(theirs, t.digest) {
		s.log.Warn().Str("client", theirs).Str("server", t.digest).Msg("the client has another auth: no data will pass")
	}
	s.terms, s.granted, s.token = t, slices.Clone(n.grant.Push), n.grant.Token
	s.identity = n.hello
	s.identity.Password = nil
	return nil
}

// install derives the data key and hands it over. The error is a *Denial.
func (s *Session) install(n *negotiation) error {
	if err := s.handOver(n); err != nil {
		return &Denial{Temporary: true, Public: "temporary failure, try again later", Err: fmt.Errorf("install data key: %w", err)}
	}
	n.installed = true
	return nil
}

func (s *Session) handOver(n *negotiation) error {
	var keys keyBlock
	var err error
	if s.terms.exporter {
		keys, err = exportKeys(&n.state, exportDataKeys)
	} else {
		keys, err = deriveKeys(n.theirs, n.ours, s.open.Client, s.open.Server)
	}
	if err != nil {
		return err
	}
	defer clear(keys)
	return s.owner.Install(KeyMaterial{
		ID:         n.key,
		Cipher:     s.terms.cipher,
		Digest:     s.terms.digest,
		ToClient:   keys.toClient(),
		FromClient: keys.fromClient(),
		PeerID:     s.terms.peerID,
		V2:         s.terms.v2,
		Epoch:      s.terms.epoch,
		Framing:    s.terms.framing,
		Started:    n.started,
	})
}

// push sends PUSH_REPLY.
func (s *Session) push(now time.Time) {
	replies, err := s.terms.replies(s.granted, s.identity.Peer, s.token)
	if err != nil { // the same options and as good a token were fine before
		s.end(fmt.Errorf("push reply: %w", err))
		return
	}
	first := s.pushed.IsZero()
	s.pushed = now
	s.sayAll(replies)
	if first {
		s.updates.Store(s.identity.Peer.Can(FeaturePushUpdate))
		s.owner.Established()
	}
}

// refuse ends the session with AUTH_FAILED, sent on n, not before at, and when n has nothing else unacknowledged: an
// OpenVPN 3 client that finds a second record behind our key exchange takes both for one broken message. The decision
// is final: from here on packets are acknowledged and nothing else.
func (s *Session) refuse(n *negotiation, d *Denial, at time.Time) {
	s.leave(d)
	var peer PeerInfo
	if n.hello != nil {
		peer = n.hello.Peer
	}
	s.verdict, s.verdictOn, s.verdictAt = authFailed(d, peer), n, at
	if s.until = at.Add(s.timing.Linger); s.current == nil {
		s.until = n.deadline // nothing is lost by waiting until the client listens
	}
}

// leave begins the end of a session that still has something to say or to acknowledge.
func (s *Session) leave(reason error) {
	s.leaving = reason
	s.leaveOnce(reason)
	for _, n := range s.negotiated {
		if !n.over && n.cancel != nil {
			n.cancel(reason)
		}
	}
}

func (s *Session) leaveOnce(reason error) {
	if !s.left {
		s.left = true
		s.owner.Leaving(reason)
	}
}

// end ends the session once what is queued was sent.
func (s *Session) end(err error) {
	if !s.ended {
		s.ended, s.err = true, err
		s.leaveOnce(err)
	}
}

// say writes a message, one record of its own.
func (s *Session) say(n *negotiation, m Message) {
	if _, err := n.tls.Write(m.record()); err != nil && s.leaving == nil {
		s.end(fmt.Errorf("send message: %w", tlsFailure(err)))
	}
}

// readMessages reads what there is of a client's messages.
func (s *Session) readMessages(n *negotiation) {
	if n.dead || s.ended {
		return
	}
	var b [2048]byte
	ignored, told := 0, time.Time{} // one line a second, whatever the client sends (S103)
	for {
		size, err := n.tls.Read(b[:])
		n.messages.add(b[:size],
			s.heed,
			func(bad []byte) {
				ignored++
				if time.Since(told) < time.Second {
					return
				}
				told = time.Now()
				if bytes.HasPrefix(bad, []byte(responsePrefix)) {
					bad = nil
				}
				s.log.Debug().Int("so_far", ignored).Hex("text", bad[:min(len(bad), 64)]).Msg("ignored an ill-formed message")
			})
		clear(b[:size])
		switch {
		case err == nil:
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
		case n != s.current && n.over:
			n.dead = true // an older TLS session may end as it likes
		case errors.Is(err, io.EOF):
			s.exit()
		case s.leaving == nil:
			s.end(tlsFailure(err))
		}
		return
	}
}

// heed does what a client's message asks for.
func (s *Session) heed(m []byte) {
	if s.leaving != nil {
		return
	}
	now := time.Now()
	switch string(m) {
	case "PUSH_REQUEST":
		switch {
		case s.current == nil:
			s.asked = true
		case s.pushed.IsZero() || now.Sub(s.pushed) >= pushInterval:
			s.push(now)
		}
	case "EXIT":
		s.exit()
	default:
		if response, ok := bytes.CutPrefix(m, []byte(responsePrefix)); ok {
			s.answered(response)
		}
		// INFO, ACC and what is unknown are ignored.
	}
}

// exit lets a client go that has said goodbye: it is acknowledged for some time still, lest a late packet of it be
// taken for a new client's.
func (s *Session) exit() {
	if s.leaving == nil {
		s.leave(ErrExit)
		s.until = time.Now().Add(s.timing.Linger)
	}
}

// clientRate is what a client may send once it is in (S025).
type clientRate struct {
	second, period time.Time
	packets, bytes int
}

// add counts a packet and reports whether packets and bytes are still within their limits. One packet too many is not
// taken, so its bytes do not count.
func (r *clientRate) add(now time.Time, size int) (packets, bytes bool) {
	if now.Sub(r.second) >= time.Second {
		r.second, r.packets = now, 0
	}
	if now.Sub(r.period) >= ratePeriod {
		r.period, r.bytes = now, 0
	}
	if r.packets++; r.packets > ratePackets {
		return false, true
	}
	r.bytes += size
	return true, r.bytes <= rateBytes
}

// next is the key id after k: 0 is the first negotiation's alone.
func (k KeyID) next() KeyID { return k%7 + 1 }
