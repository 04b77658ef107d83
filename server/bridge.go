package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"postern/server/config"
	"postern/server/datachan"
	"postern/tun"
)

// With a tap device the server is a switch: the device is one port of it, each client another. It has a path of its own,
// frame by frame; the lanes' share in it is to carry them.
//
//	from the device    one station      to its client; an unknown one has none, and the frame dies
//	                   group            to all clients
//	from a client      client-to-client to the station's client; group: to all others and the device; else the device
//	                   otherwise        to the device

// mac is a hardware address.
type mac [6]byte

func (a mac) group() bool { return a[0]&1 != 0 }

// A frame is what is read of an Ethernet frame:
//
//	| destination, 6 | source, 6 | [0x8100, tag: 4] | type, 2 | payload |
type frame struct {
	dst, src mac
	kind     uint16
	payload  int // where it begins
}

const (
	frameLenMin = 14
	kindVLAN    = 0x8100
	kindIPv4    = 0x0800
	kindIPv6    = 0x86dd
)

// parseFrame reads the head of a frame.
func parseFrame(b []byte) (f frame, ok bool) {
	if len(b) < frameLenMin {
		return f, false
	}
	f = frame{dst: mac(b), src: mac(b[6:]), kind: binary.BigEndian.Uint16(b[12:]), payload: frameLenMin}
	if f.kind == kindVLAN {
		if len(b) < frameLenMin+4 {
			return f, false
		}
		f.kind, f.payload = binary.BigEndian.Uint16(b[16:]), frameLenMin+4
	}
	return f, true
}

// clampFrame lowers the segment size of a TCP SYN in a frame to what fits m.
func clampFrame(b []byte, m *member) {
	f, ok := parseFrame(b)
	if !ok || f.kind != kindIPv4 && f.kind != kindIPv6 {
		return
	}
	less := func(mss uint16) uint16 { return mss - min(mss, uint16(f.payload)) }
	tun.ClampMSS(b[f.payload:], less(m.mss4), less(m.mss6), false)
}

// bridge knows behind which client each hardware address is. The nil bridge knows nothing and forgets nothing.
type bridge struct {
	max int // addresses of one client

	changes  atomic.Uint64 // how often byMAC was changed; moved under mu
	mu       sync.RWMutex  // everything below
	byMAC    map[mac]*station
	byClient map[*client]map[mac]*station
	own      mac // the device's, which is nobody else's
}

// A station is a hardware address behind a client.
type station struct {
	at   *client      // immutable: an address that moves is another station
	last atomic.Int64 // Server.clock when it was heard last
}

func newBridge(max int) *bridge {
	return &bridge{max: max, byMAC: make(map[mac]*station), byClient: make(map[*client]map[mac]*station)}
}

// find returns the client that a is behind, or nil.
func (b *bridge) find(r *recent, a mac) *client {
	if s := r.station(b, a); s != nil {
		return s.at
	}
	return nil
}

// learn remembers that a is behind c: an address is where it was heard last. A client that has too many loses the one
// that was silent for longest. It reports whether a can be an address at all.
func (b *bridge) learn(r *recent, a mac, c *client, now int64) bool {
	if a.group() || a == (mac{}) {
		return false
	}
	s := r.station(b, a)
	if s != nil && s.at == c {
		if s.last.Load() != now { // a store for every frame would take the line from the other lanes
			s.last.Store(now)
		}
		return true
	}
	b.mu.RLock()
	own := b.own
	b.mu.RUnlock()
	if a == own {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.gone.Load() {
		return false // leave has been here, or will not come again
	}
	b.changes.Add(1)
	if s := b.byMAC[a]; s != nil {
		delete(b.byClient[s.at], a)
	}
	mine := b.byClient[c]
	if mine == nil {
		mine = make(map[mac]*station)
		b.byClient[c] = mine
	}
	if len(mine) >= b.max {
		oldest := mac{}
		for other, s := range mine {
			if o := mine[oldest]; o == nil || s.last.Load() < o.last.Load() {
				oldest = other
			}
		}
		delete(mine, oldest)
		delete(b.byMAC, oldest)
	}
	s = &station{at: c}
	s.last.Store(now)
	b.byMAC[a], mine[a] = s, s
	return true
}

// leave forgets what is behind c, which is gone.
func (b *bridge) leave(c *client) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes.Add(1)
	for a := range b.byClient[c] {
		delete(b.byMAC, a)
	}
	delete(b.byClient, c)
}

// age forgets, once a minute, addresses that have been silent for limit seconds; 0 keeps them.
func (b *bridge) age(now, limit int64) {
	if b == nil || limit == 0 || now%60 != 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes.Add(1)
	for a, s := range b.byMAC {
		if now-s.last.Load() >= limit {
			delete(b.byMAC, a)
			delete(b.byClient[s.at], a)
		}
	}
}

// stations returns the addresses behind c, in order.
func (b *bridge) stations(c *client) (list []string) {
	if b == nil {
		return nil
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, a := range slices.SortedFunc(maps.Keys(b.byClient[c]), func(a, b mac) int { return bytes.Compare(a[:], b[:]) }) {
		list = append(list, net.HardwareAddr(a[:]).String())
	}
	return list
}

// setOwn tells the bridge the device's address.
func (b *bridge) setOwn(device string) {
	link, err := net.InterfaceByName(device)
	if err != nil || len(link.HardwareAddr) != len(b.own) {
		return // a device without one has no frames addressed to it either
	}
	b.mu.Lock()
	b.own = mac(link.HardwareAddr)
	b.mu.Unlock()
}

// frame handles one decrypted payload of a client of a tap server, of a packet of size bytes.
func (u *uplink) frame(r *run, b []byte, size int) {
	srv := u.lane.srv
	switch kind := datachan.Classify(b); kind {
	case datachan.NoMessage:
	case datachan.Exit:
		r.left = true
		return
	default:
		u.occ(r, kind, b, size)
		return
	}
	f, ok := parseFrame(b)
	if !ok {
		srv.drops.add(dropInner)
		return
	}
	if !srv.bridge.learn(&u.recent, f.src, r.c, srv.clock.Load()) {
		srv.drops.add(dropSource)
		return
	}
	r.inside += len(b)
	clampFrame(b, r.m)
	if srv.clientToClient {
		if f.dst.group() {
			if u.spreads(r) {
				u.forward = srv.copyFor(&u.clients, u.forward, r.m.zone, r.c, b)
			}
		} else if to := srv.bridge.find(&u.recent, f.dst); to != nil {
			if to != r.c {
				u.forward = append(u.forward, forwarded{to, b})
			}
			return
		}
	}
	u.single(0, b)
}

// readFrames carries frames from the device to clients until the queue is closed.
func (d *downlink) readFrames() error {
	srv := d.lane.srv
	srv.bridge.setOwn(d.zone.device.Name())
	for {
		packets, err := d.queue.Read()
		if err != nil {
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		}
		for i := range packets {
			b := packets[i].Bytes
			f, ok := parseFrame(b)
			if !ok {
				srv.drops.add(dropInner)
				continue
			}
			if f.dst.group() {
				d.copies = srv.copyFor(&d.clients, d.copies, d.zone.index, nil, b)
			} else if to := srv.bridge.find(&d.recent, f.dst); to != nil {
				d.copies = append(d.copies, forwarded{to, b})
			} else {
				srv.drops.add(dropNoRoute)
			}
		}
		d.copies = passAll(d.copies)
	}
}

// devType is what the device is, as dev-type has it.
func devType(cfg *config.Config) string {
	if cfg.Tap {
		return "tap"
	}
	return "tun"
}
