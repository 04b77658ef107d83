package server

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"postern/server/management"
)

// Before there is a server, a management client gets answers, too.
func TestManagementOwnerWithoutServer(t *testing.T) {
	o := new(ManagementOwner)
	if o.Status(2) != nil || o.Load() != (management.Load{}) || o.ByteCounts() != nil || o.Kill("alice") != 0 ||
		o.KillAddress("", netip.MustParseAddrPort("192.0.2.1:1")) != 0 || o.ClientKill(0, "RESTART") == nil || o.PushUpdate(0, "route x") == nil {
		t.Error("a server that is not there did something")
	}
	if n, err := o.PushUpdateAll("route x"); n != 0 || err != nil {
		t.Errorf("%d clients updated, error %v", n, err)
	}
}

func TestSplitOptions(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil, " , ": nil, "route 10.0.0.0": {"route 10.0.0.0"}, "-route, dns search-domains a": {"-route", "dns search-domains a"},
	} {
		if got := splitOptions(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// A management client sees who is connected, and ends them by name, address or number. The sums stay when they go.
func TestManagementOwner(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		o := new(ManagementOwner)
		o.Attach(w.srv)
		status := func(name string) ClientStatus { return *w.find(name) }
		w.peer("alice", homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		for i, name := range []string{"alice", "bob"} {
			if id := status(name).ID; id != uint64(i) {
				t.Errorf("%s has the number %d, want %d", name, id, i)
			}
		}
		counts := o.ByteCounts()
		if len(counts) != 2 || counts[0].Client != 0 || counts[1].Client != 1 || counts[1].Sent != status("bob").Sent {
			t.Errorf("byte counts %v", counts)
		}
		before := o.Load()
		if before.Clients != 2 || before.Sent != counts[0].Sent+counts[1].Sent || before.Received != counts[0].Received+counts[1].Received {
			t.Errorf("load %+v, byte counts %v", before, counts)
		}
		if !strings.Contains(string(o.Status(2)), "\nCLIENT_LIST,bob,"+otherAddr.String()+",") {
			t.Errorf("status:\n%s", o.Status(2))
		}

		// At once, and silently, as if it had vanished.
		if n := o.Kill("ali"); n != 0 {
			t.Errorf("%d clients killed by half a name", n)
		}
		if n := o.Kill("alice"); n != 1 || slices.Contains(w.clients(), "alice") || o.Kill("alice") != 0 {
			t.Errorf("%d clients killed, connected: %v", n, w.clients())
		}
		synctest.Wait()
		if after := o.Load(); after.Clients != 1 || after.Sent != before.Sent || after.Received != before.Received {
			t.Errorf("load %+v after alice, %+v with her", after, before)
		}
		if err := o.ClientKill(0, "RESTART"); err == nil {
			t.Error("the number of a client that is gone was found")
		}

		if o.KillAddress("tcp", otherAddr) != 0 || o.KillAddress("udp", homeAddr) != 0 {
			t.Error("killed by another's address")
		}
		if n := o.KillAddress("udp", otherAddr); n != 1 || len(w.clients()) != 0 {
			t.Errorf("%d clients killed, connected: %v", n, w.clients())
		}

		// With a message the client hears of it.
		synctest.Wait()
		bob.close()
		carol := w.peer("carol", netip.MustParseAddrPort("198.51.100.77:4000")).connect()
		id := management.ClientID(status("carol").ID)
		if id != 2 {
			t.Errorf("carol has the number %d, want 2: none is used twice", id)
		}
		if err := o.ClientKill(id, "HALT,too late"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if err := o.PushUpdate(id, "-route"); err == nil {
			t.Error("a client that was told to go was updated")
		}
		if _, err := carol.ctl.AwaitMessage(w.ctx, "HALT,too late"); err != nil {
			t.Errorf("carol heard %q: %v", carol.ctl.Messages(), err)
		}
	})
}
