package server

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"postern/server/config"
)

// insideTable finds a zone's clients by their inside addresses. Lanes read it, and only load atomics; writers hold
// table.mu.
type insideTable struct {
	// in4 and in6 hold the pool networks' addresses by offset, so that a connect copies nothing.
	in4   []atomic.Pointer[client]
	base4 uint32
	in6   []atomic.Pointer[client]
	base6 [16]byte
	// far is every other inside address and the networks behind clients; copied by writers.
	far atomic.Pointer[farRoutes]
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

// newInsideTable makes the table for the addresses of cfg itself.
func newInsideTable(cfg *config.Config) *insideTable {
	t := new(insideTable)
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

// slot returns where a's client stands, if a lies in the pool's networks.
func (t *insideTable) slot(a netip.Addr) *atomic.Pointer[client] {
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

// find returns whose inside address a is, or nil. Lanes call it.
func (t *insideTable) find(a netip.Addr) *client {
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

// add makes addresses and networks lead to c.
func (t *insideTable) add(c *client, m *member, iroutes []netip.Prefix) {
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
}

// remove forgets what leads to c.
func (t *insideTable) remove(c *client, m *member) {
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

func (r *farRoutes) copied() *farRoutes {
	hosts := maps.Clone(r.hosts)
	if hosts == nil {
		hosts = make(map[netip.Addr]*client)
	}
	return &farRoutes{hosts: hosts, nets: slices.Clone(r.nets)}
}
