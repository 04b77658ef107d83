package server

import (
	"context"
	"time"
)

// crlCheck is how often the revocation list is looked at (S068: new revocations bind within 5 s).
const crlCheck = 2

// keep does, once a second, what time asks for: pings, timeouts, key changes, files.
func (s *Server) keep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	statusDue := int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		clock := int64(now.Sub(s.started) / time.Second)
		s.clock.Store(clock)
		live := s.live.Load()
		for _, c := range s.table.all() {
			c.tend(live, now, clock)
		}
		if clock%crlCheck == 0 {
			s.checkRevocations(live)
		}
		if every := int64(live.cfg.StatusEvery / time.Second); s.parts.Status != nil && every > 0 && clock >= statusDue {
			statusDue = clock + every
			s.writeStatus(live)
		}
		s.save(false)
	}
}

// tend does what is due for one client.
func (c *client) tend(live *live, now time.Time, clock int64) {
	if !c.established.Load() || c.gone.Load() {
		return
	}
	cfg := live.cfg
	seconds := func(d time.Duration) int64 { return int64(d / time.Second) }
	silent := clock - c.rx.last.Load()
	if limit := max(seconds(cfg.PingRestart), seconds(cfg.PingExit)); limit > 0 && silent >= limit {
		c.srv.end(c, "nothing heard for the ping timeout")
		return
	}
	c.mu.Lock()
	g := c.grant
	c.mu.Unlock()
	if !g.notAfter.IsZero() && now.After(g.notAfter) {
		c.srv.deny(c, "certificate expired", errExpired) // S070
		return
	}
	if limit := cfg.SessionTimeout; limit > 0 && now.Sub(c.opened) >= limit {
		c.srv.end(c, "session-timeout")
		return
	}
	if c.idle(cfg.Inactive, cfg.InactiveBytes, clock) {
		c.srv.end(c, "inactive")
		return
	}
	if ping := seconds(cfg.Ping); ping > 0 && clock-c.tx.last.Load() >= ping {
		c.path.Load().home.ping(c)
	}
	c.turnKeys(now)
}

// idle reports whether a client moved fewer than limit bytes in the last span. Only the keeper calls it.
func (c *client) idle(span time.Duration, limit int64, clock int64) bool {
	if span <= 0 {
		return false
	}
	total := c.rx.bytes.Load() + c.tx.bytes.Load()
	if c.idleSince == 0 || int64(total-c.idleBytes) > max(limit, 0) && total != c.idleBytes {
		c.idleSince, c.idleBytes = clock, total
		return false
	}
	return clock-c.idleSince >= int64(span/time.Second)
}
