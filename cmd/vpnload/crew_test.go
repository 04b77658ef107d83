package main

import (
	"testing"
	"testing/synctest"
)

// A peer that does not answer in the end, for its link is full, makes the count incomplete, and says so: what it told before
// still counts, and nothing becomes less than it was.
func TestSnapshotOfASilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crew{o: options{gso: true}}
		s := &session{crew: c} // it has no key, so nobody hears what it asks
		f := &udpFlow{s: s, mode: 'u', size: 64, end: make(chan struct{}), counted: message{seq: 10, stamp: 640}}
		f.up.Store(12)
		s.udp.Store(f)
		before := snapshot{up: moved{sent: 10, packets: 10, bytes: 640}}
		c.rest([]*session{s})
		after := c.snapshot([]*session{s})
		if got := after.up.since(before.up, 1); got.Packets != 0 || got.Bytes != 0 || got.Sent != 2 {
			t.Errorf("moved %+v", got)
		}
		if after.unknown != 1 {
			t.Errorf("%d flows are not known, want 1", after.unknown)
		}
	})
}
