package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/link"
)

// While memory is short or handshakes queue, strangers are not answered, over neither transport; who is inside notices
// nothing, and whoever waited gets in by asking again (S011, S117, F29, F30).
func TestCrowded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		w.srv.tight.Store(true)
		bob, carol := w.peer("bob", otherAddr), w.streamPeer("carol", thirdAddr)
		ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
		defer cancel()
		in := make(chan error, 1)
		go func() { in <- bob.ctl.Connect(ctx) }()
		go carol.ctl.Connect(ctx)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		alice.mustReach()
		if got := w.clients(); len(got) != 1 {
			t.Errorf("connected: %v, want alice alone", got)
		}
		if w.drops(dropCrowded) < 2 {
			t.Errorf("%d packets were left unanswered", w.drops(dropCrowded))
		}
		w.srv.tight.Store(false)
		if err := <-in; err != nil {
			t.Errorf("bob, who went on asking: %v", err)
		}
	})
}

// A stream has a coalescer only while a batch of it is at work: two that take turns share one.
func TestStreamsShareCoalescers(t *testing.T) {
	b := newBench(t, 2)
	for range 3 {
		for _, m := range b.members {
			u := &uplink{lane: b.lane, sock: &b.sock, door: m, only: m.c}
			if err := u.batch([]link.Train{m.train(1, 100)}); err != nil {
				t.Fatal(err)
			}
			if u.merge != nil {
				t.Error("a stream keeps its coalescer")
			}
		}
	}
	if n := len(b.lane.spare); n != 1 {
		t.Errorf("%d coalescers were made, want 1", n)
	}
	if b.queue.writes != 6 {
		t.Errorf("%d packets written, want 6", b.queue.writes)
	}
}

// When all descriptors that clients may have are in use, those who are in stay, and the next comes in when one has left
// (S117, F28).
func TestStreamsWithinDescriptors(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		w.srv.streams.most = 2
		alice, bob := w.streamPeer("alice", homeAddr).connect(), w.streamPeer("bob", otherAddr).connect()
		carol := w.streamPeer("carol", thirdAddr)
		if _, err := carol.conn.Read(make([]byte, 1)); err == nil {
			t.Error("a third was let in")
		}
		alice.mustReach()
		bob.conn.Close()
		time.Sleep(2 * time.Second)
		w.streamPeer("dora", thirdAddr).connect().mustReach()
		alice.mustReach()
	})
}
