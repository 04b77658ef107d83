package main

import (
	"strings"
	"testing"
)

// A report shows medians, and the ratio to the contestant that each is compared with.
func TestReport(t *testing.T) {
	r := &bout{
		plan: plan{title: "TCP up", columns: []column{mbits, perGB}, ratios: []column{perGB},
			runs: []contestant{{who: "theirs"}, {who: "ours"}, {who: "ours, alone", to: 2}, {who: "broken"}}},
		runs: [][]figures{
			{{mbits: 100, perGB: 4}, {mbits: 300, perGB: 9}, {mbits: 200, perGB: 5}},
			{{mbits: 999, perGB: 2}},
			{{mbits: 12.34, perGB: 0.5}},
			nil,
		},
	}
	var s strings.Builder
	r.print(&s)
	want := "## TCP up\n\n| server | Mbit/s | s/GB | ratio |\n|---|---:|---:|---:|\n" +
		"| theirs | 200 | 5.00 | |\n| ours | 999 | 2.00 | 0.40 |\n| ours, alone | 12.3 | 0.50 | |\n| broken | failed |\n\n"
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
