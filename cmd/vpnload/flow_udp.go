package main

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// What vpnload and its peer say to each other over UDP:
//
//	0      4      5       6      8     16      24
//	| magic | kind | flags | size | seq | stamp | filling ...
//
//	'u' counted     'e' sent back as it is     's' asks for datagrams of size bytes, stamp of them a second (0: as many
//	'x' no more     'q' asks for the count     as there can be), 'd' is one of them
//	                'r' the count: datagrams in seq, bytes in stamp
const (
	udpMagic   = 0x56504c44
	udpHead    = 24
	flagSingly = 1 // the peer is to send one datagram per system call
)

type message struct {
	kind, flags uint8
	size        uint16
	seq, stamp  uint64
}

func (m *message) put(b []byte) {
	binary.BigEndian.PutUint32(b, udpMagic)
	b[4], b[5] = m.kind, m.flags
	binary.BigEndian.PutUint16(b[6:], m.size)
	binary.BigEndian.PutUint64(b[8:], m.seq)
	binary.BigEndian.PutUint64(b[16:], m.stamp)
}

func parseMessage(b []byte) (m message, ok bool) {
	if len(b) < udpHead || binary.BigEndian.Uint32(b) != udpMagic {
		return m, false
	}
	return message{b[4], b[5], binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}, true
}

// fill makes a filling that shows when something was exchanged for something else; filled checks it.
func fill(b []byte, seq uint64) {
	for i := range b {
		b[i] = byte(seq*131 + uint64(i))
	}
}

func filled(b []byte, seq uint64) bool {
	for i := range b {
		if b[i] != byte(seq*131+uint64(i)) {
			return false
		}
	}
	return true
}

// A udpFlow is datagrams between a session and a peer: up, down, both, or echoes.
type udpFlow struct {
	s        *session
	src, dst netip.AddrPort
	mode     byte // as a tcpFlow's, or 'e'
	size     int
	rate     int // a second; 0: as many as there can be
	end      chan struct{}
	once     sync.Once
	wg       sync.WaitGroup

	up, upBytes     atomic.Uint64 // sent
	down, downBytes atomic.Uint64 // received, echoes too
	reordered       atomic.Uint64
	repeated        atomic.Uint64
	highest         atomic.Uint64
	answer          atomic.Pointer[message]
	counted         message // by the peer, when it last told
}

func newUDPFlow(s *session, to netip.AddrPort, mode byte, size, rate int) *udpFlow {
	return &udpFlow{s: s, src: netip.AddrPortFrom(s.inside(to.Addr()), uint16(20000+rand.N(40000))), dst: to, mode: mode,
		size: max(size, udpHead), rate: rate, end: make(chan struct{})}
}

func (f *udpFlow) start() {
	if f.mode != 'u' && f.mode != 'e' {
		f.ask('s')
	}
	if f.mode != 'd' {
		f.wg.Go(f.run)
	}
}

// ask sends a message that is no data.
func (f *udpFlow) ask(kind byte) {
	m := message{kind: kind, size: uint16(f.size), stamp: uint64(f.rate)}
	if !f.s.crew.o.gso {
		m.flags = flagSingly
	}
	var head [udpHead]byte
	m.put(head[:])
	var b [128]byte
	pkt := appendUDP(b[:0], f.src, f.dst, head[:])
	_ = f.s.send(func(b *batch) { b.add(pkt) })
}

// tick keeps the peer sending.
func (f *udpFlow) tick() {
	select {
	case <-f.end:
	default:
		if f.mode == 'd' || f.mode == 'b' {
			f.ask('s')
		}
	}
}

// batchEvery is how often a batch leaves at a given rate, where packets travel many at a time.
const batchEvery = 20 * time.Millisecond

// run sends until stop.
func (f *udpFlow) run() {
	tick := 5 * time.Millisecond
	burst := 1
	if f.s.crew.o.gso {
		burst = min(maxSplit, batchLimit/(f.size+64))
		tick = batchEvery
	}
	if f.rate > 0 {
		tick = max(tick, time.Second/time.Duration(f.rate)) // thousands of slow flows do not wake up for nothing
	}
	payload := make([]byte, f.size)
	b := make([]byte, 0, f.size+64)
	seq, owed := uint64(0), 0.0
	kind := byte('u')
	if f.mode == 'e' {
		kind = 'e'
	}
	timer := time.NewTicker(tick)
	defer timer.Stop()
	last := time.Now()
	for {
		n := burst
		if f.rate > 0 {
			select {
			case <-f.end:
				return
			case now := <-timer.C:
				owed += now.Sub(last).Seconds() * float64(f.rate)
				last = now
			}
			n = int(owed)
			owed -= float64(n)
			if n == 0 {
				continue
			}
		} else {
			select {
			case <-f.end:
				return
			default:
			}
		}
		stamp := uint64(time.Now().UnixNano())
		err := f.s.send(func(out *batch) {
			for range n {
				m := message{kind: kind, seq: seq, stamp: stamp}
				m.put(payload)
				if kind == 'e' {
					fill(payload[udpHead:], seq)
				}
				out.add(appendUDP(b[:0], f.src, f.dst, payload))
				seq++
			}
		})
		if err != nil {
			time.Sleep(tick) // the wire is changing, or gone
			continue
		}
		if kind == 'e' {
			f.s.crew.tally.echoesSent.Add(uint64(n))
		}
		f.up.Add(uint64(n))
		f.upBytes.Add(uint64(n * f.size))
	}
}

// take handles a datagram.
func (f *udpFlow) take(p *inner) {
	l4 := p.l4
	if netip.AddrPortFrom(p.src, binary.BigEndian.Uint16(l4)) != f.dst || binary.BigEndian.Uint16(l4[2:]) != f.src.Port() {
		return
	}
	if !p.intact() {
		f.s.crew.tally.corrupt.Add(1)
		return
	}
	m, ok := parseMessage(l4[8:])
	if !ok {
		return
	}
	switch m.kind {
	case 'r':
		f.answer.Store(&m)
		return
	case 'e':
		if !filled(l4[8+udpHead:], m.seq) {
			f.s.crew.tally.corrupt.Add(1)
		}
		f.s.crew.tally.echo.add(time.Duration(time.Now().UnixNano() - int64(m.stamp)))
	case 'd':
	default:
		return
	}
	f.down.Add(1)
	f.downBytes.Add(uint64(len(l4) - 8))
	switch h := f.highest.Load(); {
	case m.seq+1 > h:
		f.highest.Store(m.seq + 1)
	case m.seq+1 == h:
		f.repeated.Add(1)
	default:
		f.reordered.Add(1)
	}
}

// count asks the peer how much of what went up has arrived; false when it does not answer.
func (f *udpFlow) count() (m message, ok bool) {
	f.answer.Store(nil)
	for range 20 {
		f.ask('q')
		for range 10 {
			time.Sleep(10 * time.Millisecond)
			if a := f.answer.Load(); a != nil {
				return *a, true
			}
		}
	}
	return m, false
}

// stop ends the flow.
func (f *udpFlow) stop() {
	f.once.Do(func() {
		close(f.end)
		f.wg.Wait()
		if f.mode == 'd' || f.mode == 'b' {
			f.ask('x')
		}
	})
}
