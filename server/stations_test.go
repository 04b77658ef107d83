package server

import (
	"sync"
	"testing"
)

// Frames between stations that are known take no lock and allocate nothing; what is learnt, moves or leaves is heeded by
// the next frame, in every loop.
func TestRecentStations(t *testing.T) {
	b := newBridge(100)
	alice, bob := new(client), new(client)
	var one, two recent
	for n := range byte(40) { // more than a loop remembers, so that places are shared
		if !b.learn(&one, stationOf(1, n), alice, 1) {
			t.Fatalf("station %d is not learnt", n)
		}
	}
	all := func(r *recent, want *client) {
		t.Helper()
		for n := range byte(40) {
			if got := b.find(r, stationOf(1, n)); got != want {
				t.Fatalf("station %d is behind %p, want %p", n, got, want)
			}
		}
	}
	all(&one, alice)
	all(&two, alice)

	last := stationOf(1, 39)
	b.find(&two, last)
	b.learn(&one, last, alice, 2)
	b.mu.Lock() // whoever wants it now waits for ever
	if n := testing.AllocsPerRun(100, func() {
		if b.find(&two, last) != alice || !b.learn(&one, last, alice, 3) {
			t.Fatal("the station is not known")
		}
	}); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
	if got := b.byMAC[last].last.Load(); got != 3 {
		t.Errorf("heard last at %d, want 3", got)
	}
	b.mu.Unlock()

	if !b.learn(&two, last, bob, 4) {
		t.Error("a station does not move")
	}
	for _, r := range []*recent{&one, &two} {
		if b.find(r, last) != bob {
			t.Error("a station that has moved is looked for where it was")
		}
	}
	b.leave(bob)
	b.age(60, 58) // those of alice were heard at 1
	all(&one, nil)
	all(&two, nil)
}

// Loops that learn, look and forget at once agree in the end.
func TestRecentStationsTogether(t *testing.T) {
	b := newBridge(100)
	clients := []*client{new(client), new(client), new(client)}
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			var r recent
			for n := range 3000 {
				a := stationOf(1, byte(n%7))
				b.learn(&r, a, c, int64(n))
				b.find(&r, a)
				if i == 0 && n%100 == 99 {
					b.leave(c)
				}
			}
		})
	}
	wg.Wait()
	var r recent
	for n := range byte(7) {
		b.learn(&r, stationOf(1, n), clients[2], 1)
		if b.find(&r, stationOf(1, n)) != clients[2] {
			t.Errorf("station %d is not where it was heard last", n)
		}
	}
}
