package server

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"postern/auth"
	"postern/tun"
)

// survived checks that one panic was counted, logged with its stack, and is none at the end.
func (w *world) survived(t *testing.T, want uint64) {
	t.Helper()
	if got := w.srv.panics.Swap(0); got != want {
		t.Errorf("%d panics counted, want %d", got, want)
	}
	if got := w.log.count("survived a panic", "stack"); got == 0 && want > 0 {
		t.Errorf("no stack in the log:\n%s", w.log)
	}
}

// A packet that makes the server panic costs its sender the session, and nobody else anything (S019, F04): on the way in, on
// the way out, between clients, over a stream.
func TestPanicEndsOneClient(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.wrapDevice = func(d tun.Device) tun.Device { return panickyDevice{d} }
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		carol := w.streamPeer("carol", thirdAddr).connect()

		alice.sendRaw(alice.seal(udp(alice.addr4(), lanHost, panicText)))
		time.Sleep(time.Second)
		w.survived(t, 1)
		if got := w.clients(); !slices.Equal(got, []string{"bob", "carol"}) {
			t.Errorf("connected: %v, want bob and carol", got)
		}
		bob.mustReach()
		carol.mustReach()

		// On the way out, with the lane's sender locked.
		home := w.srv.lanes[0].sender
		func() {
			home.mu.Lock()
			defer home.unlock()
			home.busy = w.srv.table.peer(bob.peerID())
			panic("on purpose")
		}()
		time.Sleep(time.Second)
		w.survived(t, 1)
		if got := w.clients(); !slices.Equal(got, []string{"carol"}) {
			t.Errorf("connected: %v, want carol", got)
		}
		carol.mustReach()

		carol.sendRaw(carol.seal(udp(carol.addr4(), lanHost, panicText)))
		time.Sleep(2 * time.Second)
		w.survived(t, 1)
		if got := w.clients(); len(got) != 0 {
			t.Errorf("connected: %v, want nobody", got)
		}
		w.peer("dave", at(1)).connect().mustReach()
	})
}

// panicText in a packet makes a panickyDevice panic.
var panicText = []byte("panic on purpose")

type panickyDevice struct{ tun.Device }

func (d panickyDevice) Queues(n int) ([]tun.Queue, error) {
	queues, err := d.Device.Queues(n)
	for i, q := range queues {
		queues[i] = panickyQueue{q}
	}
	return queues, err
}

type panickyQueue struct{ tun.Queue }

func (q panickyQueue) Write(frags [][]byte, g tun.GSO) error {
	if bytes.HasSuffix(frags[0], panicText) {
		panic("on purpose")
	}
	return q.Queue.Write(frags, g)
}

// A superpacket of nonsense is counted, whatever it says of itself.
func TestNonsenseSuperpackets(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		good, segments := superpacket(lanHost, alice.addr4(), 3, 1000)
		for _, g := range []tun.GSO{{Type: 99, Size: 100}, {Type: tun.GSOTCPv4, Size: 0}, {Type: tun.GSOTCPv6, Size: 100, CsumStart: 20}, {Type: tun.GSOTCPv4, Size: 100, CsumStart: 60000}} {
			w.injectGSO(tun.Packet{Bytes: good.Bytes, GSO: g})
		}
		if got := w.drops(dropInner); got == 0 {
			t.Error("nothing was counted")
		}
		alice.got()
		w.injectGSO(good)
		expect(t, "a good one", alice.got(), segments...)
	})
}

// A login that panics ends its session alone.
func TestLoginPanics(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			if r.Username == "bob" {
				panic("on purpose")
			}
			return passwords(ctx, r)
		})
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		bob := w.peer("bob", otherAddr, withLogin("bob", "secret"))
		go bob.ctl.Connect(w.ctx)
		time.Sleep(10 * time.Second)
		if n := w.srv.table.count(); n != 1 {
			t.Errorf("%d sessions, want alice's", n)
		}
		alice.mustReach()
		if n := w.srv.Snapshot().Panics - w.panics; n != 1 {
			t.Errorf("%d panics counted, want 1", n)
		}
		w.panics++
	})
}
