package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
)

const (
	maxFlows = 16  // flows that can be open at once
	maxFrags = 128 // packets in one superpacket: at 1400 bytes 64 KB are full with 46
	maxSuper = 0xffff
)

// A Coalescer gathers packets into superpackets and writes them to a queue. Packets of one flow are written in the
// order they were added; flows may overtake each other. One goroutine's.
//
// A superpacket is written as its first packet, whose header is changed in place, and the payloads of the others, as
// fragments that the queue gathers. A packet joins the one before it in its flow when the kernel, cutting the
// superpacket again, makes the very same packets of it: TCP data in sequence, with the same acknowledgement, options,
// TOS, TTL and IPv6 flow label, no flags but ACK and PSH; UDP of equal size; no IP options, extension headers or
// fragments. A shorter packet or one with PSH is the last of its superpacket. Each one's checksum is verified before it
// joins, as the kernel makes new ones and would make damage good: what is damaged is written by itself, as it came.
//
// Only the IPv4 id is not kept where it says nothing: with DF set (RFC 6864) it may change.
type Coalescer struct {
	q        Queue
	tcp, udp bool // what the queue's device can cut
	stats    CoalescerStats
	err      error // of writes since the last Flush

	flows [maxFlows]flow // the first n are in use
	n     int
	next  int // the flow to close when all are in use
	one   [1][]byte
}

// CoalescerStats count since the Coalescer was made.
type CoalescerStats struct {
	Packets uint64 // added
	Writes  uint64 // packets and superpackets written
	Dropped uint64 // packets that the kernel did not take
	Corrupt uint64 // TCP or UDP packets that would have joined but for their checksum; written as they came
}

// flow is a superpacket being gathered. frags[0] is the first packet, whole.
type flow struct {
	p        parsed
	frags    [][]byte
	size     int    // payload bytes of every packet but the last
	total    int    // bytes in all
	seq      uint32 // the next packet's
	id       uint16 // the next packet's
	flags    uint8  // TCP flags of all
	verified bool   // the first packet's checksums are right
}

// NewCoalescer returns a Coalescer that writes to q, in superpackets if q is an Offloader.
func NewCoalescer(q Queue) *Coalescer {
	c := &Coalescer{q: q}
	if o, ok := q.(Offloader); ok {
		c.tcp, c.udp = o.Offload()
	}
	for i := range c.flows {
		c.flows[i].frags = make([][]byte, 0, maxFrags)
	}
	return c
}

// Stats returns what was counted so far; it belongs to the goroutine that calls Add.
func (c *Coalescer) Stats() CoalescerStats { return c.stats }

// Add takes a packet, which must stay as it is until Flush. It may be written at once or wait for others.
func (c *Coalescer) Add(pkt []byte) {
	c.stats.Packets++
	if !c.tcp && !c.udp {
		c.single(pkt)
		return
	}
	p, kind := parse(pkt)
	switch {
	case kind == strange:
		c.closeBetween(pkt)
		c.single(pkt)
		return
	case p.tcp && !c.tcp || !p.tcp && !c.udp:
		c.single(pkt) // nothing of its flow can be waiting
		return
	}
	if i := c.find(&p); i >= 0 {
		f := &c.flows[i]
		if kind == mergeable && f.continuedBy(pkt, &p) && c.firstIntact(f) {
			if p.intact(pkt) {
				f.join(pkt, &p)
				if p.flags&flagPSH != 0 || f.full(&p) {
					c.close(i)
				}
				return
			}
			c.stats.Corrupt++
			kind = lone
		}
		c.close(i)
	}
	if kind != mergeable || p.flags&flagPSH != 0 {
		c.single(pkt)
		return
	}
	c.open(pkt, &p)
}

// Flush writes all that waits. Its error is the first that a write has met since the last Flush, but never ErrDropped,
// which is only counted; what was added is forgotten either way.
func (c *Coalescer) Flush() error {
	for i := range c.n {
		c.write(&c.flows[i])
	}
	c.n, c.next = 0, 0
	err := c.err
	c.err = nil
	return err
}

func (c *Coalescer) find(p *parsed) int {
	for i := range c.n {
		if c.flows[i].p.sameFlow(p) {
			return i
		}
	}
	return -1
}

// closeBetween closes all flows between the two hosts of pkt, since it may belong to any of them: a fragment has no
// ports, and behind extension headers they are not looked for.
func (c *Coalescer) closeBetween(pkt []byte) {
	for i := c.n - 1; i >= 0; i-- {
		first := c.flows[i].frags[0]
		if len(pkt) > 0 && first[0]>>4 == pkt[0]>>4 && bytes.Equal(addrs(first), addrs(pkt)) {
			c.close(i)
		}
	}
}

// addrs returns both addresses as they lie in the header, or what there is of them.
func addrs(pkt []byte) []byte {
	from, to := 12, 20
	if pkt[0]>>4 == 6 {
		from, to = 8, 40
	}
	return pkt[min(from, len(pkt)):min(to, len(pkt))]
}

// open begins a superpacket with pkt.
func (c *Coalescer) open(pkt []byte, p *parsed) {
	if c.n == maxFlows {
		c.write(&c.flows[c.next])
		c.flows[c.next].begin(pkt, p)
		c.next = (c.next + 1) % maxFlows
		return
	}
	c.flows[c.n].begin(pkt, p)
	c.n++
}

func (f *flow) begin(pkt []byte, p *parsed) {
	f.p = *p
	f.frags = append(f.frags[:0], pkt)
	f.size, f.total = p.size, len(pkt)
	f.seq, f.id, f.flags = p.seq+uint32(f.size), p.id+1, p.flags
	f.verified = false
}

// close writes flow i and gives its place to the last one.
func (c *Coalescer) close(i int) {
	c.write(&c.flows[i])
	c.n--
	c.flows[i], c.flows[c.n] = c.flows[c.n], c.flows[i]
}

// continuedBy reports whether pkt is what the kernel would make of the next piece of f.
func (f *flow) continuedBy(pkt []byte, p *parsed) bool {
	if p.size > f.size || f.p.hlen != p.hlen || p.tcp && f.seq != p.seq {
		return false
	}
	if p.v4 && !p.dontFragment && f.id != p.id {
		return false
	}
	return sameHeader(f.frags[0], pkt, p)
}

// firstIntact reports whether f may be continued. Only now is its first packet verified, for most flows of a batch end
// with it and are written as they came.
func (c *Coalescer) firstIntact(f *flow) bool {
	if !f.verified {
		if f.verified = f.p.intact(f.frags[0]); !f.verified {
			c.stats.Corrupt++
		}
	}
	return f.verified
}

func (f *flow) join(pkt []byte, p *parsed) {
	f.frags = append(f.frags, pkt[p.hlen:])
	f.total += p.size
	f.seq += uint32(p.size)
	f.id++
	f.flags |= p.flags
}

// full reports whether f, which last took p, can take no more.
func (f *flow) full(last *parsed) bool {
	return last.size < f.size || len(f.frags) == maxFrags || f.total+f.size > maxSuper
}

// single writes a packet as it is.
func (c *Coalescer) single(pkt []byte) {
	c.one[0] = pkt
	c.put(c.one[:], GSO{}, 1)
}

// write writes what f has gathered.
func (c *Coalescer) write(f *flow) {
	var g GSO
	if len(f.frags) > 1 {
		g = f.head()
	}
	c.put(f.frags, g, uint64(len(f.frags)))
}

func (c *Coalescer) put(frags [][]byte, g GSO, packets uint64) {
	switch err := c.q.Write(frags, g); {
	case err == nil:
		c.stats.Writes++
	case errors.Is(err, ErrDropped):
		c.stats.Dropped += packets
	case c.err == nil:
		c.err = err
	}
}

// head turns the first packet's header into the superpacket's: lengths of the whole, flags of all, and in place of the
// checksum the sum of the pseudo header, from which the kernel goes on.
func (f *flow) head() GSO {
	b, l4 := f.frags[0], f.p.l4
	if f.p.v4 {
		binary.BigEndian.PutUint16(b[2:], uint16(f.total))
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], ^fold(sum(b[:l4])))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(f.total-l4))
	}
	g := GSO{NeedsCsum: true, HdrLen: uint16(f.p.hlen), Size: uint16(f.size), CsumStart: uint16(l4)}
	pseudo := fold(pseudoSum(addrs(b), f.p.proto(), f.total-l4))
	if f.p.tcp {
		if g.Type = GSOTCPv6; f.p.v4 {
			g.Type = GSOTCPv4
		}
		g.CsumOffset = 16
		b[l4+13] = f.flags
		binary.BigEndian.PutUint16(b[l4+16:], pseudo)
	} else {
		g.Type, g.CsumOffset = GSOUDPL4, 6
		binary.BigEndian.PutUint16(b[l4+4:], uint16(f.total-l4))
		binary.BigEndian.PutUint16(b[l4+6:], pseudo)
	}
	return g
}
