package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"postern/auth"
)

const (
	// localLook is how often it is asked what this machine itself knows of those who are connected (S049).
	localLook = 2 * time.Second
	// watchTime is how long the whole of one look at those who are connected may take.
	watchTime = 2 * time.Minute
	// No more than this part of all sessions, in percent, loses anything at once before a human has looked. A few are
	// never too many.
	watchPart = 20
	watchFew  = 4
)

// watched is what one watcher's looks have in common.
type watched struct {
	mu     sync.Mutex
	paused *live // guarded by mu: the configuration under which too many were affected at once; nil mostly
}

// watchDirectory looks, as often as the configuration says, at those who are connected until ctx is done.
func (s *Server) watchDirectory(ctx context.Context) {
	s.watch(ctx, &s.watched, func(l *live) (auth.Watcher, time.Duration) { return l.login.Watcher, l.cfg.LDAPRefresh })
}

// watchHere is the same for what this machine knows. It does not wait for a directory.
func (s *Server) watchHere(ctx context.Context) {
	s.watch(ctx, &s.watchedHere, func(l *live) (auth.Watcher, time.Duration) { return l.login.Local, localLook })
}

func (s *Server) watch(ctx context.Context, before *watched, which func(*live) (auth.Watcher, time.Duration)) {
	last := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w, every := which(s.live.Load())
		if w == nil || every <= 0 || time.Since(last) < every {
			continue
		}
		s.look(ctx, w, before)
		last = time.Now()
	}
}

// look asks a watcher once, and does what follows. That nobody can be asked ends no session (S062).
func (s *Server) look(ctx context.Context, w auth.Watcher, before *watched) {
	sessions := make(map[string][]*client)
	var connected []*auth.Identity
	total := 0
	for _, c := range s.table.all(nil) {
		g := c.decided()
		if g == nil || g.who == nil || !c.isIn() {
			continue
		}
		if sessions[g.who.Name] == nil {
			connected = append(connected, g.who)
		}
		sessions[g.who.Name] = append(sessions[g.who.Name], c)
		total++
	}
	if total == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, watchTime)
	defer cancel()
	changes, err := w.Changes(ctx, connected)
	if err != nil {
		s.alarmOnce("directory", fmt.Errorf("those who are connected cannot be checked, and stay connected: %w", err))
	}
	losing := 0
	for _, change := range changes {
		for _, c := range sessions[change.Name] {
			if s.loses(c.decided(), change.Now) {
				losing++
			}
		}
	}
	if !s.bearable(before, losing, total) {
		return
	}
	for _, change := range changes {
		for _, c := range sessions[change.Name] {
			if change.Now != nil {
				routes := c.decided().who.Routes
				c.tokens.Know(change.Now)
				c.reidentify(change.Now)
				if !slices.Equal(routes, change.Now.Routes) {
					c.repush(s.live.Load())
				}
				continue
			}
			s.deny(c, auth.PublicRefusal, fmt.Errorf("%q may not be connected any more: %s", change.Name, change.Reason))
		}
	}
}

// loses reports whether a client is to lose anything: the session, or a group, or its pool.
func (s *Server) loses(g *granted, is *auth.Identity) bool {
	if is == nil || slices.ContainsFunc(g.who.Groups, func(group string) bool { return !slices.Contains(is.Groups, group) }) {
		return true
	}
	of := g.subject()
	of.Login = is
	return s.ends(s.live.Load(), g, of)
}

// bearable reports whether what a look has found may be done. When it strikes very many at once, then that is more
// likely somebody's mistake in the directory than what it is meant to be: nothing is done until it strikes fewer, or
// until an administrator has reloaded the server.
func (s *Server) bearable(w *watched, losing, total int) bool {
	now := s.live.Load()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !tooMany(losing, total) {
		w.paused = nil
		return true
	}
	if w.paused != nil && w.paused != now {
		w.paused = nil
		return true
	}
	w.paused = now
	s.alarmOnce("directory", fmt.Errorf("%d of %d sessions would lose their groups or end at once: nothing is done: %w", losing, total, errTooMany))
	return false
}

// tooMany reports whether that many of all sessions are not struck without a human's word.
func tooMany(struck, total int) bool { return struck > watchFew && struck*100 > total*watchPart }

var errTooMany = errors.New("if that is what you want, reload the server (SIGHUP)")

// reidentify takes over what is known of the user now. It is called at each renegotiation, and when the watcher has
// found anything changed.
func (c *client) reidentify(now *auth.Identity) {
	c.mu.Lock()
	if c.grant == nil || c.grant.who == nil {
		c.mu.Unlock()
		return
	}
	was := c.grant.who
	g := *c.grant
	g.who = now
	c.grant = &g
	c.mu.Unlock()
	if slices.Equal(was.Groups, now.Groups) && was.Pool == now.Pool {
		return
	}
	c.log.Info().Str("client", g.name).Strs("groups", now.Groups).Str("pool", now.Pool).Msg("groups changed")
	c.srv.reevaluate(c)
}
