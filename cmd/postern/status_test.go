package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/server"
)

// The table names policy and pool where there is a choice of them, and how full each pool is; elsewhere it has neither.
func TestStatusTable(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	snap := &server.Snapshot{Time: at, Started: at, Device: "tun0", Pool: server.PoolStatus{Leased: 1, Size: 253}, Clients: []server.ClientStatus{
		{Name: "alice", Real: netip.MustParseAddrPort("203.0.113.2:51271"), Addr4: netip.MustParseAddr("10.8.0.2"), Since: at.Add(-time.Minute)}}}
	table := func() string {
		var b strings.Builder
		if err := printStatus(&b, snap); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(b.String()), " ")
	}
	if got, want := table(), "NAME USER FROM ADDRESS RECEIVED SENT CONNECTED CIPHER CLIENT alice 203.0.113.2:51271 10.8.0.2 0 B 0 B 1m0s "+
		"1 connected, 0 logging in; device tun0; pool 1 of 253; up 0s"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	snap.Clients[0].Policy, snap.Clients[0].Pool = "admins", "staff"
	snap.Pools = []server.PoolStatus{{Name: "staff", Device: "tun-staff", Leased: 1, Size: 100}, {Name: "lab", Device: "tun-lab", Size: 153}}
	for _, want := range []string{"ADDRESS POLICY POOL RECEIVED", "10.8.0.2 admins staff 0 B", "pool staff: device tun-staff, 1 of 100", "pool lab: device tun-lab, 0 of 153"} {
		if got := table(); !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}
