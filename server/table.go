package server

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postern/server/config"
	"postern/server/datachan"
	"postern/tlsctl"
)

// peerRest is how long a freed peer id stays unused, so that late packets meet nobody (S078).
const peerRest = 60 * time.Second

// table finds clients: by peer id and inside address for the lanes, which only load atomics; by outside address and
// session id for control packets.
type table struct {
	byPeer []atomic.Pointer[client]
	// in4 and in6 hold the pool networks' addresses by offset, so that a connect copies nothing.
	in4   []atomic.Pointer[client]
	base4 uint32
	in6   []atomic.Pointer[client]
	base6 [16]byte
	// far is every other inside address and the networks behind clients; copied by writers.
	far atomic.Pointer[farRoutes]

	mu        sync.RWMutex
	byControl map[controlKey]*client
	byAddr    map[netip.AddrPort]*client // established (published) clients
	pending   map[netip.AddrPort]*client // the one unpublished session of an address (S017)
	clients   map[*client]struct{}       // all, half-open ones too
	freed     []freedPeer                // in order of time
	nextPeer  datachan.PeerID
}

type controlKey struct {
	addr netip.AddrPort
	sid  tlsctl.SessionID
}

type freedPeer struct {
	id datachan.PeerID
	at time.Time
}

// farRoutes is immutable.
type farRoutes struct {
	hosts map[netip.Addr]*client
	nets  []farNet // longest prefix first
}

type farNet struct {
	net netip.Prefix
	to  *client
}

func newTable(cfg *config.Config) *table {
	t := &table{
		byPeer:    make([]atomic.Pointer[client], min(2*cfg.MaxClients+64, 1<<24-2)),
		byControl: make(map[controlKey]*client),
		byAddr:    make(map[netip.AddrPort]*client),
		pending:   make(map[netip.AddrPort]*client),
		clients:   make(map[*client]struct{}),
	}
	if cfg.Addr4.IsValid() && cfg.Addr4.Bits() >= 16 {
		net := cfg.Addr4.Masked()
		a := net.Addr().As4()
		t.base4 = binary.BigEndian.Uint32(a[:])
		t.in4 = make([]atomic.Pointer[client], 1<<(32-net.Bits()))
	}
	if cfg.Pool6.First.IsValid() {
		t.base6 = cfg.Pool6.First.As16()
		t.in6 = make([]atomic.Pointer[client], poolSize(cfg.Pool6))
	}
	t.far.Store(&farRoutes{})
	return t
}

// slot returns where a's client stands, if a lies in a pool network.
func (t *table) slot(a netip.Addr) *atomic.Pointer[client] {
	if a.Is4() {
		b := a.As4()
		if i := binary.BigEndian.Uint32(b[:]) - t.base4; i < uint32(len(t.in4)) {
			return &t.in4[i]
		}
		return nil
	}
	b := a.As16()
	if [12]byte(b[:12]) == [12]byte(t.base6[:12]) { // pools are at most 65,536 long: the rest is a 32-bit offset
		if i := binary.BigEndian.Uint32(b[12:]) - binary.BigEndian.Uint32(t.base6[12:]); i < uint32(len(t.in6)) {
			return &t.in6[i]
		}
	}
	return nil
}

// inside returns whose inside address a is, or nil. Lanes call it.
func (t *table) inside(a netip.Addr) *client {
	if s := t.slot(a); s != nil {
		if c := s.Load(); c != nil {
			return c
		}
	}
	far := t.far.Load()
	if c := far.hosts[a]; c != nil {
		return c
	}
	for i := range far.nets {
		if far.nets[i].net.Contains(a) {
			return far.nets[i].to
		}
	}
	return nil
}

// peer returns the client with a peer id, or nil. Lanes call it.
func (t *table) peer(id datachan.PeerID) *client {
	if int(id) < len(t.byPeer) {
		return t.byPeer[id].Load()
	}
	return nil
}

// at returns the established client at an outside address: for P_DATA_V1 only.
func (t *table) at(addr netip.AddrPort) *client {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byAddr[addr]
}

// control returns the client whose control packets come from addr with session id sid.
func (t *table) control(addr netip.AddrPort, sid tlsctl.SessionID) *client {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byControl[controlKey{addr, sid}]
}

// enter takes a new session in. It returns the older unfinished session of the same address, which must end, and
// false if there is a session with this very id (a repeated packet) or no room.
func (t *table) enter(c *client, addr netip.AddrPort, max int) (older *client, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := controlKey{addr, c.sid}
	if t.byControl[k] != nil || len(t.clients) >= max {
		return nil, false
	}
	older = t.pending[addr]
	t.pending[addr] = c
	t.byControl[k] = c
	t.clients[c] = struct{}{}
	return older, true
}

var errNoPeer = errors.New("no peer id free")

// allocatePeer returns a peer id that has rested, or a new one.
func (t *table) allocatePeer(now time.Time) (datachan.PeerID, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.freed) > 0 && now.Sub(t.freed[0].at) >= peerRest {
		id := t.freed[0].id
		t.freed = t.freed[1:]
		return id, nil
	}
	if int(t.nextPeer) < len(t.byPeer) {
		t.nextPeer++
		return t.nextPeer - 1, nil
	}
	return 0, errNoPeer
}

func (t *table) freePeer(id datachan.PeerID, now time.Time) {
	t.mu.Lock()
	t.freed = append(t.freed, freedPeer{id, now})
	t.mu.Unlock()
}

// publish lets the lanes find c. A client already at the address or an inside address of c is displaced: the newest
// claim wins. It returns the one at the address, which must end.
func (t *table) publish(c *client, m *member, iroutes []netip.Prefix) (displaced *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	addr := c.path.Load().addr
	if old := t.byAddr[addr]; old != c {
		displaced = old
	}
	t.byAddr[addr] = c
	if t.pending[addr] == c {
		delete(t.pending, addr)
	}
	c.member.Store(m)
	far, changed := t.far.Load(), false
	for _, a := range []netip.Addr{m.addr4, m.addr6} {
		if !a.IsValid() {
			continue
		}
		if s := t.slot(a); s != nil {
			s.Store(c)
			continue
		}
		if !changed {
			far, changed = far.copied(), true
		}
		far.hosts[a] = c
	}
	if len(iroutes) > 0 {
		if !changed {
			far, changed = far.copied(), true
		}
		for _, n := range iroutes {
			far.nets = slices.DeleteFunc(far.nets, func(f farNet) bool { return f.net == n })
			far.nets = append(far.nets, farNet{n, c})
		}
		slices.SortStableFunc(far.nets, func(a, b farNet) int { return b.net.Bits() - a.net.Bits() })
	}
	if changed {
		t.far.Store(far)
	}
	t.byPeer[m.peer].Store(c)
	return displaced
}

func (r *farRoutes) copied() *farRoutes {
	hosts := maps.Clone(r.hosts)
	if hosts == nil {
		hosts = make(map[netip.Addr]*client)
	}
	return &farRoutes{hosts: hosts, nets: slices.Clone(r.nets)}
}

// move follows a client to a new outside address. It refuses an address that another live session holds, unless
// that session is of the same identity (stale, to be ended: returned). Control packets follow too.
func (t *table) move(c *client, to *path, sameIdentity func(*client) bool) (stale *client, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := c.path.Load()
	if old := t.byAddr[to.addr]; old != nil && old != c {
		if !sameIdentity(old) {
			return nil, false
		}
		stale = old
	}
	if _, live := t.clients[c]; !live {
		return nil, false
	}
	if t.byAddr[from.addr] == c {
		delete(t.byAddr, from.addr)
	}
	delete(t.byControl, controlKey{from.addr, c.sid})
	t.byAddr[to.addr] = c
	t.byControl[controlKey{to.addr, c.sid}] = c
	c.path.Store(to)
	return stale, true
}

// remove forgets c everywhere.
func (t *table) remove(c *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.clients, c)
	addr := c.path.Load().addr
	delete(t.byControl, controlKey{addr, c.sid})
	if t.byAddr[addr] == c {
		delete(t.byAddr, addr)
	}
	if t.pending[addr] == c {
		delete(t.pending, addr)
	}
	m := c.member.Load()
	if m == nil {
		return
	}
	t.byPeer[m.peer].CompareAndSwap(c, nil)
	for _, a := range []netip.Addr{m.addr4, m.addr6} {
		if s := t.slot(a); a.IsValid() && s != nil {
			s.CompareAndSwap(c, nil)
		}
	}
	far := t.far.Load()
	mine := func(f farNet) bool { return f.to == c }
	if far.hosts[m.addr4] == c || far.hosts[m.addr6] == c || slices.ContainsFunc(far.nets, mine) {
		far = far.copied()
		maps.DeleteFunc(far.hosts, func(_ netip.Addr, to *client) bool { return to == c })
		far.nets = slices.DeleteFunc(far.nets, mine)
		t.far.Store(far)
	}
}

// all returns every client, half-open ones too.
func (t *table) all() []*client {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Keys(t.clients))
}

// count is how many sessions there are.
func (t *table) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.clients)
}
