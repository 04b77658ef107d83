package tlsctl

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

func TestResetLimit(t *testing.T) {
	now := time.Unix(1700000000, 0)
	l := NewLimits(LimitOptions{Resets: 100})
	take := func() (n int) {
		for l.takeReset(now) {
			n++
		}
		return n
	}
	if got := take(); got != 100 {
		t.Errorf("answered %d resets at once, want 100", got)
	}
	now = now.Add(9 * time.Second)
	if got := take(); got != 0 {
		t.Errorf("answered %d more in the same period", got)
	}
	l.returnReset()
	l.returnReset()
	if got := take(); got != 2 {
		t.Errorf("answered %d after two came back", got)
	}
	now = now.Add(time.Second)
	for range 5 {
		l.returnReset() // nothing yet to be given back
	}
	now = now.Add(30 * time.Second)
	l.returnReset()
	if got := take(); got != 100 {
		t.Errorf("answered %d in a new period, want 100", got)
	}

	l = NewLimits(LimitOptions{Resets: 3, Period: time.Second})
	if got := take(); got != 3 {
		t.Errorf("answered %d, want 3", got)
	}
	for range 5 {
		l.returnReset() // more than were taken
	}
	if got := take(); got != 3 {
		t.Errorf("answered %d after all came back, want 3", got)
	}
}

// Starts per source and per prefix come at their rate after a burst (S007).
func TestStartLimit(t *testing.T) {
	begin := time.Unix(1700000000, 0)
	addr4 := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
	addr6 := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%x::1", i)) }
	// taken tries n starts each millisecond for a second, from sources in turn.
	taken := func(l *Limits, now time.Time, n int, source func(i int) netip.Addr) (count int) {
		i := 0
		for ms := range 1000 {
			for range n {
				if l.takeStart(now.Add(time.Duration(ms)*time.Millisecond), source(i)) {
					count++
				}
				i++
			}
		}
		return count
	}
	for _, c := range []struct {
		name   string
		source func(i int) netip.Addr
		want   int // burst, and what comes back in the second
	}{
		{"one source", func(int) netip.Addr { return addr4(1) }, 20 + 9},
		{"one source, mapped", func(int) netip.Addr { return netip.AddrFrom16(addr4(1).As16()) }, 20 + 9},
		{"one /64", func(i int) netip.Addr {
			a := addr6(1).As16()
			binary.BigEndian.PutUint64(a[8:], uint64(i))
			return netip.AddrFrom16(a)
		}, 20 + 9},
		{"one /24", func(i int) netip.Addr { return addr4(i % 256) }, 200 + 99},
		{"one /48", addr6, 200 + 99},
	} {
		l := NewLimits(LimitOptions{})
		if got := taken(l, begin, 2, c.source); got < c.want-1 || got > c.want+1 {
			t.Errorf("%s: %d starts, want %d", c.name, got, c.want)
		}
		// The next source is not concerned.
		if !l.takeStart(begin.Add(time.Second), netip.MustParseAddr("203.0.113.1")) {
			t.Errorf("%s: another source pays for it", c.name)
		}
		// All comes back.
		if got := taken(l, begin.Add(time.Minute), 2, c.source); got < c.want-1 || got > c.want+1 {
			t.Errorf("%s: %d starts a minute later, want %d", c.name, got, c.want)
		}
	}

	// A refused start costs nothing, in the prefix neither.
	l := NewLimits(LimitOptions{})
	taken(l, begin, 10, func(int) netip.Addr { return addr4(1) })
	if got := taken(l, begin.Add(time.Second), 2, func(i int) netip.Addr { return addr4(2 + i%200) }); got < 290 {
		t.Errorf("%d starts of a prefix with one greedy source, want nearly 299", got)
	}
}

// Five hundred people come back to an office behind one address: all are in within 30 s (S007).
func TestStartLimitOfKnownSource(t *testing.T) {
	now := time.Unix(1700000000, 0)
	l := NewLimits(LimitOptions{})
	office := netip.MustParseAddrPort("192.0.2.1:1194")
	l.settle(now, &Opening{From: office}, true)

	now = now.Add(23 * time.Hour)
	waiting := 500
	for s := 0; waiting > 0; s++ {
		if s == 30 {
			t.Fatalf("%d still wait after 30 s", waiting)
		}
		for range waiting {
			if l.takeStart(now, office.Addr()) {
				waiting--
			}
		}
		now = now.Add(time.Second)
	}

	count := func(addr netip.Addr) (n int) {
		for l.takeStart(now, addr) {
			n++
		}
		return n
	}
	now = now.Add(30 * time.Minute)
	if got := count(office.Addr()); got != 200 {
		t.Errorf("a burst of %d from a known source, want 200", got)
	}
	now = now.Add(time.Hour) // more than a day since the login
	if got := count(office.Addr()); got != 20 {
		t.Errorf("a burst of %d a day after the login, want 20", got)
	}
	stranger := netip.MustParseAddrPort("198.51.100.1:1194")
	l.settle(now, &Opening{From: stranger}, false)
	if got := count(stranger.Addr()); got != 20 {
		t.Errorf("a burst of %d after a failed login, want 20", got)
	}
}

func TestEarlyLimit(t *testing.T) {
	now := time.Unix(1700000000, 0)
	l := NewLimits(LimitOptions{})
	from := netip.MustParseAddrPort("192.0.2.1:1194")
	id := func(i int) (s SessionID) {
		binary.BigEndian.PutUint64(s[:], uint64(i)+1)
		return s
	}
	next := 0
	take := func() (n int) {
		for l.takeEarly(now, from, id(next)) {
			n++
			next++
		}
		return n
	}
	if got := take(); got != 10 {
		t.Errorf("%d at once, want 10", got)
	}
	for range 10 {
		now = now.Add(time.Second)
		take()
	}
	if next != 64 {
		t.Errorf("%d half-open, want 64", next)
	}
	l.settle(now, &Opening{From: from, Client: id(20)}, true)
	l.settle(now, &Opening{From: from, Client: id(1000)}, false) // none of ours
	if got := take(); got != 1 {
		t.Errorf("%d places after one was settled", got)
	}
	if !l.takeEarly(now, from, id(30)) {
		t.Error("a session that begins once more takes its own place")
	}
	now = now.Add(2 * time.Minute)
	if got := take(); got != 10 {
		t.Errorf("%d at once when all are over, want 10", got)
	}
}

// A million sources leave a bounded table, the newest of them in it, and allocate nothing once it is full (S007).
func TestRateTableIsBounded(t *testing.T) {
	table := newRateTable(trackedSources)
	key := func(i int) rateKey { return rateKey{bits: uint64(i) << 16, prefix: i&1 == 1} }
	for i := range trackedSources {
		table.find(key(i))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const sources = 1_000_000
	for i := trackedSources; i < sources; i++ {
		table.find(key(i))
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
		t.Errorf("allocated %d bytes when full", n)
	}
	if len(table.nodes) != trackedSources {
		t.Errorf("%d entries, want %d", len(table.nodes), trackedSources)
	}

	// Exactly the newest are there, each once.
	for i := sources - trackedSources; i < sources; i++ {
		table.nodes[table.find(key(i))].known = time.Duration(i)
	}
	for i := sources - trackedSources; i < sources; i++ {
		if got := table.nodes[table.find(key(i))].known; got != time.Duration(i) {
			t.Fatalf("source %d has the entry of %d", i, got)
		}
	}
	if table.nodes[table.find(key(0))].known != 0 {
		t.Error("an old entry came back")
	}
}

// Sources that somebody has chosen take no more room in one chain than random ones: the table is seeded, and steps are
// counted, not time (S013). BenchmarkRateTable measures the time.
func TestRateTableTakesChosenSources(t *testing.T) {
	steps := func(choose func(i uint64) uint64) (n int) {
		table := newRateTable(trackedSources)
		for i := range uint64(chosenSources) {
			table.find(rateKey{bits: choose(i)})
		}
		for i := range table.chains {
			length := 0
			for j := table.chains[i] - 1; j >= 0; j = table.nodes[j].chain {
				length++
			}
			n += length * (length + 1) / 2 // to find each of them once
		}
		return n
	}
	random := steps(randomSource())
	for name, choose := range chosen {
		if n := steps(choose); n > 2*random {
			t.Errorf("%s: %d steps to find all, with random keys %d", name, n, random)
		}
	}
}

const chosenSources = 100_000

// chosen are keys that would share a chain if the table's hash were a simple one.
var chosen = map[string]func(i uint64) uint64{
	"in a row":              func(i uint64) uint64 { return i },
	"a table's length away": func(i uint64) uint64 { return i * trackedSources },
	"high bits":             func(i uint64) uint64 { return i << 47 },
	"both halves equal":     func(i uint64) uint64 { return i<<32 | i },
	"a golden ratio away":   func(i uint64) uint64 { return i * 0x9e3779b97f4a7c15 },
}

func randomSource() func(uint64) uint64 {
	rng := rand.New(rand.NewPCG(1, 2))
	return func(uint64) uint64 { return rng.Uint64() }
}

func BenchmarkRateTable(b *testing.B) {
	for name, choose := range map[string]func(i uint64) uint64{"random": randomSource(), "in a row": chosen["in a row"], "a table's length away": chosen["a table's length away"]} {
		keys := make([]rateKey, chosenSources)
		for i := range keys {
			keys[i].bits = choose(uint64(i))
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				table := newRateTable(trackedSources)
				for _, k := range keys {
					table.find(k)
				}
			}
		})
	}
}

// The table agrees with a simple one about who is the oldest.
func TestRateTableEvictsOldest(t *testing.T) {
	const limit = 8
	table := newRateTable(limit)
	var order []uint64 // oldest first
	touch := func(bits uint64) {
		for i, b := range order {
			if b == bits {
				order = append(order[:i:i], order[i+1:]...)
				break
			}
		}
		order = append(order, bits)
		if len(order) > limit {
			order = order[1:]
		}
	}
	random := randomBytes(20000)
	for _, b := range random {
		bits := uint64(b % 16)
		i := table.find(rateKey{bits: bits})
		touch(bits)
		if table.nodes[i].key.bits != bits || table.newest != i {
			t.Fatalf("found %v for %d", table.nodes[i].key, bits)
		}
		j := table.oldest
		for _, want := range order {
			if j < 0 || table.nodes[j].key.bits != want {
				t.Fatalf("order is not %v", order)
			}
			j = table.nodes[j].newer
		}
		if j != -1 {
			t.Fatalf("more entries than %v", order)
		}
	}
}
