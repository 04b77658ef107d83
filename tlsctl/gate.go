package tlsctl

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultHandWindow = 60 * time.Second
	maxDatagram       = 2560 // OpenVPN 3 with a wrapped key sends up to about 2,400
)

// resendWKC is the payload of a server reset that asks for the wrapped client key once more, with the third packet:
// type 1 (early negotiation flags), length 2, bit 0.
var resendWKC = []byte{0, 1, 0, 2, 0, 1}

// GateOptions say where a Gate stands.
type GateOptions struct {
	// Listener tells this listener from others of the process, like "udp 192.0.2.1:1194": an address proven to
	// one is not proven to another.
	Listener string
	// HandWindow is twice the life of a cookie's time slot; 0 means 60 s.
	HandWindow time.Duration
	// CookieKey is 32 secret bytes; nil means random. Gates before sockets that share a port need the same.
	CookieKey []byte
	// Limits are shared by all gates of a process; nil means the defaults for this gate alone.
	Limits *Limits
}

// GateCounts are what became of the packets that a gate was shown.
type GateCounts struct {
	Answered  uint64 // resets answered with a cookie
	Opened    uint64 // openings handed out
	Malformed uint64 // no control packet that could begin anything
	Unwrapped uint64 // failed its wrap, or the wrong one
	Cookie    uint64 // no cookie, a wrong one or an old one
	Limited   uint64 // over a limit
	Refused   uint64 // a client key that may not come in
}

// A Gate answers the first packets of strangers and keeps nothing of them. What it answers is made from the
// question alone: the server's session id is a cookie, and only its return makes an Opening.
//
//	client                              gate
//	  | reset ---------------------------> |  wrap good, within limits
//	  | <------- reset, session id=cookie  |  no longer than the question
//	  | anything that acknowledges it ---> |  cookie good: an Opening
//
// With strangers that fail any check it is silent, and does not allocate.
type Gate struct {
	wrap   Wrapping
	limits *Limits
	start  time.Time // of the clock, which no change of the date can move

	mu     sync.Mutex
	jar    *cookieJar
	basic  sessionMaker // for packets without a wrapped key; nil: such are not taken
	keys   *keyUnwrapper
	client *cryptV2Wrap // the wrap of the client key seen last, which often comes again at once
	buffer [maxDatagram]byte
	reply  []byte
	out    Packet      // the answer
	ack    [1]PacketID // 0

	counts struct {
		answered, opened, malformed, unwrapped, cookie, limited, refused atomic.Uint64
	}
}

// sessionMaker is a wrapper as a gate needs it: for packets of many clients, of which none can have been seen.
type sessionMaker interface {
	wrapper
	// openAny is open without the replay check.
	openAny(b []byte) (Packet, replayID, error)
	// rewind makes the next seal the first of a new context.
	rewind(sendCounter)
	// session returns a wrapper of its own for one client, which has already sent the packet seen, if that has an id.
	session(c sendCounter, seen replayID) wrapper
}

// NewGate returns a gate for strangers that come with w.
func NewGate(w Wrapping, o GateOptions) (*Gate, error) {
	if w.Auth != nil && w.Crypt != nil {
		return nil, errors.New("gate: tls-auth and tls-crypt exclude each other")
	}
	if o.HandWindow == 0 {
		o.HandWindow = defaultHandWindow
	}
	switch {
	case o.CookieKey == nil:
		o.CookieKey = randomBytes(cookieKeyLen)
	case len(o.CookieKey) != cookieKeyLen:
		return nil, fmt.Errorf("gate: cookie key of %d bytes, want %d", len(o.CookieKey), cookieKeyLen)
	}
	if o.Limits == nil {
		o.Limits = NewLimits(LimitOptions{HandWindow: o.HandWindow})
	}
	g := &Gate{
		wrap:   w,
		limits: o.Limits,
		start:  time.Now(),
		jar:    newCookieJar(o.CookieKey, o.Listener, int64(o.HandWindow/time.Second)),
		reply:  make([]byte, 0, 256),
	}
	switch {
	case w.Auth != nil:
		g.basic = w.Auth.newWrap(sendCounter{})
	case w.Crypt != nil:
		g.basic = w.Crypt.newWrap(sendCounter{})
	case w.CryptV2 == nil:
		g.basic = &plainWrap{}
	}
	if w.CryptV2 != nil {
		g.keys = newKeyUnwrapper(w.CryptV2)
	}
	return g, nil
}

// seconds is now as Unix time. It never goes back while the process runs, whatever happens to the clock: replay
// times and cookies hang on it.
func (g *Gate) seconds(now time.Time) int64 {
	return g.start.Add(now.Sub(g.start)).Unix()
}

// A stranger is a packet that passed its wrap, and what came with it.
type stranger struct {
	Packet
	number replayID
	wrap   sessionMaker
	v2     bool
	key    ClientKey // lent by the unwrapper
}

// early reports whether the client can send its wrapped key again.
func (s *stranger) early() bool { return s.v2 && s.number.id>>24 == earlyNegotiate }

// Greet judges a datagram from an address without a session, or one that names another client session id than the
// sessions of that address. Nearly always the answer is silence. reply, if any, is to be sent at once to where pkt
// came from, or dropped; it is never longer than pkt, and valid until the next call. o, if any, is a client to
// begin a session for; Settle wants to hear of its end. pkt is left as it is. One goroutine calls Greet.
func (g *Gate) Greet(now time.Time, from netip.AddrPort, pkt []byte) (reply []byte, o *Opening) {
	return g.GreetAt(now, from, netip.Addr{}, pkt)
}

// GreetAt is Greet for a listener with several addresses: what an address proved to one of them it did not to another.
func (g *Gate) GreetAt(now time.Time, from netip.AddrPort, local netip.Addr, pkt []byte) (reply []byte, o *Opening) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.jar.local = local
	s, ok := g.meet(pkt)
	if !ok {
		return nil, nil
	}
	switch {
	case s.ID > 1, s.Opcode.isReset() && s.ID != 0:
		g.counts.malformed.Add(1)
	case len(s.Acks) > 0:
		return nil, g.welcome(now, from, pkt, &s)
	case s.v2 && !s.early():
		if s.Opcode.isReset() {
			return nil, g.welcomeEarly(now, from, &s)
		}
		g.counts.cookie.Add(1)
	case s.Opcode.isReset() || s.ID == 1:
		// A client of 2.4, 2.5 or OpenVPN 3 up to 3.7 acknowledges our reset once, in its first message. If that
		// is lost, the message comes again without the cookie: let it hear the cookie again.
		return g.answer(now, from, len(pkt), &s), nil
	default:
		g.counts.malformed.Add(1)
	}
	return nil, nil
}

// GreetStream judges the first packet of a stream, where the connection has proved the address. It must be a
// reset. Any goroutine may call it.
func (g *Gate) GreetStream(now time.Time, from netip.AddrPort, pkt []byte) (*Opening, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok := g.meet(pkt)
	switch {
	case !ok:
		return nil, errors.New("first packet is not one of ours")
	case !s.Opcode.isReset() || s.ID != 0 || len(s.Acks) > 0:
		g.counts.malformed.Add(1)
		return nil, errors.New("first packet is no reset")
	case s.v2 && !g.wrap.CryptV2.permits(s.key, now):
		g.counts.refused.Add(1)
		return nil, errors.New("client key refused")
	case !g.limits.takeStart(now, from.Addr()):
		g.counts.limited.Add(1)
		return nil, errors.New("too many connections from this source")
	}
	o := g.open(now, from, &s, sendCounter{}, s.number)
	o.Server = randomSessionID()
	o.Stream = true
	return o, nil
}

// Settle says that the session of an opening was authorised, or ended without. It is wanted once for each; a source
// from which somebody logged in is known for a day, and may come more often. Any goroutine may call it.
func (g *Gate) Settle(now time.Time, o *Opening, authorised bool) {
	g.limits.settle(now, o, authorised)
}

// Counts returns what the gate did so far. Any goroutine may call it.
func (g *Gate) Counts() GateCounts {
	c := &g.counts
	return GateCounts{
		Answered:  c.answered.Load(),
		Opened:    c.opened.Load(),
		Malformed: c.malformed.Load(),
		Unwrapped: c.unwrapped.Load(),
		Cookie:    c.cookie.Load(),
		Limited:   c.limited.Load(),
		Refused:   c.refused.Load(),
	}
}

// meet reads a packet that may be the first of a session, under the wrap that its opcode asks for.
func (g *Gate) meet(pkt []byte) (s stranger, ok bool) {
	op, kid, _, ok := PeekSession(pkt)
	if !ok || op == OpSoftReset || kid != 0 || len(pkt) > len(g.buffer) {
		g.counts.malformed.Add(1)
		return s, false
	}
	b := g.buffer[:copy(g.buffer[:], pkt)]
	var err error
	if carriesWKC(b) {
		s.v2 = true
		b, s.key, err = g.meetKey(b)
		s.wrap = g.client
	} else if s.wrap = g.basic; g.basic == nil {
		err = errWrap
	}
	if err == nil {
		s.Packet, s.number, err = s.wrap.openAny(b)
	}
	switch err {
	case nil:
		return s, true
	case errPacket:
		g.counts.malformed.Add(1)
	default:
		g.counts.unwrapped.Add(1)
	}
	return s, false
}

// meetKey opens the wrapped client key at the end of b, makes g.client that client's, and returns the rest.
func (g *Gate) meetKey(b []byte) ([]byte, ClientKey, error) {
	if g.keys == nil {
		return nil, ClientKey{}, errWrap
	}
	b, wkc, err := splitWKC(b)
	if err != nil {
		return nil, ClientKey{}, err
	}
	kc, c, err := g.keys.unwrap(wkc)
	if err != nil {
		return nil, c, err
	}
	if g.client == nil || !sameSecret(g.client.key.static, kc) {
		key, err := NewCryptKey(kc)
		if err != nil {
			return nil, c, err
		}
		g.client = &cryptV2Wrap{*key.newWrap(sendCounter{})}
	}
	return b, c, nil
}

// answer makes the reset that carries the cookie, from a packet of size bytes.
//
// To an address that is not proven we never send more than we got, so a short reset is answered without the
// acknowledgement of it: the client then sends ours alone, with the cookie, and the session made from that
// acknowledges the reset first thing. That takes one journey more than the reference's answer, which is up to 1.9
// times as long as the question.
func (g *Gate) answer(now time.Time, from netip.AddrPort, size int, s *stranger) []byte {
	p := &g.out
	*p = Packet{Opcode: OpHardResetServerV2, Acks: g.ack[:], Remote: s.Session}
	if s.early() {
		p.Payload = resendWKC
	}
	length := s.wrap.overhead() + headLen + 1 + 4 + len(p.Payload)
	if length+4+sessionIDLen > size {
		p.Acks = nil
	}
	if length > size {
		g.counts.malformed.Add(1) // not with the same wrap around a whole packet
		return nil
	}
	if !g.limits.takeReset(now) {
		g.counts.limited.Add(1)
		return nil
	}
	sec := g.seconds(now)
	p.Session = g.jar.bake(sec, from, s.Session)
	s.wrap.rewind(sendCounter{stamp: uint32(sec)})
	g.reply = s.wrap.seal(g.reply[:0], p)
	g.counts.answered.Add(1)
	return g.reply
}

// welcome opens a session for a client that brings a cookie back. Only the first ids may be on the way by then: a
// late packet of a session that has moved away must not begin another at its old address.
func (g *Gate) welcome(now time.Time, from netip.AddrPort, pkt []byte, s *stranger) *Opening {
	for _, id := range s.Acks {
		if id > 1 {
			g.counts.malformed.Add(1)
			return nil
		}
	}
	if !g.jar.knows(g.seconds(now), from, s.Session, s.Remote) {
		g.counts.cookie.Add(1)
		return nil
	}
	if s.v2 && !g.wrap.CryptV2.permits(s.key, now) {
		g.counts.refused.Add(1)
		return nil
	}
	if !g.limits.takeStart(now, from.Addr()) {
		g.counts.limited.Add(1)
		return nil
	}
	g.limits.returnReset()
	// The answer used the first replay id. The session's time is not before the answer's, so its next one is newer.
	o := g.open(now, from, s, sendCounter{last: 1}, replayID{})
	o.Server = s.Remote
	o.first = slices.Clone(pkt)
	return o
}

// welcomeEarly opens a session before the address is proven, for a client whose later packets cannot be read without
// having kept its key. There are few places.
func (g *Gate) welcomeEarly(now time.Time, from netip.AddrPort, s *stranger) *Opening {
	if g.wrap.CryptV2.ForceCookie || !g.wrap.CryptV2.permits(s.key, now) {
		g.counts.refused.Add(1)
		return nil
	}
	if !g.limits.takeEarly(now, from, s.Session) {
		g.counts.limited.Add(1)
		return nil
	}
	o := g.open(now, from, s, sendCounter{}, s.number)
	o.Server = randomSessionID()
	return o
}

func (g *Gate) open(now time.Time, from netip.AddrPort, s *stranger, c sendCounter, seen replayID) *Opening {
	c.stamp = uint32(g.seconds(now))
	g.counts.opened.Add(1)
	o := &Opening{From: from, Client: s.Session, wrap: s.wrap.session(c, seen)}
	if s.v2 {
		o.Metadata = slices.Clone(s.key.Metadata)
	}
	return o
}

func randomSessionID() (id SessionID) {
	for id.IsZero() {
		rand.Read(id[:])
	}
	return id
}

func (w *plainWrap) openAny(b []byte) (Packet, replayID, error) {
	p, err := w.open(b)
	return p, replayID{}, err
}
func (w *plainWrap) rewind(sendCounter)                    {}
func (w *plainWrap) session(sendCounter, replayID) wrapper { return &plainWrap{} }

func (w *authWrap) rewind(c sendCounter) { w.counter = c }
func (w *authWrap) session(c sendCounter, seen replayID) wrapper {
	n := w.key.newWrap(c)
	n.window.accept(seen)
	return n
}

func (w *cryptWrap) rewind(c sendCounter) { w.counter = c }
func (w *cryptWrap) session(c sendCounter, seen replayID) wrapper {
	n := w.key.newWrap(c)
	n.window.accept(seen)
	return n
}

func (w *cryptV2Wrap) session(c sendCounter, seen replayID) wrapper {
	n := &cryptV2Wrap{*w.key.newWrap(c)}
	n.window.accept(seen)
	return n
}
