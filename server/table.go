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
	byOutside map[outside]*client  // members
	pending   map[outside]*client  // the one session of an address that is no member yet (S017)
	byName    map[string]*client   // members; nil with duplicate-cn
	clients   map[*client]struct{} // all, half-open ones too
	members   int                  // of them, published ones
	freed     []freedPeer          // in order of time
	nextPeer  datachan.PeerID
}

type controlKey struct {
	outside
	sid tlsctl.SessionID
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
		// Many times the clients, since ids rest: as many may come and go within peerRest.
		byPeer:    make([]atomic.Pointer[client], min(4*cfg.MaxClients+1024, int(datachan.NoPeer))),
		byControl: make(map[controlKey]*client),
		byOutside: make(map[outside]*client),
		pending:   make(map[outside]*client),
		clients:   make(map[*client]struct{}),
	}
	if !cfg.DuplicateCN {
		t.byName = make(map[string]*client)
	}
	switch net := cfg.Addr4.Masked(); {
	case net.IsValid() && net.Bits() >= 16 && (net.Contains(cfg.Pool4.Last) || !cfg.Pool4.Last.IsValid()):
		a := net.Addr().As4()
		t.base4 = binary.BigEndian.Uint32(a[:])
		t.in4 = make([]atomic.Pointer[client], 1<<(32-net.Bits()))
	case cfg.Pool4.First.IsValid(): // net30 and p2p without a network of the server's own
		a := cfg.Pool4.First.As4()
		t.base4 = binary.BigEndian.Uint32(a[:]) &^ 3
		t.in4 = make([]atomic.Pointer[client], poolSize(cfg.Pool4)+6) // with what makes whole entries of its ends
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

// at returns the member at an outside address: for P_DATA_V1 only.
func (t *table) at(o outside) *client {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byOutside[o]
}

// control returns the client whose control packets come from o with session id sid.
func (t *table) control(o outside, sid tlsctl.SessionID) *client {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byControl[controlKey{o, sid}]
}

// enter takes a new session in. It returns the older unfinished session of the same address, which must end, and
// false if there is a session with this very id (a repeated packet). How many may be unfinished is halfOpen's matter:
// they take no place of max-clients, or strangers could use those up (S008).
func (t *table) enter(c *client) (older *client, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := c.path.Load().outside
	k := controlKey{o, c.sid}
	if t.byControl[k] != nil {
		return nil, false
	}
	older = t.pending[o]
	t.pending[o] = c
	t.byControl[k] = c
	t.clients[c] = struct{}{}
	return older, true
}

// full reports whether there are as many members as may be, and none of them is an older session of name that the new
// one takes the place of.
func (t *table) full(name string, max int) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.members >= max && t.byName[name] == nil
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
	return datachan.NoPeer, errNoPeer
}

func (t *table) freePeer(id datachan.PeerID, now time.Time) {
	t.mu.Lock()
	t.freed = append(t.freed, freedPeer{id, now})
	t.mu.Unlock()
}

// publish lets the lanes find c, unless it has ended meanwhile. The newest claim wins (S050): it returns the members
// that must end now, the one at the same outside address and the one of the same name. A member that has an inside
// address of c, as two client files may have it, stays, but the address is its own no more.
func (t *table) publish(c *client, m *member, iroutes []netip.Prefix) (displaced []*client, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, here := t.clients[c]; !here || c.gone.Load() {
		return nil, false
	}
	o := c.path.Load().outside
	if old := t.byOutside[o]; old != nil && old != c {
		displaced = append(displaced, old)
	}
	t.byOutside[o] = c
	if t.pending[o] == c {
		delete(t.pending, o)
	}
	if t.byName != nil {
		if old := t.byName[m.name]; old != nil && old != c && !slices.Contains(displaced, old) {
			displaced = append(displaced, old)
		}
		t.byName[m.name] = c
	}
	if c.member.Swap(m) == nil {
		t.members++
	}
	far, changed := t.far.Load(), false
	change := func() {
		if !changed {
			far, changed = far.copied(), true
		}
	}
	for _, a := range []netip.Addr{m.addr4, m.addr6} {
		if !a.IsValid() {
			continue
		}
		if s := t.slot(a); s != nil {
			s.Swap(c).lose(a)
			continue
		}
		change()
		far.hosts[a].lose(a)
		far.hosts[a] = c
	}
	if len(iroutes) > 0 {
		change()
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
	return displaced, true
}

// lose takes an inside address from a member, if there is one. The caller holds table.mu.
func (c *client) lose(a netip.Addr) {
	if c == nil {
		return
	}
	m := *c.member.Load()
	if m.addr4 == a {
		m.addr4 = netip.Addr{}
	}
	if m.addr6 == a {
		m.addr6 = netip.Addr{}
	}
	c.member.Store(&m)
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
	if _, here := t.clients[c]; !here || c.gone.Load() {
		return nil, false
	}
	if old := t.byOutside[to.outside]; old != nil && old != c && !old.gone.Load() {
		if !sameIdentity(old) {
			return nil, false
		}
		stale = old
	}
	t.forget(c)
	t.byOutside[to.outside] = c
	t.byControl[controlKey{to.outside, c.sid}] = c
	c.path.Store(to)
	return stale, true
}

// forget forgets where c is. The caller holds mu.
func (t *table) forget(c *client) {
	o := c.path.Load().outside
	if k := (controlKey{o, c.sid}); t.byControl[k] == c {
		delete(t.byControl, k)
	}
	if t.byOutside[o] == c {
		delete(t.byOutside, o)
	}
	if t.pending[o] == c {
		delete(t.pending, o)
	}
}

// remove forgets c everywhere.
func (t *table) remove(c *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.clients, c)
	t.forget(c)
	m := c.member.Load()
	if m == nil {
		return
	}
	t.members--
	if t.byName[m.name] == c {
		delete(t.byName, m.name)
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

// all appends every client to list, half-open ones too.
func (t *table) all(list []*client) []*client {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.AppendSeq(list, maps.Keys(t.clients))
}

// count is how many sessions there are.
func (t *table) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.clients)
}
