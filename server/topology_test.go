package server

import (
	"net/netip"
	"testing"

	"postern/server/config"
	"postern/tlsctl/ctltest"
)

// Packets go through in every topology, also where the server has no network of its own but routes.
func TestTopologies(t *testing.T) {
	pool := config.Range{First: netip.MustParseAddr("10.8.0.4"), Last: netip.MustParseAddr("10.8.0.251")}
	for _, c := range []struct {
		name     string
		topology config.Topology
		own      string
		alice    string
		bob      string
	}{
		{"net30", config.Net30, "10.8.0.1/24", "10.8.0.6", "10.8.0.10"},
		{"p2p", config.P2P, "10.8.0.1/24", "10.8.0.4", "10.8.0.5"},
		{"net30 by routes", config.Net30, "192.0.2.1/32", "10.8.0.6", "10.8.0.10"},
		{"p2p by routes", config.P2P, "192.0.2.1/32", "10.8.0.4", "10.8.0.5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.cfg.Topology, w.cfg.Addr4, w.cfg.Pool4 = c.topology, netip.MustParsePrefix(c.own), pool
				w.cfg.Push = []string{"topology " + c.topology.String()}
				w.start()
				alice := w.peer("alice", homeAddr).connect()
				bob := w.peer("bob", otherAddr, ctltest.V311.Apply).connect()
				if got := alice.addr4().String() + " " + bob.addr4().String(); got != c.alice+" "+c.bob {
					t.Errorf("addresses %s, want %s %s", got, c.alice, c.bob)
				}
				alice.mustReach()
				bob.mustReach()
				if far := w.srv.table.zones[0].far.Load(); len(far.hosts) > 0 {
					t.Errorf("%d addresses of the pool are not found by their place", len(far.hosts))
				}
				w.written()
				alice.send(udp(bob.addr4(), lanHost, nil))
				if got := w.written(); len(got) > 0 {
					t.Error("alice spoke with bob's address (S082)")
				}
			})
		})
	}
}
