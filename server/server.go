package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"postern/server/config"
	"postern/server/hooks"
	"postern/server/link"
	"postern/server/management"
	"postern/tlsctl"
	"postern/tun"
)

// Parts are what a server is built from. The server owns them from Run on and closes them.
type Parts struct {
	UDP     []UDPListener
	TCP     []StreamListener
	Devices []tun.Device // one for each of the configuration's AllPools
	Lanes   int          // TUN queues to ask for; at least 1
	Login   Login
	Log     zerolog.Logger
	Control net.Listener // where postern status asks; nil: nowhere
	Status  StateFile    // the status file, opened while there were rights to; nil: none
	Pool    StateFile    // ifconfig-pool-persist; nil: none
	// PathMTU asks the kernel for the largest packet that a client's path takes whole; nil: every path takes all.
	PathMTU func(to netip.AddrPort, local link.Local) (int, error)
	Filter  Filter // holds the policies' rules; nil: there are none
	// Forget has the kernel forget the connections it tracks of addresses, invalid ones excepted; nil: it tracks none for us.
	Forget func(addrs ...netip.Addr) error
	// Management is told of states and clients; nil: nobody. Its owner is a ManagementOwner.
	Management *management.Interface
	// Audit is told of logins and of all that clients do; nil: nobody is.
	Audit Auditor
	// Scripts runs the administrator's scripts; nil: there are none.
	Scripts *hooks.Runner
	// As scripts are told: when the process started (zero: now), and the host's default gateways.
	Started                 time.Time
	NetGateway, NetGateway6 netip.Addr
	// MemoryLimit is how many bytes the process may have before newcomers are left outside; 0: no limit.
	MemoryLimit int64
	// MaxStreams is how many clients may be connected over TCP, in whatever state; 0: no bound.
	MaxStreams int
	// Workers compute the handshakes, and the passwords' hashes if Login's back ends have the same; nil: NewWorkers.
	Workers *tlsctl.Workers
}

// A UDPListener is one local address: a socket a lane, all bound to it.
type UDPListener struct {
	Local   netip.AddrPort
	Sockets []link.Socket
}

// A StreamListener accepts clients that come over TCP.
type StreamListener interface {
	Accept() (*link.Stream, error) // net.ErrClosed after Close
	Close() error
}

// Server is one running server.
type Server struct {
	parts Parts
	log   zerolog.Logger
	drops drops
	table *table
	half  *halfOpen
	zones []*zone

	clientToClient bool
	passTOS        bool
	bridge         *bridge // nil with a tun device
	blockIPv6      bool
	started        time.Time
	clock          atomic.Int64 // whole seconds since started; the keeper moves it
	live           atomic.Pointer[live]
	ctl            atomic.Pointer[tlsctl.Config]
	closing        atomic.Bool
	lanes          []*lane
	uplinks        []*uplink
	keepers        []*gatekeeper
	streams        streams
	sharer         *sharer // nil without port-share
	alarms         alarms
	warned         certWarned // the keeper's
	watched        watched    // by the directory
	watchedHere    watched    // by this machine
	attempts       attempts
	facts          atomic.Pointer[hooks.Daemon]
	visits         visits
	departures     departures
	scripting      context.Context // of scripts about clients that are gone
	enforcer       *enforcer
	reevaluating   sync.Mutex   // one client at a time is judged anew
	heldBack       atomic.Int64 // when a reload that would end very many sessions was refused, in seconds of Unix; 0: none

	clientIDs  atomic.Uint64 // the next client's
	past       past
	streamGate *tlsctl.Gate // for all streams
	panics     atomic.Uint64
	repushing  sync.Mutex   // one client's pushes are brought in line at a time
	pulse      atomic.Int64 // rounds of the keeper
	hush       hush
	unrecorded hush            // logins that are in no audit record
	fixed      lastHolders     // of addresses of no pool
	auditDown  bool            // the keeper's: audit records are in trouble
	workers    *tlsctl.Workers // who computes handshakes
	partings   chan struct{}   // a place for each who is being forgotten
	memory     memory          // the keeper's
	tight      atomic.Bool     // little memory is left
	pace       pace            // of new sessions over UDP

	wg      sync.WaitGroup // every goroutine but Run's own
	drained chan struct{}  // closed when the last session ended while closing
	drain   sync.Once
}

// live is what a reload may change.
type live struct {
	cfg      *config.Config
	login    Login
	creds    *credentials
	pools    []config.Pool // by zone
	policies policies      // none: everybody may do the same
	views    map[viewOf]*config.Config
}

func newLive(cfg *config.Config, login Login, creds *credentials) (*live, error) {
	policies, err := newPolicies(cfg)
	if err != nil {
		return nil, err
	}
	l := &live{cfg: cfg, login: login, creds: creds, pools: cfg.AllPools(), policies: policies, views: make(map[viewOf]*config.Config)}
	for _, p := range policies {
		if !slices.ContainsFunc(l.pools, func(pool config.Pool) bool { return pool.Name == p.Pool }) {
			return nil, fmt.Errorf("policy %s: pool %s takes a restart", p.Name, p.Pool)
		}
	}
	for i := range l.pools {
		l.views[viewOf{zone: i}] = cfg.For(&l.pools[i], nil)
		for _, p := range policies {
			if p.Pool == l.pools[i].Name {
				l.views[viewOf{i, p.Name}] = cfg.For(&l.pools[i], p.Policy)
			}
		}
	}
	return l, nil
}

// view is the configuration as it is for clients of a ruling.
func (l *live) view(r *ruling) *config.Config {
	if view := l.views[viewOf{r.zone.index, r.terms().Name}]; view != nil {
		return view
	}
	return l.cfg.For(&l.pools[r.zone.index], r.policy)
}

// viewOf names a view: a zone, and a policy.
type viewOf struct {
	zone   int
	policy string
}

func (l *live) replayWindow() int { return max(l.cfg.ReplayWindow, 0) }

// New connects the parts. It starts nothing.
func New(cfg *config.Config, parts Parts) (*Server, error) {
	if parts.Lanes < 1 {
		parts.Lanes = 1
	}
	if parts.Started.IsZero() {
		parts.Started = time.Now()
	}
	if parts.Workers == nil {
		parts.Workers = NewWorkers()
	}
	creds, err := loadCredentials(cfg)
	if err != nil {
		return nil, err
	}
	if parts.Scripts == nil {
		if parts.Scripts, err = hooks.New(hooks.Options{Log: parts.Log}, new(hooks.Daemon)); err != nil {
			return nil, err
		}
	}
	zones, err := newZones(cfg, parts.Devices)
	if err != nil {
		return nil, err
	}
	s := &Server{
		parts: parts, log: parts.Log, table: newTable(cfg), half: newHalfOpen(), zones: zones,
		clientToClient: cfg.ClientToClient, passTOS: cfg.PassTOS, blockIPv6: cfg.BlockIPv6, started: time.Now(), drained: make(chan struct{}),
		workers: parts.Workers, partings: make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1)),
	}
	s.streams.most = parts.MaxStreams
	if cfg.PortShare.Host != "" {
		s.sharer = newSharer(cfg.PortShare)
	}
	if cfg.Tap {
		s.bridge = newBridge(cfg.MaxMACs)
	}
	live, err := newLive(cfg, parts.Login, creds)
	if err != nil {
		return nil, err
	}
	s.enforcer = newEnforcer(s, parts.Filter, cfg)
	s.adopt(live)
	if parts.Pool != nil {
		s.readPool(parts.Pool, cfg.PoolPersist)
	}
	limits := tlsctl.NewLimits(tlsctl.LimitOptions{HandWindow: cfg.HandWindow, Resets: cfg.ConnectFreqInitial.N, Period: cfg.ConnectFreqInitial.Period})
	for _, l := range parts.UDP {
		g, err := tlsctl.NewGate(creds.wrap, tlsctl.GateOptions{Listener: "udp " + l.Local.String(), HandWindow: cfg.HandWindow, Limits: limits})
		if err != nil {
			return nil, fmt.Errorf("gate of %v: %w", l.Local, err)
		}
		s.keepers = append(s.keepers, newGatekeeper(s, g))
	}
	if len(parts.TCP) > 0 {
		if s.streamGate, err = tlsctl.NewGate(creds.wrap, tlsctl.GateOptions{Listener: "tcp", HandWindow: cfg.HandWindow, Limits: limits}); err != nil {
			return nil, fmt.Errorf("gate for streams: %w", err)
		}
	}
	return s, nil
}

// adopt makes a configuration the one new sessions and lanes see.
func (s *Server) adopt(l *live) {
	cfg := l.cfg
	facts := Facts(cfg, &s.parts)
	s.facts.Store(facts)
	s.parts.Scripts.Describe(facts)
	renegotiate := cfg.Renegotiate
	if renegotiate == 0 {
		renegotiate = -1
	}
	s.ctl.Store(&tlsctl.Config{
		TLS: l.creds.tls, Certs: l.creds.rules, Wrap: l.creds.wrap, Ciphers: cfg.DataCiphers, CipherFallback: cfg.CipherFallback,
		Digest: cfg.Auth, Epoch: true, CompressMigrate: true,
		Workers: s.workers,
		TunMTU:  cfg.MTU, MaxPacket: max(cfg.MaxPacket-48, 0), Tap: cfg.Tap, WantLogin: l.login.Auth != nil && !cfg.LoginOptional && !cfg.LoginByCert,
		Timing:  tlsctl.Timing{HandWindow: cfg.HandWindow, TLSTimeout: cfg.TLSTimeout, Renegotiate: renegotiate, Transition: cfg.TranWindow},
		Current: s.ctl.Load, // a renegotiation shows today's certificate, and goes by today's rules
		Log:     s.log,
	})
	s.live.Store(l)
}

// Run serves until ctx is done, tells the clients, and returns nil; or it returns what broke.
func (s *Server) Run(ctx context.Context) error {
	if err := s.openLanes(); err != nil {
		s.closeParts()
		return err
	}
	// Sessions outlive ctx: they are told that the server ends, and have a moment to say so.
	living, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var hurry context.CancelCauseFunc
	s.scripting, hurry = context.WithCancelCause(context.WithoutCancel(ctx))
	defer hurry(nil)
	broken := make(chan error, 1)
	report := func(what string, err error) {
		if err == nil || s.closing.Load() {
			return
		}
		select {
		case broken <- fmt.Errorf("%s: %w", what, err):
		default:
		}
	}
	cfg := s.live.Load().cfg
	for _, z := range s.zones {
		for i, q := range z.queues {
			d := &downlink{lane: s.lanes[i], zone: z, queue: q}
			s.wg.Go(func() { report("read the "+strings.ToUpper(devType(cfg))+" device "+z.device.Name(), d.read()) })
		}
	}
	for i, listener := range s.parts.UDP {
		k := s.keepers[i]
		s.wg.Go(func() { k.run(living) })
		for j, sock := range listener.Sockets {
			l := s.lanes[j%len(s.lanes)]
			u := &uplink{lane: l, sock: sock, door: k, gate: k, merge: l.coalescers()}
			s.uplinks = append(s.uplinks, u)
			s.wg.Go(func() { report("receive on "+listener.Local.String(), u.run()) })
		}
	}
	for _, listener := range s.parts.TCP {
		s.wg.Go(func() { report("accept", s.accept(living, listener)) })
	}
	s.wg.Go(func() { s.keep(living) })
	serving, served := context.WithCancel(context.WithoutCancel(ctx))
	defer served()
	files := make(chan struct{})
	go func() {
		defer close(files)
		s.keepFiles(serving)
	}()
	s.wg.Go(func() { s.watchDirectory(living) })
	s.wg.Go(func() { s.watchHere(living) })
	s.wg.Go(func() { s.enforcer.run(living) })
	s.wg.Go(func() { s.share(living) })
	if s.parts.Control != nil {
		s.wg.Go(func() { s.serveStatus(living, s.parts.Control) })
	}
	s.tellConnected()

	var err error
	select {
	case <-ctx.Done():
		s.tellExiting(context.Cause(ctx))
	case err = <-broken:
	}
	s.closing.Store(true)
	s.farewell()
	stop(errors.New("server ended"))
	late := time.AfterFunc(lastScripts, func() { hurry(errors.New("the server ends")) })
	s.departures.wait(s.scripting) // the scripts about clients come before those about the device
	s.closeParts()
	s.wg.Wait()
	late.Stop()
	served()
	select {
	case <-files:
	case <-time.After(filesEnd):
		s.log.Error().Str("alarm", "disk").Msg("ended without the last state of the status and pool files: the disk does not answer")
	}
	return err
}

// openLanes opens the devices' queues and makes the lanes: as many as the device with the most queues has.
func (s *Server) openLanes() (err error) {
	n := 0
	for _, z := range s.zones {
		if z.queues, err = z.device.Queues(s.parts.Lanes); err != nil {
			return fmt.Errorf("open queues of %s: %w", z.device.Name(), err)
		}
		n = max(n, len(z.queues))
	}
	for i := range n {
		queues := make([]tun.Queue, len(s.zones))
		for j, z := range s.zones {
			queues[j] = z.queues[i%len(z.queues)]
		}
		s.lanes = append(s.lanes, newLane(s, queues))
	}
	return nil
}

// farewellTime is how long clients have to acknowledge that the server ends.
const farewellTime = 2 * time.Second

// lastScripts is how long the scripts about clients may take all together when the server ends.
const lastScripts = 2 * time.Second

// farewell tells every client and waits until their sessions are over, or farewellTime.
func (s *Server) farewell() {
	notify := s.live.Load().cfg.ExitNotify
	for _, l := range s.parts.TCP {
		l.Close()
	}
	for _, c := range s.table.all(nil) {
		if c.established.Load() && !c.gone.Load() {
			c.session.Shutdown(c.serverEnds(notify))
		} else {
			c.session.End(tlsctl.ErrShutdown) // it is not in yet, or has said or heard its last already
		}
	}
	if s.table.count() == 0 {
		return
	}
	select {
	case <-s.drained:
	case <-time.After(farewellTime):
	}
}

// closeParts closes all sockets and queues, which ends the loops.
func (s *Server) closeParts() {
	for _, l := range s.parts.UDP {
		for _, sock := range l.Sockets {
			sock.Close()
		}
	}
	for _, l := range s.parts.TCP {
		l.Close()
	}
	s.streams.closeAll()
	for _, z := range s.zones {
		for _, q := range z.queues {
			q.Close()
		}
	}
	if s.parts.Control != nil {
		s.parts.Control.Close()
	}
	for _, z := range s.zones {
		if err := z.device.Close(); err != nil {
			s.log.Warn().Err(err).Str("device", z.device.Name()).Msg("close the TUN device")
		}
	}
}

// end ends a client's session: silently, as far as the client is concerned.
func (s *Server) end(c *client, why string) {
	if c.die() {
		c.session.End(errors.New(why))
	}
}

// deny ends a live session with AUTH_FAILED. Its keys are dead at once (S030).
func (s *Server) deny(c *client, public string, err error) {
	if c.die() {
		c.session.Deny(&tlsctl.Denial{Public: public, Err: err})
	}
}

// Leaving implements tlsctl.Owner: the session will end, its data keys are dead from here on (S030).
func (c *client) Leaving(why error) {
	c.die()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why = why
}

// die makes a client's keys useless, for good, and reports whether they were not yet.
func (c *client) die() bool {
	first := c.gone.CompareAndSwap(false, true)
	c.ring.Clear()
	return first
}

// closed is what a session's end leaves to do.
func (s *Server) closed(c *client, err error) {
	c.die()
	g := s.forgetClient(c, err)
	c.depart(g)
	if g != nil { // its addresses are somebody else's only when the scripts know
		last := *g // the keeper or a reload may be reading g still
		s.revoke(c, &last)
		s.visits.leave(c, g.name)
	}
	close(c.over)
}

// forgetClient is the part of closed that computes and waits for nobody. A thousand who leave at once take turns, as they do
// when they come (S011): else each goroutine that they wake is in front of the lanes.
func (s *Server) forgetClient(c *client, err error) *granted {
	s.partings <- struct{}{}
	defer func() { <-s.partings }()
	s.leave(c)
	s.bridge.leave(c)
	c.leaveHalfOpen()
	g := c.decided()
	if stream, ok := c.path.Load().sock.(*link.Stream); ok {
		stream.Close()
	}
	c.mu.Lock()
	if c.why != nil {
		err = c.why // what ended it first: its last words may have been cut short by something else
	}
	c.mu.Unlock()
	s.farewellLine(c, err)
	s.attempts.over(c.attempt, err)
	c.tellDisconnected()
	c.recordEnd(g, err)
	if s.closing.Load() && s.table.count() == 0 {
		s.drain.Do(func() { close(s.drained) })
	}
	return g
}

// farewellLine logs how a session ended. What strangers bring about is logged within bounds only (S103).
func (s *Server) farewellLine(c *client, err error) {
	denial := (*tlsctl.Denial)(nil)
	level := zerolog.InfoLevel
	switch {
	case errors.As(err, &denial) && denial.Challenge == "":
		level = zerolog.WarnLevel
	case !c.established.Load() && errors.Is(err, tlsctl.ErrHandshakeTimeout):
		level = zerolog.DebugLevel
	}
	if !c.established.Load() {
		if max(c.log.GetLevel(), zerolog.GlobalLevel()) <= level && s.hush.allows(time.Now()) {
			c.log.WithLevel(level).Str("error", clipped(err)).Msg("login ended")
		}
		return
	}
	c.log.WithLevel(level).AnErr("reason", err).Str("client", c.decided().name).Stringer("lasted", time.Since(c.opened).Round(time.Second)).
		Uint64("received", c.rx.bytes.Load()).Uint64("sent", c.tx.bytes.Load()).Msg("client disconnected")
}
