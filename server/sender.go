package server

import (
	"sync"

	"postern/server/datachan"
	"postern/server/link"
	"postern/tun"
)

// arenaSize holds a batch of sealed packets: what a TUN read brings at most, with the added headers.
const arenaSize = 256 << 10

// maxTrain is where a train stops growing: what one UDP_SEGMENT message can carry.
const maxTrain = 64

// A sender puts one lane's packets on the wire: it takes packet ids, seals, and sends trains, in that order and under
// one mutex, so that the packets of its clients leave in the order of their ids.
type sender struct {
	srv    *Server
	queues []tun.Queue // the lane's, by zone, for errors to who sent too much

	mu      sync.Mutex
	arena   []byte
	used    int
	trains  []link.Train
	socks   []link.Socket // of each train
	last    *path         // of the last train
	lastKey *datachan.Key
	class   uint8   // of the packets at work, with passtos
	grows   bool    // the last train may grow
	busy    *client // whose packet is at work
	scratch datachan.Scratch
	control [64]byte // a ping's payload
}

func newSender(s *Server, queues []tun.Queue) *sender {
	return &sender{srv: s, queues: queues, arena: make([]byte, arenaSize)}
}

// send seals those of a batch that are at home here, and sends them. Their places in to are cleared; next is where
// another is at home, nil when there is none.
func (s *sender) send(packets []tun.Packet, to []*client) (next *sender, sent int) {
	s.mu.Lock()
	defer s.unlock()
	for i, c := range to {
		if c == nil {
			continue
		}
		if h := c.path.Load().home; h != s {
			next = h
			continue
		}
		to[i] = nil
		sent++
		s.add(c, &packets[i])
	}
	s.flush()
	return next, sent
}

// passAtOnce is how many forwarded packets go before others have their turn: what copies for a group come to may be a lot.
const passAtOnce = 128

// pass seals packets for clients that are at home here, up to the first for one who is not, and sends them. It returns
// how many it took, at least one.
func (s *sender) pass(list []forwarded) (n int) {
	s.mu.Lock()
	defer s.unlock()
	for n < min(len(list), passAtOnce) && (n == 0 || list[n].to.path.Load().home == s) {
		f := &list[n]
		n++
		if m := f.to.member.Load(); m != nil {
			if m.limited && f.to.down.take(s.srv.nanos(), 1, len(f.pkt)) == 0 {
				s.srv.drops.add(dropLimit)
				continue
			}
			if s.srv.bridge != nil {
				clampFrame(f.pkt, m)
			} else {
				tun.ClampMSS(f.pkt, m.mss4, m.mss6, false)
			}
		}
		if s.addPayload(f.to, f.pkt) {
			f.to.tx.inside.Add(uint64(len(f.pkt)))
		}
	}
	s.flush()
	return n
}

// ping sends c a ping.
func (s *sender) ping(c *client) {
	s.mu.Lock()
	defer s.unlock()
	s.addPayload(c, datachan.AppendPing(s.control[:0]))
	s.flush()
}

// unlock lets go of mu. After a panic it forgets what there is, and ends the client whose packet it was about (S019).
func (s *sender) unlock() {
	c := s.busy
	s.busy = nil
	p := recover()
	if p != nil {
		s.reset()
	}
	s.mu.Unlock()
	if p != nil {
		s.srv.panicked(c, p)
	}
}

// add seals a packet or superpacket for c. The caller holds mu, and flushes before it lets go.
func (s *sender) add(c *client, p *tun.Packet) {
	s.busy = c
	key := c.ring.Sending()
	m := c.member.Load()
	if key == nil || m == nil {
		s.srv.drops.add(dropNotUp)
		return
	}
	n := p.Segments()
	if m.limited {
		may := c.down.take(s.srv.nanos(), n, len(p.Bytes)/n)
		if s.srv.drops[dropLimit].Add(uint64(n - may)); may == 0 {
			return
		}
		n = may
	}
	first, ok := key.Reserve(n)
	if !ok {
		s.srv.drops.add(dropKeySpent)
		return
	}
	pt := c.path.Load()
	s.class = 0
	if s.srv.passTOS {
		s.class = tun.Class(p.Bytes)
	}
	bytes, inside, packets := 0, 0, 0
	for i := range n {
		seg, err := p.Segment(i)
		if err != nil {
			s.srv.drops.add(dropInner)
			break
		}
		if i == 0 && pt.refuses(seg) {
			s.srv.drops.add(dropTooBig)
			if e := s.srv.tooBig(m, pt, seg, c); e != nil {
				_ = s.queues[m.zone].Write([][]byte{e}, tun.GSO{}) // the queue counts what it cannot take
			}
			break
		}
		if n == 1 {
			tun.ClampMSS(seg, m.mss4, m.mss6, false) // a SYN is never a superpacket
		}
		size := s.seal(c, pt, key, seg, first+uint64(i))
		if size == 0 {
			continue
		}
		bytes += size
		inside += len(seg)
		packets++
	}
	if packets == 0 {
		return // nothing goes: the client has its pings still to come
	}
	s.sent(c, key, packets, bytes, inside)
	c.tx.inside.Add(uint64(inside))
}

// addPayload seals one payload that is no packet of the TUN, from another client or a ping, and reports whether it goes. As
// add.
func (s *sender) addPayload(c *client, payload []byte) bool {
	s.busy = c
	s.class = 0
	if s.srv.passTOS {
		s.class = tun.Class(payload)
	}
	key := c.ring.Sending()
	if key == nil {
		s.srv.drops.add(dropNotUp)
		return false
	}
	id, ok := key.Reserve(1)
	if !ok {
		s.srv.drops.add(dropKeySpent)
		return false
	}
	size := s.seal(c, c.path.Load(), key, payload, id)
	if size == 0 {
		return false
	}
	s.sent(c, key, 1, size, len(payload))
	return true
}

// seal puts one packet behind what is in the arena and returns its size, 0 when it died.
func (s *sender) seal(c *client, pt *path, key *datachan.Key, payload []byte, id uint64) int {
	need := key.HeadLen() + len(payload) + key.TailLen()
	if need > len(s.arena)-s.used {
		s.flush()
		s.busy = c
		if need > len(s.arena) {
			s.srv.drops.add(dropOversize)
			return 0
		}
	}
	start := s.used
	n := key.Seal(s.arena[start:], payload, id, &s.scratch)
	if n == 0 {
		s.srv.drops.add(dropKeySpent) // the epochs came to their end meanwhile
		return 0
	}
	s.used += n
	if s.grows && s.last == pt && s.lastKey == key {
		t := &s.trains[len(s.trains)-1]
		if n <= t.Size && t.Class == s.class && len(t.Bytes) < maxTrain*t.Size {
			t.Bytes = t.Bytes[:len(t.Bytes)+n]
			s.grows = n == t.Size
			return n
		}
	}
	s.trains = append(s.trains, link.Train{Addr: pt.addr, Bytes: s.arena[start : start+n], Size: n, Local: pt.local, Class: s.class})
	s.socks = append(s.socks, pt.sock)
	s.last, s.lastKey, s.grows = pt, key, true
	return n
}

// sent counts: bytes as they are on the wire, and payload.
func (s *sender) sent(c *client, key *datachan.Key, packets, bytes, payload int) {
	key.AddUsage(packets, payload)
	c.tx.bytes.Add(uint64(bytes))
	c.tx.packets.Add(uint64(packets))
	c.tx.last.Store(s.srv.clock.Load())
}

// flush sends all trains and empties the arena.
func (s *sender) flush() {
	s.busy = nil
	for i := 0; i < len(s.trains); {
		j := i + 1
		for j < len(s.trains) && s.socks[j] == s.socks[i] {
			j++
		}
		_ = s.socks[i].Send(s.trains[i:j]) // the socket counts what it could not send; a lost datagram is just lost
		i = j
	}
	s.reset()
}

func (s *sender) reset() {
	clear(s.socks)
	s.trains, s.socks = s.trains[:0], s.socks[:0]
	s.used, s.last, s.lastKey, s.grows = 0, nil, nil, false
}
