package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/server/config"
)

// A pool leases inside addresses: one index names an IPv4 and an IPv6 address together. An entry remembers whose it
// was, so that a client gets the same addresses again (S113).
type pool struct {
	first4, first6 netip.Addr
	step4          int  // IPv4 addresses of an entry: 4 in topology net30, of which the client's is the third
	sticky         bool // remember names; off with duplicate-cn
	fixed          bool // remembered entries are never given to others

	mu      sync.Mutex
	entries []poolEntry    // by index
	byName  map[string]int // remembered names
	unused  []int          // never leased, lowest last
	leased  int            // entries that somebody holds
	changed bool           // since the last save
}

type poolEntry struct {
	name     string // whose it is or was, if remembered
	holder   string // whose it is now
	last     string // whose it was last
	leases   int    // of holder: its newest session and the older one that ends when that is let in have one each
	released time.Time
	used     bool // was leased or remembered once
	excluded bool // leased to nobody but whom a client file names
}

// A lease is a client's hold on a pool entry, or on nothing (index -1) when its addresses are its own.
type lease struct {
	index        int
	addr4, addr6 netip.Addr
	peer4        netip.Addr // the server's end of addr4 in topology net30
	handedOn     bool       // another name had it before
}

var errPoolEmpty = errors.New("no free address in the pool")

// poolSize is how many addresses a range holds, at most 65,536.
func poolSize(r config.Range) int {
	if !r.First.IsValid() {
		return 0
	}
	a, b := r.First.As16(), r.Last.As16()
	n := new(big.Int).Sub(new(big.Int).SetBytes(b[:]), new(big.Int).SetBytes(a[:]))
	if n.Sign() < 0 {
		return 0
	}
	if n.Cmp(big.NewInt(65535)) > 0 {
		return 65536
	}
	return int(n.Int64()) + 1
}

// newPool makes the pool a configuration asks for; nil when it has none. What is excluded is leased only to whom a client
// file names.
func newPool(cfg *config.Config, excluded ...config.Range) *pool {
	n4, n6 := poolSize(cfg.Pool4), poolSize(cfg.Pool6)
	first4, step4 := cfg.Pool4.First, 1
	if cfg.Topology == config.Net30 && n4 > 0 {
		first, last := cfg.Pool4.First.As4(), cfg.Pool4.Last.As4()
		first[3], last[3] = first[3]&^3, last[3]|3 // whole entries: what the ends of the range lie in
		first4, step4 = netip.AddrFrom4(first), 4
		n4 = poolSize(config.Range{First: first4, Last: netip.AddrFrom4(last)}) / 4
	}
	n := n4
	if n == 0 || n6 > 0 && n6 < n {
		n = n6
	}
	if n == 0 {
		return nil
	}
	p := &pool{first4: first4, step4: step4, first6: cfg.Pool6.First, sticky: !cfg.DuplicateCN,
		fixed: cfg.PoolPersist != "" && cfg.PoolPersistEvery == 0, entries: make([]poolEntry, n),
		byName: make(map[string]int), unused: make([]int, n)}
	for i := range n {
		p.unused[i] = n - 1 - i
		a4, a6 := p.at(i)
		for _, r := range excluded {
			p.entries[i].excluded = p.entries[i].excluded || within(r, a4) || within(r, a6)
		}
	}
	p.unused = slices.DeleteFunc(p.unused, func(i int) bool { return p.entries[i].excluded })
	return p
}

func within(r config.Range, a netip.Addr) bool {
	return a.IsValid() && a.BitLen() == r.First.BitLen() && !a.Less(r.First) && !r.Last.Less(a)
}

// at returns the first addresses of an index, which are what the file names.
func (p *pool) at(i int) (a4, a6 netip.Addr) {
	return plus(p.first4, i*p.step4), plus(p.first6, i)
}

// plus returns a+i; the zero Addr stays zero. Pools are at most 65,536 long and do not cross a 32-bit boundary.
func plus(a netip.Addr, i int) netip.Addr {
	switch {
	case !a.IsValid():
		return a
	case a.Is4():
		b := a.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(i))
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	lo := binary.BigEndian.Uint64(b[8:]) + uint64(i)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b)
}

// index returns which entry holds an address, -1 when none.
func (p *pool) index(a netip.Addr) int {
	if p == nil {
		return -1
	}
	first := p.first4
	if a.Is6() {
		first = p.first6
	}
	if !a.IsValid() || !first.IsValid() || a.Less(first) {
		return -1
	}
	x, y := a.As16(), first.As16()
	if [8]byte(x[:8]) != [8]byte(y[:8]) {
		return -1
	}
	d := binary.BigEndian.Uint64(x[8:]) - binary.BigEndian.Uint64(y[8:])
	if a.Is4() {
		d /= uint64(p.step4)
	}
	if d >= uint64(len(p.entries)) {
		return -1
	}
	return int(d)
}

// lease takes an entry for name: the one remembered for it, else one never used, else the one released longest ago.
// An entry that name still holds, with its older session, is leased a second time, unless the session is to live beside
// that one.
func (p *pool) lease(name string, beside bool) (*lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, known := p.byName[name]
	known = known && p.sticky
	if known && !(beside && p.entries[i].leases > 0) {
		return p.take(i, name), nil
	}
	take := p.take
	if known {
		take = p.lend // the remembered one stays remembered
	}
	for len(p.unused) > 0 {
		i := p.unused[len(p.unused)-1]
		p.unused = p.unused[:len(p.unused)-1]
		if !p.entries[i].used {
			return take(i, name), nil
		}
	}
	best := -1
	for i := range p.entries {
		e := &p.entries[i]
		if e.leases > 0 || e.excluded || p.fixed && e.name != "" {
			continue
		}
		if best < 0 || e.released.Before(p.entries[best].released) {
			best = i
		}
	}
	if best < 0 {
		return nil, errPoolEmpty
	}
	return take(best, name), nil
}

// lend gives entry i to name and forgets whose it was. The caller holds mu.
func (p *pool) lend(i int, name string) *lease {
	if e := &p.entries[i]; e.name != "" {
		delete(p.byName, e.name)
		e.name, p.changed = "", true
	}
	return p.hold(i, name)
}

// take gives entry i to name. The caller holds mu.
func (p *pool) take(i int, name string) *lease {
	e := &p.entries[i]
	if p.sticky && e.name != name {
		if e.name != "" {
			delete(p.byName, e.name)
		}
		e.name = name
		p.byName[name] = i
		p.changed = true
	}
	return p.hold(i, name)
}

// hold counts one more lease of entry i. The caller holds mu.
func (p *pool) hold(i int, name string) *lease {
	e := &p.entries[i]
	if e.leases++; e.leases == 1 {
		p.leased++
	}
	l := &lease{index: i, handedOn: e.last != "" && e.last != name}
	e.used, e.holder, e.last = true, name, name
	l.addr4, l.addr6 = p.at(i)
	if p.step4 == 4 {
		l.addr4, l.peer4 = plus(l.addr4, 2), plus(l.addr4, 1)
	}
	return l
}

// claim takes the entry that holds a fixed address of name, so that nobody else gets it meanwhile. An address
// outside the pool needs none: index -1. It fails when another name's session has the entry.
func (p *pool) claim(name string, a netip.Addr) (*lease, error) {
	if p == nil {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.index(a)
	if i < 0 {
		return &lease{index: -1}, nil
	}
	e := &p.entries[i]
	if e.leases > 0 && e.holder != name {
		return nil, fmt.Errorf("address %v is in use by %q", a, e.holder)
	}
	if e.name != "" && e.name != name {
		delete(p.byName, e.name)
		e.name, p.changed = "", true
	}
	return p.hold(i, name), nil
}

// release gives a lease back, once. The entry stays remembered.
func (p *pool) release(l *lease, now time.Time) {
	if p == nil || l == nil || l.index < 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := &p.entries[l.index]
	if e.leases--; e.leases == 0 {
		e.holder, e.released = "", now
		p.leased--
	}
}

// usage returns how many entries are leased and how many there are.
func (p *pool) usage() (leased, size int) {
	if p == nil {
		return 0, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leased, len(p.entries)
}

// remember takes a line of an ifconfig-pool-persist file, name,IPv4[,IPv6], and reports whether it is of this pool.
func (p *pool) remember(line string) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f := strings.Split(line, ",")
	i := -1
	for _, s := range f[1:] {
		a, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			continue
		}
		if i = p.index(a); i >= 0 {
			break // IPv4 comes first, and wins
		}
	}
	if f[0] == "" || i < 0 {
		return false
	}
	if e := &p.entries[i]; e.name == "" && p.sticky && !e.excluded {
		if _, twice := p.byName[f[0]]; !twice {
			e.name, e.last, e.used = f[0], f[0], true
			p.byName[f[0]] = i
		}
	}
	return true
}

// changes reports whether what is remembered changed since it was last asked.
func (p *pool) changes() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.changed
	p.changed = false
	return was
}

// appendTo appends what is remembered as lines of an ifconfig-pool-persist file.
func (p *pool) appendTo(b []byte) []byte {
	if p == nil {
		return b
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.entries {
		name := p.entries[i].name
		if name == "" {
			continue
		}
		a4, a6 := p.at(i)
		b = append(b, name...)
		b = append(b, ',')
		if a4.IsValid() {
			b = a4.AppendTo(b)
		}
		b = append(b, ',')
		if a6.IsValid() {
			b = a6.AppendTo(b)
		}
		b = append(b, '\n')
	}
	return b
}

// touch has changes report true again.
func (p *pool) touch() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.changed = true
	p.mu.Unlock()
}
