package server

import (
	"errors"
	"net"
	"os"

	"postern/server/datachan"
	"postern/server/link"
	"postern/tun"
)

// A lane is one core's share of the data path: UDP socket i of every listener, TUN queue i of every zone, a loop for each
// way.
type lane struct {
	srv    *Server
	queues []tun.Queue // to write to, by zone
	sender *sender
	spare  chan []*tun.Coalescer // for streams, which come by the thousand and are idle mostly: lent for a batch
}

// spares is how many sets of coalescers a lane keeps: no more streams than there are cores are at work at once.
const spares = 8

func newLane(s *Server, queues []tun.Queue) *lane {
	return &lane{srv: s, queues: queues, sender: newSender(s, queues), spare: make(chan []*tun.Coalescer, spares)}
}

// borrow returns coalescers that are nobody else's until giveBack.
func (l *lane) borrow() []*tun.Coalescer {
	select {
	case c := <-l.spare:
		return c
	default:
		return l.coalescers()
	}
}

// giveBack takes coalescers that have been flushed.
func (l *lane) giveBack(c []*tun.Coalescer) {
	select {
	case l.spare <- c:
	default: // there are enough
	}
}

// coalescers makes a coalescer for each zone.
func (l *lane) coalescers() (list []*tun.Coalescer) {
	for _, q := range l.queues {
		list = append(list, tun.NewCoalescer(q))
	}
	return list
}

// A downlink carries packets from one queue to clients of its zone.
type downlink struct {
	lane    *lane
	zone    *zone
	queue   tun.Queue
	clients []*client   // scratch
	copies  []forwarded // of a packet for a group; scratch
	recent  recent      // with a tap device
}

// read is the loop of the device's kind.
func (d *downlink) read() error {
	if d.lane.srv.bridge != nil {
		return d.readFrames()
	}
	return d.run()
}

// run carries packets until the queue is closed.
func (d *downlink) run() error {
	inside := d.lane.srv.table.zones[d.zone.index]
	var to [128]*client
	for {
		packets, err := d.queue.Read()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		for len(packets) > 0 {
			n := min(len(packets), len(to))
			d.lane.send(inside, packets[:n], to[:n], d.spread)
			packets = packets[n:]
		}
	}
}

// send seals a batch, one home sender after the other: nearly always there is only our own. Packets for groups are
// spread's.
func (l *lane) send(inside *insideTable, packets []tun.Packet, to []*client, spread func(*tun.Packet)) {
	left := 0
	for i := range packets {
		to[i] = nil
		dst, ok := tun.Destination(packets[i].Bytes)
		if !ok {
			l.srv.drops.add(dropInner)
			continue
		}
		if to[i] = inside.find(dst); to[i] == nil {
			if dst.IsMulticast() {
				spread(&packets[i])
			} else {
				l.srv.drops.add(dropNoRoute)
			}
			continue
		}
		left++
	}
	for home := l.sender; left > 0; {
		next, sent := home.send(packets, to)
		if next == nil {
			break
		}
		home, left = next, left-sent
	}
	clear(to)
}

// An uplink opens what one socket receives and writes it to the TUN.
type uplink struct {
	lane    *lane
	sock    link.Socket
	door    any              // of the packets' addresses
	gate    *gatekeeper      // where strangers go; nil on a stream
	only    *client          // on a stream: whose it is
	merge   []*tun.Coalescer // by zone; on a stream only while a batch is at work
	scratch datachan.Scratch
	at      run         // the one under way
	nanos   int64       // when the batch under way came; 0 until somebody asks
	forward []forwarded // for other clients, sent when the batch is through
	clients []*client   // scratch
	write   [1][]byte   // scratch
	recent  recent      // with a tap device
}

// forwarded is a packet for another client. It is lent until the batch ends.
type forwarded struct {
	to  *client
	pkt []byte
}

var (
	errStreamBroken = errors.New("data packet on a stream failed to decrypt")
	errPanic        = errors.New("a packet made the server panic")
)

// run carries packets from the socket until it is closed.
func (u *uplink) run() error {
	for {
		trains, err := u.sock.Receive()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := u.batch(trains); err != nil {
			return err
		}
	}
}

// batch handles what one Receive brought. On a stream an error ends the client.
func (u *uplink) batch(trains []link.Train) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = u.survive(p)
		}
	}()
	now := u.lane.srv.clock.Load()
	if u.only != nil {
		u.merge = u.lane.borrow()
	}
	u.nanos = 0
	for i := range trains {
		if e := u.train(&trains[i], now); e != nil {
			err = e
		}
	}
	for _, m := range u.merge {
		m.Flush() // the queue counts what it could not write
	}
	if u.only != nil {
		u.lane.giveBack(u.merge)
		u.merge = nil
	}
	u.forward = passAll(u.forward)
	if u.only != nil {
		u.clients = nil // what is kept is kept by every stream there is (S009)
		if cap(u.forward) > streamCopies {
			u.forward = nil
		}
	}
	return err
}

// survive ends the client whose packet a panic was about, and forgets the rest of the batch (S019).
func (u *uplink) survive(p any) error {
	r := u.at
	u.at = run{}
	if r.locked {
		r.key.Unlock()
	}
	if u.merge = nil; u.only == nil {
		u.merge = u.lane.coalescers()
	}
	clear(u.forward)
	u.forward = u.forward[:0]
	if u.only != nil {
		r.c = u.only
	}
	u.lane.srv.panicked(r.c, p)
	if u.only != nil {
		return errPanic
	}
	return nil
}

// A run is packets of a train that one key opens, one after the other: the key is locked once for all.
type run struct {
	c       *client
	m       *member
	key     *datachan.Key
	locked  bool
	head    uint32 // the header they share
	bytes   int
	inside  int // bytes of packets for the inside network
	packets int
	newest  bool // one of them carried the highest id so far
	left    bool // one of them said that the client leaves
}

// heard counts a packet that was the client's.
func (r *run) heard(size int, id uint64) {
	r.bytes += size
	r.packets++
	r.newest = r.newest || id == r.key.Highest()
}

// train handles one train: one outside address, packets of one size.
func (u *uplink) train(t *link.Train, now int64) error {
	srv := u.lane.srv
	r := &u.at
	var bad error
	size := max(t.Size, 1)
	for rest := t.Bytes; len(rest) > 0; {
		pkt := rest[:min(size, len(rest))]
		rest = rest[len(pkt):]
		h, ok := datachan.ParseHeader(pkt)
		if !ok {
			u.finish(t, now)
			srv.control(u, u.where(t), pkt)
			continue
		}
		if head := uint32(h.Peer)<<8 | uint32(pkt[0]); r.key == nil || head != r.head {
			u.finish(t, now)
			r.head = head
			if !u.find(r, &h, t) {
				continue
			}
			r.key.Lock()
			r.locked = true
		}
		payload, id, err := r.key.Open(pkt, &u.scratch)
		if err != nil {
			switch err {
			case datachan.ErrReplay:
				srv.drops.add(dropReplay)
			case datachan.ErrShort:
				srv.drops.add(dropMalformed)
			case datachan.ErrMalformed: // the client's own doing, and no sign that bytes were lost
				srv.drops.add(dropMalformed)
				continue
			case datachan.ErrCompressed: // the packet was good, and its client was heard
				srv.drops.add(dropCompressed)
				r.heard(len(pkt), id)
				continue
			default:
				srv.drops.add(dropAuth)
			}
			if u.only != nil {
				bad = errStreamBroken // nothing on a stream is lost or damaged by accident
			}
			continue
		}
		r.heard(len(pkt), id)
		u.payload(r, payload, len(pkt))
	}
	u.finish(t, now)
	return bad
}

// find names the client and key of a data packet.
func (u *uplink) find(r *run, h *datachan.Header, t *link.Train) bool {
	srv := u.lane.srv
	switch {
	case u.only != nil:
		r.c = u.only
	case h.Op == datachan.OpDataV1:
		r.c = srv.table.at(u.where(t))
	default:
		if r.c = srv.table.peer(h.Peer); r.c != nil && r.c.stream {
			r.c = nil // a stream's client does not speak from a socket (S078)
		}
	}
	if r.c == nil {
		srv.drops.add(dropNoClient)
		return false
	}
	if r.m = r.c.member.Load(); r.m == nil {
		srv.drops.add(dropNotUp)
		return false
	}
	if r.key = r.c.ring.Receiving(h.Key); r.key == nil {
		srv.drops.add(dropNoKey)
		return false
	}
	return true
}

// finish ends the run under way: unlocks, counts once, and does what a run may bring about besides packets.
func (u *uplink) finish(t *link.Train, now int64) {
	r := u.at
	u.at = run{}
	if r.key == nil {
		return
	}
	r.key.Unlock()
	if r.packets == 0 {
		return // S076
	}
	c := r.c
	c.rx.bytes.Add(uint64(r.bytes))
	c.rx.packets.Add(uint64(r.packets))
	if r.inside > 0 {
		c.rx.inside.Add(uint64(r.inside))
	}
	c.rx.last.Store(now)
	if c.unheard.Load() == r.key {
		c.hear(r.key)
	}
	if r.left {
		u.lane.srv.end(c, "the client left")
		return
	}
	if u.only != nil || !r.newest || r.head&0xff>>3 != datachan.OpDataV2 || c.outgrown.Load() == r.key {
		return
	}
	if p := c.path.Load(); p.addr != t.Addr || p.sock != u.sock || p.local != t.Local {
		u.lane.srv.float(c, p, &path{outside: u.where(t), sock: u.sock, home: u.lane.sender})
	}
}

// where is the outside address that a train came from.
func (u *uplink) where(t *link.Train) outside { return outside{u.door, t.Addr, t.Local} }

// payload handles one decrypted payload, of a packet of size bytes.
func (u *uplink) payload(r *run, b []byte, size int) {
	srv := u.lane.srv
	if len(b) == 0 {
		return
	}
	if srv.bridge != nil {
		u.frame(r, b, size)
		return
	}
	src, ok := tun.Source(b)
	if !ok || !tun.Valid(b) {
		switch kind := datachan.Classify(b); kind {
		case datachan.NoMessage:
			srv.drops.add(dropInner)
		case datachan.Exit:
			r.left = true
		default:
			u.occ(r, kind, b, size)
		}
		return
	}
	if srv.blockIPv6 && src.Is6() {
		srv.drops.add(dropBlocked)
		if e := srv.noRoute(r.c, b); e != nil {
			u.forward = append(u.forward, forwarded{r.c, e})
		}
		return
	}
	if !r.c.owns(r.m, src) {
		if src.IsLinkLocalUnicast() {
			srv.drops.add(dropLinkLocal) // every client sends router solicitations
		} else {
			srv.drops.add(dropSource)
		}
		return
	}
	if r.m.limited {
		if u.nanos == 0 {
			u.nanos = srv.nanos()
		}
		if r.c.up.take(u.nanos, 1, len(b)) == 0 {
			srv.drops.add(dropLimit)
			return
		}
	}
	r.inside += len(b)
	tun.ClampMSS(b, r.m.mss4, r.m.mss6, false)
	if srv.clientToClient {
		if dst, ok := tun.Destination(b); ok {
			if dst.IsMulticast() {
				if u.spreads(r) {
					u.forward = srv.copyFor(&u.clients, u.forward, r.m.zone, r.c, b)
				}
				u.single(r.m.zone, b) // a superpacket's header would be made of its own, which the copies are of
				return
			} else if to := srv.table.zones[r.m.zone].find(dst); to != nil && to != r.c {
				if pt := to.path.Load(); pt.refuses(b) {
					srv.drops.add(dropTooBig)
					if e := srv.tooBig(to.member.Load(), pt, b, r.c); e != nil {
						u.forward = append(u.forward, forwarded{r.c, e})
					}
					return
				}
				u.forward = append(u.forward, forwarded{to, b})
				return
			}
		}
	}
	u.merge[r.m.zone].Add(b)
}

// single writes a packet to a device as it is, at once.
func (u *uplink) single(zone int, b []byte) {
	u.write[0] = b
	_ = u.lane.queues[zone].Write(u.write[:], tun.GSO{}) // the queue counts what it could not write
	u.write[0] = nil
}
