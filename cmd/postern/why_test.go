package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/server"
)

// A timeline has each step with its time, and what failed; nothing remembered says what to try.
func TestPrintWhy(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		why  server.Why
		want []string
	}{
		{server.Why{Who: "bob", Attempts: []server.Attempt{{Session: "f6d9e715", From: netip.MustParseAddrPort("192.0.2.7:4000"), User: "bob", Name: "bob", Began: at,
			Steps: []server.AttemptStep{{At: at, Step: "cookie"}, {At: at.Add(310 * time.Millisecond), Step: "login", Detail: "in no required group", Failed: true},
				{At: at.Add(3 * time.Minute), Step: "ended"}}}}},
			[]string{`2026-03-01 12:00:00 from 192.0.2.7:4000 (udp), session f6d9e715, user "bob", certificate "bob"`, "+0.310 s  login          FAILED: in no required group", "+3m0s  ended"}},
		{server.Why{Who: "192.0.2.9", Greeted: &server.Greeted{From: netip.MustParseAddr("192.0.2.9"), First: at, Last: at, Dropped: 3}},
			[]string{"0 answered, 3 dropped", "tls-crypt key", "nothing is remembered of 192.0.2.9\n"}},
		{server.Why{Who: "zoe"}, []string{"nothing is remembered of zoe: no packet came"}},
	} {
		var out bytes.Buffer
		printWhy(&out, &c.why)
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: want %q in\n%s", c.why.Who, want, out.String())
			}
		}
	}
}
