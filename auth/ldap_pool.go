package auth

import (
	"context"
	"sync"
	"time"
)

const (
	// maxIdle is how many connections of the service account may wait for the next login, over all servers.
	maxIdle = 4
	// idleTime is for how long: firewalls and directories forget silent connections, and some do not say so.
	idleTime = time.Minute
)

// An idlePool holds connections that are bound as the service account, and nothing else: one that was bound as a user
// is never used again (security S061). Any goroutine.
type idlePool struct {
	mu   sync.Mutex
	held []idleConn // the one put last is the last
}

type idleConn struct {
	server *server
	conn   *directoryConn
	since  time.Time
}

// take returns a connection to s, lent until ctx is done; nil when there is none.
func (p *idlePool) take(ctx context.Context, s *server) *directoryConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(time.Now(), maxIdle)
	for i := len(p.held) - 1; i >= 0; i-- {
		if c := p.held[i].conn; p.held[i].server == s {
			p.held = append(p.held[:i], p.held[i+1:]...)
			if !c.ldap.IsClosing() {
				c.lend(ctx)
				return c
			}
			c.close()
		}
	}
	return nil
}

// put takes a connection back, or closes it when there are as many as may be.
func (p *idlePool) put(s *server, c *directoryConn, room int) {
	if !c.rest() {
		c.close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = append(p.held, idleConn{s, c, time.Now()})
	time.AfterFunc(idleTime, func() { p.trim(maxIdle) })
	p.dropLocked(time.Now(), min(room, maxIdle))
}

// trim closes what is above room, the oldest first.
func (p *idlePool) trim(room int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(time.Now(), min(room, maxIdle))
}

// dropLocked closes what has been idle for too long, and what is above room.
func (p *idlePool) dropLocked(now time.Time, room int) {
	n := max(0, len(p.held)-max(room, 0))
	for n < len(p.held) && now.Sub(p.held[n].since) >= idleTime {
		n++
	}
	for _, idle := range p.held[:n] {
		idle.conn.close()
	}
	p.held = append(p.held[:0], p.held[n:]...)
}
