package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/server/config"
)

const (
	// crlCheck is how often the revocation list is looked at (S068: new revocations bind within 5 s).
	crlCheck = 2
	// hushReport is how often the log says how many lines it does not hold.
	hushReport = 10
	// poolAlarm is how full the pool may be, in percent, before an alarm is raised (F42).
	poolAlarm = 90
)

// keep does, once a second, what time asks for: pings, timeouts, key changes. Nothing in it ever waits.
func (s *Server) keep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var clients []*client
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
		clients = s.table.all(clients[:0])
		for _, c := range clients {
			c.tend(live, now, clock)
		}
		s.learnPaths(clients, clock)
		s.bridge.age(clock, seconds(live.cfg.StaleMAC))
		clear(clients) // the dead ones are garbage
		s.tendMemory(clock)
		s.tendAudit(live)
		if clock%hushReport == 0 {
			if n := s.hush.taken(); n > 0 {
				s.log.Warn().Int("lines", n).Msg("lines about strangers were withheld")
			}
			s.checkOwnCertificate(live, now)
			if _, _, fullest := s.usage(); fullest*100 >= poolAlarm {
				s.alarmOnce("address pool", errPoolFull)
			}
		}
		s.beat()
	}
}

var errPoolFull = errors.New("nearly all addresses of the pool are leased")

// tend does what is due for one client. Sessions that are not members yet have the timers of tlsctl.
func (c *client) tend(live *live, now time.Time, clock int64) {
	if c.member.Load() == nil || c.gone.Load() {
		return
	}
	if !c.moved && c.rx.inside.Load() > 0 {
		c.moved = true
		c.tell(stepData, "")
	}
	g := c.decided()
	t := g.set.Timers(live.cfg)
	silent := clock - c.rx.last.Load()
	if limit := seconds(t.PingTimeout); limit > 0 && silent >= limit {
		c.srv.dismiss(c, wordUnheard, "nothing heard for the ping timeout")
		return
	}
	if !g.notAfter.IsZero() && now.After(g.notAfter) {
		c.srv.deny(c, "certificate expired", errExpired) // S070
		return
	}
	terms := g.ruling.terms()
	if !terms.Open(now) {
		c.srv.deny(c, "connections are not allowed at this hour", fmt.Errorf("%w of policy %s", errHours, terms.Name))
		return
	}
	limit := t.SessionTimeout
	if own := terms.Timeout; own > 0 && (limit == 0 || own < limit) {
		limit = own
	}
	if limit > 0 && now.Sub(c.opened) >= limit {
		c.srv.dismiss(c, wordTimeout, "session-timeout")
		return
	}
	if c.activity.ceased(t, c.rx.inside.Load()+c.tx.inside.Load(), clock) {
		c.srv.dismiss(c, wordInactive, "inactive")
		return
	}
	if ping := seconds(t.Ping); ping > 0 && clock-c.tx.last.Load() >= ping {
		c.path.Load().home.ping(c)
	}
	c.renewToken(live, clock)
	c.turnKeys(live, now)
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// activity is what the inactive directive looks at: bytes of the inside network, of which pings and control packets are
// none.
type activity struct {
	begun bool
	since int64  // clock when the span began
	bytes uint64 // moved until then
}

// ceased reports whether less has been moved in a whole span than t wants. total is what was ever moved.
func (a *activity) ceased(t config.Timers, total uint64, clock int64) bool {
	if t.Inactive <= 0 {
		return false
	}
	if !a.begun || total-a.bytes >= uint64(max(t.InactiveBytes, 1)) {
		*a = activity{true, clock, total}
		return false
	}
	return clock-a.since >= seconds(t.Inactive)
}
