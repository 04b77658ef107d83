package tlsctl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const testTimeout = 2 * time.Second

var reliableStart = time.Unix(1700000000, 0)

func ids(pkts []outgoing) []PacketID {
	var l []PacketID
	for _, o := range pkts {
		l = append(l, o.id)
	}
	return l
}

// idPayload is a payload that tells its id.
func idPayload(id PacketID) []byte { return binary.BigEndian.AppendUint32(nil, uint32(id)) }

func drain(r *reliable) (got []PacketID) {
	for b, ok := r.next(); ok; b, ok = r.next() {
		got = append(got, PacketID(binary.BigEndian.Uint32(b)))
	}
	return got
}

func TestReliabilityVectors(t *testing.T) {
	var v struct {
		Receive struct {
			Window int
			Start  PacketID
			Steps  []struct {
				ID      PacketID
				Ack     bool
				Deliver []PacketID
			}
		}
		MRU struct {
			Steps []struct {
				Received []PacketID
				Send     string
				Acks     []PacketID
			}
		} `json:"mru"`
		Sender struct {
			Window int
			Steps  []struct {
				At    float64
				Event string
				Sent  []PacketID
				Note  string
			}
		}
		Backoff []int `json:"backoff_seconds_after_first_send"`
	}
	readVectors(t, "reliability.json", &v)
	if v.Receive.Window != receiveWindow || v.Sender.Window != sendWindow {
		t.Errorf("windows %d, %d, want %d, %d", receiveWindow, sendWindow, v.Receive.Window, v.Sender.Window)
	}

	t.Run("receive", func(t *testing.T) {
		r := newReliable(v.Receive.Start, testTimeout)
		for i, s := range v.Receive.Steps {
			r.receive(s.ID, OpControl, idPayload(s.ID))
			if got := drain(r); !slices.Equal(got, s.Deliver) {
				t.Errorf("step %d, id %d: delivered %v, want %v", i, s.ID, got, s.Deliver)
			}
			acks := r.takeAcks(MaxAcks)
			if got := len(acks) > 0 && acks[0] == s.ID; got != s.Ack {
				t.Errorf("step %d, id %d: acknowledges %v, want %v", i, s.ID, acks, s.Ack)
			}
		}
	})
	t.Run("acks", func(t *testing.T) {
		r := newReliable(0, testTimeout)
		for i, s := range v.MRU.Steps {
			for _, id := range s.Received {
				r.receive(id, OpControl, nil)
				drainAll(r)
			}
			max := map[string]int{"control": messageAcks, "ack": MaxAcks}[s.Send]
			if got := r.takeAcks(max); !slices.Equal(got, s.Acks) {
				t.Errorf("step %d: acks %v, want %v", i, got, s.Acks)
			}
			if r.pendingAcks() {
				t.Errorf("step %d: acks still pending", i)
			}
		}
	})
	t.Run("send", func(t *testing.T) {
		r := newReliable(1, testTimeout)
		for i, s := range v.Sender.Steps {
			var n int
			if _, err := fmt.Sscanf(s.Event, "queue %d packets", &n); err == nil {
				for range n {
					r.queue(OpControl, nil)
				}
			} else if _, err := fmt.Sscanf(s.Event, "ack %d", &n); err == nil {
				r.acked(PacketID(n))
			} else {
				t.Fatalf("event %q", s.Event)
			}
			pkts, _ := r.due(reliableStart.Add(time.Duration(s.At * float64(time.Second))))
			if got := ids(pkts); !slices.Equal(got, s.Sent) {
				t.Errorf("step %d, %s: sent %v, want %v %s", i, s.Event, got, s.Sent, s.Note)
			}
		}
	})
	t.Run("backoff", func(t *testing.T) {
		r := newReliable(0, testTimeout)
		r.queue(OpControl, nil)
		_, next := r.due(reliableStart)
		now := reliableStart
		for i, secs := range v.Backoff {
			if got := next.Sub(now); got != time.Duration(secs)*time.Second {
				t.Errorf("wait %d is %v, want %d s", i, got, secs)
			}
			if pkts, same := r.due(next.Add(-1)); len(pkts) != 0 || !same.Equal(next) {
				t.Errorf("wait %d: sent %v too early, next %v", i, ids(pkts), same)
			}
			now = next
			var pkts []outgoing
			if pkts, next = r.due(now); !slices.Equal(ids(pkts), []PacketID{0}) {
				t.Errorf("wait %d: sent %v", i, ids(pkts))
			}
		}
	})
}

func drainAll(r *reliable) {
	for _, ok := r.next(); ok; _, ok = r.next() {
	}
}

// A silent peer gets each message nine times and no more, with doubled gaps (S004).
func TestRetransmissionEnds(t *testing.T) {
	r := newReliable(1, testTimeout)
	const size = 1200
	for range 10 {
		r.queue(OpControl, make([]byte, size))
	}
	sent := map[PacketID]int{}
	bytes := 0
	now, last := reliableStart, reliableStart
	for {
		pkts, next := r.due(now)
		for _, o := range pkts {
			sent[o.id]++
			bytes += len(o.payload)
		}
		if !slices.IsSorted(ids(pkts)) {
			t.Errorf("sent %v out of order", ids(pkts))
		}
		if len(pkts) > 0 {
			last = now
		}
		if r.exhausted(now) != next.IsZero() {
			t.Errorf("after %v: exhausted is %v, next %v", now.Sub(reliableStart), r.exhausted(now), next)
		}
		if next.IsZero() {
			break
		}
		now = next
	}
	if len(sent) != sendWindow {
		t.Errorf("sent %v, want the window of %d", sent, sendWindow)
	}
	for id, n := range sent {
		if n != 1+maxRetransmits {
			t.Errorf("message %d was sent %d times, want %d", id, n, 1+maxRetransmits)
		}
	}
	if bytes > 48<<10 {
		t.Errorf("sent %d bytes in all", bytes)
	}
	if got, want := last.Sub(reliableStart), 510*time.Second; got != want { // 2 + 4 + ... + 256
		t.Errorf("the last was sent after %v, want %v", got, want)
	}
	if got, want := now.Sub(last), 512*time.Second; got != want {
		t.Errorf("exhausted %v after that, want %v", got, want)
	}
	if r.outstanding() != 10 {
		t.Errorf("%d outstanding, want 10", r.outstanding())
	}
}

func TestWindow(t *testing.T) {
	r := newReliable(0, testTimeout)
	for i := range sendWindow {
		if !r.canSend() {
			t.Errorf("no room for message %d", i)
		}
		if id := r.queue(OpControl, nil); id != PacketID(i) {
			t.Errorf("message %d has id %d", i, id)
		}
	}
	if r.canSend() {
		t.Error("room beyond the window")
	}
	r.acked(1) // never sent: means nothing (S022)
	if r.outstanding() != 4 || r.canSend() {
		t.Error("an acknowledgement of something never sent counted")
	}
	r.due(reliableStart)
	for _, id := range []PacketID{4, 100, math.MaxUint32} {
		r.acked(id)
	}
	if r.outstanding() != 4 {
		t.Error("an acknowledgement of something that does not exist counted")
	}
	r.acked(1)
	r.acked(1)
	r.acked(2)
	if r.outstanding() != 2 || r.canSend() {
		t.Errorf("%d outstanding, room %v; the hole at 0 keeps the window shut", r.outstanding(), r.canSend())
	}
	r.acked(0)
	if !r.canSend() {
		t.Error("no room after the hole is gone")
	}
	r.acked(3)
	if r.outstanding() != 0 {
		t.Errorf("%d outstanding", r.outstanding())
	}
	if _, next := r.due(reliableStart); !next.IsZero() {
		t.Error("nothing to send, but a time to send it")
	}
}

func TestQueueCopies(t *testing.T) {
	r := newReliable(0, testTimeout)
	b := []byte("hello")
	r.queue(OpControl, b)
	clear(b)
	pkts, _ := r.due(reliableStart)
	if len(pkts) != 1 || string(pkts[0].payload) != "hello" || pkts[0].op != OpControl {
		t.Errorf("sends %+v", pkts)
	}
	b = []byte("world")
	r.receive(0, OpControl, b)
	clear(b)
	if got, _ := r.next(); string(got) != "world" {
		t.Errorf("delivers %q", got)
	}
}

// One loss, shown by three later messages, is repeated at once, and only once for them.
func TestFastRetransmitOnce(t *testing.T) {
	r := newReliable(0, testTimeout)
	for range 4 {
		r.queue(OpControl, nil)
	}
	r.due(reliableStart)
	for range 10 {
		r.acked(1)
		r.acked(2)
	}
	if pkts, _ := r.due(reliableStart.Add(time.Second)); len(pkts) != 0 {
		t.Errorf("two later messages, however often acknowledged, made it send %v", ids(pkts))
	}
	r.acked(3)
	pkts, next := r.due(reliableStart.Add(time.Second))
	if !slices.Equal(ids(pkts), []PacketID{0}) {
		t.Errorf("sent %v, want 0", ids(pkts))
	}
	if got := next.Sub(reliableStart.Add(time.Second)); got != 4*time.Second {
		t.Errorf("the next wait is %v, want 4s", got)
	}
}

func TestHurry(t *testing.T) {
	r := newReliable(0, testTimeout)
	r.queue(OpSoftReset, nil)
	r.due(reliableStart)
	r.due(reliableStart.Add(2 * time.Second))
	r.hurry()
	now := reliableStart.Add(3 * time.Second)
	pkts, next := r.due(now)
	if !slices.Equal(ids(pkts), []PacketID{0}) || next.Sub(now) != testTimeout {
		t.Errorf("sent %v, next in %v", ids(pkts), next.Sub(now))
	}
	if pkts, _ := r.due(now); len(pkts) != 0 {
		t.Errorf("sent %v again", ids(pkts))
	}
}

// On a session made from a cookie the client's reset is the first thing to be acknowledged.
func TestReliableFromCookie(t *testing.T) {
	r := newReliable(1, testTimeout)
	if !r.pendingAcks() {
		t.Error("the client's reset waits for no acknowledgement")
	}
	if v := r.receive(0, OpHardResetClientV2, nil); v != duplicate {
		t.Errorf("the reset again is %v", v)
	}
	if v := r.receive(1, OpControl, idPayload(1)); v != deliver {
		t.Errorf("message 1 is %v", v)
	}
	if got := drain(r); !slices.Equal(got, []PacketID{1}) {
		t.Errorf("delivered %v", got)
	}
	if got := r.takeAcks(MaxAcks); !slices.Equal(got, []PacketID{0, 1}) {
		t.Errorf("acknowledges %v, want [0 1]", got)
	}
	if id := r.queue(OpControl, nil); id != 1 {
		t.Errorf("our first message has id %d, want 1", id)
	}
	if newReliable(0, testTimeout).pendingAcks() {
		t.Error("nothing came, but something is to be acknowledged")
	}
}

// Resets take part in the order, but are no part of the stream.
func TestResetsAreNotDelivered(t *testing.T) {
	for _, op := range []Opcode{OpSoftReset, OpHardResetClientV2, OpHardResetClientV3} {
		r := newReliable(0, testTimeout)
		if v := r.receive(1, OpControl, idPayload(1)); v != deliver {
			t.Errorf("message 1 is %v", v)
		}
		if _, ok := r.next(); ok {
			t.Error("delivered before the reset was there")
		}
		if v := r.receive(0, op, []byte("payload of a reset")); v != deliver {
			t.Errorf("the reset is %v", v)
		}
		if got := drain(r); !slices.Equal(got, []PacketID{1}) {
			t.Errorf("delivered %v, want [1]", got)
		}
	}
}

func TestEmptyPayloadIsDelivered(t *testing.T) {
	r := newReliable(0, testTimeout)
	r.receive(0, OpControl, nil)
	if b, ok := r.next(); !ok || len(b) != 0 {
		t.Errorf("got %v, %v", b, ok)
	}
}

// What is outside the window is neither held nor acknowledged; what is inside is held once, and never more than the
// window (S023).
func TestReceiveWindowIsBounded(t *testing.T) {
	r := newReliable(0, testTimeout)
	for _, id := range []PacketID{12, 13, 1 << 16, 1 << 31, math.MaxUint32 - 1, math.MaxUint32} {
		if v := r.receive(id, OpControl, nil); v != outside || r.pendingAcks() {
			t.Errorf("id %d is %v, pending %v", id, v, r.pendingAcks())
		}
	}
	for range 1000 {
		for id := PacketID(11); id > 0; id-- {
			r.receive(id, OpControl, make([]byte, 1000))
		}
		r.takeAcks(MaxAcks)
		r.takeAcks(MaxAcks)
	}
	held := 0
	for _, h := range r.held {
		held += len(h.payload)
	}
	if held != 11*1000 {
		t.Errorf("%d bytes held, want %d", held, 11*1000)
	}
	r.receive(0, OpControl, nil)
	n := 0
	for _, ok := r.next(); ok; _, ok = r.next() {
		n++
	}
	if n != 12 {
		t.Errorf("delivered %d messages, want 12", n)
	}

	// A flood of old messages does not make the list of acknowledgements grow.
	for id := range PacketID(500) {
		r.receive(12+id, OpControl, nil)
		r.next()
	}
	for id := range PacketID(500) {
		if v := r.receive(id, OpControl, nil); v != duplicate {
			t.Fatalf("id %d is %v", id, v)
		}
	}
	if len(r.pending) > maxPending {
		t.Errorf("%d acknowledgements pending", len(r.pending))
	}
	for r.pendingAcks() {
		if got := r.takeAcks(MaxAcks); len(got) == 0 || len(got) > MaxAcks {
			t.Fatalf("acks %v", got)
		}
	}
}

// A message that is acknowledged again stands in a packet's list once.
func TestTakeAcksAgain(t *testing.T) {
	r := newReliable(0, testTimeout)
	for id := range PacketID(3) {
		if v := r.receive(id, OpControl, nil); v != deliver {
			t.Errorf("message %d is %v", id, v)
		}
		if v := r.receive(id, OpControl, nil); v != duplicate {
			t.Errorf("message %d again is %v", id, v)
		}
	}
	if got := r.takeAcks(MaxAcks); !slices.Equal(got, []PacketID{0, 1, 2}) {
		t.Errorf("acks %v", got)
	}
	r.receive(1, OpControl, nil)
	if got := r.takeAcks(MaxAcks); !slices.Equal(got, []PacketID{1, 0, 2}) {
		t.Errorf("acks %v, want [1 0 2]", got)
	}
}

// acks are in range and distinct for any room.
func TestTakeAcksRoom(t *testing.T) {
	for room := range MaxAcks + 1 {
		r := newReliable(0, testTimeout)
		for id := range PacketID(10) {
			r.receive(id, OpControl, nil)
		}
		var all []PacketID
		for i := 0; r.pendingAcks() && i < 20 && room > 0; i++ {
			got := r.takeAcks(room)
			if len(got) > room {
				t.Fatalf("room for %d, got %v", room, got)
			}
			for i, id := range got {
				if slices.Contains(got[:i], id) {
					t.Errorf("room for %d: %v repeats itself", room, got)
				}
			}
			all = append(all, got...)
		}
		slices.Sort(all)
		if got := slices.Compact(all); room > 0 && len(got) != 10 {
			t.Errorf("room for %d: acknowledged %v", room, got)
		}
	}
}

// Two machines over a wire that loses, delays, doubles and reorders hand over everything, in order, once.
func TestReliableOverLossyWire(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		loss := rng.Float64() * 0.2
		const messages = 60
		type packet struct {
			at   time.Time
			to   int
			acks []PacketID
			op   Opcode
			id   PacketID
			body []byte
		}
		ends := [2]*reliable{newReliable(0, testTimeout), newReliable(0, testTimeout)}
		var wire []packet
		var got [2][]PacketID
		queued := [2]int{}
		now := reliableStart
		transmit := func(from int, op Opcode, id PacketID, body []byte, room int) {
			acks := slices.Clone(ends[from].takeAcks(room))
			copies := 1
			if rng.Float64() < 0.1 {
				copies = 2
			}
			for range copies {
				if rng.Float64() >= loss {
					wire = append(wire, packet{now.Add(time.Duration(rng.IntN(300)) * time.Millisecond), 1 - from, acks, op, id, bytes.Clone(body)})
				}
			}
		}
		for steps := 0; len(got[0]) < messages || len(got[1]) < messages || ends[0].outstanding() > 0 || ends[1].outstanding() > 0; steps++ {
			if steps > 100000 || now.Sub(reliableStart) > 2*time.Hour {
				t.Fatalf("seed %d, loss %.2f: stuck after %v with %d and %d of %d", seed, loss, now.Sub(reliableStart), len(got[0]), len(got[1]), messages)
			}
			var wake time.Time
			for i, r := range ends {
				for queued[i] < messages && r.canSend() {
					r.queue(OpControl, idPayload(PacketID(queued[i])))
					queued[i]++
				}
				pkts, next := r.due(now)
				for _, o := range slices.Clone(pkts) {
					transmit(i, o.op, o.id, o.payload, messageAcks)
				}
				for r.pendingAcks() {
					transmit(i, OpAck, 0, nil, MaxAcks)
				}
				if !next.IsZero() && (wake.IsZero() || next.Before(wake)) {
					wake = next
				}
				if r.exhausted(now) {
					t.Fatalf("seed %d, loss %.2f: end %d gave up", seed, loss, i)
				}
			}
			first := -1
			for i, p := range wire {
				if first < 0 || p.at.Before(wire[first].at) {
					first = i
				}
			}
			if first < 0 || !wake.IsZero() && wake.Before(wire[first].at) {
				now = wake
				continue
			}
			p := wire[first]
			wire = slices.Delete(wire, first, first+1)
			now = p.at
			r := ends[p.to]
			for _, id := range p.acks {
				r.acked(id)
			}
			if p.op != OpAck {
				r.receive(p.id, p.op, p.body)
			}
			got[p.to] = append(got[p.to], drain(r)...)
		}
		for i := range got {
			for j, id := range got[i] {
				if id != PacketID(j) {
					t.Fatalf("seed %d: end %d got %v", seed, i, got[i])
				}
			}
		}
	}
}
