package server

import (
	"cmp"
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
	zones  []*insideTable // by zone; their writers hold mu

	mu        sync.RWMutex
	byControl map[controlKey]*client
	byOutside map[outside]*client  // members
	pending   map[outside]*client  // the one session of an address that is no member yet (S017)
	byName    map[string][]*client // members, the newest last
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

func newTable(cfg *config.Config) *table {
	t := &table{
		// Many times the clients, since ids rest: as many may come and go within peerRest.
		byPeer:    make([]atomic.Pointer[client], min(4*cfg.MaxClients+1024, int(datachan.NoPeer))),
		byControl: make(map[controlKey]*client),
		byOutside: make(map[outside]*client),
		pending:   make(map[outside]*client),
		clients:   make(map[*client]struct{}),
		byName:    make(map[string][]*client),
	}
	for _, p := range cfg.AllPools() {
		t.zones = append(t.zones, newInsideTable(cfg.For(&p, nil)))
	}
	return t
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
// one takes the place of. sessions is how many the name may have; 0: any number.
func (t *table) full(name string, max, sessions int) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.members >= max && (sessions == 0 || len(t.byName[name]) < sessions)
}

// crowded reports whether a new session of name would be one too many, and none of the older ones has been silent since
// quiet, on Server.clock, so that it could take the place of that.
func (t *table) crowded(name string, sessions int, quiet int64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := t.byName[name]
	return sessions > 0 && len(list) >= sessions && !slices.ContainsFunc(list, func(c *client) bool { return c.rx.last.Load() < quiet })
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
// that must end now, the one at the same outside address and those that are too many of the same name, the longest
// unheard first. A member that has an inside address of c, as two client files may have it, stays, but the address is
// its own no more.
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
	if c.member.Swap(m) == nil {
		t.members++
		displaced = append(displaced, t.named(c, m, displaced)...)
	}
	t.zones[m.zone].add(c, m, iroutes)
	t.byPeer[m.peer].Store(c)
	return displaced, true
}

// named enters c under its name and returns those who must make room. The caller holds mu. Where a name may have any number
// of sessions it costs the same however many there are: lanes wait for mu with their control packets.
func (t *table) named(c *client, m *member, gone []*client) (displaced []*client) {
	if m.sessions > 0 {
		list := slices.DeleteFunc(slices.Clone(t.byName[m.name]), func(o *client) bool { return o.gone.Load() || slices.Contains(gone, o) })
		slices.SortStableFunc(list, func(a, b *client) int { return cmp.Compare(a.rx.last.Load(), b.rx.last.Load()) })
		if n := len(list) + 1 - m.sessions; n > 0 {
			displaced = list[:n]
		}
	}
	t.byName[m.name] = append(t.byName[m.name], c)
	return displaced
}

// repolicy changes what the lanes know of a member. A client that has ended stays as it is.
func (t *table) repolicy(c *client, change func(*member)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if was := c.member.Load(); was != nil {
		m := *was
		change(&m)
		c.member.Store(&m)
	}
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
	list := slices.DeleteFunc(t.byName[m.name], func(o *client) bool { return o == c })
	if t.byName[m.name] = list; len(list) == 0 {
		delete(t.byName, m.name)
	}
	t.byPeer[m.peer].CompareAndSwap(c, nil)
	t.zones[m.zone].remove(c, m)
}

// all appends every client to list, half-open ones too.
func (t *table) all(list []*client) []*client {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.AppendSeq(list, maps.Keys(t.clients))
}

// joined appends every member to list: strangers cost who looks for members nothing.
func (t *table) joined(list []*client) []*client {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.AppendSeq(list, maps.Values(t.byOutside))
}

// population is how many members there are.
func (t *table) population() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.members
}

// count is how many sessions there are.
func (t *table) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.clients)
}
