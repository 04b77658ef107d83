package tlsctl

import (
	"slices"
	"time"
)

// receive takes one packet of the client.
func (s *Session) receive(now time.Time, pkt []byte) {
	if s.ended {
		return
	}
	p, err := s.unwrap(pkt)
	if err != nil || p.Session != s.open.Client || len(p.Acks) > 0 && p.Remote != s.open.Server {
		return
	}
	switch p.Opcode {
	case OpControl, OpAck:
	case OpHardResetClientV2, OpHardResetClientV3:
		if p.KeyID != 0 || p.ID != 0 {
			return
		}
	case OpSoftReset:
		if p.KeyID == 0 || p.ID != 0 {
			return
		}
	default:
		return
	}
	n := s.byKey(p.KeyID)
	if n == nil && p.Opcode == OpSoftReset {
		s.concludeNext(p.KeyID)
	}
	if n == nil {
		if p.Opcode != OpSoftReset || !s.mayReset(now, p.KeyID) {
			return
		}
		n = s.add(now, p.KeyID, 0)
		n.rel.queue(OpSoftReset, nil)
	}
	if n.dead || !s.within(now, n, len(pkt)) {
		return
	}
	s.heard, n.heard = true, true
	for _, id := range p.Acks {
		n.rel.acked(id)
		s.unproven = false
	}
	if p.Opcode == OpAck {
		return
	}
	if n.rel.receive(p.ID, p.Opcode, p.Payload) == deliver && p.Opcode == OpSoftReset {
		n.rel.hurry() // it listens only now
	}
	for b, ok := n.rel.next(); ok; b, ok = n.rel.next() {
		if len(b) == 0 || s.leaving != nil {
			continue
		}
		n.fed += len(b)
		n.lastByte = now
		n.conn.feed(b)
	}
	if n.readable {
		s.readMessages(n)
	}
}

// unwrap opens a packet under the wrap it must have: key ids above 0 the dynamic one, if there is one, key id 0 the
// original. An OpenVPN 3 client moves key id 0 too when it begins its first renegotiation.
func (s *Session) unwrap(pkt []byte) (Packet, error) {
	if s.dynamic == nil && s.exported == nil || len(pkt) == 0 {
		return s.wrap.open(pkt)
	}
	if pkt[0]&7 != 0 {
		return s.dynamicWrap().open(pkt)
	}
	if s.lastKey != 0 || s.next != nil {
		// The dynamic one first: it has a tag to know its own by, which the original may not have.
		p, err := s.dynamicWrap().open(slices.Clone(pkt))
		if err != errWrap {
			s.dynamicZero = s.dynamicZero || err == nil
			return p, err
		}
	}
	return s.wrap.open(pkt)
}

// wrapOf is the wrap of what we send under a key id.
func (s *Session) wrapOf(key KeyID) wrapper {
	if key != 0 || s.dynamicZero {
		if w := s.dynamicWrap(); w != nil {
			return w
		}
	}
	return s.wrap
}

// dynamicWrap makes the wrap of renegotiations when it is first needed, often an hour after it was agreed on: it is a
// good part of what an idle session holds. nil when none was agreed on.
func (s *Session) dynamicWrap() wrapper {
	if s.exported != nil {
		s.dynamic = dynamicWrap([keyBlockSize]byte(s.exported), s.wrap.staticKey())
		clear(s.exported)
		s.exported = nil
	}
	return s.dynamic
}

func (s *Session) byKey(key KeyID) *negotiation {
	for _, n := range s.negotiated {
		if n.key == key {
			return n
		}
	}
	return nil
}

// concludeNext takes a soft reset of the client for the acknowledgement that got lost: nobody begins a negotiation with
// key who has not got all of the one before. It looks at nothing of that any more, so that the acknowledgement would not
// come again, and we would wait for it for a whole hand-window. The reset itself comes again.
func (s *Session) concludeNext(key KeyID) {
	if n := s.next; n != nil && n.readable && key == n.key.next() {
		n.rel.arrived()
	}
}

// mayReset reports whether the client may begin a renegotiation under key now.
func (s *Session) mayReset(now time.Time, key KeyID) bool {
	return s.current != nil && s.next == nil && s.leaving == nil && key == s.lastKey.next() &&
		(s.open.Stream || now.Sub(s.begun) >= softResetPause)
}

// within counts a packet and reports whether it may be taken. Over a stream a good packet is never dropped, as it
// would not come again.
func (s *Session) within(now time.Time, n *negotiation, size int) bool {
	if !n.over {
		n.packets++
		if n.packets > maxPackets || n.fed > maxFed {
			s.abort(now, n, ErrLimit)
			return false
		}
	}
	if s.current == nil {
		return true
	}
	packets, bytes := s.rate.add(now, size)
	if !bytes || !packets && s.open.Stream {
		s.end(ErrLimit)
		return false
	}
	return packets
}

// transmit sends what is due, and acknowledges what has come.
func (s *Session) transmit(now time.Time) {
	for _, n := range s.negotiated {
		n.conn.take(n.rel, s.chunk(n.key))
		if s.unproven {
			// One answer to each packet, and never one by itself (S004).
			if !s.heard {
				continue
			}
			n.rel.hurry()
		}
		out, next := n.rel.due(now)
		for _, o := range out {
			s.send(&Packet{Opcode: o.op, KeyID: n.key, Acks: n.rel.takeAcks(messageAcks), ID: o.id, Payload: o.payload})
		}
		for n.rel.pendingAcks() {
			s.send(&Packet{Opcode: OpAck, KeyID: n.key, Acks: n.rel.takeAcks(MaxAcks)})
		}
		s.wakeAt(next)
	}
	s.heard = false
	if s.current != nil && s.next == nil && s.current.rel.outstanding() == 0 {
		s.buffer = nil // for the hour that nothing is sent
	}
	s.negotiated = slices.DeleteFunc(s.negotiated, func(n *negotiation) bool { return n.dead })
}

// send wraps one packet and hands it over.
func (s *Session) send(p *Packet) {
	p.Session, p.Remote = s.open.Server, s.open.Client
	s.buffer = s.wrapOf(p.KeyID).seal(s.buffer[:0], p)
	s.owner.Send(s.buffer)
}

// chunk is how much TLS one packet carries: with the wrap of the moment and as many acknowledgements as it may ever
// be sent with.
func (s *Session) chunk(key KeyID) int {
	size := s.cfg.MaxPacket
	if size == 0 {
		size = defaultPacket
	}
	const body = 1 + 4*messageAcks + sessionIDLen + 4
	return max(size-headLen-s.wrapOf(key).overhead()-body, 64)
}

// clientRate is what a client may send once it is in (S025).
type clientRate struct {
	second, period time.Time
	packets, bytes int
}

// add counts a packet and reports whether packets and bytes are still within their limits. One packet too many is not
// taken, so its bytes do not count.
func (r *clientRate) add(now time.Time, size int) (packets, bytes bool) {
	if now.Sub(r.second) >= time.Second {
		r.second, r.packets = now, 0
	}
	if now.Sub(r.period) >= ratePeriod {
		r.period, r.bytes = now, 0
	}
	if r.packets++; r.packets > ratePackets {
		return false, true
	}
	r.bytes += size
	return true, r.bytes <= rateBytes
}
