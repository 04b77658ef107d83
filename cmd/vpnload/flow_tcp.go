package main

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A tcpFlow is one connection to a peer (peer.go), with the least of TCP that a real one at the other end can work with:
// slow start and additive increase up to a bound, go-back-N when something is lost, acknowledgements without delay, and
// selective ones, or a real sender would take a round trip for each loss. The stream begins with a request; all bytes
// behind it are zero, so that of what came too early only the extent is kept.
type tcpFlow struct {
	s    *session
	src  netip.AddrPort
	dst  netip.AddrPort
	mode byte

	// Of the goroutine that receives.
	pending int // segments not acknowledged yet

	mu       sync.Mutex
	more     sync.Cond
	state    tcpState
	una, nxt uint32
	iss      uint32
	wnd      uint32
	scale    uint8
	mss      uint32
	cwnd     uint32
	ssthresh uint32
	dups     int
	recover  uint32 // no second reduction before this is acknowledged
	moved    time.Time
	rcv      uint32
	early    []span // behind gaps, in order, apart from each other
	started  bool
	over     bool

	acked, received uint64
	resent, gaps    uint64
	done            chan struct{}
}

// A span is bytes of the stream from one number up to another.
type span struct{ from, to uint32 }

type tcpState uint8

const (
	tcpConnecting tcpState = iota
	tcpOpen
	tcpBroken
)

const (
	maxMSS    = 1460
	tcpScale  = 5
	maxCwnd   = 2 << 20
	tcpWindow = 0xffff
	tcpRTO    = 300 * time.Millisecond
	tcpBurst  = 44
)

var zeros [2048]byte

func newTCPFlow(s *session, to netip.AddrPort, mode byte) *tcpFlow {
	f := &tcpFlow{s: s, src: netip.AddrPortFrom(s.inside(to.Addr()), uint16(20000+rand.N(40000))), dst: to, mode: mode,
		iss: rand.Uint32(), done: make(chan struct{})}
	f.more.L = &f.mu
	f.una, f.nxt = f.iss, f.iss
	return f
}

func (f *tcpFlow) start() {
	f.mu.Lock()
	f.moved = time.Now()
	f.started = true
	f.mu.Unlock()
	f.syn()
	go f.run()
}

func (f *tcpFlow) syn() {
	mss := f.s.crew.o.mss
	options := []byte{2, 4, byte(mss >> 8), byte(mss), 1, 3, 3, tcpScale, 4, 2, 1, 1}
	var b [128]byte
	pkt := appendTCP(b[:0], f.src, f.dst, f.iss, 0, flagSYN, tcpWindow, options, nil)
	_ = f.s.send(func(b *batch) { b.add(pkt) })
}

// run sends while the windows allow it.
func (f *tcpFlow) run() {
	defer close(f.done)
	var b [2048]byte
	first := f.iss + 1
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.over && f.state != tcpBroken {
		end := f.nxt // how far there is something to send
		switch {
		case f.state != tcpOpen:
		case f.nxt-first < requestSize:
			end = first + requestSize
		case f.mode != 'd':
			if room := int32(f.una + min(f.cwnd, f.wnd) - f.nxt); room >= int32(f.mss) {
				end = f.nxt + min(uint32(room)/f.mss, tcpBurst)*f.mss
			}
		}
		if end == f.nxt {
			f.more.Wait()
			continue
		}
		seq, ack, mss := f.nxt, f.rcv, f.mss
		f.nxt = end
		f.mu.Unlock()
		_ = f.s.send(func(out *batch) {
			for seq != end {
				n := min(mss, end-seq)
				payload, flags := zeros[:n], uint8(flagACK)
				if seq-first < requestSize {
					r := request(f.mode)
					payload = r[seq-first:]
					n, flags = uint32(len(payload)), flagACK|flagPSH
				}
				out.add(appendTCP(b[:0], f.src, f.dst, seq, ack, flags, tcpWindow, nil, payload))
				seq += n
			}
		})
		f.mu.Lock()
	}
}

// take handles a segment.
func (f *tcpFlow) take(p *inner) {
	l4 := p.l4
	if netip.AddrPortFrom(p.src, binary.BigEndian.Uint16(l4)) != f.dst || binary.BigEndian.Uint16(l4[2:]) != f.src.Port() {
		return
	}
	if !p.intact() {
		f.s.crew.tally.corrupt.Add(1)
		return
	}
	seq, ack := binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:])
	flags, window := l4[13], uint32(binary.BigEndian.Uint16(l4[14:]))
	head := int(l4[12]>>4) * 4
	size := len(l4) - head
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case flags&flagRST != 0:
		f.state = tcpBroken
		f.more.Broadcast()
		return
	case flags&flagSYN != 0:
		if f.state != tcpConnecting || flags&flagACK == 0 || ack != f.iss+1 {
			return
		}
		f.mss = uint32(f.s.crew.o.mss)
		for o := l4[20:head]; len(o) > 1 && o[0] != 0; {
			if o[0] == 1 {
				o = o[1:]
				continue
			}
			n := int(o[1])
			if n < 2 || n > len(o) {
				break
			}
			switch {
			case o[0] == 2 && n == 4:
				f.mss = min(f.mss, uint32(binary.BigEndian.Uint16(o[2:])))
			case o[0] == 3 && n == 3:
				f.scale = o[2]
			}
			o = o[n:]
		}
		f.state, f.rcv = tcpOpen, seq+1
		f.una, f.nxt, f.wnd = ack, ack, window
		f.cwnd, f.ssthresh = 32*f.mss, maxCwnd
		f.moved = time.Now()
		f.pending++
		f.more.Broadcast()
		return
	case f.state != tcpOpen || flags&flagACK == 0:
		return
	}
	f.wnd = window << f.scale
	switch moved := int32(ack - f.una); {
	case moved > 0:
		f.acked += uint64(moved)
		f.una, f.dups, f.moved = ack, 0, time.Now()
		if int32(f.nxt-f.una) < 0 {
			f.nxt = f.una
		}
		if f.cwnd < f.ssthresh {
			f.cwnd += uint32(moved)
		} else {
			f.cwnd += f.mss * uint32(moved) / f.cwnd
		}
		f.cwnd = min(f.cwnd, maxCwnd)
		f.more.Signal()
	case moved == 0 && size == 0 && f.nxt != f.una:
		if f.dups++; f.dups == 3 && int32(f.una-f.recover) >= 0 {
			f.back(f.cwnd / 2)
		}
	}
	if size == 0 {
		return
	}
	f.pending++
	switch {
	case int32(seq-f.rcv) > 0:
		f.gaps++
		f.holdLocked(span{seq, seq + uint32(size)})
		f.ackLocked() // at once, so that the peer sees what is missing
		return
	case int32(seq+uint32(size)-f.rcv) > 0:
		end := seq + uint32(size)
		for len(f.early) > 0 && int32(f.early[0].from-end) <= 0 {
			if int32(f.early[0].to-end) > 0 {
				end = f.early[0].to
			}
			f.early = slices.Delete(f.early, 0, 1)
		}
		f.received += uint64(end - f.rcv)
		f.rcv = end
	}
	if f.pending >= f.s.crew.o.ackEvery() {
		f.ackLocked()
	}
}

// holdLocked keeps what came too early.
func (f *tcpFlow) holdLocked(s span) {
	i := 0
	for i < len(f.early) && int32(f.early[i].to-s.from) < 0 {
		i++
	}
	for i < len(f.early) && int32(f.early[i].from-s.to) <= 0 {
		if int32(f.early[i].from-s.from) < 0 {
			s.from = f.early[i].from
		}
		if int32(f.early[i].to-s.to) > 0 {
			s.to = f.early[i].to
		}
		f.early = slices.Delete(f.early, i, i+1)
	}
	if len(f.early) < 256 {
		f.early = slices.Insert(f.early, i, s)
	}
}

// back goes back to what is not acknowledged. The caller holds mu.
func (f *tcpFlow) back(cwnd uint32) {
	f.recover = f.nxt
	f.resent += uint64(f.nxt - f.una)
	f.nxt, f.dups = f.una, 0
	f.ssthresh = max(cwnd, 16*f.mss)
	f.cwnd = f.ssthresh
	f.more.Signal()
}

func (f *tcpFlow) ackLocked() {
	f.pending = 0
	var b, o [128]byte
	options := o[:0]
	if n := min(len(f.early), 3); n > 0 {
		options = append(options, 1, 1, 5, uint8(2+8*n))
		for _, s := range f.early[len(f.early)-n:] {
			options = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(options, s.from), s.to)
		}
	}
	pkt := appendTCP(b[:0], f.src, f.dst, f.nxt, f.rcv, flagACK, tcpWindow, options, nil)
	f.mu.Unlock()
	_ = f.s.send(func(b *batch) { b.add(pkt) })
	f.mu.Lock()
}

// rest acknowledges what has come.
func (f *tcpFlow) rest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pending > 0 {
		f.ackLocked()
	}
}

// tick sends again what stays unacknowledged for too long.
func (f *tcpFlow) tick(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.started || now.Sub(f.moved) < tcpRTO {
		return
	}
	switch {
	case f.state == tcpConnecting:
		f.moved = now
		f.mu.Unlock()
		f.syn()
		f.mu.Lock()
	case f.state == tcpOpen && f.nxt != f.una:
		f.moved = now
		f.back(f.cwnd / 2)
		f.cwnd = 16 * f.mss
	}
}

// trouble is how many bytes went again, and how many segments came out of order or behind a loss.
func (f *tcpFlow) trouble() (resent, gaps uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.resent, f.gaps
}

func (f *tcpFlow) counts() (up, down uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.acked, f.received
}

// stop ends the connection.
func (f *tcpFlow) stop() {
	f.mu.Lock()
	if f.over || !f.started {
		f.over = true
		f.mu.Unlock()
		return
	}
	f.over = true
	f.more.Broadcast()
	f.mu.Unlock()
	<-f.done
	f.mu.Lock()
	seq, ack := f.nxt, f.rcv
	f.mu.Unlock()
	var b [128]byte
	pkt := appendTCP(b[:0], f.src, f.dst, seq, ack, flagRST|flagACK, 0, nil, nil)
	_ = f.s.send(func(b *batch) { b.add(pkt) })
}
