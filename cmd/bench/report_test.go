package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// A report shows medians, and the ratio to the contestant that each is compared with; what failed says why.
func TestReport(t *testing.T) {
	r := &bout{
		plan: plan{title: "TCP up", columns: []column{mbits, perGB}, ratios: []column{perGB},
			runs: []contestant{{who: "theirs"}, {who: "ours"}, {who: "ours, alone", to: 2}, {who: "broken"}}},
		runs: []result{
			{rounds: []figures{{mbits: 100, perGB: 4}, {mbits: 300, perGB: 9}, {mbits: 200, perGB: 5}}},
			{rounds: []figures{{mbits: 900, perGB: 1}, {mbits: 998, perGB: 3}}},
			{rounds: []figures{{mbits: 12.34, perGB: 0.5}}, failed: []error{errors.New("once")}},
			{failed: []error{errors.New("a | b\nc")}},
		},
	}
	var s strings.Builder
	r.print(&s, options{rounds: 3})
	want := "## TCP up\n\n| server | Mbit/s | s/GB | ratio |\n|---|---:|---:|---:|\n" +
		"| theirs | 200 | 5.00 | |\n| ours | 949 | 2.00 | 0.40 |\n| ours, alone | 12.3 | 0.50 | |\n| broken | failed: a / b c |\n\n" +
		"ours, alone failed in one round: once\n\n"
	if s.String() != want {
		t.Errorf("got\n%s\nwant\n%s", s.String(), want)
	}
}

// Names of cases are told apart, and each is compared with a contestant that exists.
func TestCases(t *testing.T) {
	for _, quick := range []bool{false, true} {
		seen := make(map[string]bool)
		for _, c := range cases(options{quick: quick}) {
			if seen[c.name] {
				t.Errorf("two cases are named %q", c.name)
			}
			seen[c.name] = true
			for _, r := range c.runs {
				if r.to < 0 || r.to >= len(c.runs) || r.measure == nil {
					t.Errorf("%s: contestant %s", c.name, r.who)
				}
			}
		}
	}
}

// Every target is about a figure that a case shows, and about contestants that it has. What it costs fits into the limit.
func TestTargets(t *testing.T) {
	o, err := parseOptions(nil)
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]plan)
	var all time.Duration
	for _, c := range cases(o) {
		named[c.name] = c
		all += c.round(o) * time.Duration(c.rounds(o))
	}
	for _, g := range targets {
		p, ok := named[g.plan]
		if !ok || g.who >= len(p.runs) || g.peer >= len(p.runs) || g.because == "" || g.figure == 0 && g.ratio == 0 {
			t.Errorf("target %q", g.line)
			continue
		}
		shows := false
		for _, c := range p.columns {
			shows = shows || c == g.column
		}
		if !shows {
			t.Errorf("target %q: case %q does not show %q", g.line, g.plan, g.column)
		}
	}
	t.Logf("all rounds are expected to take %v", all)
}

// A target is met, missed in one of its parts or in all, or not measured.
func TestVerdicts(t *testing.T) {
	done := []*bout{{
		plan: plan{name: "x", runs: []contestant{{who: "peer"}, {who: "we"}, {who: "nobody"}}},
		runs: []result{{rounds: []figures{{perGB: 4, mbits: 100}}}, {rounds: []figures{{perGB: 2, mbits: 150}}}, {}},
	}}
	for _, c := range []struct {
		t    target
		want string
	}{
		{target{plan: "x", who: 1, column: perGB, figure: 2, ratio: 0.5}, "met"},
		{target{plan: "x", who: 1, column: perGB, figure: 1, ratio: 0.5}, "missed: the figure"},
		{target{plan: "x", who: 1, column: perGB, figure: 2, ratio: 0.4}, "missed: the ratio"},
		{target{plan: "x", who: 1, column: perGB, figure: 1, ratio: 0.4}, "missed"},
		{target{plan: "x", who: 1, column: mbits, least: true, ratio: 1.3}, "met"},
		{target{plan: "x", who: 1, column: mbits, least: true, figure: 200}, "missed"},
		{target{plan: "x", who: 1, peer: 2, column: perGB, ratio: 0.5}, "not measured"},
		{target{plan: "x", who: 2, column: perGB, figure: 2}, "not measured"},
		{target{plan: "y", column: perGB, figure: 2}, "not measured"},
	} {
		if v := c.t.judged(done); v.outcome != c.want || v.missed != strings.HasPrefix(c.want, "missed") {
			t.Errorf("%+v: %+v, want %q", c.t, v, c.want)
		}
	}
}

// A case that fails keeps no other from being measured, and without time each still has a round.
func TestRun(t *testing.T) {
	ours := func(*bed, options) (figures, error) { return figures{mbits: 1}, nil }
	broken := func(*bed, options) (figures, error) { return nil, errors.New("it broke") }
	list := []plan{{name: "late", late: true, runs: []contestant{{who: "ours", measure: ours}}},
		{name: "early", runs: []contestant{{who: "broken", measure: broken}, {who: "ours", measure: ours}}}}
	measure := func(m meter) (figures, error) { return m.measure(nil, options{}) }
	for _, c := range []struct {
		limit  time.Duration
		rounds int
	}{{time.Hour, 3}, {time.Second, 1}} {
		o := options{rounds: 3, seconds: 1, limit: c.limit}
		done, err := run(context.Background(), o, list, time.Now(), measure)
		if err == nil || !strings.Contains(err.Error(), "early, broken: it broke") {
			t.Errorf("error %v", err)
		}
		if done[0].plan.name != "late" || len(done[0].runs[0].rounds) != c.rounds || len(done[1].runs[1].rounds) != c.rounds {
			t.Errorf("with %v: %+v, %+v", c.limit, done[0].runs, done[1].runs)
		}
		if n := len(done[1].runs[0].failed); n != min(c.rounds, 2) {
			t.Errorf("with %v: tried %d times what fails", c.limit, n)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if done, err := run(ctx, options{rounds: 1}, list, time.Now(), measure); err != nil || len(done) != 2 {
		t.Errorf("interrupted: %v, %v", done, err)
	}
}
