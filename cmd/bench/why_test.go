package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// made is a bout of a case that has targets, with its figures for s/GB and what profiles there are.
func made(name string, perGBs []float64, profiles map[int]*watch) *bout {
	r := &bout{plan: plan{name: name, title: "TCP down", runs: make([]contestant, len(perGBs)), columns: []column{mbits, perGB}}, runs: make([]result, len(perGBs))}
	for i, v := range perGBs {
		r.plan.runs[i].who = string(rune('A' + i))
		r.runs[i] = result{rounds: []figures{{perGB: v, mbits: 1000}}, profile: profiles[i]}
	}
	return r
}

// Who misses a target of CPU or of memory is profiled, once.
func TestWanting(t *testing.T) {
	for _, c := range []struct {
		r    *bout
		want []int
	}{
		{made("tcp down 1", []float64{9, 1, 9, 1}, nil), []int{1, 3}}, // both rates and the GSO client's CPU
		{made("tcp down 1", []float64{9, 5, 9, 0.1}, nil), []int{1, 3}},
		{made("tcp both 1", []float64{1, 9, 1, 9}, nil), nil}, // no target is about it
		{made("latency idle", []float64{1, 9, 1}, nil), nil},
	} {
		if got := c.r.wanting(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.r.plan.name, got, c.want)
		}
	}
}

// The report has a row for each profile, leaves out what nobody spends time on, and cites profiles of what was missed.
func TestExplain(t *testing.T) {
	stacks := func(lines ...string) (list []stack) {
		for _, l := range lines {
			list = append(list, stack{strings.Fields(l), 1})
		}
		return list
	}
	write := "postern/tun.(*offloadQueue).writevNow"
	seen := &watch{cpu: stacks(write, write, write, "crypto/aes.x"), kernel: stacks("net_rx_action", "net_rx_action", "f", "f")}
	for i := range seen.cpu {
		seen.cpu[i].weight = tick
	}
	failed := &watch{err: errors.New("it broke")}
	r := made("tcp down 1", []float64{9, 5, 2, 5}, map[int]*watch{1: seen, 3: failed})
	var s strings.Builder
	judge(&s, []*bout{r})
	explain(&s, []*bout{r})
	for _, want := range []string{
		"stock client down: CPU, s/GB.** Profile: 75 % TUN write, 25 % cipher; perf says of the kernel 50 % receivers' stacks. " + farEnd + " " + answers,
		"GSO client down: CPU, s/GB.** The profile failed: it broke. " + sealing,
		"| server | samples | TUN write | cipher |\n|---|---:|---:|---:|\n| TCP down: B | 4 | 75 | 25 |\n\n",
		"| server | samples | receivers' stacks | outside the kernel |\n|---|---:|---:|---:|\n| TCP down: B | 4 | 50 | 50 |\n\n",
	} {
		if !strings.Contains(s.String(), want) {
			t.Errorf("%q is not in\n%s", want, s.String())
		}
	}
	seen.kernel, seen.blind = nil, "perf is not installed"
	s.Reset()
	explain(&s, []*bout{r})
	if !strings.Contains(s.String(), "not told apart: perf is not installed.\n") {
		t.Errorf("no word about perf in\n%s", s.String())
	}
	s.Reset()
	if explain(&s, []*bout{made("tcp down 1", []float64{9, 5, 2, 5}, nil)}); s.Len() > 0 {
		t.Errorf("without a profile:\n%s", s.String())
	}
}

// Memory is what came with the sessions; what nobody asked for by name is a part of it, too.
func TestMemory(t *testing.T) {
	w := &watch{sessions: 100,
		before: memory{resident: 10 << 20, stacks: 100 << 10, goroutines: 20, heap: []stack{{[]string{"crypto/tls.(*Conn).x"}, 50 << 10}}},
		with: memory{resident: 14 << 20, stacks: 1124 << 10, goroutines: 220,
			heap: []stack{{[]string{"crypto/tls.(*Conn).x"}, 1074 << 10}, {[]string{"make", "postern/server.f"}, 1024 << 10}}}}
	list, kb := w.held()
	if got := largest(list, 9); kb != 40.96 || got != "25 % TLS, 25 % sessions, 25 % goroutine stacks, 25 % garbage and gaps" {
		t.Errorf("%v KB: %s", kb, got)
	}
	r := made("idle tcp 1000", []float64{0, 0}, map[int]*watch{1: w})
	var s strings.Builder
	explain(&s, []*bout{r})
	want := "| server | KB/session | goroutines/session | TLS | sessions | goroutine stacks | garbage and gaps |\n|---|---:|---:|---:|---:|---:|---:|\n" +
		"| TCP down: B | 41.0 | 2.00 | 25 | 25 | 25 | 25 |\n"
	if !strings.Contains(s.String(), want) {
		t.Errorf("got\n%s\nwant\n%s", s.String(), want)
	}
	if got, err := stacksIn("heap profile: 1\n# runtime.MemStats\n# Alloc = 7\n# Stack = 327680 / 327680\n"); err != nil || got != 327680 {
		t.Errorf("stacks: %v, %v", got, err)
	}
	if got, err := stacksIn("heap profile: 1\n"); err == nil {
		t.Errorf("stacks: %v, want an error", got)
	}
}

// Whoever missed a target is measured once more, for a profile, and that does not count; without time for it, or beyond
// the number that is wanted, nobody is.
func TestRunTakesProfiles(t *testing.T) {
	for _, c := range []struct {
		limit       time.Duration
		most, taken int
	}{{time.Hour, -1, 2}, {time.Hour, 1, 1}, {time.Hour, 0, 0}, {time.Millisecond, -1, 0}} {
		list := []plan{made("tcp down 1", make([]float64, 4), nil).plan}
		for i := range list[0].runs {
			list[0].runs[i].measure = func(*bed, options) (figures, error) { return figures{perGB: 9, mbits: 1}, nil }
		}
		taken := 0
		measure := func(m meter) (figures, error) {
			if m.watch != nil {
				taken++
				m.watch.cpu = []stack{{[]string{"crypto/aes.x"}, 1}}
			}
			return m.measure(nil, options{})
		}
		done, err := run(context.Background(), options{rounds: 2, seconds: 1, limit: c.limit, profiles: c.most}, list, time.Now(), measure)
		if err != nil || taken != c.taken || len(done[0].runs[1].rounds) > 2 || (done[0].runs[1].profile != nil) != (c.taken > 0) {
			t.Errorf("%+v: %d profiles, %+v, %v", c, taken, done[0].runs[1], err)
		}
	}
}
