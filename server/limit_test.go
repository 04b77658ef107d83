package server

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"postern/server/config"
	"postern/server/link"
	"postern/tun"
)

// Whatever the sizes, what goes through a bucket is the rate's, within a hundredth and the burst.
func TestBucketHoldsRate(t *testing.T) {
	for _, c := range []struct {
		rate, seconds  int64
		size, segments int
	}{{64e3, 60, 60, 1}, {64e3, 60, 1400, 8}, {1e6, 10, 1400, 1}, {1e6, 10, 1400, 8}, {50e6, 10, 1400, 45}, {50e6, 1, 60, 1}, {10e9, 1, 1400, 45}} {
		var b bucket
		b.policy.Store(c.rate)
		step := max(int64(c.size*c.segments)*8*1e9/c.rate/3, 1) // three times as much as may go
		bytes := int64(0)
		for now := int64(0); now < c.seconds*1e9; now += step {
			bytes += int64(b.take(now, c.segments, c.size) * c.size)
		}
		want := c.rate * c.seconds / 8
		burst := max(c.rate*int64(limitBurst)/8e9, limitLeast)
		if bytes < want*99/100 || bytes > (want+burst)*101/100 {
			t.Errorf("rate %d, %d packets of %d: %d bytes in %d s, want %d to %d", c.rate, c.segments, c.size, bytes, c.seconds, want, want+burst)
		}
	}
}

// A pause gives no more credit than the burst.
func TestBucketBurst(t *testing.T) {
	var b bucket
	b.policy.Store(8e6) // a byte a microsecond
	if got := b.take(int64(time.Hour), 1000, 1000); got != 400 {
		t.Errorf("%d packets at once, want the 400 of 400 ms", got)
	}
	if got := b.take(int64(time.Hour+50*time.Millisecond), 1000, 1000); got != 50 {
		t.Errorf("%d packets 50 ms later, want 50", got)
	}
}

// Twenty clients who want all they can get have equal parts, within a hundredth; who wants less has that, and leaves the
// rest; who begins is not starved.
func TestSharesAreFair(t *testing.T) {
	const rate = 100e6
	buckets := make([]*bucket, 20)
	for i := range buckets {
		buckets[i] = new(bucket)
		buckets[i].part.Store(int64(i) * 1e6) // whatever it was
	}
	moved := make([]int64, len(buckets))
	run := func(seconds int, want func(i int) int64) {
		clear(moved)
		for range seconds * 10 {
			for i, b := range buckets {
				bits := want(i)
				b.wanted.Add(bits / 8 / 10)
				got := bits
				if r := b.rate(); r > 0 {
					got = min(bits, r)
				}
				moved[i] += got / 10
			}
			divide(rate, buckets)
		}
	}
	greedy := func(int) int64 { return rate }
	run(1, greedy)
	run(10, greedy)
	for i, m := range moved {
		if m < rate/20*10*99/100 || m > rate/20*10*101/100 {
			t.Errorf("client %d moved %d of %d", i, m, int64(rate/20*10))
		}
	}
	// Half of them want 1 Mbit/s only: the others share the remaining 90.
	modest := func(i int) int64 {
		if i < 10 {
			return 1e6
		}
		return rate
	}
	run(2, modest) // what they wanted before is forgotten
	run(10, modest)
	for i, m := range moved {
		want := int64(10e6)
		if i >= 10 {
			want = 88e6 // 8.75 each: the modest ones keep a quarter of theirs to grow
		}
		if m < want*97/100 || m > want*103/100 {
			t.Errorf("client %d moved %d of %d", i, m, want)
		}
	}
	// A policy's own limit is kept, and its rest is the others'.
	buckets[19].policy.Store(2e6)
	run(1, greedy)
	if r := buckets[19].rate(); r != 2e6 {
		t.Errorf("a client limited to 2 Mbit/s has %d", r)
	}
	if r := buckets[0].rate(); r < 5.1e6 || r > 5.2e6 {
		t.Errorf("the others have %d", r)
	}
}

// Limited clients' packets allocate nothing either, and what is too much is dropped.
func TestLimitedLanesAllocateNothing(t *testing.T) {
	b := newBench(t, 2)
	for _, m := range b.members {
		m.c.down.policy.Store(1e6)
		m.c.up.policy.Store(1e6)
		b.srv.table.repolicy(m.c, func(m *member) { m.limited = true })
	}
	super, _ := superpacket(lanHost, b.members[0].inside, 45, 1300)
	buf := make([]byte, 0, len(super.Bytes)+64)
	packets, to := make([]tun.Packet, 1), make([]*client, 1)
	n := testing.AllocsPerRun(50, func() {
		packets[0] = tun.Packet{Bytes: append(buf[:0], super.Bytes...), GSO: super.GSO}
		b.lane.send(b.srv.table.zones[0], packets, to, nil)
	})
	if n != 0 {
		t.Errorf("%v allocations a batch down", n)
	}
	if burst := 50_000/1340 + 1; b.sock.packets > 2*burst || b.sock.packets < burst-1 {
		t.Errorf("%d packets sent, want about %d at once", b.sock.packets, burst)
	}
	if b.srv.drops[dropLimit].Load() == 0 {
		t.Error("nothing was counted")
	}

	var batches [][]link.Train
	for range 52 {
		batches = append(batches, []link.Train{b.members[1].train(20, 1300)})
	}
	next := 0
	if n := testing.AllocsPerRun(50, func() {
		if err := b.uplink.batch(batches[next]); err != nil {
			t.Error(err)
		}
		next++
	}); n != 0 {
		t.Errorf("%v allocations a batch up", n)
	}
	if b.queue.bytes == 0 || b.queue.bytes > 60<<10 {
		t.Errorf("%d bytes were written, want those of the burst", b.queue.bytes)
	}
}

// A limit of the policy holds both ways for a connected client, and a new one holds at once.
func TestPolicyLimit(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		_, r := w.policies(func(c *config.Config) { c.Policies[0].Down, c.Policies[0].Up = 1e6, 2e6 })
		r.set("alice", "cn=staff,dc=x")
		alice := w.user("alice", 1).connect()
		w.dev = w.devs[1]
		pass := func() (down, up int) {
			for range 100 { // 1.3 MB a second each way, over two seconds
				for range 20 {
					w.inject(udp(lanHost, alice.addr4(), make([]byte, 1300-28)))
					alice.send(udp(alice.addr4(), lanHost, make([]byte, 1300-28)))
					down += len(alice.got())
					up += len(w.written())
				}
				time.Sleep(20 * time.Millisecond)
			}
			return down * 1300 * 8 / 2, up * 1300 * 8 / 2
		}
		pass()
		if down, up := pass(); down < 950e3 || down > 1050e3 || up < 1.9e6 || up > 2.1e6 {
			t.Errorf("%d bits a second down and %d up, want 1 and 2 Mbit", down, up)
		}
		if w.drops(dropLimit) == 0 {
			t.Error("nothing was counted")
		}
		next := *w.srv.live.Load().cfg
		next.Policies = append([]config.Policy{next.Policies[0]}, next.Policies[1:]...)
		next.Policies[0].Down = 0
		next.Policies[0].Up = 4e6
		if _, err := w.srv.Reload(&next, w.srv.live.Load().login); err != nil {
			t.Fatal(err)
		}
		pass()
		if down, up := pass(); down < 10e6 || up < 3.8e6 || up > 4.2e6 {
			t.Errorf("after the reload %d bits a second down and %d up, want all and 4 Mbit", down, up)
		}
	})
}

// Whoever sends in bursts, as TCP does when packets are lost, has the part of one who sends all the time.
func TestSharesOfBursts(t *testing.T) {
	const rate, each = 10e6, 1e6
	buckets := make([]*bucket, 10)
	for i := range buckets {
		buckets[i] = new(bucket)
	}
	moved := make([]int64, len(buckets))
	for tick := range 600 { // of 10 ms
		now := int64(tick) * int64(10*time.Millisecond)
		if tick%10 == 0 {
			divide(rate, buckets)
		}
		if tick == 100 {
			clear(moved)
		}
		for i, b := range buckets {
			n := 5 // packets of 1250 bytes: four times the part
			if i%2 == 0 {
				if n = 0; tick%25 == i {
					n = 100 // within a moment, and nothing in the quarter of a second behind it
				}
			}
			moved[i] += int64(b.take(now, n, 1250)) * 1250 * 8
		}
	}
	for i, m := range moved {
		if m < each*5*95/100 || m > each*5*105/100 {
			t.Errorf("client %d moved %d bits in five seconds, want %d", i, m, int64(each*5))
		}
	}
}

// A pool's limit reaches those who are connected at a reload, and leaves them at the next; without policies too.
func TestPoolLimitReload(t *testing.T) {
	for _, withPolicies := range []bool{true, false} {
		inBubble(t, func(t *testing.T, w *world) {
			_, r := w.policies(func(c *config.Config) {
				if !withPolicies {
					c.Policies, c.Pools = nil, c.Pools[:1]
					c.Addr4, c.Addr6 = netip.Prefix{}, netip.Prefix{}
				} else {
					c.Policies[0].Up = 50e6 // so that its bucket is asked, limit or not
				}
			})
			r.set("alice", "cn=staff,dc=x")
			alice := w.user("alice", 1).connect()
			w.dev = w.devs[len(w.devs)-1]
			if withPolicies {
				w.dev = w.devs[1]
			}
			down := func() (n int) {
				for range 100 { // 1.3 MB a second, over two seconds
					for range 20 {
						w.inject(udp(lanHost, alice.addr4(), make([]byte, 1300-28)))
						n += len(alice.got())
					}
					time.Sleep(20 * time.Millisecond)
				}
				return n * 1300 * 8 / 2
			}
			reload := func(limit int64) {
				next := *w.srv.live.Load().cfg
				next.Pools = slices.Clone(next.Pools)
				next.Pools[0].Down = limit
				if _, err := w.srv.Reload(&next, w.srv.live.Load().login); err != nil {
					t.Fatal(err)
				}
				down() // what may come at once is through
			}
			if got := down(); got < 10e6 {
				t.Errorf("policies %v: %d bits a second without a limit", withPolicies, got)
			}
			for range 3 {
				reload(1e6)
				if got := down(); got < 950e3 || got > 1050e3 {
					t.Errorf("policies %v: %d bits a second, want 1 Mbit", withPolicies, got)
				}
				reload(0)
				if got := down(); got < 10e6 {
					t.Errorf("policies %v: %d bits a second when the limit is gone", withPolicies, got)
				}
			}
		})
	}
}
