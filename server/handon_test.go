package server

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
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

// So it is with an address of no pool, which one user's file names after another's; also when that one is still in, and
// uses it until it is the other's (S086).
func TestFixedAddressHandedOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		fixed := netip.MustParseAddr("10.8.0.200")
		w.cfg.Pool4.Last = plus(w.cfg.Pool4.First, 9)
		w.cfg.ClientConfigDir = t.TempDir()
		for _, name := range []string{"alice", "bob"} {
			must(t, os.WriteFile(filepath.Join(w.cfg.ClientConfigDir, name), fmt.Appendf(nil, "ifconfig-push %v 255.255.255.0\n", fixed), 0o600))
		}
		w.start()
		var whose []string // whose it was whenever it was forgotten
		w.srv.parts.Forget = func(addrs ...netip.Addr) error {
			if !slices.Equal(addrs, []netip.Addr{fixed}) {
				t.Errorf("%v were forgotten", addrs)
			}
			name := "nobody"
			if c := w.srv.table.zones[0].find(fixed); c != nil {
				name = c.decided().name
			}
			whose = append(whose, name)
			return nil
		}
		for i, step := range []struct {
			name  string
			stays bool
			want  []string
		}{
			{"alice", false, nil}, {"alice", false, nil}, {"bob", true, []string{"nobody", "bob"}}, {"bob", true, nil}, {"alice", false, []string{"bob", "alice"}},
		} {
			whose = nil
			p := w.peer(step.name, at(i+1)).connect()
			time.Sleep(time.Second)
			if p.addr4() != fixed || !slices.Equal(whose, step.want) {
				t.Errorf("%d: %s has %v, which was forgotten when it was of %v, want %v", i, step.name, p.addr4(), whose, step.want)
			}
			if !step.stays {
				p.ctl.Say("EXIT")
			}
			time.Sleep(10 * time.Second)
		}
	})
}

// What is remembered of addresses is bounded.
func TestHoldersAreBounded(t *testing.T) {
	var h lastHolders
	for i := range maxHolders + 100 {
		h.given(plus(netip.MustParseAddr("fd00::"), i), "alice")
	}
	if n := len(h.names); n != maxHolders {
		t.Errorf("%d addresses are remembered, want %d", n, maxHolders)
	}
}
