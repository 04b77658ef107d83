package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/server/datachan"
	"postern/tlsctl"
)

// A session is one client: a control channel, its keys, a wire, and what travels inside. It is the control channel's
// tlsctl.ClientOwner.
//
//	wire.receive --> take --> control packets --> tlsctl.Client
//	                  `-----> open --> echo, udpFlow, tcpFlow
//	flows --> batch --> seal --> wire.send
type session struct {
	crew *crew
	id   *identity
	line atomic.Pointer[wire]
	ctl  *tlsctl.Client
	ring datachan.Ring
	wg   sync.WaitGroup // of what receives

	addrs atomic.Pointer[addresses] // nil before the options have come
	ping  time.Duration             // as pushed
	tcp   atomic.Pointer[tcpFlow]
	udp   atomic.Pointer[udpFlow]

	leaving  atomic.Bool // its end is our own doing
	lastSent atomic.Int64
	renewed  atomic.Int64 // when it last began a renegotiation
	lastSeen atomic.Int64

	receiving sync.Mutex // after a roam the old wire may still be at it; guards what follows
	recv      datachan.Scratch
	windows   [2]stockWindow

	sending sync.Mutex // one batch at a time, so that ids leave in order
	scratch datachan.Scratch
}

// addresses are a session's own, inside.
type addresses struct{ v4, v6 netip.Addr }

// stockWindow counts what the replay check of a stock client would drop: what comes 64 ids or more behind the newest.
type stockWindow struct {
	key     *datachan.Key
	highest uint64
}

const stockBacktrack = 64

func (w *stockWindow) late(id uint64) bool {
	if id > w.highest {
		w.highest = id
		return false
	}
	return w.highest-id >= stockBacktrack
}

// newWire opens a wire and begins to receive from it.
func (s *session) newWire() (wire, error) {
	o := &s.crew.o
	from := netip.Addr{}
	if n := len(o.from); n > 0 {
		from = o.from[s.id.number%n]
	}
	var w wire
	var err error
	if s.id.stream {
		w, err = dialTCP(o.remoteTCP, from, o.gso)
	} else {
		w, err = dialUDP(o.remote, from, o.gso, o.sessions <= quietSessions)
	}
	if err != nil {
		return nil, err
	}
	s.line.Store(&w)
	s.wg.Go(func() {
		if err := w.receive(s.take, s.rest); !errors.Is(err, net.ErrClosed) && s.line.Load() == &w {
			s.crew.lost(s, fmt.Errorf("wire: %w", err))
		}
	})
	return w, nil
}

// connect does everything up to the first key, and begins what the session is there for.
func (s *session) connect(ctx context.Context) error {
	s.ctl = tlsctl.NewClient(tlsctl.ClientConfig{TLS: s.id.tls, Wrap: s.id.wrap(), Login: s.id.user != "", Username: s.id.user,
		Password: s.id.password, PeerInfo: s.id.peerInfo, Digest: s.crew.o.digest}, s)
	if _, err := s.newWire(); err != nil {
		return err
	}
	if err := s.ctl.Connect(ctx); err != nil {
		return err
	}
	var mine addresses
	s.lastSeen.Store(time.Now().UnixNano())
	for _, option := range s.ctl.Options() {
		f := strings.Fields(option)
		if len(f) < 2 {
			continue
		}
		var err error
		switch f[0] {
		case "ifconfig":
			mine.v4, err = netip.ParseAddr(f[1])
		case "ifconfig-ipv6":
			var p netip.Prefix
			p, err = netip.ParsePrefix(f[1])
			mine.v6 = p.Addr()
		case "ping":
			var n int
			n, err = strconv.Atoi(f[1])
			s.ping = time.Duration(n) * time.Second
		}
		if err != nil {
			return fmt.Errorf("option %q: %w", option, err)
		}
	}
	if p := s.crew.o.ping; p > 0 {
		s.ping = p
	}
	s.addrs.Store(&mine)
	return nil
}

// inside is the session's address of the family of to.
func (s *session) inside(to netip.Addr) netip.Addr {
	mine := s.addrs.Load()
	if to.Is4() {
		return mine.v4
	}
	return mine.v6
}

// leave ends the session, with a goodbye where the server hears one.
func (s *session) leave(goodbye bool) {
	s.leaving.Store(true)
	if f := s.tcp.Load(); f != nil {
		f.stop()
	}
	if f := s.udp.Load(); f != nil {
		f.stop()
	}
	if goodbye && !s.ctl.Exit() {
		s.send(func(b *batch) { b.add(append([]byte(exitMessage), 0)) })
	}
	s.ctl.Close()
	if w := s.line.Load(); w != nil {
		(*w).close()
	}
	s.wg.Wait()
	s.ring.Clear()
}

// exitMessage begins the goodbye of the data channel.
const exitMessage = "\x28\x7f\x34\x6b\xd4\xef\x7a\x81\x2d\x56\xb8\xd3\xaf\xc5\x45\x9c\x06"

// roam goes on from another port.
func (s *session) roam() error {
	old := s.line.Load()
	if _, err := s.newWire(); err != nil {
		return err
	}
	(*old).close()
	s.keepAlive()
	return nil
}

// keepAlive sends a ping.
func (s *session) keepAlive() {
	var ping [16]byte
	s.send(func(b *batch) { b.add(datachan.AppendPing(ping[:0])) })
}

// Send implements tlsctl.ClientOwner.
func (s *session) Send(pkt []byte) {
	_ = (*s.line.Load()).send(pkt, len(pkt)) // lost is lost: it is sent again, and a broken wire ends its receiver
}

// keySwitch is when a renegotiated key is sent with: the server may still be deciding.
const keySwitch = 3 * time.Second

// Install implements tlsctl.ClientOwner.
func (s *session) Install(k tlsctl.KeyMaterial) error {
	key, err := datachan.Config{ID: datachan.KeyID(k.ID), Peer: datachan.PeerID(k.PeerID), V2: k.V2, Cipher: k.Cipher, Digest: k.Digest,
		Epoch: k.Epoch}.NewKey(k.FromClient, k.ToClient) // the server's words
	if err != nil {
		return err
	}
	sending := s.ring.Sending()
	if sending == nil {
		if err := s.ring.Install(key); err != nil {
			return err
		}
		s.ring.Use(key.ID())
		return nil
	}
	for id := range datachan.KeyID(8) {
		if old := s.ring.Receiving(id); old != nil && old != sending {
			s.ring.Retire(id)
		}
	}
	if err := s.ring.Install(key); err != nil {
		return err
	}
	time.AfterFunc(keySwitch, func() {
		if s.ring.Receiving(key.ID()) == key {
			s.ring.Use(key.ID())
		}
	})
	return nil
}

// Heed implements tlsctl.ClientOwner.
func (s *session) Heed(m string) {
	switch word, _, _ := strings.Cut(m, ","); word {
	case "RESTART", "HALT", "AUTH_FAILED", "EXIT":
		s.crew.lost(s, errors.New(m))
	}
}

// Renegotiated implements tlsctl.ClientOwner.
func (s *session) Renegotiated(err error) { s.crew.renegotiated(s, err) }

// take handles packets of the server.
func (s *session) take(b []byte, size int) {
	t := &s.crew.tally
	s.receiving.Lock()
	defer s.receiving.Unlock()
	var key *datachan.Key
	defer func() {
		if key != nil {
			key.Unlock()
		}
	}()
	packets, bytes, late, bad := uint64(0), uint64(0), uint64(0), uint64(0)
	for len(b) > 0 {
		pkt := b[:min(size, len(b))]
		b = b[len(pkt):]
		h, ok := datachan.ParseHeader(pkt)
		if !ok {
			if key != nil {
				key.Unlock()
				key = nil
			}
			s.ctl.Deliver(pkt)
			continue
		}
		if key == nil || key.ID() != h.Key {
			if key != nil {
				key.Unlock()
			}
			if key = s.ring.Receiving(h.Key); key == nil {
				bad++
				continue
			}
			key.Lock()
		}
		payload, id, err := key.Open(pkt, &s.recv)
		if err != nil {
			bad++
			continue
		}
		if s.window(key).late(id) {
			late++
		}
		packets++
		bytes += uint64(len(payload))
		s.payload(payload)
	}
	t.packetsIn.Add(packets)
	t.bytesIn.Add(bytes)
	if late > 0 {
		t.late.Add(late)
	}
	if bad > 0 {
		t.bad.Add(bad)
	}
	if packets > 0 {
		s.lastSeen.Store(s.crew.clock.Load())
	}
}

func (s *session) window(key *datachan.Key) *stockWindow {
	if s.windows[0].key != key {
		s.windows[0], s.windows[1] = s.windows[1], s.windows[0]
		if s.windows[0].key != key {
			s.windows[0] = stockWindow{key: key}
		}
	}
	return &s.windows[0]
}

// payload handles one decrypted packet.
func (s *session) payload(b []byte) {
	if multicast(b) {
		return // the server carries it to everybody
	}
	p, ok := parseInner(b)
	if !ok {
		if datachan.Classify(b) == datachan.NoMessage {
			s.crew.tally.strange.Add(1)
		}
		return
	}
	if mine := s.addrs.Load(); mine == nil {
		return // the server has begun, we have not
	} else if p.dst != mine.v4 && p.dst != mine.v6 {
		s.crew.tally.strange.Add(1)
		return
	}
	tcp, udp := s.tcp.Load(), s.udp.Load()
	switch {
	case p.proto == protoTCP && tcp != nil:
		tcp.take(&p)
	case p.proto == protoUDP && udp != nil:
		udp.take(&p)
	default:
		if id, seq, stamp, ok := p.echoed(); ok {
			s.crew.echoed(s, id, seq, stamp)
		} else if p.answerEcho() {
			answer := append([]byte(nil), p.whole...)
			go s.send(func(b *batch) { b.add(answer) }) // a pinged client is rare, and this goroutine must receive
		}
	}
}

// rest is called when nothing more is at hand.
func (s *session) rest() {
	if f := s.tcp.Load(); f != nil {
		f.rest()
	}
}

// A batch seals packets back to back.
type batch struct {
	s    *session
	key  *datachan.Key
	buf  *[2 * bufferSize]byte
	used int
	size int // of the packets of the train so far; 0: none
	open bool
	err  error
	// What was sent.
	packets, bytes int
}

const batchLimit = 60 << 10

// send has fill add packets, and sends them.
func (s *session) send(fill func(*batch)) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	b := batch{s: s, key: s.ring.Sending(), buf: buffers.Get().(*[2 * bufferSize]byte)}
	defer buffers.Put(b.buf)
	if b.key == nil {
		return errNoKey
	}
	fill(&b)
	b.flush()
	b.key.AddUsage(b.packets, b.bytes)
	t := &s.crew.tally
	t.packetsOut.Add(uint64(b.packets))
	t.bytesOut.Add(uint64(b.bytes))
	s.lastSent.Store(s.crew.clock.Load())
	return b.err
}

var errNoKey = errors.New("no key to send with")

// add seals one payload.
func (b *batch) add(payload []byte) {
	need := b.key.HeadLen() + len(payload) + b.key.TailLen()
	if b.used+need > batchLimit {
		b.flush()
	}
	id, ok := b.key.Reserve(1)
	if !ok {
		b.err = errNoKey
		return
	}
	n := b.key.Seal(b.buf[b.used:], payload, id, &b.s.scratch)
	if n == 0 {
		b.err = errNoKey
		return
	}
	if b.size > 0 && (n > b.size || !b.open) {
		// It begins another train: send what there is, and move it to the front.
		pkt := b.buf[b.used : b.used+n]
		b.flush()
		copy(b.buf[:], pkt)
	}
	if b.size == 0 {
		b.size, b.open = n, true
	}
	b.open = n == b.size
	b.used += n
	b.packets++
	b.bytes += len(payload)
}

func (b *batch) flush() {
	if b.used > 0 {
		if err := (*b.s.line.Load()).send(b.buf[:b.used], b.size); err != nil && b.err == nil {
			b.err = err
		}
	}
	b.used, b.size, b.open = 0, 0, false
}

// pause is a random time around d, so that sessions do not all do the same at once.
func pause(d time.Duration) time.Duration {
	return d/2 + rand.N(d)
}
