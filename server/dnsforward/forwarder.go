// Package dnsforward answers the DNS questions of clients on the gateway's inside addresses, by asking name servers that
// depend on the name: those of the longest zone that the name is in.
//
//	client -- UDP, TCP --> Forwarder -- a socket of its own for each question --> upstream
//
// It keeps no cache: the name servers behind it have theirs. Who may ask, how many questions are under way in all and for
// one client, and how long each may take is bounded; beyond that a question is refused or dropped, and counted.
package dnsforward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/rs/zerolog"
)

const (
	maxUnderway  = 512 // questions in all
	maxOfClient  = 32  // and of one address
	maxStreams   = 128 // TCP connections
	maxQuestions = 64  // on one of them
	upstreamTime = 2 * time.Second
	wholeTime    = 5 * time.Second
	idleTime     = 10 * time.Second
	failedTime   = 10 * time.Second // how long a name server that did not answer is asked last
	udpSize      = 1232             // of answers, and from upstream
)

// A Zone is whom to ask about the names in it.
type Zone struct {
	Name      string           // such as "corp.example.", or "." for all names
	Upstreams []netip.AddrPort // in the order to ask
}

// Rules are what a Forwarder goes by, and what a reload may change.
type Rules struct {
	Zones  []Zone
	Allow  []netip.Prefix // who may ask
	zones  []Zone         // canonical, longest first
	failed sync.Map       // netip.AddrPort -> time.Time of the last failure
}

// NewRules checks zones. The error names the one that is wrong.
func NewRules(zones []Zone, allow []netip.Prefix) (*Rules, error) {
	r := &Rules{Zones: zones, Allow: allow}
	for _, z := range zones {
		if _, ok := dns.IsDomainName(z.Name); !ok || z.Name == "" {
			return nil, fmt.Errorf("%q is not the name of a zone", z.Name)
		}
		if len(z.Upstreams) == 0 {
			return nil, fmt.Errorf("zone %s has no name server", z.Name)
		}
		name := dns.CanonicalName(z.Name)
		if slices.ContainsFunc(r.zones, func(o Zone) bool { return o.Name == name }) {
			return nil, fmt.Errorf("zone %s is there twice", z.Name)
		}
		r.zones = append(r.zones, Zone{name, z.Upstreams})
	}
	slices.SortStableFunc(r.zones, func(a, b Zone) int { return dns.CountLabel(b.Name) - dns.CountLabel(a.Name) })
	return r, nil
}

// Canonical is the one form of a zone's name: in lower case, with a dot at its end.
func Canonical(zone string) string { return dns.CanonicalName(zone) }

// upstreams returns whom to ask about a name, those that failed lately last; nil for nobody.
func (r *Rules) upstreams(name string, now time.Time) []netip.AddrPort {
	for _, z := range r.zones {
		if !dns.IsSubDomain(z.Name, dns.CanonicalName(name)) {
			continue
		}
		var good, bad []netip.AddrPort
		for _, u := range z.Upstreams {
			if at, ok := r.failed.Load(u); ok && now.Sub(at.(time.Time)) < failedTime {
				bad = append(bad, u)
			} else {
				good = append(good, u)
			}
		}
		return append(good, bad...)
	}
	return nil
}

// Counts is what became of questions.
type Counts struct {
	Answered uint64 `json:"answered"`
	Failed   uint64 `json:"failed"`  // no name server answered
	Refused  uint64 `json:"refused"` // of strangers, about names that nobody is asked about, zone transfers
	Dropped  uint64 `json:"dropped"` // too many at once
}

// A Forwarder answers on some addresses.
type Forwarder struct {
	log     zerolog.Logger
	rules   atomic.Pointer[Rules]
	packets []net.PacketConn
	streams []net.Listener
	slots   chan struct{}
	dial    func(ctx context.Context, network, address string) (net.Conn, error) // to upstreams

	mu      sync.Mutex
	clients map[netip.Addr]int // questions under way

	answered, failed, refused, dropped atomic.Uint64
}

// Listen opens UDP and TCP sockets on each address. It starts nothing; Run does, and closes them.
func Listen(addrs []netip.AddrPort, rules *Rules, log zerolog.Logger) (*Forwarder, error) {
	f := &Forwarder{log: log, slots: make(chan struct{}, maxUnderway), clients: make(map[netip.Addr]int), dial: new(net.Dialer).DialContext}
	f.rules.Store(rules)
	for _, a := range addrs {
		p, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
		if err != nil {
			f.Close()
			return nil, err
		}
		f.packets = append(f.packets, p)
		// The number may have been left to the system: TCP takes the same.
		a = netip.AddrPortFrom(a.Addr(), p.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
		if err != nil {
			f.Close()
			return nil, err
		}
		f.streams = append(f.streams, l)
	}
	return f, nil
}

// Use makes other rules those of all questions from now on.
func (f *Forwarder) Use(rules *Rules) { f.rules.Store(rules) }

// Counts returns what became of questions so far.
func (f *Forwarder) Counts() Counts {
	return Counts{f.answered.Load(), f.failed.Load(), f.refused.Load(), f.dropped.Load()}
}

// Close closes the sockets of a Forwarder that does not run.
func (f *Forwarder) Close() error {
	for _, p := range f.packets {
		p.Close()
	}
	for _, l := range f.streams {
		l.Close()
	}
	return nil
}

// Run answers until ctx is done, and returns nil then; or it returns what broke.
func (f *Forwarder) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { f.handle(ctx, w, q) })
	var servers []*dns.Server
	for _, p := range f.packets {
		servers = append(servers, &dns.Server{PacketConn: p, Handler: handler, UDPSize: 4096})
	}
	for _, l := range f.streams {
		servers = append(servers, &dns.Server{Listener: &boundedListener{Listener: l, slots: make(chan struct{}, maxStreams)}, Handler: handler,
			ReadTimeout: idleTime, WriteTimeout: idleTime, IdleTimeout: func() time.Duration { return idleTime }, MaxTCPQueries: maxQuestions})
	}
	broken := make(chan error, len(servers))
	var running sync.WaitGroup
	for _, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		running.Go(func() {
			if err := s.ActivateAndServe(); err != nil && ctx.Err() == nil {
				broken <- fmt.Errorf("name service: %w", err)
			}
		})
		select {
		case <-started:
		case err := <-broken:
			cancel()
			f.Close()
			running.Wait()
			return err
		}
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-broken:
	}
	cancel() // questions under way end
	f.Close()
	for _, s := range servers {
		_ = s.Shutdown() // waits for its handlers; that its socket is closed already is all the same
	}
	running.Wait()
	return err
}

// handle answers one question. What one peer sends may cost an answer, and not the process (F04).
func (f *Forwarder) handle(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) {
	defer func() {
		if p := recover(); p != nil {
			f.failed.Add(1)
			f.log.Error().Bytes("stack", debug.Stack()).Str("alarm", "panic").Msg("a question was dropped by a panic")
		}
	}()
	rules := f.rules.Load()
	from := sourceOf(w.RemoteAddr())
	if !slices.ContainsFunc(rules.Allow, func(p netip.Prefix) bool { return p.Contains(from) }) {
		f.refused.Add(1) // without a word: whoever forges an address gets nothing out of us
		return
	}
	if !f.enter(from) {
		f.dropped.Add(1)
		return
	}
	defer f.leave(from)
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery || q.Response {
		f.reply(w, q, dns.RcodeNotImplemented)
		f.refused.Add(1)
		return
	}
	switch question := q.Question[0]; question.Qtype {
	case dns.TypeAXFR, dns.TypeIXFR:
		f.reply(w, q, dns.RcodeRefused)
		f.refused.Add(1)
		return
	}
	upstreams := rules.upstreams(q.Question[0].Name, time.Now())
	if upstreams == nil {
		f.reply(w, q, dns.RcodeRefused)
		f.refused.Add(1)
		return
	}
	_, stream := w.RemoteAddr().(*net.TCPAddr)
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	answer, err := f.ask(ctx, rules, upstreams, q, stream)
	if err != nil {
		f.failed.Add(1)
		f.log.Debug().Err(err).Str("name", q.Question[0].Name).Msg("no name server answered")
		f.reply(w, q, dns.RcodeServerFailure)
		return
	}
	f.answered.Add(1)
	answer.Id = q.Id
	if !stream {
		size := uint16(dns.MinMsgSize)
		if o := q.IsEdns0(); o != nil {
			size = min(max(o.UDPSize(), dns.MinMsgSize), udpSize)
		}
		answer.Truncate(int(size))
	}
	_ = w.WriteMsg(answer) // who does not take it asks again
}

// ask asks one upstream after the other. An answer that is not to the question is none.
func (f *Forwarder) ask(ctx context.Context, rules *Rules, upstreams []netip.AddrPort, q *dns.Msg, stream bool) (*dns.Msg, error) {
	ask := q.Copy()
	ask.Id = dns.Id() // the client's may be guessed
	var errs []error
	for _, u := range upstreams {
		if ctx.Err() != nil {
			break
		}
		network := "udp"
		if stream {
			network = "tcp"
		}
		answer, err := f.exchange(ctx, network, u, ask)
		if err == nil && answer.Truncated && stream {
			err = errors.New("truncated over TCP")
		}
		if err == nil && (answer.Rcode == dns.RcodeServerFailure || answer.Rcode == dns.RcodeRefused) && u != upstreams[len(upstreams)-1] {
			err = fmt.Errorf("says %s", dns.RcodeToString[answer.Rcode])
		} else if err != nil && ctx.Err() == nil {
			rules.failed.Store(u, time.Now())
		}
		if err == nil {
			rules.failed.Delete(u)
			return answer, nil
		}
		errs = append(errs, fmt.Errorf("%v: %w", u, err))
	}
	if ctx.Err() != nil {
		errs = append(errs, context.Cause(ctx))
	}
	return nil, errors.Join(errs...)
}

func (f *Forwarder) exchange(ctx context.Context, network string, u netip.AddrPort, ask *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTime)
	defer cancel()
	conn, err := f.dial(ctx, network, u.String()) // a port of its own: answers cannot be forged by guessing the id alone
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c := &dns.Client{Net: network, Timeout: upstreamTime, UDPSize: udpSize}
	answer, _, err := c.ExchangeWithConn(ask, &dns.Conn{Conn: conn, UDPSize: udpSize})
	if err != nil {
		return nil, err
	}
	if !answer.Response || len(answer.Question) != 1 || dns.CanonicalName(answer.Question[0].Name) != dns.CanonicalName(ask.Question[0].Name) ||
		answer.Question[0].Qtype != ask.Question[0].Qtype || answer.Question[0].Qclass != ask.Question[0].Qclass {
		return nil, errors.New("answers another question")
	}
	return answer, nil
}

func (f *Forwarder) reply(w dns.ResponseWriter, q *dns.Msg, code int) {
	_ = w.WriteMsg(new(dns.Msg).SetRcode(q, code))
}

// enter counts a question of a client, unless there are too many.
func (f *Forwarder) enter(from netip.Addr) bool {
	select {
	case f.slots <- struct{}{}:
	default:
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.clients[from] >= maxOfClient {
		<-f.slots
		return false
	}
	f.clients[from]++
	return true
}

func (f *Forwarder) leave(from netip.Addr) {
	f.mu.Lock()
	if f.clients[from]--; f.clients[from] == 0 {
		delete(f.clients, from)
	}
	f.mu.Unlock()
	<-f.slots
}

func sourceOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// A boundedListener takes so many connections at once; others are closed as they come.
type boundedListener struct {
	net.Listener
	slots chan struct{}
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for pause := 5 * time.Millisecond; ; {
		c, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil { // no descriptors, or whoever came has gone: it passes (S015)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		select {
		case l.slots <- struct{}{}:
			return &boundedConn{Conn: c, slots: l.slots}, nil
		default:
			c.Close()
		}
	}
}

type boundedConn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

func (c *boundedConn) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}
