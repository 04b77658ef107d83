package main

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A tally is what all sessions count together.
type tally struct {
	packetsIn, bytesIn   atomic.Uint64 // payloads of the data channel
	packetsOut, bytesOut atomic.Uint64

	late    atomic.Uint64 // packets that the replay check of a stock client would have dropped
	bad     atomic.Uint64 // that could not be opened
	strange atomic.Uint64 // that were no packets for this session
	corrupt atomic.Uint64 // whose inner checksum or filling was wrong

	handshakes times
	pings      times
	phasePings times // of the current phase
	pingsSent  atomic.Uint64
	echo       times
	echoesSent atomic.Uint64

	renegotiations, renegotiationsFailed atomic.Uint64
	roams, restarts, returns             atomic.Uint64
	rebinds                              atomic.Uint64
	rebound                              times // until the server was heard again

	mu   sync.Mutex
	ends map[string]int // unexpected ones, by reason
}

func (t *tally) end(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ends == nil {
		t.ends = make(map[string]int)
	}
	t.ends[why]++
}

// times are durations. Beyond a million it keeps each second one, then each fourth and so on.
type times struct {
	mu   sync.Mutex
	all  []time.Duration
	n    uint64
	each uint64
}

func (t *times) add(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
	if t.each == 0 {
		t.each = 1
	}
	if t.n%t.each != 0 {
		return
	}
	if t.all = append(t.all, d); len(t.all) >= 1<<20 {
		half := t.all[:0]
		for i, d := range t.all {
			if i%2 == 1 {
				half = append(half, d)
			}
		}
		t.all, t.each = half, 2*t.each
	}
}

func (t *times) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all, t.n, t.each = nil, 0, 0
}

// Percentiles are milliseconds.
type Percentiles struct {
	Count uint64  `json:"count"`
	Min   float64 `json:"min"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

func (t *times) percentiles() Percentiles {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := Percentiles{Count: t.n}
	if len(t.all) == 0 {
		return p
	}
	s := slices.Sorted(slices.Values(t.all))
	at := func(q float64) float64 {
		return math.Round(float64(s[min(int(q*float64(len(s))), len(s)-1)])/1e3) / 1e3
	}
	p.Min, p.P50, p.P90, p.P99, p.P999, p.Max = at(0), at(0.5), at(0.9), at(0.99), at(0.999), at(1)
	return p
}
