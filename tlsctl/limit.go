package tlsctl

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// The limits on strangers. Those per source bind only sources that proved their address: nobody can have another
// one shut out.
const (
	resetPeriod = 10 * time.Second

	sourceRate, sourceBurst = 10, 20 // handshakes begun per second, by IPv4 address or IPv6 /64
	prefixRate, prefixBurst = 100, 200
	knownDiscount           = 10 // a source known from a login pays this much less
	knownFor                = 24 * time.Hour
	trackedSources          = 65536 // per address family

	earlyRate, earlyHalfOpen = 10, 64 // sessions made before the address is proven
)

// LimitOptions are the limits that can be configured.
type LimitOptions struct {
	// Resets in Period is how many first packets are answered (connect-freq-initial); one that leads to a session
	// is not counted. 0 means any number: an answer is no longer than its question, so that a limit protects
	// nobody, and lets whoever forges resets shut all new clients out (S012).
	Resets int
	Period time.Duration
	// HandWindow is how long a session may take to be authorised; 0 means 60 s.
	HandWindow time.Duration
}

// Limits bounds what strangers may cause. All gates of a process share one. Its memory is bounded too, and once it is
// used up nothing more is allocated: the source seen longest ago makes room. Safe for concurrent use.
type Limits struct {
	options LimitOptions

	mu          sync.Mutex
	start       time.Time // of the clock: the first moment we were told
	periodEnd   time.Duration
	resets      int
	earlyStarts rate
	early       [earlyHalfOpen]earlySession
	v4, v6      *rateTable
}

// An earlySession is one begun before its address was proven.
type earlySession struct {
	from   netip.AddrPort
	client SessionID
	until  time.Duration
}

// NewLimits returns limits of which nothing is used.
func NewLimits(o LimitOptions) *Limits {
	if o.Period == 0 {
		o.Period = resetPeriod
	}
	if o.HandWindow == 0 {
		o.HandWindow = defaultHandWindow
	}
	return &Limits{
		options: o,
		v4:      newRateTable(trackedSources),
		v6:      newRateTable(trackedSources),
	}
}

// at is now on the clock of the limits, which no change of the date can move.
func (l *Limits) at(now time.Time) time.Duration {
	if l.start.IsZero() {
		l.start = now
	}
	return now.Sub(l.start)
}

// takeReset reports whether one more reset may be answered.
func (l *Limits) takeReset(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.at(now); t >= l.periodEnd || t < l.periodEnd-l.options.Period {
		l.periodEnd = t + l.options.Period
		l.resets = 0
	}
	if l.options.Resets > 0 && l.resets >= l.options.Resets {
		return false
	}
	l.resets++
	return true
}

// returnReset gives one back: its client was real.
func (l *Limits) returnReset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.resets > 0 {
		l.resets--
	}
}

// takeStart reports whether a source that proved its address may begin a handshake.
func (l *Limits) takeStart(now time.Time, from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.at(now)
	table, source, prefix := l.keys(from)
	s, p := table.find(source), table.find(prefix)
	cost := int64(time.Second)
	if t < table.nodes[s].known {
		cost /= knownDiscount
	}
	sRate, pRate := &table.nodes[s].rate, &table.nodes[p].rate
	if !sRate.allows(t, cost/sourceRate, sourceBurst*int64(time.Second)/sourceRate) ||
		!pRate.allows(t, cost/prefixRate, prefixBurst*int64(time.Second)/prefixRate) {
		return false
	}
	sRate.spend(t, cost/sourceRate)
	pRate.spend(t, cost/prefixRate)
	return true
}

// takeEarly reports whether a session may be made for an address that is not proven.
func (l *Limits) takeEarly(now time.Time, from netip.AddrPort, client SessionID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.at(now)
	var free *earlySession
	for i := range l.early {
		e := &l.early[i]
		if e.from == from && e.client == client {
			free = e // its session is gone, or we would not be asked
			break
		}
		if e.until <= t {
			free = e
		}
	}
	const cost = int64(time.Second) / earlyRate
	if free == nil || !l.earlyStarts.allows(t, cost, earlyRate*cost) {
		return false
	}
	l.earlyStarts.spend(t, cost)
	*free = earlySession{from: from, client: client, until: t + l.options.HandWindow}
	return true
}

// settle is Gate.Settle.
func (l *Limits) settle(now time.Time, o *Opening, authorised bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.early {
		if e := &l.early[i]; e.from == o.From && e.client == o.Client {
			*e = earlySession{}
		}
	}
	if authorised {
		table, source, _ := l.keys(o.From.Addr())
		table.nodes[table.find(source)].known = l.at(now) + knownFor
	}
}

// keys says under which keys of which table an address is counted: IPv4 by address and /24, IPv6 by /64 and /48.
func (l *Limits) keys(addr netip.Addr) (t *rateTable, source, prefix rateKey) {
	if addr = addr.Unmap(); addr.Is4() {
		a := addr.As4()
		bits := uint64(binary.BigEndian.Uint32(a[:]))
		return l.v4, rateKey{bits: bits}, rateKey{bits: bits &^ 0xff, prefix: true}
	}
	a := addr.As16()
	bits := binary.BigEndian.Uint64(a[:])
	return l.v6, rateKey{bits: bits}, rateKey{bits: bits &^ 0xffff, prefix: true}
}

// A rate is an allowance that comes back with time, written as the moment when it will be whole again. Costs and
// the burst are in the time it takes them to come back.
type rate struct{ whole time.Duration }

func (r *rate) allows(now time.Duration, cost, burst int64) bool {
	return int64(max(r.whole, now)-now)+cost <= burst
}

func (r *rate) spend(now time.Duration, cost int64) {
	r.whole = max(r.whole, now) + time.Duration(cost)
}

type rateKey struct {
	bits   uint64
	prefix bool
}

// A rateTable holds the rates of the keys asked for last, in bounded memory.
type rateTable struct {
	seed   maphash.Seed
	chains []int32 // by hash: the first node, plus one
	nodes  []rateNode
	limit  int
	newest int32
	oldest int32
}

type rateNode struct {
	key   rateKey
	rate  rate
	known time.Duration // a user logged in from here: until then
	// Indexes of nodes; -1 at an end.
	chain        int32
	older, newer int32
}

func newRateTable(limit int) *rateTable {
	return &rateTable{seed: maphash.MakeSeed(), limit: limit, newest: -1, oldest: -1}
}

// find returns the index of key's node, a new one if need be, and makes it the newest. Finding two keys never drops
// the first for the second as long as the limit is at least two.
func (t *rateTable) find(key rateKey) int32 {
	if t.chains == nil {
		t.chains = make([]int32, t.limit)
	}
	chain := &t.chains[t.hash(key)]
	for i := *chain - 1; i >= 0; i = t.nodes[i].chain {
		if t.nodes[i].key == key {
			t.unlink(i)
			t.link(i)
			return i
		}
	}
	var i int32
	if len(t.nodes) < t.limit {
		i = int32(len(t.nodes))
		t.nodes = append(t.nodes, rateNode{})
	} else {
		i = t.oldest
		t.unlink(i)
		t.unchain(i)
	}
	t.nodes[i] = rateNode{key: key, chain: *chain - 1}
	*chain = i + 1
	t.link(i)
	return i
}

func (t *rateTable) hash(key rateKey) uint64 {
	var b [9]byte
	binary.BigEndian.PutUint64(b[:], key.bits)
	if key.prefix {
		b[8] = 1
	}
	return maphash.Bytes(t.seed, b[:]) % uint64(len(t.chains))
}

// unchain takes node i out of its hash chain.
func (t *rateTable) unchain(i int32) {
	chain := &t.chains[t.hash(t.nodes[i].key)]
	if *chain-1 == i {
		*chain = t.nodes[i].chain + 1
		return
	}
	for j := *chain - 1; j >= 0; j = t.nodes[j].chain {
		if t.nodes[j].chain == i {
			t.nodes[j].chain = t.nodes[i].chain
			return
		}
	}
}

// link makes node i, which is in no place, the newest.
func (t *rateTable) link(i int32) {
	t.nodes[i].older, t.nodes[i].newer = t.newest, -1
	if t.newest >= 0 {
		t.nodes[t.newest].newer = i
	} else {
		t.oldest = i
	}
	t.newest = i
}

func (t *rateTable) unlink(i int32) {
	n := &t.nodes[i]
	if n.older >= 0 {
		t.nodes[n.older].newer = n.newer
	} else {
		t.oldest = n.newer
	}
	if n.newer >= 0 {
		t.nodes[n.newer].older = n.older
	} else {
		t.newest = n.older
	}
}
