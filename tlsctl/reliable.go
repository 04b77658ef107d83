package tlsctl

import (
	"slices"
	"time"
)

const (
	sendWindow     = 4  // in flight; OpenVPN 3 up to 3.7 takes no more
	receiveWindow  = 12 // ids taken from the next expected one on
	messageAcks    = 4  // acknowledgements on a packet that carries a message
	fastRetransmit = 3  // later packets acknowledged before one is taken for lost
	maxRetransmits = 8
	maxPending     = 2 * receiveWindow
)

// reliable is the reliability layer of one negotiation, both directions: message ids, windows, acknowledgements,
// retransmission. It is a pure machine: it reads no clock and starts nothing. Its owner keeps the lock and the
// timer:
//
//	r.queue(OpControl, chunk)                 // something to send
//	pkts, next := r.due(now)                  // what to transmit now, and when to ask again
//	for _, o := range pkts {
//		acks := r.takeAcks(messageAcks)       // fresh for every transmission
//		...
//	}
//	if r.pendingAcks() { OpAck with r.takeAcks(MaxAcks) }
//
//	for _, id := range p.Acks { r.acked(id) } // a packet came in
//	r.receive(p.ID, p.Opcode, p.Payload)      // not for OpAck
//	for b, ok := r.next(); ok; b, ok = r.next() { ... }
//	r.due(now)                                // acks may have opened the window, or shown a loss
type reliable struct {
	timeout time.Duration

	// sending
	nextID PacketID
	sent   []message // not acknowledged, in order of id; the first few are on the way

	// receiving
	nextIn  PacketID
	held    []heldMessage     // by id modulo the window; nil while there is nothing to come
	waiting int               // of them are full
	pending []PacketID        // to be acknowledged, in order of arrival
	recent  []PacketID        // acknowledged lately, newest first, at most MaxAcks
	acks    [MaxAcks]PacketID // lent by takeAcks
	out     []outgoing        // lent by due
}

// A message is one packet of ours until it is acknowledged.
type message struct {
	outgoing
	at       time.Time // when to send it again
	wait     time.Duration
	later    int // later messages acknowledged since it was sent
	sends    int
	resendIt bool
}

type heldMessage struct {
	full    bool
	op      Opcode
	payload []byte
}

// outgoing is a packet to transmit: wrap it afresh, with the acks of the moment.
type outgoing struct {
	op      Opcode
	id      PacketID
	payload []byte // belongs to the machine; unchanged until acknowledged
}

// A verdict is what became of a received message.
type verdict uint8

const (
	deliver   verdict = iota // new: held until next hands it out, and will be acknowledged
	duplicate                // seen before: will be acknowledged again
	outside                  // outside the window: dropped, not acknowledged
)

// newReliable begins a negotiation. first is the message id that both directions begin with: 0, or 1 on a session
// made from a cookie, whose resets are done. Then the client's reset counts as received and not yet acknowledged,
// for an answer that left no room for the acknowledgement. timeout is the first retransmission's; it doubles.
func newReliable(first PacketID, timeout time.Duration) *reliable {
	r := &reliable{timeout: timeout, nextID: first, nextIn: first}
	if first > 0 {
		r.pending = append(r.pending, first-1)
	}
	return r
}

// canSend reports whether a message queued now would be sent at once.
func (r *reliable) canSend() bool { return r.inWindow(len(r.sent), r.nextID) }

// inWindow reports whether the message at index i may be on the way.
func (r *reliable) inWindow(i int, id PacketID) bool {
	return i < sendWindow && (i == 0 || id-r.sent[0].id < sendWindow)
}

// queue takes a message to be sent as soon as the window lets it. It copies payload.
func (r *reliable) queue(op Opcode, payload []byte) PacketID {
	id := r.nextID
	r.nextID++
	r.sent = append(r.sent, message{outgoing: outgoing{op: op, id: id, payload: slices.Clone(payload)}, wait: r.timeout})
	return id
}

// due returns the packets to transmit now, lowest id first, and when to ask again, whether for more or to see that
// the machine is exhausted (zero: not before something else happens). Each counts as transmitted. The slice is valid until the next due.
func (r *reliable) due(now time.Time) (pkts []outgoing, next time.Time) {
	r.out = r.out[:0]
	for i := range r.sent {
		m := &r.sent[i]
		if !r.inWindow(i, m.id) {
			break
		}
		if m.sends <= maxRetransmits && (m.sends == 0 || m.resendIt || !now.Before(m.at)) {
			r.out = append(r.out, m.outgoing)
			m.at = now.Add(m.wait)
			m.wait *= 2
			m.sends++
			m.later = 0
			m.resendIt = false
		}
		if now.Before(m.at) && (next.IsZero() || m.at.Before(next)) {
			next = m.at
		}
	}
	return r.out, next
}

// exhausted reports whether a message was sent as often as one may be and its last wait is over: the peer is gone.
func (r *reliable) exhausted(now time.Time) bool {
	for i := range r.sent {
		if m := &r.sent[i]; m.sends > maxRetransmits && !now.Before(m.at) {
			return true
		}
	}
	return false
}

// hurry makes everything outstanding due at once, with timers as at the beginning: the peer has shown that it
// listens only now.
func (r *reliable) hurry() {
	for i := range r.sent {
		if m := &r.sent[i]; m.sends > 0 {
			m.resendIt = true
			m.wait = r.timeout
		}
	}
}

// acked takes an acknowledgement. One for a message that is not outstanding does nothing.
func (r *reliable) acked(id PacketID) {
	i := slices.IndexFunc(r.sent, func(m message) bool { return m.id == id && m.sends > 0 })
	if i < 0 {
		return
	}
	for j := range i {
		m := &r.sent[j]
		if m.later++; m.later >= fastRetransmit {
			m.resendIt = true
		}
	}
	r.sent = slices.Delete(r.sent, i, i+1)
}

// arrived takes all that was sent so far for acknowledged: it is known otherwise that it came.
func (r *reliable) arrived() {
	r.sent = slices.DeleteFunc(r.sent, func(m message) bool { return m.sends > 0 })
}

// outstanding is how many messages are queued or on the way.
func (r *reliable) outstanding() int { return len(r.sent) }

// receive takes a message; it copies what it holds.
func (r *reliable) receive(id PacketID, op Opcode, payload []byte) verdict {
	switch {
	case id < r.nextIn:
		r.acknowledge(id)
		return duplicate
	case id-r.nextIn >= receiveWindow:
		return outside
	}
	r.acknowledge(id)
	if r.held == nil {
		r.held = make([]heldMessage, receiveWindow)
	}
	h := &r.held[id%receiveWindow]
	if h.full {
		return duplicate
	}
	*h = heldMessage{full: true, op: op}
	r.waiting++
	if !op.isReset() {
		h.payload = slices.Clone(payload)
	}
	return deliver
}

// next hands out the payload that is next in order, if it is there. Resets have none to hand out. The bytes are
// the caller's.
func (r *reliable) next() (payload []byte, ok bool) {
	for r.waiting > 0 {
		h := &r.held[r.nextIn%receiveWindow]
		if !h.full {
			return nil, false
		}
		got := *h
		*h = heldMessage{}
		r.waiting--
		r.nextIn++
		if !got.op.isReset() {
			return got.payload, true
		}
	}
	r.held = nil
	return nil, false
}

// acknowledge notes id, unless the owner has let so many pile up that only a flood of old messages explains it.
func (r *reliable) acknowledge(id PacketID) {
	if len(r.pending) < maxPending && !slices.Contains(r.pending, id) {
		r.pending = append(r.pending, id)
	}
}

// pendingAcks reports whether something received still waits for its acknowledgement.
func (r *reliable) pendingAcks() bool { return len(r.pending) > 0 }

// takeAcks returns the acknowledgements for one packet with room for max: what is pending, then what was
// acknowledged lately, again. The slice is valid until the next takeAcks.
func (r *reliable) takeAcks(max int) []PacketID {
	fresh := r.pending[:min(len(r.pending), max)]
	recent := append(r.acks[:0], fresh...)
	for _, id := range r.recent {
		if len(recent) < MaxAcks && !slices.Contains(fresh, id) {
			recent = append(recent, id)
		}
	}
	r.recent = append(r.recent[:0], recent...)
	r.pending = slices.Delete(r.pending, 0, len(fresh))
	return recent[:min(max, len(recent))]
}
