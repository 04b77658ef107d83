package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// What the kernel tracks of an address is forgotten when another name gets it, and only then; that it cannot be keeps
// nobody out (S086).
func TestAddressHandedOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.Pool4.Last = w.cfg.Pool4.First // one address
		w.start()
		var forgotten []string
		var broken error
		w.srv.parts.Forget = func(addrs ...netip.Addr) error {
			forgotten = append(forgotten, fmt.Sprint(addrs[0]))
			return broken
		}
		for i, step := range []struct {
			name string
			want int
		}{{"alice", 0}, {"alice", 0}, {"bob", 1}, {"bob", 1}, {"alice", 2}} {
			p := w.peer(step.name, at(i+1)).connect()
			if got := p.addr4(); len(forgotten) != step.want || slices.ContainsFunc(forgotten, func(a string) bool { return a != got.String() }) {
				t.Errorf("%d: %s has %v, forgotten was %v", i, step.name, got, forgotten)
			}
			p.ctl.Say("EXIT")
			time.Sleep(10 * time.Second)
		}
		broken = errors.New("no conntrack here")
		w.peer("bob", at(9)).connect().mustReach()
		if w.log.count("no conntrack here") != 1 {
			t.Errorf("nothing is said about it:\n%s", w.log)
		}
	})
}
