package server

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// limitBurst is how much of a rate may come at once: enough for the window of a TCP connection to a distant host.
	limitBurst = 100 * time.Millisecond
	// limitLeast is the least burst in bytes, whatever the rate: a few packets.
	limitLeast = 16 << 10
	// shareEvery is how often clients that share a pool's limit are given their parts anew.
	shareEvery = 100 * time.Millisecond
)

// A bucket bounds the rate of one client in one direction, by the bytes of packets inside the tunnel. Any goroutine; it
// allocates nothing and never waits: what is too much is dropped, as at any full line.
//
// It holds when the bytes let through so far would have been through at the rate. As long as that is less than the burst
// ahead of now, more may go.
type bucket struct {
	policy  atomic.Int64 // the policy's rate in bits a second; 0: none
	rate    atomic.Int64 // the rate in force: the policy's, or a smaller part of the pool's; 0: unlimited
	through atomic.Int64 // time since Server.started
	wanted  atomic.Int64 // bytes offered, those dropped too
}

// take reports how many of n packets of size bytes each may go now.
func (b *bucket) take(now int64, n, size int) int {
	rate := b.rate.Load()
	b.wanted.Add(int64(n * size))
	if rate == 0 {
		return n
	}
	cost := max(int64(size)*8*int64(time.Second)/rate, 1)
	burst := max(int64(limitBurst), limitLeast*8*int64(time.Second)/rate)
	for {
		was := b.through.Load()
		at := max(was, now)
		may := int(min(max((now+burst-at)/cost, 0), int64(n)))
		if may == 0 {
			return 0
		}
		if b.through.CompareAndSwap(was, at+int64(may)*cost) {
			return may
		}
	}
}

// nanos is the time that buckets are asked with.
func (s *Server) nanos() int64 { return int64(time.Since(s.started)) }

// setLimits has the buckets of c hold what its ruling says, and reports whether that is anything.
func (c *client) setLimits(l *live, r *ruling) bool {
	pool := &l.pools[r.zone.index]
	c.down.set(r.terms().Down, pool.Down)
	c.up.set(r.terms().Up, pool.Up)
	return r.terms().Down > 0 || r.terms().Up > 0 || pool.Down > 0 || pool.Up > 0
}

// set gives the bucket its policy's rate, and leaves it its part of the pool's.
func (b *bucket) set(policy, pool int64) {
	b.policy.Store(policy)
	if now := b.rate.Load(); pool == 0 || now == 0 || policy > 0 && now > policy {
		b.rate.Store(policy)
	}
}

// share divides the limits of pools among those who use them, until ctx is done.
func (s *Server) share(ctx context.Context) {
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	var clients []*client
	var down, up []*bucket
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pools := s.live.Load().pools
		for i := range pools {
			if pools[i].Down == 0 && pools[i].Up == 0 {
				continue
			}
			clients = s.table.all(clients[:0])
			down, up = down[:0], up[:0]
			for _, c := range clients {
				if m := c.member.Load(); m != nil && m.zone == i && !c.gone.Load() {
					down, up = append(down, &c.down), append(up, &c.up)
				}
			}
			divide(pools[i].Down, down)
			divide(pools[i].Up, up)
		}
		clear(clients[:cap(clients)])
		clear(down[:cap(down)])
		clear(up[:cap(up)])
	}
}

// divide gives each bucket its part of rate: who wants less than an equal part leaves the rest to the others, and who
// wants nothing may begin with an equal part.
func divide(rate int64, list []*bucket) {
	if rate == 0 || len(list) == 0 {
		return
	}
	type claim struct {
		b      *bucket
		wanted int64 // bits a second, with room to grow
	}
	claims := make([]claim, len(list))
	for i, b := range list {
		bits := b.wanted.Swap(0) * 8 * int64(time.Second/shareEvery)
		if p := b.policy.Load(); p > 0 {
			bits = min(bits, p)
		}
		claims[i] = claim{b, bits + bits/4}
	}
	slices.SortFunc(claims, func(a, b claim) int { return cmp.Compare(a.wanted, b.wanted) })
	left := rate
	for i, c := range claims {
		part := max(left/int64(len(claims)-i), 64e3)
		left -= min(part, c.wanted)
		if p := c.b.policy.Load(); p > 0 {
			part = min(part, p)
		}
		c.b.rate.Store(part)
	}
}
