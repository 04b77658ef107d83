package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"postern/tun"
)

// Clients come and go, roam and change keys, all at once, with traffic on two lanes, while the status is read and the
// configuration is reloaded. In the end nothing is left of them. It is for the race detector more than for itself.
func TestStorm(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lanes = 2
		w.cfg.ClientToClient = true
		w.cfg.Ping, w.cfg.PingRestart = time.Second, 10*time.Second
		w.cfg.Renegotiate = 3 * time.Second
		w.start()
		ctx, stop := context.WithTimeout(w.ctx, 40*time.Second)
		defer stop()
		rounds := 6
		if testing.Short() {
			rounds = 2
		}
		var clients, others sync.WaitGroup
		for n := range 8 {
			cert := w.peer(fmt.Sprintf("user%d", n%6), netip.AddrPortFrom(thirdAddr.Addr(), uint16(1000+n))).cert // two have twins
			rng := rand.New(rand.NewPCG(1, uint64(n)))
			port := uint16(2000 + 1000*n)
			place := func() netip.AddrPort {
				port++
				return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(n), 1}), port)
			}
			clients.Go(func() {
				for range rounds {
					p := w.peerWith(cert, place())
					if n%2 == 1 {
						p.turn(hubAddr2)
					}
					session, end := context.WithTimeout(ctx, time.Duration(1+rng.IntN(8))*time.Second)
					if p.ctl.Connect(session) == nil {
						p.roam(session, rng, place)
						if rng.IntN(2) == 0 {
							p.ctl.Say("EXIT")
						}
					}
					end()
					p.ctl.Close()
					p.sock.Close()
				}
			})
		}
		for i := range 2 {
			others.Go(func() {
				rng := rand.New(rand.NewPCG(2, uint64(i)))
				for ctx.Err() == nil {
					to := plus(w.cfg.Pool4.First, rng.IntN(10))
					super, _ := superpacket(lanHost, to, 1+rng.IntN(20), 1000)
					w.dev.Inject(i, super)
					w.dev.Inject(i, tun.Packet{Bytes: udp(lanHost6, plus(w.cfg.Pool6.First, rng.IntN(10)), nil)})
					for range len(w.dev.Written()) {
						<-w.dev.Written()
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		others.Go(func() {
			for ctx.Err() == nil {
				w.srv.Snapshot()
				next := *w.srv.live.Load().cfg
				if _, err := w.srv.Reload(&next, Login{}); err != nil {
					t.Error(err)
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
		clients.Wait()
		stop()
		others.Wait()
		time.Sleep(2 * time.Minute)
		if leased, _, _ := w.srv.usage(); leased+w.srv.table.count()+w.srv.half.total != 0 {
			t.Errorf("%d leases, %d sessions, %d half-open; want nothing", leased, w.srv.table.count(), w.srv.half.total)
		}
		tb := w.srv.table
		tb.mu.Lock()
		defer tb.mu.Unlock()
		if n := len(tb.byControl) + len(tb.byOutside) + len(tb.byName) + len(tb.pending); n != 0 {
			t.Errorf("%d entries are left in the table", n)
		}
		for i := range tb.byPeer {
			if tb.byPeer[i].Load() != nil {
				t.Errorf("peer id %d is taken", i)
			}
		}
		for i := range tb.zones[0].in4 {
			if tb.zones[0].in4[i].Load() != nil {
				t.Errorf("address %d is taken", i)
			}
		}
		if d := w.srv.drops.snapshot(); d["auth"]+d["inner"]+d["source"]+d["malformed"] != 0 {
			t.Errorf("packets of honest clients died: %v", d)
		}
	})
}

// roam sends, moves, changes lanes and keys until ctx is done.
func (p *peer) roam(ctx context.Context, rng *rand.Rand, place func() netip.AddrPort) {
	a4, a6 := p.addr4(), p.addr6()
	for ctx.Err() == nil {
		switch rng.IntN(20) {
		case 0:
			p.sock.Move(place())
		case 1:
			p.turn([]netip.AddrPort{hubAddr, hubAddr2}[rng.IntN(2)])
		case 2:
			p.ctl.Renegotiate(ctx)
			ids := p.ctl.KeyIDs()
			p.sendKey = ids[len(ids)-1]
		case 3:
			p.sendRaw(p.seal(udp(a4, plus(a4, 1), []byte("to another client"))))
		default:
			p.sendRaw(p.seal(udp(a6, lanHost6, nil)))
			p.sendRaw(p.seal(tcp(a4, lanHost, 1, make([]byte, 700))))
		}
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
	}
}
