package management

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Options are what an Interface is made with. The zero value works.
type Options struct {
	// Title names the program, as the status report's TITLE does. Tools want OpenVPN, a version 2.x.y and a blank.
	Title string
	// Hold makes Hold wait for a release (management-hold).
	Hold bool
	// LogCache is how many log lines are kept for `log all`; 0: 250 (management-log-cache).
	LogCache int
	// MaxClients is how many connections are served at once, over all listeners; 0: 8. More wait for their greeting.
	MaxClients int
	// SignalOnLeave sends SIGUSR1 when the last tool has disconnected (management-signal).
	SignalOnLeave bool
	// Audit is told of every command that changes something: who gave it, whose words are escaped and no secrets, and
	// whether it was done. It must not wait. nil: nobody is told.
	Audit func(who, command string, done bool)
}

// DefaultTitle is the title of an Interface that was given none.
const DefaultTitle = "OpenVPN 2.6.14 postern"

const (
	protocolVersion   = 5 // the management version of OpenVPN 2.6; auth-oauth2 takes nothing below
	defaultLogCache   = 250
	defaultMaxClients = 8
	echoCache         = 100
	stateCache        = 100
)

// Interface is a server's management interface: any number of listeners, one state. New makes it, Serve runs it.
type Interface struct {
	options   Options
	owner     Owner
	log       zerolog.Logger
	strangers zerolog.Sampler // of lines about connections that were not let in (S103)
	slots     chan struct{}   // a token for each connection served
	number    atomic.Uint64   // of the newest connection, for the log
	dropped   atomic.Uint64

	mu        sync.Mutex
	conns     map[*conn]struct{}    // guarded by mu: those that have been let in
	kept      [streams]history      // guarded by mu
	asked     map[ClientID]struct{} // guarded by mu: clients whose login was put to the tools
	hold      bool                  // guarded by mu
	waiting   chan struct{}         // guarded by mu: closed by a release; nil when nobody waits
	authRetry string                // guarded by mu: of no effect on a server, but it is remembered
}

// New makes an Interface. It starts nothing.
//
// Lines that the Interface itself writes to log carry the field part=management. They are in the history already, and
// LogWriter leaves them out.
func New(o Options, owner Owner, log zerolog.Logger) *Interface {
	if o.Title == "" {
		o.Title = DefaultTitle
	}
	o.Title = escape(o.Title)
	if o.LogCache <= 0 {
		o.LogCache = defaultLogCache
	}
	if o.MaxClients <= 0 {
		o.MaxClients = defaultMaxClients
	}
	i := &Interface{
		options: o, owner: owner, log: log.With().Str(partField, ownPart).Logger(),
		strangers: &zerolog.BurstSampler{Burst: 10, Period: time.Second},
		slots:     make(chan struct{}, o.MaxClients), conns: make(map[*conn]struct{}), asked: make(map[ClientID]struct{}),
		hold: o.Hold, authRetry: "none",
	}
	i.kept[stateStream].limit, i.kept[logStream].limit, i.kept[echoStream].limit = stateCache, o.LogCache, echoCache
	return i
}

// Serve serves the tools that come to l until ctx is done, then returns nil, or it returns why it cannot. It closes l.
// What was queued for a tool when ctx is done is still sent, for at most a second. Several Serve may run at once, each
// with its own access.
func (i *Interface) Serve(ctx context.Context, l net.Listener, a Access) error {
	defer l.Close()
	if err := a.check(l.Addr()); err != nil {
		return fmt.Errorf("management on %v: %w", l.Addr(), err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(within, func() { l.Close() })()
	for {
		nc, err := i.accept(within, l)
		if ctx.Err() != nil {
			if nc != nil {
				nc.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("management on %v: %w", l.Addr(), err)
		}
		select {
		case i.slots <- struct{}{}:
		case <-ctx.Done():
			nc.Close()
			return nil
		}
		serving.Go(func() {
			defer func() { <-i.slots }()
			_ = i.ServeConn(within, nc, a) // logged there; the others go on
		})
	}
}

// accept waits for a connection. When descriptors have run out it waits for better times (F28).
func (i *Interface) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		nc, err := l.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return nc, err
		}
		i.log.Error().Err(err).Msg("accept a management connection")
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Dial connects to a tool that listens and serves it until either side ends the connection (management-client).
func (i *Interface) Dial(ctx context.Context, network, address string, a Access) error {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return fmt.Errorf("management client: %w", err)
	}
	return i.ServeConn(ctx, nc, a)
}

// Dropped is how many events were dropped because a tool did not read.
func (i *Interface) Dropped() uint64 { return i.dropped.Load() }
