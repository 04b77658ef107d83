package main

import (
	"context"
	"sync"
	"time"
)

// rebind has all sessions over UDP change their ports in the same moment, so long after the traffic begins, as when a
// translator has forgotten them, and notes how long it takes until the server is heard again at each: in the session
// that was, or in the next one of the same client.
func (c *crew) rebind(ctx context.Context) {
	pauseFor(ctx, c.o.rebind)
	type moved struct {
		s  *session
		at time.Time
	}
	var mu sync.Mutex
	var waiting []moved
	var wg sync.WaitGroup
	for _, s := range c.connected() {
		if s.id.stream || ctx.Err() != nil {
			continue
		}
		wg.Go(func() {
			if s.roam() != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			waiting = append(waiting, moved{s, time.Now()})
		})
	}
	wg.Wait()
	c.tally.rebinds.Store(uint64(len(waiting)))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(waiting) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		rest := waiting[:0]
		for _, m := range waiting {
			c.mu.Lock()
			now := c.members[m.s.id.number]
			c.mu.Unlock()
			if now == nil || now.lastSeen.Load() <= m.at.UnixNano() {
				rest = append(rest, m)
				continue
			}
			c.tally.rebound.add(time.Since(m.at))
		}
		waiting = rest
	}
}
