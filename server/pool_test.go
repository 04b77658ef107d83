package server

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"postern/server/config"
)

func testPool(t *testing.T, n int, change func(*config.Config)) *pool {
	t.Helper()
	cfg := &config.Config{
		Pool4:            config.Range{First: netip.MustParseAddr("10.8.0.2"), Last: netip.MustParseAddr("10.8.0.2")},
		Pool6:            config.Range{First: netip.MustParseAddr("fd00::1000"), Last: netip.MustParseAddr("fd00::1fff")},
		PoolPersistEvery: time.Minute,
	}
	for range n - 1 {
		cfg.Pool4.Last = cfg.Pool4.Last.Next()
	}
	if change != nil {
		change(cfg)
	}
	p := newPool(cfg)
	if len(p.entries) != n {
		t.Fatalf("pool of %d entries, want %d", len(p.entries), n)
	}
	return p
}

func mustLease(t *testing.T, p *pool, name string) *lease {
	t.Helper()
	l, err := p.lease(name, false)
	if err != nil {
		t.Fatalf("lease for %s: %v", name, err)
	}
	return l
}

// A client gets its addresses again, and an address that was never used goes before one that another remembers (S113).
func TestPoolRemembers(t *testing.T) {
	p := testPool(t, 3, nil)
	alice := mustLease(t, p, "alice")
	if alice.addr4.String() != "10.8.0.2" || alice.addr6.String() != "fd00::1000" {
		t.Errorf("first lease %v %v", alice.addr4, alice.addr6)
	}
	p.release(alice, time.Now())
	bob := mustLease(t, p, "bob")
	if bob.index == alice.index {
		t.Error("bob got the entry that is remembered for alice while others were never used")
	}
	if again := mustLease(t, p, "alice"); again.index != alice.index {
		t.Errorf("alice got entry %d, had %d", again.index, alice.index)
	}
}

// When all are remembered the one released longest ago goes first; leased ones never go.
func TestPoolReusesOldest(t *testing.T) {
	p := testPool(t, 3, nil)
	t0 := time.Now()
	a, b, c := mustLease(t, p, "a"), mustLease(t, p, "b"), mustLease(t, p, "c")
	if _, err := p.lease("d", false); err != errPoolEmpty {
		t.Fatalf("fourth lease: %v, want errPoolEmpty (F42)", err)
	}
	p.release(b, t0.Add(time.Second))
	p.release(a, t0.Add(2*time.Second))
	if d := mustLease(t, p, "d"); d.index != b.index {
		t.Errorf("d got entry %d, want the one released first, %d", d.index, b.index)
	}
	if d := mustLease(t, p, "e"); d.index != a.index {
		t.Errorf("e got entry %d, want %d", d.index, a.index)
	}
	_ = c
}

// The addresses of a name pass to its newer session, and stay its own whichever of the two ends first: the older one
// because the newer was let in, or the newer because it was not (S050, S113).
func TestPoolPassesOver(t *testing.T) {
	for _, first := range []string{"older", "newer"} {
		p := testPool(t, 2, nil)
		older := mustLease(t, p, "alice")
		newer := mustLease(t, p, "alice")
		if older.index != newer.index {
			t.Fatalf("entries %d and %d", older.index, newer.index)
		}
		ends, stays := older, newer
		if first == "newer" {
			ends, stays = newer, older
		}
		p.release(ends, time.Now())
		bob := mustLease(t, p, "bob")
		if l, err := p.lease("carol", false); err == nil {
			t.Errorf("the %s session ended first: carol got entry %d, which alice holds", first, l.index)
		}
		if leased, _ := p.usage(); leased != 2 {
			t.Errorf("%d leased, want 2", leased)
		}
		p.release(stays, time.Now())
		p.release(bob, time.Now())
		if leased, _ := p.usage(); leased != 0 {
			t.Errorf("%d leased after all have gone", leased)
		}
	}
}

// A fixed address in the pool is kept from others while its owner has it, and is refused when another has it.
func TestPoolClaim(t *testing.T) {
	p := testPool(t, 2, nil)
	held := mustLease(t, p, "alice")
	for _, a := range []netip.Addr{held.addr4, held.addr6} {
		if _, err := p.claim("bob", a); err == nil {
			t.Errorf("bob claimed alice's %v", a)
		}
	}
	l, err := p.claim("bob", netip.MustParseAddr("10.8.0.3"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.lease("carol", false); err == nil {
		t.Error("carol got bob's fixed address")
	}
	p.release(l, time.Now())
	mustLease(t, p, "carol")
	if l, err := p.claim("dave", netip.MustParseAddr("192.0.2.1")); err != nil || l.index != -1 {
		t.Errorf("an address outside: %+v, %v", l, err)
	}
}

// What is written is read again, also a file of OpenVPN's with comments and without IPv6.
func TestPoolFile(t *testing.T) {
	p := testPool(t, 4, nil)
	mustLease(t, p, "alice")
	mustLease(t, p, "bob")
	changed, text := p.changes(), p.appendTo(nil)
	if want := "alice,10.8.0.2,fd00::1000\nbob,10.8.0.3,fd00::1001\n"; !changed || string(text) != want {
		t.Fatalf("file %q, want %q", text, want)
	}
	if p.changes() {
		t.Error("changes are told twice")
	}
	q := testPool(t, 4, nil)
	warnings := readLeases([]byte("# a comment\nbob,10.8.0.5\n; other\ncarol,,fd00::1002\nnobody,10.9.0.1,\ngarbage\n"+string(text)), []*zone{{leases: q}})
	if len(warnings) != 2 {
		t.Errorf("warnings %q, want two", warnings)
	}
	for name, want := range map[string]string{"bob": "10.8.0.5", "carol": "10.8.0.4", "alice": "10.8.0.2"} {
		if got := mustLease(t, q, name).addr4.String(); got != want {
			t.Errorf("%s got %s, want %s", name, got, want)
		}
	}
}

// With "0" seconds the file's entries are fixed: nobody else gets them.
func TestPoolFixed(t *testing.T) {
	p := testPool(t, 2, func(c *config.Config) { c.PoolPersist, c.PoolPersistEvery = "ipp.txt", 0 })
	readLeases([]byte("alice,10.8.0.2,\n"), []*zone{{leases: p}})
	if l := mustLease(t, p, "bob"); l.addr4.String() != "10.8.0.3" {
		t.Errorf("bob got %v", l.addr4)
	}
	if l, err := p.lease("carol", false); err == nil {
		t.Errorf("carol got %v, which is alice's", l.addr4)
	}
}

// With duplicate-cn one name has many leases and nothing is remembered.
func TestPoolDuplicates(t *testing.T) {
	p := testPool(t, 3, func(c *config.Config) { c.DuplicateCN = true })
	seen := map[int]bool{}
	for range 3 {
		seen[mustLease(t, p, "shared").index] = true
	}
	if len(seen) != 3 {
		t.Errorf("entries %v, want three", seen)
	}
	if p.changes() {
		t.Errorf("remembers %q", p.appendTo(nil))
	}
}

func FuzzPoolFile(f *testing.F) {
	f.Add("alice,10.8.0.2,fd00::1000\nbob,10.8.0.3,\n")
	f.Add("# c\n,,\nx,10.8.0.2\nx,10.8.0.3\ny,10.8.0.2\n")
	f.Fuzz(func(t *testing.T, text string) {
		p := testPool(t, 8, nil)
		readLeases([]byte(text), []*zone{{leases: p}}) // any answer but a panic
		for i := range 8 {
			if _, err := p.lease(fmt.Sprintf("new-%d", i), false); err != nil {
				t.Fatalf("only %d leases of 8 after %q", i, text)
			}
		}
		if _, err := p.lease("one more", false); err == nil {
			t.Fatal("nine leases of eight")
		}
	})
}

// In net30 an entry is four addresses, of which the client has the third and the server the second; the file names the
// first. In p2p an entry is one.
func TestPoolTopologies(t *testing.T) {
	p := testPool(t, 3, func(c *config.Config) {
		c.Topology = config.Net30
		c.Pool4 = config.Range{First: netip.MustParseAddr("10.8.0.5"), Last: netip.MustParseAddr("10.8.0.12")}
	})
	mustLease(t, p, "alice")
	bob := mustLease(t, p, "bob")
	if got, want := fmt.Sprint(bob.addr4, bob.peer4, bob.addr6), "10.8.0.10 10.8.0.9 fd00::1001"; got != want {
		t.Errorf("bob got %s, want %s", got, want)
	}
	text := p.appendTo(nil)
	if want := "alice,10.8.0.4,fd00::1000\nbob,10.8.0.8,fd00::1001\n"; string(text) != want {
		t.Errorf("file %q, want %q", text, want)
	}
	for _, a := range []string{"10.8.0.8", "10.8.0.9", "10.8.0.10", "10.8.0.11"} {
		if _, err := p.claim("carol", netip.MustParseAddr(a)); err == nil {
			t.Errorf("carol claimed %s of bob's entry", a)
		}
	}
	if _, err := p.claim("carol", netip.MustParseAddr("10.8.0.13")); err != nil {
		t.Error(err)
	}
	if l, err := p.lease("dave", false); err == nil {
		t.Errorf("dave got %v of carol's entry", l.addr4)
	}
	q := testPool(t, 3, func(c *config.Config) {
		c.Topology = config.P2P
	})
	if w := readLeases([]byte("bob,10.8.0.4,\n"), []*zone{{leases: q}}); w != nil {
		t.Fatal(w)
	}
	if l := mustLease(t, q, "bob"); l.addr4.String() != "10.8.0.4" || l.peer4.IsValid() {
		t.Errorf("bob got %v, other end %v", l.addr4, l.peer4)
	}
}
