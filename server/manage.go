package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/server/hooks"
	"postern/server/management"
	"postern/tlsctl"
)

// ManagementOwner is what a management.Interface stands for: the daemon, and the server in it once Attach has named it.
// Before that nobody is connected.
type ManagementOwner struct {
	management.Process // the daemon's part
	server             atomic.Pointer[Server]
}

var _ management.Owner = (*ManagementOwner)(nil)

// Attach names the server.
func (o *ManagementOwner) Attach(s *Server) { o.server.Store(s) }

// Status implements management.Monitor.
func (o *ManagementOwner) Status(version int) []byte {
	s := o.server.Load()
	if s == nil {
		return nil
	}
	snap := s.Snapshot()
	return snap.StatusText(version)
}

// Load implements management.Monitor. Bytes are those of the whole run.
func (o *ManagementOwner) Load() management.Load {
	s := o.server.Load()
	if s == nil {
		return management.Load{}
	}
	s.past.mu.Lock()
	defer s.past.mu.Unlock()
	l := management.Load{Received: s.past.received, Sent: s.past.sent}
	for _, c := range s.table.all(nil) {
		l.Received += c.rx.bytes.Load()
		l.Sent += c.tx.bytes.Load()
		if c.isIn() {
			l.Clients++
		}
	}
	return l
}

// ByteCounts implements management.Monitor.
func (o *ManagementOwner) ByteCounts() (counts []management.ByteCount) {
	for _, c := range o.clients() {
		counts = append(counts, management.ByteCount{Client: c.id, Received: c.rx.bytes.Load(), Sent: c.tx.bytes.Load()})
	}
	slices.SortFunc(counts, func(a, b management.ByteCount) int { return int(int64(a.Client - b.Client)) })
	return counts
}

// clients lists those who are in.
func (o *ManagementOwner) clients() []*client {
	s := o.server.Load()
	if s == nil {
		return nil
	}
	return slices.DeleteFunc(s.table.all(nil), func(c *client) bool { return !c.isIn() })
}

var errNoClient = errors.New("no such client is connected")

func (o *ManagementOwner) client(id management.ClientID) (*client, error) {
	for _, c := range o.clients() {
		if c.id == id {
			return c, nil
		}
	}
	return nil, errNoClient
}

const killed = "killed by a management client"

// kill ends those who are in and whom victim names.
func (o *ManagementOwner) kill(victim func(*client) bool) (n int) {
	for _, c := range o.clients() {
		if victim(c) {
			c.srv.end(c, killed)
			n++
		}
	}
	return n
}

// Kill implements management.Clients.
func (o *ManagementOwner) Kill(commonName string) int {
	return o.kill(func(c *client) bool { return c.decided().name == commonName })
}

// KillAddress implements management.Clients.
func (o *ManagementOwner) KillAddress(network string, from netip.AddrPort) int {
	return o.kill(func(c *client) bool {
		at := c.path.Load().addr
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()) == from && (network == "" || (network == "tcp") == c.stream)
	})
}

// ClientKill implements management.Clients. The client's keys are dead at once.
func (o *ManagementOwner) ClientKill(id management.ClientID, message string) error {
	c, err := o.client(id)
	if err == nil {
		c.srv.dismiss(c, tlsctl.Message(message), killed)
	}
	return err
}

// PushUpdate implements management.Clients.
func (o *ManagementOwner) PushUpdate(id management.ClientID, options string) error {
	c, err := o.client(id)
	if err != nil {
		return err
	}
	return c.session.Update(splitOptions(options))
}

// PushUpdateAll implements management.Clients. Clients that take no updates are left out.
func (o *ManagementOwner) PushUpdateAll(options string) (clients int, err error) {
	list := splitOptions(options)
	for _, c := range o.clients() {
		switch err := c.session.Update(list); {
		case err == nil:
			clients++
		case !errors.Is(err, tlsctl.ErrNoUpdate):
			return clients, err
		}
	}
	return clients, nil
}

// splitOptions cuts a list of options at its commas.
func splitOptions(text string) (options []string) {
	for o := range strings.SplitSeq(text, ",") {
		if o = strings.TrimSpace(o); o != "" {
			options = append(options, o)
		}
	}
	return options
}

// past is the traffic of clients that are gone.
type past struct {
	mu             sync.Mutex
	received, sent uint64 // guarded by mu
}

// leave takes a client that has ended out of the table. What it moved stays counted: the sum never falls.
func (s *Server) leave(c *client) {
	s.past.mu.Lock()
	defer s.past.mu.Unlock()
	s.table.remove(c)
	s.past.received += c.rx.bytes.Load()
	s.past.sent += c.tx.bytes.Load()
}

// isIn reports whether a client is established and not ending.
func (c *client) isIn() bool { return c.established.Load() && !c.gone.Load() }

// tellState tells management clients what the server does.
func (s *Server) tellState(name, detail string, addresses bool) {
	if s.parts.Management == nil {
		return
	}
	state := management.State{Time: time.Now(), Name: name, Detail: detail}
	if addresses {
		cfg := s.live.Load().view(&ruling{zone: s.zones[0]})
		state.Addr4, state.Addr6 = cfg.Addr4.Addr(), cfg.Addr6.Addr()
	}
	s.parts.Management.State(state)
}

// tellConnected tells that the server serves; device, addresses and routes were there before it was made.
func (s *Server) tellConnected() {
	s.tellState("ASSIGN_IP", "", true)
	if cfg := s.live.Load().cfg; len(cfg.Routes) > 0 && !cfg.NoRouteExec {
		s.tellState("ADD_ROUTES", "", false)
	}
	s.tellState("CONNECTED", "SUCCESS", true)
}

// tellEstablished tells management clients that c is in.
func (c *client) tellEstablished(g *granted) {
	m := c.srv.parts.Management
	if m == nil {
		return
	}
	for _, a := range []netip.Addr{g.addr4, g.addr6} {
		if a.IsValid() {
			m.ClientAddress(c.id, netip.PrefixFrom(a, a.BitLen()), true)
		}
	}
	for _, n := range g.iroutes {
		m.ClientAddress(c.id, n, false)
	}
	m.ClientEstablished(c.id, c.srv.Connected(), c.environment(c.info(g)))
}

// tellDisconnected tells management clients that c is gone.
func (c *client) tellDisconnected() {
	m, g := c.srv.parts.Management, c.decided()
	var who *hooks.ClientInfo
	if g != nil {
		who = c.info(g)
	} else {
		who = c.managed.asked() // whose login was put to them, and came to nothing
	}
	if m == nil || who == nil {
		return
	}
	m.ClientDisconnect(c.id, func(yield func(string, string) bool) {
		for _, v := range [][2]string{
			{"time_duration", fmt.Sprint(int64(time.Since(c.opened) / time.Second))},
			{"bytes_sent", fmt.Sprint(c.tx.bytes.Load())}, {"bytes_received", fmt.Sprint(c.rx.bytes.Load())},
		} {
			if !yield(v[0], v[1]) {
				return
			}
		}
		c.environment(who)(yield)
	})
}

// environment is what hooks would get for c, the newest variable first.
func (c *client) environment(who *hooks.ClientInfo) management.Env {
	env := hooks.Environment(c.srv.facts.Load(), who)
	return func(yield func(string, string) bool) {
		for _, v := range slices.Backward(env) {
			if !yield(v.Name, v.Value) {
				return
			}
		}
	}
}

// tellExiting tells management clients that the server ends, and by which signal.
func (s *Server) tellExiting(why error) {
	signal := "SIGTERM"
	if why != nil && strings.Contains(why.Error(), "interrupt") {
		signal = "SIGINT"
	}
	s.tellState("EXITING", signal, false)
}
