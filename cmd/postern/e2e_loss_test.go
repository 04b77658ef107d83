package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/cmd/lab"
)

// badNetwork puts a relay between clients and the server, and returns it and how clients reach it.
func badNetwork(f *field, how lab.Impairment) (r *lab.Relay, remote string) {
	f.t.Helper()
	f.addHost("relay")
	h := f.Host("relay")
	r, err := h.Relay(1194, netip.AddrPortFrom(f.Host("router").Wan4, 1194), how)
	f.must(err)
	f.t.Cleanup(r.Close)
	return r, fmt.Sprintf("remote %v 1194 udp", h.Wan4)
}

// bad is a network that loses so much of what it carries, and doubles, delays and swaps some of the rest.
func bad(loss float64) lab.Impairment {
	return lab.Impairment{Loss: loss, Duplicate: 0.05, Reorder: 0.1, Delay: 15 * time.Millisecond}
}

// Where three packets in ten are lost each way, stock clients get in (F38). An attempt may run out of time, since a packet that is
// lost four times comes half a minute late; then the next one succeeds.
func TestE2EHandshakesOnBadNetwork(t *testing.T) {
	t.Parallel()
	names := []string{"alice", "bob", "carol"}
	f := newField(t, names...)
	r, remote := badNetwork(f, bad(0.3))
	f.serve()
	var clients []*vpn
	for _, name := range names {
		clients = append(clients, f.dial(name, remote, "hand-window 30"))
	}
	for _, v := range clients {
		f.must(v.Expect(completed, 1, 4*time.Minute))
		t.Logf("%s: %d attempts failed", v.host.Name, strings.Count(v.Output(), "TLS key negotiation failed"))
	}
	passed, lost := r.Counts()
	t.Logf("%d packets passed, %d lost", passed, lost)
	r.Impair(lab.Impairment{})
	for _, v := range clients {
		v.ping(lab.Lan4, 3, 1300)
	}
}

// Where two packets in ten are lost each way, keys are renegotiated all the same, again and again. That one of three runs
// out of its minute by bad luck, and connects anew, is let pass: a packet may be lost six times.
func TestE2ERenegotiationsOnBadNetwork(t *testing.T) {
	t.Parallel()
	names := []string{"alice", "bob", "carol"}
	f := newField(t, names...)
	r, remote := badNetwork(f, lab.Impairment{})
	f.serve()
	var clients []*vpn
	for _, name := range names {
		clients = append(clients, f.connect(name, remote, "reneg-sec 12"))
	}
	r.Impair(bad(0.2))
	const rounds = 2
	for _, v := range clients {
		f.must(v.Expect("Outgoing Data Channel: Cipher", 1+rounds, 3*time.Minute))
	}
	r.Impair(lab.Impairment{})
	unlucky := 0
	for _, v := range clients {
		n := strings.Count(v.Output(), completed)
		if unlucky += n - 1; n > 1 {
			t.Logf("%s connected %d times", v.host.Name, n)
		}
	}
	if unlucky > 1 {
		t.Errorf("clients had to connect anew %d times", unlucky)
	}
	for _, v := range clients {
		f.must(lab.Until(90*time.Second, func() error { // who is about to connect anew takes a moment
			p, err := v.host.Ping(f.ctx, lab.Lan4, 3, 1300, 50*time.Millisecond)
			if err == nil && p.Lost() > 0 {
				err = fmt.Errorf("%s: %d of %d pings lost", v.host.Name, p.Lost(), p.Sent)
			}
			return err
		}))
	}
}
