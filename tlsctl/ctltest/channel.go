package ctltest

import (
	"bytes"
	"crypto/tls"
	"net"
	"os"
	"time"

	"postern/tlsctl"
)

// A channel is one negotiation, and the net.Conn of its TLS.
type channel struct {
	c   *Client
	key tlsctl.KeyID

	// Under Client.mu.
	nextOut  tlsctl.PacketID
	nextIn   tlsctl.PacketID
	unacked  []*sent
	held     map[tlsctl.PacketID][]byte // payloads; nil for a reset
	pending  []tlsctl.PacketID
	recent   []tlsctl.PacketID
	in       []byte
	closed   bool
	done     bool // negotiate has ended
	awaiting bool // key exchange done, and what we sent for it not yet acknowledged
	began    time.Time
	joined   []byte // records that came meanwhile, for a client that Joins
	timer    *time.Timer
	ackTimer *time.Timer

	tls    *tls.Conn
	state  tls.ConnectionState
	ours   *exchange
	theirs *exchange
}

type sent struct {
	packet tlsctl.Packet
	at     time.Time
	wait   time.Duration
	flying bool
	later  int // later packets acknowledged since it was sent
}

func newChannel(c *Client, key tlsctl.KeyID) *channel {
	ch := &channel{c: c, key: key, held: make(map[tlsctl.PacketID][]byte), began: time.Now()}
	ch.timer = time.AfterFunc(time.Hour, ch.tick)
	ch.ackTimer = time.AfterFunc(time.Hour, ch.ack)
	return ch
}

func (ch *channel) stop() {
	ch.closed = true
	ch.timer.Stop()
	ch.ackTimer.Stop()
}

func (ch *channel) queueLocked(op tlsctl.Opcode, payload []byte) {
	s := &sent{
		packet: tlsctl.Packet{Opcode: op, KeyID: ch.key, ID: ch.nextOut, Payload: bytes.Clone(payload)},
		wait:   2 * time.Second,
	}
	ch.nextOut++
	ch.unacked = append(ch.unacked, s)
	ch.pumpLocked()
}

// pumpLocked sends what is due.
func (ch *channel) pumpLocked() {
	if ch.closed {
		return
	}
	now := time.Now()
	var next time.Time
	for i, s := range ch.unacked {
		if i >= ch.c.cfg.SendWindow || s.packet.ID-ch.unacked[0].packet.ID >= tlsctl.PacketID(ch.c.cfg.SendWindow) {
			break
		}
		if !s.flying || ch.resends() && !now.Before(s.at) {
			s.flying, s.later = true, 0
			s.at = now.Add(s.wait)
			if ch.c.cfg.Steady {
				s.at = now.Add(time.Second)
			}
			s.wait *= 2
			p := s.packet
			p.Acks = ch.takeAcksLocked(4)
			ch.c.transmitLocked(&p)
		}
		if next.IsZero() || s.at.Before(next) {
			next = s.at
		}
	}
	if !next.IsZero() && ch.resends() {
		ch.timer.Reset(next.Sub(now))
	}
}

func (ch *channel) resends() bool { return !ch.c.cfg.Stream || ch.c.cfg.StreamResend }

func (ch *channel) tick() {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	ch.pumpLocked()
}

// ack acknowledges what nothing has carried.
func (ch *channel) ack() {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	for len(ch.pending) > 0 && !ch.closed {
		ch.c.transmitLocked(&tlsctl.Packet{Opcode: tlsctl.OpAck, KeyID: ch.key, Acks: ch.takeAcksLocked(ch.c.cfg.AckMax)})
	}
}

func (ch *channel) takeAcksLocked(max int) []tlsctl.PacketID {
	n := min(len(ch.pending), max)
	acks := append([]tlsctl.PacketID(nil), ch.pending[:n]...)
	ch.pending = ch.pending[n:]
	for _, id := range ch.recent {
		if len(acks) < tlsctl.MaxAcks && !ch.c.cfg.AckOnce && !contains(acks, id) {
			acks = append(acks, id)
		}
	}
	ch.recent = append([]tlsctl.PacketID(nil), acks...)
	return acks[:min(len(acks), max)]
}

func contains(ids []tlsctl.PacketID, id tlsctl.PacketID) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}

func (ch *channel) receiveLocked(p *tlsctl.Packet) {
	for _, id := range p.Acks {
		for i, s := range ch.unacked {
			if s.packet.ID == id && s.flying {
				for _, earlier := range ch.unacked[:i] {
					if earlier.later++; earlier.later >= 3 && ch.c.cfg.FastResend {
						earlier.at = time.Time{}
					}
				}
				ch.unacked = append(ch.unacked[:i:i], ch.unacked[i+1:]...)
				break
			}
		}
	}
	ch.awaiting = ch.awaiting && len(ch.unacked) > 0
	if p.Opcode != tlsctl.OpAck && p.ID < ch.nextIn+tlsctl.PacketID(ch.c.cfg.ReceiveWindow) {
		if !contains(ch.pending, p.ID) {
			ch.pending = append(ch.pending, p.ID)
			ch.ackTimer.Reset(time.Millisecond)
		}
		if _, held := ch.held[p.ID]; p.ID >= ch.nextIn && !held {
			payload := bytes.Clone(p.Payload)
			if p.Opcode != tlsctl.OpControl {
				payload = nil
			}
			ch.held[p.ID] = payload
		}
		for b, ok := ch.held[ch.nextIn]; ok; b, ok = ch.held[ch.nextIn] {
			delete(ch.held, ch.nextIn)
			ch.nextIn++
			ch.in = append(ch.in, b...)
		}
	}
	ch.pumpLocked()
}

// Read implements net.Conn.
func (ch *channel) Read(b []byte) (int, error) {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	for len(ch.in) == 0 {
		if ch.closed {
			return 0, net.ErrClosed
		}
		ch.c.changed.Wait()
	}
	n := copy(b, ch.in)
	ch.in = ch.in[n:]
	return n, nil
}

// Write implements net.Conn.
func (ch *channel) Write(b []byte) (int, error) {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	if ch.closed {
		return 0, net.ErrClosed
	}
	for rest := b; len(rest) > 0; {
		n := min(ch.c.cfg.Chunk, len(rest))
		op := tlsctl.OpControl
		if ch.key == 0 && ch.nextOut == 1 && ch.c.resendWKC {
			op = tlsctl.OpControlWKC
		}
		ch.queueLocked(op, rest[:n])
		rest = rest[n:]
	}
	return len(b), nil
}

// Close implements net.Conn.
func (ch *channel) Close() error {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	ch.stop()
	ch.c.changed.Broadcast()
	return nil
}

type noAddr struct{}

func (noAddr) Network() string { return "ctltest" }
func (noAddr) String() string  { return "ctltest" }

func (ch *channel) LocalAddr() net.Addr              { return noAddr{} }
func (ch *channel) RemoteAddr() net.Addr             { return noAddr{} }
func (ch *channel) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (ch *channel) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (ch *channel) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
