package tlsctl_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// However many clients come at once, no more handshakes compute at one time than there are places, and one that waits
// for its client has none (S011).
func TestWorkersBoundHandshakes(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSharedSetup(t)
		workers := tlsctl.NewWorkers(2, 3)
		s.cfg.Workers = workers
		var at, most atomic.Int64
		var full atomic.Bool
		s.cfg.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			n := at.Add(1)
			defer at.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if workers.Full() {
				full.Store(true)
			}
			time.Sleep(50 * time.Millisecond) // at work
			return nil, nil
		}
		server, err := ctltest.NewServer(&s.cfg, s.newOwner)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close(errTestOver)
		var wg sync.WaitGroup
		defer wg.Wait()
		connect := func(i int, silent bool) {
			up, down := &ctltest.Wire{Delay: 20 * time.Millisecond}, &ctltest.Wire{Delay: 20 * time.Millisecond}
			from := netip.AddrPortFrom(address.Addr(), uint16(1000+i))
			var c *ctltest.Client
			c = ctltest.NewClient(func(pkt []byte) {
				if p, err := tlsctl.ParsePacket(pkt); silent && err == nil && p.ID >= 2 {
					return // what would end the handshake
				}
				up.Send(pkt, func(b []byte) {
					server.Deliver(from, b, func(b []byte) { down.Send(b, c.Deliver) })
				})
			}, s.client)
			wg.Go(func() {
				defer c.Close()
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				if err := c.Connect(ctx); (err != nil) != silent {
					t.Errorf("client %d: %v", i, err)
				}
			})
		}
		for i := range 4 {
			connect(i, true)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if workers.Full() {
			t.Error("handshakes that wait for silent clients count as work to come")
		}
		for i := range 20 {
			connect(10+i, false)
		}
		wg.Wait()
		if most.Load() != 2 {
			t.Errorf("%d at work at once, want 2", most.Load())
		}
		if !full.Load() {
			t.Error("never said to be full")
		}
	})
}

// What others compute has the same places: as long as they are taken no handshake goes on, and who waits in vain for one
// leaves the queue.
func TestWorkersShared(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSharedSetup(t)
		workers := tlsctl.NewWorkers(1, 2)
		s.cfg.Workers = workers
		server, err := ctltest.NewServer(&s.cfg, s.newOwner)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close(errTestOver)
		if err := workers.Begin(ctx); err != nil {
			t.Fatal(err)
		}
		up, down := new(ctltest.Wire), new(ctltest.Wire)
		var c *ctltest.Client
		c = ctltest.NewClient(func(pkt []byte) {
			up.Send(pkt, func(b []byte) { server.Deliver(address, b, func(b []byte) { down.Send(b, c.Deliver) }) })
		}, s.client)
		defer c.Close()
		in := make(chan error, 1)
		go func() { in <- c.Connect(ctx) }()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		select {
		case err := <-in:
			t.Fatalf("a handshake without a place: %v", err)
		default:
		}
		late, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		go func() {
			time.Sleep(500 * time.Millisecond)
			if !workers.Full() {
				t.Error("two wait, and there is said to be room")
			}
		}()
		if err := workers.Begin(late); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting in vain: %v", err)
		}
		if workers.Full() {
			t.Error("who has left still counts")
		}
		workers.End()
		if err := <-in; err != nil {
			t.Errorf("with a place: %v", err)
		}
	})
}
