package server

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// limitBurst is how much of a rate may come at once. It must be longer than TCP takes to notice that the end of a
	// burst was lost, 200 ms with Linux: what a limit has room for meanwhile would be lost to whoever sends by TCP.
	limitBurst = 400 * time.Millisecond
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
	part    atomic.Int64 // of the pool's rate, as share divides it; 0: the pool has none
	through atomic.Int64 // time since Server.started
	wanted  atomic.Int64 // bytes offered, those dropped too
	demand  int64        // share's: bits a second
}

// rate is the rate in force; 0: unlimited.
func (b *bucket) rate() int64 {
	policy, part := b.policy.Load(), b.part.Load()
	if policy == 0 || part > 0 && part < policy {
		return part
	}
	return policy
}

// take reports how many of n packets of size bytes each may go now.
func (b *bucket) take(now int64, n, size int) int {
	rate := b.rate()
	b.wanted.Add(int64(n * size))
	if rate == 0 {
		return n
	}
	return b.spend(rate, now, n, size)
}

// spend is take at a rate in bits a second that is not the bucket's to know.
func (b *bucket) spend(rate, now int64, n, size int) int {
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

// setLimits has the buckets of c hold what its ruling says, and reports whether they are to be asked. What its pool
// allows is share's to say.
func (c *client) setLimits(l *live, r *ruling) bool {
	pool, terms := &l.pools[r.zone.index], r.terms()
	c.down.policy.Store(terms.Down)
	c.up.policy.Store(terms.Up)
	return terms.Down > 0 || terms.Up > 0 || pool.Down > 0 || pool.Up > 0
}

// share divides the limits of pools among those who use them, until ctx is done.
func (s *Server) share(ctx context.Context) {
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	var clients []*client
	var down, up []*bucket
	divided := make(map[int]bool) // pools whose clients have parts
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pools := s.live.Load().pools
		for i := range pools {
			limited := pools[i].Down > 0 || pools[i].Up > 0
			if !limited && !divided[i] {
				continue
			}
			divided[i] = limited
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

// fading is how much of what a client wanted counts a tenth of a second later, up to twice its part. Who sends in bursts,
// as TCP does when packets are lost, wants its part between them too.
const fading = 0.85

// divide gives each bucket its part of rate: who wants less than an equal part leaves the rest to the others, and who
// wants nothing may begin with an equal part. With rate 0 there is nothing to divide, nor to keep to.
func divide(rate int64, list []*bucket) {
	if rate == 0 {
		for _, b := range list {
			b.part.Store(0)
		}
		return
	}
	type claim struct {
		b      *bucket
		wanted int64 // bits a second, with room to grow
	}
	claims := make([]claim, len(list))
	for i, b := range list {
		before := min(b.demand, 2*b.part.Load())
		b.demand = max(b.wanted.Swap(0)*8*int64(time.Second/shareEvery), int64(float64(before)*fading))
		bits := b.demand
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
		c.b.part.Store(part)
	}
}
