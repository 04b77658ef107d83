package ctltest

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A Wire is one direction of a path. What is sent arrives after Delay and up to Jitter more, so that packets overtake
// each other; Loss and Double are how often one is lost, or arrives twice. The zero value carries everything at once.
type Wire struct {
	Loss, Double  float64
	Delay, Jitter time.Duration

	mu   sync.Mutex
	drop func(pkt []byte) bool
	rand *rand.Rand
	sent int
	lost int
	way  []arrival // on the way, by time

	// arriving is held from the choice of what arrives until it has arrived, so that without Jitter the order is kept.
	arriving sync.Mutex
}

type arrival struct {
	at      time.Time
	pkt     []byte
	deliver func([]byte)
}

// Seed makes the wire's chances repeatable.
func (w *Wire) Seed(seed uint64) { w.rand = rand.New(rand.NewPCG(seed, seed)) }

// Drop has f asked about each packet besides. It may be called at any time; f is asked about one at a time.
func (w *Wire) Drop(f func(pkt []byte) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop = f
}

// Send has deliver called with a copy of pkt, perhaps, and always from a goroutine of its own.
func (w *Wire) Send(pkt []byte, deliver func([]byte)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rand == nil {
		w.Seed(1)
	}
	w.sent++
	if w.rand.Float64() < w.Loss || w.drop != nil && w.drop(pkt) {
		w.lost++
		return
	}
	copies := 1
	if w.rand.Float64() < w.Double {
		copies = 2
	}
	for range copies {
		delay := w.Delay
		if w.Jitter > 0 {
			delay += time.Duration(w.rand.Int64N(int64(w.Jitter)))
		}
		a := arrival{time.Now().Add(delay), bytes.Clone(pkt), deliver}
		i := len(w.way)
		for i > 0 && w.way[i-1].at.After(a.at) {
			i--
		}
		w.way = slices.Insert(w.way, i, a)
		if delay > 0 {
			time.AfterFunc(delay, w.arrive)
		} else {
			go w.arrive() // timers that are due at once crash Go 1.26's race detector when a bubble has several at a time
		}
	}
}

// arrive delivers the packet whose time has come first.
func (w *Wire) arrive() {
	w.arriving.Lock()
	defer w.arriving.Unlock()
	w.mu.Lock()
	a := w.way[0]
	w.way = slices.Delete(w.way, 0, 1)
	w.mu.Unlock()
	a.deliver(a.pkt)
}

// Count returns how many packets were sent, and how many of them lost.
func (w *Wire) Count() (sent, lost int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent, w.lost
}
