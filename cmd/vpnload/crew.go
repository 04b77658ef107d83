package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A crew is all sessions and what they are to do together: come, stay and send, go.
type crew struct {
	o     options
	tally tally
	clock atomic.Int64 // now, roughly, for what need not be exact

	mu      sync.Mutex
	members []*session // by number; nil: not connected
	failed  int
	over    bool
	errors  map[string]int // of connecting
}

func newCrew(o options) *crew {
	c := &crew{o: o, members: make([]*session, o.sessions), errors: make(map[string]int)}
	c.clock.Store(time.Now().UnixNano())
	return c
}

// run does it all and reports.
func (c *crew) run(ctx context.Context) (*Report, error) {
	ids, err := identities(&c.o)
	if err != nil {
		return nil, err
	}
	r := &Report{Sessions: c.o.sessions}
	server := process(c.o.pid)
	background, stop := context.WithCancel(context.Background())
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	helpers.Go(func() { c.keep(background) })

	atStart := server.now()
	begun := time.Now()
	last := c.storm(ctx, ids)
	r.ConnectSeconds = last.Sub(begun).Seconds()
	atIn := server.now()
	up := c.connected()
	r.Connected, r.Failed = len(up), c.failed
	if c.o.phases {
		fmt.Fprintf(os.Stderr, "vpnload: everybody is in: %d of %d in %.2f s\n", r.Connected, r.Sessions, r.ConnectSeconds)
	}
	r.Handshakes = c.tally.handshakes.percentiles()
	if r.ConnectSeconds > 0 {
		r.ConnectRate = float64(len(up)) / r.ConnectSeconds
	}
	if c.o.pid > 0 && len(up) > 0 {
		r.Server = &ServerCost{HandshakeMillis: (atIn.cpu - atStart.cpu) * 1e3 / float64(len(up))}
	}
	if len(up) > 0 && ctx.Err() == nil {
		pauseFor(ctx, c.o.settle)
		c.measure(ctx, background, &helpers, r, server, atStart)
	}
	c.mu.Lock()
	r.Left = 0
	for _, s := range c.members {
		if s != nil {
			r.Left++
		}
	}
	c.over = true
	c.mu.Unlock()
	stop()
	helpers.Wait()
	c.leave(c.connected())
	c.fillIn(r)
	return r, nil
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// storm connects everybody at the rate asked for, and returns when the last one was in.
func (c *crew) storm(ctx context.Context, ids []*identity) (last time.Time) {
	var wg sync.WaitGroup
	var newest atomic.Int64
	newest.Store(time.Now().UnixNano())
	joining := make(chan struct{}, cmp.Or(c.o.joining, len(ids)))
	begun := time.Now()
	for i, id := range ids {
		if c.o.stormRate > 0 {
			pauseFor(ctx, time.Until(begun.Add(time.Duration(float64(i)/c.o.stormRate*float64(time.Second)))))
		}
		if ctx.Err() != nil {
			break
		}
		joining <- struct{}{}
		wg.Go(func() {
			defer func() { <-joining }()
			start := time.Now()
			if c.enter(ctx, id) != nil {
				c.mu.Lock()
				c.failed++
				c.mu.Unlock()
				return
			}
			c.tally.handshakes.add(time.Since(start))
			newest.Store(max(newest.Load(), time.Now().UnixNano()))
		})
	}
	wg.Wait()
	return time.Unix(0, newest.Load())
}

// join connects one session.
func (c *crew) join(ctx context.Context, id *identity) error {
	s := &session{crew: c, id: id}
	ctx, cancel := context.WithTimeout(ctx, c.o.connectTimeout)
	defer cancel()
	if err := s.connect(ctx); err != nil {
		s.leave(false)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.leaving.Load() {
		return errors.New("lost at once")
	}
	c.members[id.number] = s
	return nil
}

func (c *crew) connected() (list []*session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.members {
		if s != nil {
			list = append(list, s)
		}
	}
	return list
}

// lost notes a session that ended by no doing of ours. The failure of one that is still connecting is its join's.
func (c *crew) lost(s *session, err error) {
	if s.leaving.Swap(true) {
		return
	}
	c.mu.Lock()
	mine := c.members[s.id.number] == s
	if mine {
		c.members[s.id.number] = nil
		c.tally.end(reason(err))
	}
	c.mu.Unlock()
	go func() {
		if !mine {
			time.Sleep(time.Second) // what the server has said before it hung up is still being read
		}
		s.leave(false)
		if mine && c.o.again && c.goesOn() && c.enter(context.Background(), s.id) == nil {
			c.tally.returns.Add(1)
		}
	}()
}

func (c *crew) goesOn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.over
}

func (c *crew) renegotiated(s *session, err error) {
	if s.leaving.Load() {
		return
	}
	if err != nil {
		c.tally.renegotiationsFailed.Add(1)
		return
	}
	c.tally.renegotiations.Add(1)
}

// echoed takes the answer to a probe.
func (c *crew) echoed(_ *session, _, _ uint16, stamp uint64) {
	took := time.Duration(time.Now().UnixNano() - int64(stamp))
	c.tally.pings.add(took)
	if c.o.phases {
		c.tally.phasePings.add(took)
	}
}

// keep sends keepalives and ticks flows. Sessions are looked at in turn, a part of them each time, so that thousands do
// not speak at once.
func (c *crew) keep(ctx context.Context) {
	const step = 50 * time.Millisecond
	const turns = int(time.Second / step) // everybody once a second
	tick := time.NewTicker(step)
	defer tick.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		c.clock.Store(now.UnixNano())
		list := c.connected()
		for i, s := range list {
			if f := s.tcp.Load(); f != nil {
				f.tick(now)
			}
			if i%turns != turn%turns {
				continue
			}
			if f := s.udp.Load(); f != nil {
				f.tick()
			}
			if s.ping > 0 && now.UnixNano()-s.lastSent.Load() >= int64(s.ping) {
				s.keepAlive()
			}
			if err := s.ctl.Err(); err != nil {
				c.lost(s, err)
			} else if c.o.silence > 0 && now.UnixNano()-s.lastSeen.Load() > int64(c.o.silence) {
				c.lost(s, errors.New("the server has fallen silent"))
			}
		}
	}
}

// measure runs the traffic and whatever else happens meanwhile.
func (c *crew) measure(ctx, background context.Context, helpers *sync.WaitGroup, r *Report, server process, atStart usage) {
	list := c.connected()
	c.prepareFlows(list)
	life, end := context.WithCancel(background)
	var wg sync.WaitGroup
	for i, s := range list {
		if i < c.o.probes {
			wg.Go(func() { c.probe(life, s) })
		}
	}
	for _, e := range []struct {
		every time.Duration
		do    func(ctx context.Context, s *session)
	}{{c.o.renegotiate, c.renegotiate}, {c.o.roam, c.roam}, {c.o.restart, c.restart}} {
		if e.every > 0 {
			wg.Go(func() { c.atRandom(life, e.every, e.do) })
		}
	}
	if c.o.rebind > 0 {
		wg.Go(func() { c.rebind(life) })
	}
	pauseFor(ctx, c.o.warm)
	c.tally.pings.reset()
	c.tally.pingsSent.Store(0)
	c.tally.echo.reset()
	c.tally.echoesSent.Store(0)
	before := c.snapshot(list)
	cpu := server.now()
	begun := time.Now()
	if c.o.phases {
		r.Phases = c.phased(ctx, list, before, begun)
	} else {
		pauseFor(ctx, c.o.duration)
	}
	took := time.Since(begun).Seconds()
	used := server.now()
	c.rest(list)
	after := c.snapshot(list)
	end()
	wg.Wait()

	r.Seconds = took
	for _, s := range list {
		if f := s.tcp.Load(); f != nil {
			resent, gaps := f.trouble()
			r.Resent += resent
			r.Gaps += gaps
		}
	}
	r.Up, r.Down = after.up.since(before.up, took), after.down.since(before.down, took)
	r.Uncounted = before.unknown + after.unknown
	if r.Server != nil {
		r.Server.CPU = used.cpu - cpu.cpu
		r.Server.Cores = r.Server.CPU / took
		if moved := float64(r.Up.Bytes+r.Down.Bytes) / 1e9; moved > 0.001 {
			r.Server.PerGB = r.Server.CPU / moved
		}
		if n := len(list); n > 0 {
			r.Server.KBPerSession = float64(used.rss-atStart.rss) / 1024 / float64(n)
		}
		r.Server.RSS = used.rss
	}
}

// phased waits for the end of the measurement and cuts it into phases.
func (c *crew) phased(ctx context.Context, list []*session, before snapshot, begun time.Time) (phases []Phase) {
	next := make(chan os.Signal, 1)
	signal.Notify(next, syscall.SIGUSR1)
	defer signal.Stop(next)
	end := time.After(c.o.duration)
	c.tally.phasePings.reset()
	fmt.Fprintln(os.Stderr, "vpnload: the first phase begins")
	for last := false; !last; {
		select {
		case <-next:
		case <-end:
			last = true
		case <-ctx.Done():
			last = true
		}
		now := time.Now()
		pings := c.tally.phasePings.percentiles()
		c.tally.phasePings.reset()
		after, took := c.snapshot(list), now.Sub(begun).Seconds()
		phases = append(phases, Phase{Seconds: took, Up: after.up.since(before.up, took), Down: after.down.since(before.down, took), Pings: pings})
		before, begun = after, now
	}
	return phases
}

// prepareFlows gives sessions their traffic and starts it.
func (c *crew) prepareFlows(list []*session) {
	o := &c.o
	if o.traffic == "" || o.traffic == "none" {
		return
	}
	for i, s := range list {
		if o.flows > 0 && i >= o.flows {
			break
		}
		mode := o.traffic[0]
		if o.flow == "tcp" {
			f := newTCPFlow(s, o.peer, mode)
			s.tcp.Store(f)
			f.start()
		} else {
			f := newUDPFlow(s, o.peer, mode, o.size, o.rate)
			s.udp.Store(f)
			f.start()
		}
	}
}

// A moved is what had come through by some moment, at its far end.
type moved struct{ sent, packets, bytes uint64 }

func (m moved) since(before moved, seconds float64) Moved {
	p, b := m.packets-before.packets, m.bytes-before.bytes
	return Moved{Sent: m.sent - before.sent, Packets: p, Bytes: b, Mbits: float64(b) * 8 / 1e6 / seconds, PerSecond: float64(p) / seconds}
}

// A snapshot is what all flows have moved by some moment.
type snapshot struct {
	up, down moved
	unknown  uint64 // flows whose peer does not tell what arrived: as much as at the last time
}

// rest has datagrams sent no more, so that nothing stands in the way of asking what arrived, and nothing more is counted.
func (c *crew) rest(list []*session) {
	var wg sync.WaitGroup
	for _, s := range list {
		if f := s.udp.Load(); f != nil && f.mode != 'e' {
			wg.Go(f.stop)
		}
	}
	wg.Wait()
}

// snapshot adds up what all flows have moved.
func (c *crew) snapshot(list []*session) (n snapshot) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, s := range list {
		tcp, udp := s.tcp.Load(), s.udp.Load()
		switch {
		case tcp != nil:
			up, down := tcp.counts()
			n.up.bytes += up
			n.down.bytes += down
		case udp != nil:
			n.down.packets += udp.down.Load()
			n.down.bytes += udp.downBytes.Load()
			if udp.mode == 'e' {
				continue
			}
			n.down.sent += udp.highest.Load()
			if udp.mode == 'd' {
				continue
			}
			wg.Go(func() {
				m, ok := udp.count()
				mu.Lock()
				defer mu.Unlock()
				if ok {
					udp.counted = m
				} else {
					n.unknown++
				}
				n.up.sent += udp.up.Load()
				n.up.packets += udp.counted.seq
				n.up.bytes += udp.counted.stamp
			})
		}
	}
	wg.Wait()
	return n
}

// probe sends echo requests until ctx ends.
func (c *crew) probe(ctx context.Context, s *session) {
	tick := time.NewTicker(c.o.probeEvery)
	defer tick.Stop()
	var b [128]byte
	for seq := uint16(0); ; seq++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		to := c.o.probe
		pkt := appendEcho(b[:0], s.inside(to), to, uint16(s.id.number), seq, uint64(time.Now().UnixNano()))
		if s.send(func(b *batch) { b.add(pkt) }) == nil {
			c.tally.pingsSent.Add(1)
		}
	}
}

// atRandom does something to a session so often that each has its turn once in every on average.
func (c *crew) atRandom(ctx context.Context, every time.Duration, do func(context.Context, *session)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	mean := every / time.Duration(c.o.sessions)
	for {
		pauseFor(ctx, pause(max(mean, time.Millisecond)))
		if ctx.Err() != nil {
			return
		}
		list := c.connected()
		if len(list) == 0 {
			continue
		}
		s := list[rand.N(len(list))]
		wg.Go(func() { do(ctx, s) })
	}
}

// renegotiate has a session change its key, unless it has just done so: one change is over when both ends have changed.
func (c *crew) renegotiate(_ context.Context, s *session) {
	now := time.Now().UnixNano()
	if last := s.renewed.Load(); now-last < int64(2*keySwitch) || !s.renewed.CompareAndSwap(last, now) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.o.connectTimeout)
	defer cancel()
	c.renegotiated(s, s.ctl.Renegotiate(ctx))
}

func (c *crew) roam(_ context.Context, s *session) {
	if s.id.stream || s.leaving.Load() {
		return
	}
	if err := s.roam(); err == nil {
		c.tally.roams.Add(1)
	}
}

// restart has a session leave, with or without a goodbye, and come again.
func (c *crew) restart(ctx context.Context, s *session) {
	c.mu.Lock()
	mine := c.members[s.id.number] == s
	if mine {
		c.members[s.id.number] = nil
	}
	c.mu.Unlock()
	if !mine || s.leaving.Load() {
		return
	}
	s.leave(rand.N(2) == 0)
	if err := c.join(context.WithoutCancel(ctx), s.id); err != nil {
		c.tally.end("coming again: " + reason(err))
		return
	}
	c.tally.restarts.Add(1)
	if old := s.udp.Load(); old != nil {
		c.mu.Lock()
		again := c.members[s.id.number]
		c.mu.Unlock()
		if again != nil {
			f := newUDPFlow(again, c.o.peer, old.mode, c.o.size, c.o.rate)
			again.udp.Store(f)
			f.start()
		}
	}
}

// leave has everybody say goodbye.
func (c *crew) leave(list []*session) {
	var wg sync.WaitGroup
	for _, s := range list {
		wg.Go(func() { s.leave(true) })
	}
	wg.Wait()
}

// fillIn completes the report with what was counted.
func (c *crew) fillIn(r *Report) {
	t := &c.tally
	r.Pings, r.PingsSent, r.Echo, r.EchoesSent = t.pings.percentiles(), t.pingsSent.Load(), t.echo.percentiles(), t.echoesSent.Load()
	r.PacketsIn, r.PacketsOut = t.packetsIn.Load(), t.packetsOut.Load()
	r.Late, r.Bad, r.Strange, r.Corrupt = t.late.Load(), t.bad.Load(), t.strange.Load(), t.corrupt.Load()
	r.Renegotiations, r.RenegotiationsFailed = t.renegotiations.Load(), t.renegotiationsFailed.Load()
	r.Roams, r.Restarts, r.Returns = t.roams.Load(), t.restarts.Load(), t.returns.Load()
	r.Rebinds, r.Rebound = t.rebinds.Load(), t.rebound.percentiles()
	r.Lost = t.ends
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Errors = c.errors
}

// watch says now and then how far the storm has come.
func (c *crew) watch(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			fmt.Fprintf(os.Stderr, "vpnload: %d of %d connected, %d failed\n", len(c.connected()), c.o.sessions, c.failures())
		}
	}
}

func (c *crew) failures() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// violations are what must not have happened, whatever the load; a soak ends with an error when there is one.
func (r *Report) violations() (list []string) {
	for _, v := range []struct {
		n    uint64
		what string
	}{
		{uint64(r.Failed), "sessions did not connect"}, {r.Late, "packets too late for a stock client's replay window"},
		{r.Strange, "packets for somebody else, or no packets at all"}, {r.Corrupt, "corrupt packets"},
		{r.RenegotiationsFailed, "renegotiations failed"},
	} {
		if v.n > 0 {
			list = append(list, fmt.Sprintf("%d %s", v.n, v.what))
		}
	}
	for why, n := range r.Lost {
		list = append(list, fmt.Sprintf("%d sessions lost: %s", n, why))
	}
	slices.Sort(list)
	return list
}
