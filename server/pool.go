package server

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
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
	leases   int    // of holder: its newest session and the older one that ends when that is let in have one each
	released time.Time
	used     bool // was leased or remembered once
}

// A lease is a client's hold on a pool entry, or on nothing (index -1) when its addresses are its own.
type lease struct {
	index        int
	addr4, addr6 netip.Addr
	peer4        netip.Addr // the server's end of addr4 in topology net30
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

// newPool makes the pool a configuration asks for; nil when it has none.
func newPool(cfg *config.Config) *pool {
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
	}
	return p
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
// An entry that name still holds, with its older session, is leased a second time.
func (p *pool) lease(name string) (*lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i, ok := p.byName[name]; ok && p.sticky {
		return p.take(i, name), nil
	}
	for len(p.unused) > 0 {
		i := p.unused[len(p.unused)-1]
		p.unused = p.unused[:len(p.unused)-1]
		if !p.entries[i].used {
			return p.take(i, name), nil
		}
	}
	best := -1
	for i := range p.entries {
		e := &p.entries[i]
		if e.leases > 0 || p.fixed && e.name != "" {
			continue
		}
		if best < 0 || e.released.Before(p.entries[best].released) {
			best = i
		}
	}
	if best < 0 {
		return nil, errPoolEmpty
	}
	return p.take(best, name), nil
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
	e.used, e.holder = true, name
	l := &lease{index: i}
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

// read remembers what an ifconfig-pool-persist file says: lines of name,IPv4[,IPv6]. Lines that make no sense are
// returned as warnings and skipped.
func (p *pool) read(r io.Reader) (warnings []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
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
			warnings = append(warnings, fmt.Sprintf("line %d: no name, or no address of this pool", n))
			continue
		}
		if e := &p.entries[i]; e.name == "" && p.sticky {
			if _, twice := p.byName[f[0]]; !twice {
				e.name, e.used = f[0], true
				p.byName[f[0]] = i
			}
		}
	}
	return warnings, lines.Err()
}

// changes returns the file's contents when they changed since they were last returned.
func (p *pool) changes() ([]byte, bool) {
	if p == nil {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.changed {
		return nil, false
	}
	p.changed = false
	var b []byte
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
	return b, true
}

// touch has changes return the contents again.
func (p *pool) touch() {
	p.mu.Lock()
	p.changed = true
	p.mu.Unlock()
}
