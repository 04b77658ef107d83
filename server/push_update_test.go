package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/server/config"
	"postern/tlsctl/ctltest"
)

// told is the PUSH_UPDATEs that a client got, as one list of options, and how many messages that were.
func (p *peer) updated() (options []string, messages int) {
	for _, m := range p.ctl.Messages() {
		items, ok := strings.CutPrefix(m, "PUSH_UPDATE,")
		if !ok {
			continue
		}
		messages++
		for o := range strings.SplitSeq(items, ",") {
			if !strings.HasPrefix(o, "push-continuation ") {
				options = append(options, o)
			}
		}
	}
	return options, messages
}

func (w *world) reload(change func(c *config.Config)) {
	w.t.Helper()
	next := *w.srv.live.Load().cfg
	next.Push = slices.Clone(next.Push)
	change(&next)
	if _, err := w.srv.Reload(&next, w.srv.live.Load().login); err != nil {
		w.t.Fatal(err)
	}
	time.Sleep(time.Second)
}

// A reload that changes pushes reaches who takes updates, in its own words and without a reconnect. The others hear
// nothing, and the log says how many have to come again.
func TestReloadUpdatesPushes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.Push = []string{"topology subnet", "route 172.16.0.0 255.255.0.0", "dhcp-option DNS 10.8.0.1", "dhcp-option WINS 10.8.0.1", "ping 10"}
		w.start()
		new27 := w.peer("new27", at(1), ctltest.V27.Apply).connect()
		new311 := w.peer("new311", at(2), ctltest.V311.Apply).connect()
		old26 := w.peer("old26", at(3), ctltest.V26.Apply).connect()
		old24 := w.peer("old24", at(4), ctltest.V24.Apply).connect()
		check := func(step string, want27, want311 []string) {
			t.Helper()
			for p, want := range map[*peer][]string{new27: want27, new311: want311, old26: nil, old24: nil} {
				if got, _ := p.updated(); !slices.Equal(got, want) {
					t.Errorf("%s: %s was told %q, want %q", step, p.name, got, want)
				}
				p.mustReach()
			}
		}

		w.reload(func(c *config.Config) {})
		check("nothing changed", nil, nil)
		if w.log.count("pushes changed") != 0 {
			t.Error("the log speaks of a change")
		}

		w.reload(func(c *config.Config) {
			c.Push = []string{"topology subnet", "route 172.16.0.0 255.255.0.0", "route 172.17.1.0 255.255.0.0", "dhcp-option DNS 10.8.0.53", "dhcp-option WINS 10.8.0.1", "ping 10"}
		})
		want27 := []string{"route 172.16.0.0 255.255.0.0", "route 172.17.1.0 255.255.0.0", "dns server 0 address 10.8.0.53"}
		want311 := []string{"route 172.16.0.0 255.255.0.0", "route 172.17.0.0 255.255.0.0", "dns server 0 address 10.8.0.53"}
		check("a route and a name server", want27, want311)
		if w.log.count("pushes changed", `"told":2`, `"at_next_connect":2`) != 1 {
			t.Errorf("the log does not say how many were told:\n%s", w.log)
		}

		w.reload(func(c *config.Config) { c.Push = []string{"topology subnet", "ping 20", "redirect-gateway def1"} })
		gone := []string{"-route", "-dns", "-dhcp-option", "redirect-gateway def1 ipv6"}
		check("removed", append(want27, gone...), append(want311, gone...))
		if w.log.count("pushes changed", `"told":0`, `"at_next_connect":4`) != 1 { // ping cannot be updated
			t.Errorf("the log does not say how many have to come again:\n%s", w.log)
		}

		again := w.peer("again", at(5), ctltest.V26.Apply).connect()
		if got := again.ctl.Options(); !slices.Contains(got, "ping 20") || !slices.Contains(got, "redirect-gateway def1 ipv6") {
			t.Errorf("a newcomer is pushed %q", got)
		}
	})
}

// A long list is cut into messages that each client takes.
func TestReloadUpdatesLongList(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		clients := []*peer{w.peer("new27", at(1), ctltest.V27.Apply).connect(), w.peer("new311", at(2), ctltest.V311.Apply).connect()}
		var routes []string
		for i := range 100 {
			routes = append(routes, fmt.Sprintf("route 10.100.%d.0 255.255.255.0", i))
		}
		w.reload(func(c *config.Config) { c.Push = append(c.Push, routes...) })
		for _, p := range clients {
			got, messages := p.updated()
			if !slices.Equal(got, routes) || messages != 4 {
				t.Errorf("%s got %d options in %d messages", p.name, len(got), messages)
			}
			p.mustReach()
		}
	})
}

// What a client's file says is read again. Its address and networks stay.
func TestReloadUpdatesClientFile(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		dir := t.TempDir()
		file := filepath.Join(dir, "alice")
		write := func(lines ...string) { must(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600)) }
		write("iroute 172.20.0.0 255.255.0.0")
		w.cfg.ClientConfigDir = dir
		w.cfg.Push = append(w.cfg.Push, "route 172.20.0.0 255.255.0.0", "route 172.21.0.0 255.255.0.0")
		w.start()
		alice := w.peer("alice", homeAddr, ctltest.V27.Apply).connect()
		bob := w.peer("bob", otherAddr, ctltest.V27.Apply).connect()
		write("iroute 172.20.0.0 255.255.0.0", `push "route 172.22.0.0 255.255.0.0"`, "push-remove dhcp-option", "ifconfig-push 10.8.0.99 255.255.255.0")
		w.reload(func(c *config.Config) {})
		if got, want := first(alice.updated()), []string{"route 172.21.0.0 255.255.0.0", "route 172.22.0.0 255.255.0.0"}; !slices.Equal(got, want) {
			t.Errorf("alice was told %q, want %q", got, want)
		}
		if got := first(bob.updated()); got != nil {
			t.Errorf("bob was told %q", got)
		}
		if w.log.count("pushes changed", `"at_next_connect":1`) != 1 {
			t.Errorf("that alice's address takes a new connect is not said:\n%s", w.log)
		}
		alice.mustReach()

		must(t, os.WriteFile(filepath.Join(dir, "bob"), []byte("disable\n"), 0o600))
		w.reload(func(c *config.Config) {})
		if got := w.clients(); !slices.Equal(got, []string{"alice"}) || bob.lastWord() != "AUTH_FAILED" {
			t.Errorf("connected: %v; bob, who is disabled, heard %q", got, bob.lastWord())
		}

		must(t, os.Remove(file))
		must(t, os.Symlink("elsewhere", file))
		w.reload(func(c *config.Config) { c.Push = append(c.Push, "route 172.23.0.0 255.255.0.0") })
		if w.log.count("client file cannot be used") != 1 {
			t.Errorf("of a file that cannot be used the log says nothing:\n%s", w.log)
		}
		if got := first(alice.updated()); !slices.Contains(got, "route 172.23.0.0 255.255.0.0") {
			t.Errorf("alice was told %q", got)
		}
		alice.mustReach()
	})
}

func first(list []string, _ int) []string { return list }

// A client whose login takes longer than a reload gets what changed meanwhile.
func TestReloadDuringLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			time.Sleep(2 * time.Second)
			return passwords(ctx, r)
		})
		w.start()
		var clients []*peer
		done := make(chan error, 2)
		for i, profile := range []*ctltest.Profile{ctltest.V27, ctltest.V26} {
			p := w.peer(fmt.Sprint("client", i), at(i), withLogin(fmt.Sprint("client", i), "secret"), profile.Apply)
			clients = append(clients, p)
			go func() { done <- p.ctl.Connect(w.ctx) }()
		}
		time.Sleep(3 * time.Second) // the login is decided under the old configuration
		for range clients {
			must(t, <-done)
		}
		w.reload(func(c *config.Config) { c.Push = append(c.Push, "route 172.16.0.0 255.255.0.0") })
		late := w.peer("late", at(7), withLogin("late", "secret"), ctltest.V27.Apply, func(c *ctltest.Config) {
			c.Cadence = []time.Duration{10 * time.Second}
			c.PeerInfo = strings.Replace(c.PeerInfo, "IV_PROTO=8094", "IV_PROTO=8090", 1) // asks for its options
		})
		go func() { done <- late.ctl.Connect(w.ctx) }()
		time.Sleep(4 * time.Second)
		w.reload(func(c *config.Config) { c.Push = append(c.Push, "route 172.17.0.0 255.255.0.0") })
		must(t, <-done)
		time.Sleep(time.Second)
		want := []string{"route 172.16.0.0 255.255.0.0", "route 172.17.0.0 255.255.0.0"}
		if got := first(late.updated()); !slices.Equal(got, want) {
			t.Errorf("late was told %q, want %q; log:\n%s", got, want, w.log)
		}
	})
}
