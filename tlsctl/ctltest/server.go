package ctltest

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"postern/tlsctl"
)

// A Server is a gate and the sessions it opens, without sockets.
type Server struct {
	cfg    *tlsctl.Config
	gate   *tlsctl.Gate
	owner  func() *Owner
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	greet    sync.Mutex // Greet is one goroutine's
	sessions map[sessionKey]*Live
	opened   []*Live
}

type sessionKey struct {
	from   netip.AddrPort
	client tlsctl.SessionID
}

// Live is a session with its owner, and how it ended.
type Live struct {
	*tlsctl.Session
	Owner *Owner
	ended chan struct{}
	err   error
}

// Wait returns what Run has returned, once it has.
func (l *Live) Wait() error {
	<-l.ended
	return l.err
}

// NewServer returns a server that makes an owner for each session. Close it.
func NewServer(cfg *tlsctl.Config, owner func() *Owner) (*Server, error) {
	gate, err := tlsctl.NewGate(cfg.Wrap, tlsctl.GateOptions{})
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, gate: gate, owner: owner, sessions: make(map[sessionKey]*Live)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// Deliver takes a packet from an address, and sends what it has to say there with reply.
func (s *Server) Deliver(from netip.AddrPort, pkt []byte, reply func([]byte)) {
	_, _, sid, ok := tlsctl.PeekSession(pkt)
	if !ok {
		return
	}
	s.mu.Lock()
	l := s.sessions[sessionKey{from, sid}]
	s.mu.Unlock()
	if l != nil {
		l.Deliver(pkt)
		return
	}
	s.greet.Lock()
	answer, o := s.gate.Greet(time.Now(), from, pkt)
	if answer != nil {
		reply(answer)
	}
	s.greet.Unlock()
	if o != nil {
		s.open(o, reply)
	}
}

// DeliverStream takes a packet of a connection; first tells whether it is the first.
func (s *Server) DeliverStream(from netip.AddrPort, pkt []byte, first bool, reply func([]byte)) error {
	_, _, sid, ok := tlsctl.PeekSession(pkt)
	if !ok {
		return fmt.Errorf("not a control packet: %x", pkt)
	}
	if !first {
		s.mu.Lock()
		l := s.sessions[sessionKey{from, sid}]
		s.mu.Unlock()
		if l != nil {
			l.Deliver(pkt)
		}
		return nil
	}
	o, err := s.gate.GreetStream(time.Now(), from, pkt)
	if err != nil {
		return err
	}
	s.open(o, reply)
	return nil
}

func (s *Server) open(o *tlsctl.Opening, reply func([]byte)) {
	owner := s.owner()
	owner.send = reply
	l := &Live{Owner: owner, Session: tlsctl.New(s.cfg, owner, o), ended: make(chan struct{})}
	key := sessionKey{o.From, o.Client}
	s.mu.Lock()
	s.sessions[key] = l
	s.opened = append(s.opened, l)
	s.mu.Unlock()
	s.wg.Go(func() {
		defer close(l.ended)
		l.err = l.Run(s.ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, key)
	})
}

// Opened returns all sessions so far.
func (s *Server) Opened() []*Live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Live(nil), s.opened...)
}

// Close ends all sessions and waits for them.
func (s *Server) Close(cause error) {
	s.cancel(cause)
	s.wg.Wait()
}

// Owner is a tlsctl.Owner that writes down what it is told. Set its functions before it is used.
type Owner struct {
	// OnAdmit decides; nil grants.
	OnAdmit func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error)
	// OnInstall may refuse a key.
	OnInstall func(k tlsctl.KeyMaterial) error

	send func([]byte)

	mu          sync.Mutex
	hellos      []tlsctl.Hello
	passwords   []string
	keys        []tlsctl.KeyMaterial
	established []time.Time
	left        []error
	leftAt      time.Time
	events      []string
}

// DefaultGrant is what an Owner without OnAdmit gives.
var DefaultGrant = tlsctl.Grant{
	Push:   []string{"route-gateway 10.9.0.1", "topology subnet", "ping 10", "ping-restart 60", "ifconfig 10.9.0.2 255.255.255.0"},
	PeerID: 7,
}

func (o *Owner) note(event string) { o.events = append(o.events, event) }

// Note adds an event of the test's own to Events.
func (o *Owner) Note(event string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note(event)
}

// Send implements tlsctl.Owner.
func (o *Owner) Send(pkt []byte) { o.send(pkt) }

// Admit implements tlsctl.Owner.
func (o *Owner) Admit(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
	o.mu.Lock()
	o.hellos = append(o.hellos, *h)
	o.passwords = append(o.passwords, string(h.Password))
	o.note(fmt.Sprintf("admit %d", h.KeyID))
	o.mu.Unlock()
	if o.OnAdmit != nil {
		return o.OnAdmit(ctx, h)
	}
	return &DefaultGrant, nil
}

// Install implements tlsctl.Owner.
func (o *Owner) Install(k tlsctl.KeyMaterial) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	k.ToClient = append(tlsctl.Secret(nil), k.ToClient...)
	k.FromClient = append(tlsctl.Secret(nil), k.FromClient...)
	o.keys = append(o.keys, k)
	o.note(fmt.Sprintf("install %d", k.ID))
	if o.OnInstall != nil {
		return o.OnInstall(k)
	}
	return nil
}

// Confirm implements tlsctl.Owner.
func (o *Owner) Confirm(id tlsctl.KeyID) { o.Note(fmt.Sprintf("confirm %d", id)) }

// Withdraw implements tlsctl.Owner.
func (o *Owner) Withdraw(id tlsctl.KeyID) { o.Note(fmt.Sprintf("withdraw %d", id)) }

// Established implements tlsctl.Owner.
func (o *Owner) Established() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.established = append(o.established, time.Now())
	o.note("established")
}

// Leaving implements tlsctl.Owner.
func (o *Owner) Leaving(reason error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.left = append(o.left, reason)
	o.leftAt = time.Now()
	o.note("leaving")
}

// Events returns the names of all calls but Send so far: "admit 0", "install 0", "confirm 0", "established", "leaving".
func (o *Owner) Events() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.events...)
}

// Hellos returns what Admit was asked, and the passwords as they were then.
func (o *Owner) Hellos() ([]tlsctl.Hello, []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]tlsctl.Hello(nil), o.hellos...), append([]string(nil), o.passwords...)
}

// Keys returns the keys installed so far.
func (o *Owner) Keys() []tlsctl.KeyMaterial {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]tlsctl.KeyMaterial(nil), o.keys...)
}

// Left returns with what and when Leaving was called.
func (o *Owner) Left() ([]error, time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]error(nil), o.left...), o.leftAt
}
