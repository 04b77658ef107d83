package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/server/config"
	"postern/tlsctl/ctltest"
)

// A fakeFilter remembers who holds what.
type fakeFilter struct {
	mu       sync.Mutex
	holders  map[netip.Prefix]string
	rules    []string // names of the policies whose rules it has
	updates  int
	replaces int
	slow     time.Duration
	err      error // of the next calls
}

func (f *fakeFilter) Update(changes []FilterChange) error {
	time.Sleep(f.slow)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.updates++
	if f.err != nil {
		return f.err
	}
	for _, c := range changes {
		if f.holders[c.Net] != c.From {
			return fmt.Errorf("%v is under %q, not under %q", c.Net, f.holders[c.Net], c.From)
		}
		if f.holders[c.Net] = c.To; c.To == "" {
			delete(f.holders, c.Net)
		}
	}
	return nil
}

func (f *fakeFilter) Replace(cfg *config.Config, holders []FilterChange) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replaces++
	if f.err != nil {
		return f.err
	}
	f.holders, f.rules = make(map[netip.Prefix]string), nil
	for _, p := range cfg.Policies {
		f.rules = append(f.rules, p.Name)
	}
	for _, h := range holders {
		f.holders[h.Net] = h.To
	}
	return nil
}

func (f *fakeFilter) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// of is the policy that an address is under.
func (f *fakeFilter) of(a netip.Addr) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.holders[netip.PrefixFrom(a, a.BitLen())]
}

func (f *fakeFilter) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.holders)
}

// policies gives the world three pools, and policies by group: staff and lab, both in the second pool, guests in the
// third. Nobody gets into the first.
func (w *world) policies(change ...func(*config.Config)) (*fakeFilter, *roll) {
	f := &fakeFilter{holders: make(map[netip.Prefix]string)}
	w.filter = f
	pool := func(name, net4, net6 string) config.Pool {
		n4, n6 := netip.MustParsePrefix(net4), netip.MustParsePrefix(net6)
		return config.BlockPool(name, n4, n6, "topology subnet", "route-gateway "+n4.Addr().Next().String())
	}
	w.cfg.Pools = []config.Pool{pool("inner", "10.20.0.0/24", "fd00:20::/64"), pool("outer", "10.30.0.0/24", "fd00:30::/64")}
	group := func(name string) []config.Match { return []config.Match{{Groups: []string{"CN=" + name + ", DC=x"}}} }
	w.cfg.Policies = []config.Policy{
		{Name: "staff", Match: group("staff"), Pool: "inner", Push: []string{"route 172.16.0.0 255.255.0.0"}},
		{Name: "lab", Match: group("lab"), Pool: "inner", Push: []string{"route 172.17.0.0 255.255.0.0"}},
		{Name: "guests", Match: group("guests"), Pool: "outer"},
	}
	for _, c := range change {
		c(w.cfg)
	}
	r := &roll{groups: make(map[string][]string)}
	w.cfg.LDAPRefresh, w.login, w.watcher = time.Minute, r, r
	w.start()
	return f, r
}

// look lets the directory be asked.
func (w *world) look() { time.Sleep(62 * time.Second) }

// user connects somebody by name.
func (w *world) user(name string, n int, change ...func(*ctltest.Config)) *peer {
	return w.peer(name, at(n), append(change, withLogin(name, "secret"))...)
}

// The first policy that matches gives pool, device and pushes; whom none matches is refused.
func TestPolicyGivesPoolAndDevice(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		f, r := w.policies()
		r.set("alice", "cn=lab,dc=x", "cn=staff,dc=x")
		r.set("bob", "cn=guests,dc=x")
		r.set("carol", "cn=else,dc=x")
		alice, bob := w.user("alice", 1).connect(), w.user("bob", 2).connect()
		if got, want := alice.addr4().String()+" "+bob.addr4().String(), "10.20.0.2 10.30.0.2"; got != want {
			t.Errorf("addresses %s, want %s", got, want)
		}
		if !slices.Contains(alice.ctl.Options(), "route 172.16.0.0 255.255.0.0") || slices.Contains(bob.ctl.Options(), "route 172.16.0.0 255.255.0.0") {
			t.Errorf("alice is pushed %q, bob %q", alice.ctl.Options(), bob.ctl.Options())
		}
		for _, p := range []*peer{alice, bob} {
			for _, a := range []netip.Addr{p.addr4(), p.addr6()} {
				if got, want := f.of(a), map[string]string{"alice": "staff", "bob": "guests"}[p.name]; got != want {
					t.Errorf("%v of %s is under %q, want %q", a, p.name, got, want)
				}
			}
		}
		if a, b := w.find("alice"), w.find("bob"); a.Policy != "staff" || a.Pool != "inner" || b.Policy != "guests" || b.Pool != "outer" {
			t.Errorf("the status has alice under %q in %q, bob under %q in %q", a.Policy, a.Pool, b.Policy, b.Pool)
		}
		if pools := w.srv.Snapshot().Pools; len(pools) != 3 || pools[1].Name != "inner" || pools[1].Leased != 1 || pools[2].Size == 0 {
			t.Errorf("the status has the pools %+v", pools)
		}
		w.dev = w.devs[1]
		alice.mustReach()
		w.inject(udp(lanHost, bob.addr4(), []byte("through the wrong device")))
		w.dev = w.devs[2]
		bob.mustReach()
		if got := bob.got(); len(got) != 0 {
			t.Error("a packet of another pool's device reached bob")
		}
		w.inject(udp(lanHost, group4, nil))
		if a, b := alice.got(), bob.got(); len(a) != 0 || len(b) != 1 {
			t.Errorf("multicast of bob's pool: %d packets for alice, %d for bob", len(a), len(b))
		}
		bob.send(udp(alice.addr4(), lanHost, nil))
		alice.send(udp(bob.addr4(), lanHost, nil))
		for i, dev := range w.devs {
			if w.dev = dev; len(w.written()) != 0 {
				t.Errorf("a forged packet went on through device %d", i)
			}
		}
		if text, _ := w.user("carol", 3).refusal(); text != "AUTH_FAILED,wrong user name or password, or not allowed to connect" {
			t.Errorf("carol was told %q", text)
		}
		time.Sleep(10 * time.Second) // for its last words
		if w.log.count("login ended", "carol", "no policy matches") != 1 {
			t.Errorf("no reason in the log:\n%s", w.log)
		}
		for who, want := range map[string]string{
			"alice": "first packet cookie TLS certificate login policy address connected first data",
			"carol": "first packet cookie TLS certificate login !policy ended",
		} {
			if got := w.why(who).Attempts; len(got) != 1 || got[0].story() != want {
				t.Errorf("why %s: %+v, want %s", who, got, want)
			}
		}
		alice.ctl.Say("EXIT")
		time.Sleep(10 * time.Second)
		if f.of(alice.addr4()) != "" || f.size() != 2 {
			t.Error("the filter knows who has left")
		}
	})
}

// Conditions on one line must all hold; users and units are matched too.
func TestPolicyMatches(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		_, r := w.policies(func(c *config.Config) {
			c.Policies[0].Match = []config.Match{{Groups: []string{"cn=staff,dc=x"}, Units: []string{"Laptops"}}, {Users: []string{"Root"}}}
			c.Policies[2].Match = []config.Match{{Any: true}}
		})
		for _, name := range []string{"alice", "root"} {
			r.set(name, "cn=staff,dc=x")
		}
		for name, want := range map[string]string{"alice": "10.30.0.2", "root": "10.20.0.2"} {
			if got := w.user(name, len(name)).connect().addr4().String(); got != want {
				t.Errorf("%s has %s, want %s", name, got, want)
			}
		}
	})
}

// No packet of a client goes on before the filter knows it; if it cannot, the client is told to come again.
func TestFilterComesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		f, r := w.policies()
		r.set("alice", "cn=staff,dc=x")
		f.slow = 3 * time.Second
		began := time.Now()
		alice := w.user("alice", 1).connect()
		if took := time.Since(began); took < f.slow {
			t.Errorf("connected after %v, before the filter knew", took)
		}
		if f.of(alice.addr4()) != "staff" {
			t.Error("connected, and the filter does not know")
		}
		f.slow = 0
		r.set("bob", "cn=guests,dc=x")
		f.fail(errors.New("no buffer space"))
		if text, _ := w.user("bob", 3, ctltest.V26.Apply).refusal(); !strings.HasPrefix(text, "AUTH_FAILED,TEMP") {
			t.Errorf("with a broken filter bob was told %q", text)
		}
		f.fail(nil)
		time.Sleep(5 * time.Second)
		if f.of(alice.addr4()) != "staff" || f.size() != 2 {
			t.Errorf("the filter holds %v", f.holders)
		}
		w.dev = w.devs[1]
		alice.mustReach()
		again := w.user("alice", 2).connect()
		if again.addr4() != alice.addr4() || f.of(again.addr4()) != "staff" || f.size() != 2 {
			t.Errorf("after a reconnect the filter holds %v", f.holders)
		}
	})
}

// Many who come at once are one change for the filter, and who leaves takes out nobody else's address.
func TestFilterBatches(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		f, r := w.policies()
		f.slow = 100 * time.Millisecond
		var peers []*peer
		for i := range 20 {
			name := fmt.Sprint("user", i)
			r.set(name, "cn=staff,dc=x")
			peers = append(peers, w.user(name, 10+i))
		}
		var wg sync.WaitGroup
		for _, p := range peers {
			wg.Go(func() {
				if err := p.ctl.Connect(w.ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if f.size() != 40 || f.updates > 5 {
			t.Errorf("%d addresses after %d changes", f.size(), f.updates)
		}
		for _, p := range peers[:10] {
			p.ctl.Say("EXIT")
		}
		time.Sleep(20 * time.Second)
		for i, p := range peers {
			if got := f.of(p.addr4()) == "staff"; got != (i >= 10) {
				t.Errorf("user%d: in the filter %v", i, got)
			}
		}
	})
}

// A user who is moved between groups: in the same pool rules change under the connection, and routes by an update where
// the client takes one; another pool takes a new connection, no policy is the end.
func TestMovedUser(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		f, r := w.policies()
		for _, name := range []string{"new", "old", "far", "gone"} {
			r.set(name, "cn=staff,dc=x")
		}
		newer := w.user("new", 1, ctltest.V27.Apply).connect()
		older := w.user("old", 2, ctltest.V26.Apply).connect()
		far := w.user("far", 3, ctltest.V26.Apply).connect()
		gone := w.user("gone", 4, ctltest.V26.Apply).connect()
		r.set("new", "cn=lab,dc=x")
		w.look()
		if f.of(newer.addr4()) != "lab" || f.of(older.addr4()) != "staff" {
			t.Errorf("the filter holds %v", f.holders)
		}
		if got, _ := newer.updated(); !slices.Equal(got, []string{"route 172.17.0.0 255.255.0.0"}) {
			t.Errorf("new was told %q", got)
		}
		w.dev = w.devs[1]
		newer.mustReach()
		r.set("old", "cn=lab,dc=x")
		w.look()
		r.set("far", "cn=guests,dc=x")
		w.look()
		r.set("gone", "cn=else,dc=x")
		w.look()
		for p, want := range map[*peer]string{older: "RESTART,[P]", far: "RESTART,[P]", gone: "AUTH_FAILED,wrong user name or password, or not allowed to connect"} {
			if got := p.ctl.Messages(); len(got) == 0 || got[len(got)-1] != want {
				t.Errorf("%s was told %q, want %q", p.name, got, want)
			}
		}
		time.Sleep(10 * time.Second)
		if got := w.clients(); !slices.Equal(got, []string{"new"}) || f.size() != 2 {
			t.Errorf("connected: %v; the filter holds %v", got, f.holders)
		}
		if w.log.count("client disconnected", "no policy matches") != 1 {
			t.Errorf("no reason in the log:\n%s", w.log)
		}
		if got := w.user("far", 5).connect().addr4().String(); got != "10.30.0.2" {
			t.Errorf("far came again to %s", got)
		}
	})
}

// A reload reaches who is connected, all at once in the filter; one that would end very many is refused at first.
func TestReloadedPolicies(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		f, r := w.policies()
		var peers []*peer
		for i := range 10 {
			name := fmt.Sprint("user", i)
			r.set(name, "cn=staff,dc=x")
			peers = append(peers, w.user(name, 10+i).connect())
		}
		reload := func(change func(c *config.Config)) ([]string, error) {
			next := *w.srv.live.Load().cfg
			next.Policies, next.Pools = slices.Clone(next.Policies), slices.Clone(next.Pools)
			change(&next)
			kept, err := w.srv.Reload(&next, w.srv.live.Load().login)
			time.Sleep(time.Second)
			return kept, err
		}
		rename := func(c *config.Config) { c.Policies[0].Name = "everybody" }
		if _, err := reload(rename); err != nil {
			t.Fatal(err)
		}
		if f.of(peers[3].addr4()) != "everybody" || !slices.Equal(f.rules, []string{"everybody", "lab", "guests"}) || f.replaces != 1 {
			t.Errorf("rules %v, holders %v", f.rules, f.holders)
		}
		f.fail(errors.New("no buffer space"))
		if _, err := reload(func(c *config.Config) { c.Policies[0].Name = "nobody" }); err == nil {
			t.Error("a reload that the filter refuses goes through")
		}
		f.fail(nil)
		if f.of(peers[3].addr4()) != "everybody" || w.srv.live.Load().cfg.Policies[0].Name != "everybody" {
			t.Error("a refused reload has changed something")
		}
		remove := func(c *config.Config) { c.Policies = c.Policies[1:] }
		if _, err := reload(remove); err == nil || !strings.Contains(err.Error(), "10 of 10 sessions would end") {
			t.Errorf("a reload that ends everybody: %v", err)
		}
		if got := w.clients(); len(got) != 10 {
			t.Errorf("%d are left of ten", len(got))
		}
		if _, err := reload(remove); err != nil {
			t.Errorf("asked again: %v", err)
		}
		time.Sleep(10 * time.Second)
		if got := w.clients(); len(got) != 0 || f.size() != 0 {
			t.Errorf("connected: %v, the filter holds %v", got, f.holders)
		}
		kept, err := reload(func(c *config.Config) { c.Pools[0].Dev = "other" })
		if err != nil || !slices.Equal(kept, []string{"pool inner"}) {
			t.Errorf("another device: kept %q, %v", kept, err)
		}
		if _, err := reload(func(c *config.Config) { c.Policies = nil }); err == nil {
			t.Error("policies are gone without a restart")
		}
		if _, err := reload(func(c *config.Config) { c.Policies[0].Pool = "new" }); err == nil {
			t.Error("a policy leads into a pool that is not there")
		}
	})
}

// Who was admitted under a policy that a reload takes away meanwhile is under none, and under another once judged anew.
func TestPolicyGoneDuringLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		f, _ := w.policies()
		e, c, later := w.srv.enforcer, &client{srv: w.srv}, &client{srv: w.srv}
		a := netip.MustParsePrefix("10.20.0.2/32")
		if err := e.enter(w.ctx, c, "alice", "staff", []netip.Prefix{a}); err != nil {
			t.Fatal(err)
		}
		next := *w.srv.live.Load().cfg
		next.Policies = next.Policies[1:]
		if err := e.replace(w.ctx, &next, nil); err != nil {
			t.Fatal(err)
		}
		if f.size() != 0 {
			t.Errorf("after the reload the filter holds %v", f.holders)
		}
		e.move(c, "lab")
		time.Sleep(time.Second)
		if got := f.of(a.Addr()); got != "lab" {
			t.Errorf("judged anew: under %q", got)
		}
		if err := e.enter(w.ctx, later, "alice", "guests", []netip.Prefix{a}); err != nil {
			t.Fatal(err)
		}
		e.leave(c)
		e.leave(later)
		time.Sleep(time.Second)
		if f.size() != 0 || len(e.holders) != 0 {
			t.Errorf("after the end the filter holds %v, the enforcer %v", f.holders, e.holders)
		}
	})
}

// An address that the files of two users name is under the policy of whoever has it, and under none while that is not
// decided: nobody is judged by another's rights (S113).
func TestOneAddressTwoUsers(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		f, _ := w.policies()
		e := w.srv.enforcer
		alice, bob, again := &client{srv: w.srv}, &client{srv: w.srv}, &client{srv: w.srv}
		a := netip.MustParsePrefix("192.168.9.9/32")
		enter := func(c *client, name, policy string) {
			t.Helper()
			if err := e.enter(w.ctx, c, name, policy, []netip.Prefix{a}); err != nil {
				t.Fatal(err)
			}
		}
		under := func(step, want string) {
			t.Helper()
			time.Sleep(time.Second)
			if got := f.of(a.Addr()); got != want {
				t.Errorf("%s: under %q, want %q", step, got, want)
			}
		}
		enter(alice, "alice", "staff")
		e.join(alice)
		under("alice alone", "staff")
		enter(bob, "bob", "lab")
		under("bob logs in", "")
		e.leave(bob)
		under("bob did not get in", "staff")
		enter(bob, "bob", "lab")
		enter(again, "alice", "guests")
		e.join(bob)
		under("bob is in, alice logs in again", "")
		e.leave(alice)
		e.join(again)
		under("alice is in again", "guests")
		e.leave(bob)
		under("bob has left", "guests")
		e.leave(again)
		under("all have left", "")
		if len(e.holders) != 0 {
			t.Errorf("the enforcer holds %v", e.holders)
		}
	})
}

// A renegotiation in the middle of a reload does not keep a client from what the reload brings.
func TestRenegotiationDuringReload(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		f, r := w.policies()
		r.set("alice", "cn=staff,dc=x")
		alice := w.user("alice", 1, ctltest.V27.Apply).connect()
		next := *w.srv.live.Load().cfg
		next.Policies = slices.Clone(next.Policies)
		next.Policies[0].Name, next.Policies[0].Factor = "other", "totp"
		c := w.srv.table.all(nil)[0]
		login := w.srv.live.Load().login
		n := 0
		login.HasFactor = func(string, string) bool { // asked while she is judged: twice before the filter has the new rules
			if n++; n == 3 {
				again := *c.decided().who
				c.reidentify(&again)
			}
			return true
		}
		if _, err := w.srv.Reload(&next, login); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := c.decided().ruling.policy.Name; got != "other" || f.of(alice.addr4()) != "other" || n < 3 {
			t.Errorf("alice is under %q, in the filter under %q", got, f.of(alice.addr4()))
		}
	})
}

// A change of the directory that would move very many to another pool waits for an administrator.
func TestManyMovedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		_, r := w.policies(func(c *config.Config) { c.Policies[0], c.Policies[2] = c.Policies[2], c.Policies[0] })
		for i := range 10 {
			name := fmt.Sprint("user", i)
			r.set(name, "cn=staff,dc=x")
			w.user(name, 10+i).connect()
		}
		for i := range 10 { // they lose nothing, but guests come first
			r.set(fmt.Sprint("user", i), "cn=guests,dc=x", "cn=staff,dc=x")
		}
		w.look()
		if got := w.log.count("groups changed") + w.log.count("another pool"); got != 0 || w.log.count("10 of 10 sessions") == 0 {
			t.Errorf("done in spite of that:\n%s", w.log)
		}
	})
}

// Hours and the policy's session timeout end sessions; outside the hours nobody gets in.
func TestPolicyTimes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		_, r := w.policies(func(c *config.Config) { // the bubble's time begins at midnight, UTC
			c.Policies[0].Hours = []config.Hours{{Days: [7]bool{true, true, true, true, true, true, true}, From: 60, To: 120, Zone: time.UTC}}
			c.Policies[2].Timeout = 30 * time.Minute
		})
		r.set("alice", "cn=staff,dc=x")
		r.set("bob", "cn=guests,dc=x")
		if text, _ := w.user("alice", 1).refusal(); text != "AUTH_FAILED,connections are not allowed at this hour" {
			t.Errorf("at midnight alice was told %q", text)
		}
		time.Sleep(time.Hour)
		alice := w.user("alice", 2).connect()
		w.user("bob", 3).connect()
		time.Sleep(29 * time.Minute)
		if got := w.clients(); len(got) != 2 {
			t.Errorf("connected: %v", got)
		}
		time.Sleep(2 * time.Minute)
		if got := w.clients(); !slices.Equal(got, []string{"alice"}) {
			t.Errorf("after bob's half hour: %v", got)
		}
		time.Sleep(31 * time.Minute)
		if got := w.clients(); len(got) != 0 {
			t.Errorf("after the hours: %v", got)
		}
		if got := alice.ctl.Messages(); len(got) == 0 || got[len(got)-1] != "AUTH_FAILED,connections are not allowed at this hour" {
			t.Errorf("alice was told %q", got)
		}
	})
}

// A policy may allow several sessions, each with an address of its own; one too many replaces the longest silent, or is
// refused while none is silent.
func TestPolicySessions(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		f, r := w.policies(func(c *config.Config) {
			c.Policies[0].Sessions = 2
			c.Policies[2].Sessions, c.Policies[2].Refuse = 1, true
			c.PingRestart = 10 * time.Minute
		})
		r.set("alice", "cn=staff,dc=x")
		r.set("bob", "cn=guests,dc=x")
		w.dev = w.devs[1]
		first, second := w.user("alice", 1).connect(), w.user("alice", 2).connect()
		if first.addr4() == second.addr4() || f.size() != 4 {
			t.Errorf("two sessions at %v and %v", first.addr4(), second.addr4())
		}
		first.mustReach()
		second.mustReach()
		time.Sleep(10 * time.Second)
		first.mustReach()
		third := w.user("alice", 3).connect()
		if got := w.clients(); len(got) != 2 {
			t.Errorf("connected: %v", got)
		}
		first.mustReach()
		third.mustReach()

		bob := w.user("bob", 4).connect()
		if text, _ := w.user("bob", 5).refusal(); text != "AUTH_FAILED,too many sessions: end another one first" {
			t.Errorf("bob's second was told %q", text)
		}
		time.Sleep(time.Minute) // and nothing is heard of the first
		again := w.user("bob", 6).connect()
		w.dev = w.devs[2]
		again.mustReach()
		if again.addr4() != bob.addr4() {
			t.Errorf("bob has %v, had %v", again.addr4(), bob.addr4())
		}
	})
}

// A policy that wants a factor lets nobody in who could come without.
func TestPolicyFactor(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		_, r := w.policies(func(c *config.Config) { c.Policies[0].Factor = "totp" })
		w.srv.live.Load().login.HasFactor = func(user, factor string) bool { return user == "alice" && factor == "totp" }
		r.set("alice", "cn=staff,dc=x")
		r.set("bob", "cn=staff,dc=x")
		r.set("carol", "cn=guests,dc=x")
		w.user("alice", 1).connect()
		w.user("carol", 2).connect()
		if text, _ := w.user("bob", 3).refusal(); !strings.HasPrefix(text, "AUTH_FAILED,a one-time code is needed") {
			t.Errorf("bob was told %q", text)
		}
	})
}
