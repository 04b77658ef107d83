package server

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/tlsctl"
)

// A hundred thousand times a session is made of a stranger, sends a packet again, is replaced by another of its address, or
// expires, hundreds of them at once. What the server says to a session is for that session: it carries its id, its TLS
// session's, and nobody else's, and a packet that is sent again is the same packet. Receive buffers are overwritten as soon
// as they are given back (linktest), and the gate's waiting packets are reused, so that whatever is kept too long shows
// (S031). With -race it looks for races, too.
func TestPacketsCarryNobodyElsesBytes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.TLSTimeout = 20 * time.Millisecond // many packets are sent again before a session is given up
		w.start()
		hello := firstWords(t)
		want := uint64(100_000)
		if testing.Short() {
			want = 10_000
		}
		var seen events
		for round := 0; seen.total() < want; round++ {
			if round > 100 {
				t.Fatalf("only %d events in %d rounds", seen.total(), round)
			}
			var wg sync.WaitGroup
			for i := range 400 {
				at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, byte(round), byte(i / 8), byte(1 + i%8)}), 40000)
				s := &suspect{t: t, hello: hello, seen: &seen, peer: &peer{w: w, sock: w.net.Client(at), to: hubAddr, closed: make(chan struct{})}}
				s.peer.deliver(s.take)
				go s.peer.receive()
				wg.Go(func() {
					s.live(rand.New(rand.NewPCG(uint64(round), uint64(i))))
					s.peer.sock.Close()
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := w.srv.table.count() + w.srv.half.total; n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		t.Logf("%d sessions made, %d replaced, %d expired, %d packets sent again", seen.made.Load(), seen.replaced.Load(), seen.expired.Load(), seen.again.Load())
		if seen.made.Load() == 0 || seen.replaced.Load() == 0 || seen.expired.Load() == 0 || seen.again.Load() == 0 || seen.marked.Load() == 0 {
			t.Error("something never happened")
		}
	})
}

type events struct{ made, replaced, expired, again, marked atomic.Uint64 }

func (e *events) total() uint64 {
	return e.made.Load() + e.replaced.Load() + e.expired.Load() + e.again.Load()
}

// A suspect begins sessions from one address and looks at what it gets.
type suspect struct {
	t     *testing.T
	hello []byte
	seen  *events
	peer  *peer

	mu     sync.Mutex
	wrap   *tlsctl.ClientWrap
	id     tlsctl.SessionID
	others map[tlsctl.SessionID]bool // its own of before
	marker [32]byte                  // the TLS session's id
	cookie chan tlsctl.SessionID
	server tlsctl.SessionID
	got    map[tlsctl.PacketID][]byte
	acks   bool
}

// markerAt is where a ClientHello has the id of the TLS session: behind the heads of record and handshake, version, random
// and its own length.
const markerAt = 5 + 4 + 2 + 32 + 1

// firstWords is a ClientHello of one packet.
func firstWords(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go tls.Client(ours, &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}).Handshake()
	defer ours.Close()
	head := make([]byte, 5)
	_, err := io.ReadFull(theirs, head)
	must(t, err)
	hello := append(head, make([]byte, binary.BigEndian.Uint16(head[3:]))...)
	_, err = io.ReadFull(theirs, hello[5:])
	must(t, err)
	// With the key share's group exchanged for one of nobody the server asks for another: that costs no computing, and
	// there can be more of it.
	share := bytes.Index(hello, []byte{0, 0x33, 0, 38, 0, 36, 0, byte(tls.X25519)})
	if share < 0 || hello[markerAt-1] != 32 || len(hello) > 1000 {
		t.Fatalf("an unusual ClientHello: %x", hello)
	}
	hello[share+6], hello[share+7] = 0x0a, 0x0a
	return hello
}

// live begins a session, and then lets it wait until it is given up, says nonsense, or begins again before it is over.
func (s *suspect) live(rng *rand.Rand) {
	s.others = make(map[tlsctl.SessionID]bool)
	for more := true; more; {
		s.begin(rng)
		switch rng.IntN(4) {
		case 0:
			time.Sleep(time.Duration(rng.IntN(20)) * time.Second)
			s.seen.replaced.Add(1)
			continue
		case 1:
			s.say(tlsctl.OpControl, 2, []byte("nonsense"))
		case 2:
			s.mu.Lock()
			s.acks = true
			s.mu.Unlock()
		}
		time.Sleep(90 * time.Second)
		s.seen.expired.Add(1)
		more = false
	}
}

// begin has the server make a session, with a marker that no other has.
func (s *suspect) begin(rng *rand.Rand) {
	cookie := make(chan tlsctl.SessionID, 1)
	s.mu.Lock()
	if s.id != (tlsctl.SessionID{}) {
		s.others[s.id] = true
	}
	binary.BigEndian.PutUint64(s.id[:], rng.Uint64()|1)
	for i := 0; i < len(s.marker); i += 8 {
		binary.BigEndian.PutUint64(s.marker[i:], rng.Uint64())
	}
	s.wrap, s.server, s.got, s.acks = tlsctl.NewClientWrap(tlsctl.Wrapping{}, time.Now()), tlsctl.SessionID{}, make(map[tlsctl.PacketID][]byte), false
	s.cookie = cookie
	s.mu.Unlock()
	for tries := 0; ; tries++ {
		s.send(&tlsctl.Packet{Opcode: tlsctl.OpHardResetClientV2})
		select {
		case server := <-cookie:
			s.mu.Lock()
			s.server = server
			s.mu.Unlock()
		case <-time.After(time.Second): // too many ask at once
			if tries < 30 {
				continue
			}
			s.t.Error("a reset was not answered")
			return
		}
		break
	}
	hello := bytes.Clone(s.hello)
	copy(hello[markerAt:], s.marker[:])
	if rng.IntN(4) == 0 {
		hello = hello[:20] // the server has nothing to say yet
	}
	s.say(tlsctl.OpControl, 1, hello)
	s.seen.made.Add(1)
}

func (s *suspect) say(op tlsctl.Opcode, id tlsctl.PacketID, payload []byte) {
	s.send(&tlsctl.Packet{Opcode: op, Acks: []tlsctl.PacketID{0}, ID: id, Payload: payload})
}

func (s *suspect) send(p *tlsctl.Packet) {
	s.mu.Lock()
	p.Session, p.Remote = s.id, s.server
	b := s.wrap.Seal(nil, p)
	s.mu.Unlock()
	s.peer.sendRaw(b)
}

// take judges a packet of the server.
func (s *suspect) take(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := tlsctl.ParsePacket(b)
	if err != nil {
		s.t.Errorf("no packet: %v", err)
		return
	}
	if len(p.Acks) > 0 && p.Remote != s.id {
		if !s.others[p.Remote] {
			s.t.Errorf("a packet for %v came to %v", p.Remote, s.id)
		}
		return // of the session before
	}
	if p.Opcode == tlsctl.OpHardResetServerV2 {
		select {
		case s.cookie <- p.Session:
		default:
		}
		return
	}
	if s.server == (tlsctl.SessionID{}) || p.Session != s.server || p.Opcode != tlsctl.OpControl {
		return // of the session before, or an acknowledgement
	}
	if before, again := s.got[p.ID]; again {
		s.seen.again.Add(1)
		if !bytes.Equal(before, p.Payload) {
			s.t.Errorf("packet %d of %v was another one when it was sent again", p.ID, s.id)
		}
		return
	}
	s.got[p.ID] = bytes.Clone(p.Payload)
	// The first packet is a ServerHello, by form, which repeats the TLS session's id.
	if serverHello := byte(2); p.ID == 1 && len(p.Payload) > markerAt+32 && p.Payload[5] == serverHello {
		s.seen.marked.Add(1)
		if got := p.Payload[markerAt : markerAt+32]; !bytes.Equal(got, s.marker[:]) {
			s.t.Errorf("%v was told of the TLS session %x, its own is %x", s.id, got, s.marker)
		}
	}
	if s.acks {
		go s.send(&tlsctl.Packet{Opcode: tlsctl.OpAck, Acks: []tlsctl.PacketID{p.ID}})
	}
}
