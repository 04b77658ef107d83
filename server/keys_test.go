package server

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/auth"
	"postern/server/datachan"
	"postern/tlsctl"
)

// sentUnder is the key id of the next packet that the server sends.
func (p *peer) sentUnder() tlsctl.KeyID {
	p.w.t.Helper()
	p.got()
	p.w.inject(udp(lanHost, p.addr4(), nil))
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.under) != 1 {
		p.w.t.Fatalf("%s got %d packets, want one", p.name, len(p.under))
	}
	return p.under[0]
}

// takes reports whether the server takes a packet under a key.
func (p *peer) takes(id tlsctl.KeyID) bool {
	p.w.t.Helper()
	p.w.written()
	p.sendRaw(p.sealUnder(id, udp(p.addr4(), lanHost, nil)))
	return len(p.w.written()) == 1
}

// exchange renegotiates; the client does not send with the new key yet.
func (p *peer) exchange() {
	p.w.t.Helper()
	was := p.sendKey
	p.renegotiate()
	p.sendKey = was
}

// After a renegotiation the server goes on sending with the old key until the client has used the new one, and takes
// both; the old one dies a minute later, never after more (S074).
func TestKeySwitchesWhenConfirmed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		time.Sleep(2 * time.Minute)
		alice.exchange()
		time.Sleep(10 * time.Second)
		if got := alice.sentUnder(); got != 0 {
			t.Errorf("sent under key %d before the client used the new one", got)
		}
		if !alice.takes(0) || !alice.takes(1) {
			t.Error("not both keys are taken")
		}
		if got := alice.sentUnder(); got != 1 {
			t.Errorf("sent under key %d after the client used key 1", got)
		}
		time.Sleep(57 * time.Second)
		if !alice.takes(0) {
			t.Error("the old key is dead after 57 s")
		}
		time.Sleep(3 * time.Second)
		if alice.takes(0) {
			t.Error("the old key lives after 60 s")
		}
		alice.sendKey = 1
		alice.mustReach()
	})
}

// A client that sends nothing gets the new key when half a reneg-sec or a hand-window is over.
func TestKeySwitchesInTime(t *testing.T) {
	for _, c := range []struct {
		renegotiate, after time.Duration
	}{{0, time.Minute}, {time.Hour, time.Minute}, {100 * time.Second, 50 * time.Second}} {
		t.Run(c.renegotiate.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.cfg.Renegotiate = c.renegotiate
				w.start()
				alice := w.peer("alice", homeAddr).connect()
				time.Sleep(80 * time.Second)
				began := time.Now()
				alice.exchange()
				for time.Since(began) < c.after-time.Second {
					if got := alice.sentUnder(); got != 0 {
						t.Fatalf("sent under key %d after %v", got, time.Since(began))
					}
					time.Sleep(5 * time.Second)
				}
				time.Sleep(time.Until(began.Add(c.after + 2*time.Second)))
				if got := alice.sentUnder(); got != 1 {
					t.Errorf("sent under key %d after %v", got, time.Since(began))
				}
				if !alice.takes(0) || !alice.takes(1) {
					t.Error("not both keys are taken")
				}
			})
		})
	}
}

// A stock client with a short reneg-sec gives up a key with the second renegotiation after it. Though it sends nothing
// by which the server could tell, it is never sent a packet that it cannot read.
func TestKeysOfSilentClient(t *testing.T) {
	for _, every := range []time.Duration{5 * time.Second, 20 * time.Second, 45 * time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.start()
				alice := w.peer("alice", homeAddr).connect()
				for range 10 {
					time.Sleep(every)
					alice.exchange()
					ids := alice.ctl.KeyIDs()
					if got := alice.sentUnder(); !slices.Contains(ids[len(ids)-2:], got) {
						t.Fatalf("sent under key %d, the client has %v", got, ids[len(ids)-2:])
					}
				}
			})
		})
	}
}

// A third key while the second still waits to be used: the second is what the client has and sends with.
func TestThirdKeyWhileSecondWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		time.Sleep(10 * time.Minute)
		alice.exchange() // waits for up to a minute
		time.Sleep(10 * time.Second)
		alice.exchange()
		if alice.takes(0) {
			t.Error("the first of three keys lives")
		}
		if got := alice.sentUnder(); got == 0 {
			t.Error("sent under the first of three keys")
		}
		for id := tlsctl.KeyID(1); id <= 2; id++ {
			if !alice.takes(id) {
				t.Errorf("key %d is not taken", id)
			}
		}
	})
}

// Key ids go round: 0, 1 to 7, 1 again, whoever begins. Packets go through before, between and after, under each key.
func TestKeyIDsGoRound(t *testing.T) {
	for _, begins := range []string{"client", "server"} {
		t.Run(begins, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				if begins == "server" {
					w.cfg.Renegotiate = 20 * time.Second
				}
				w.start()
				alice := w.peer("alice", homeAddr).connect()
				for i := range 16 {
					if begins == "server" {
						must(t, alice.ctl.AwaitKey(w.ctx, i+2))
						time.Sleep(50 * time.Millisecond)
					} else {
						time.Sleep(20 * time.Second)
						alice.exchange()
					}
					alice.mustReach() // with the old key
					want := tlsctl.KeyID(i%7 + 1)
					if ids := alice.ctl.KeyIDs(); ids[len(ids)-1] != want {
						t.Fatalf("negotiation %d has key id %d, want %d", i+1, ids[len(ids)-1], want)
					}
					alice.sendKey = want
					alice.mustReach()
				}
				if n := w.log.count("client connected"); n != 1 {
					t.Errorf("%d sessions, want one", n)
				}
				if f := alice.ctl.Failures(); len(f) != 0 {
					t.Errorf("negotiations failed: %v", f)
				}
			})
		})
	}
}

// A client that behaves as OpenVPN 2.6 does, with traffic both ways and keys that change every 5 s on account of either
// end, loses nothing; nor when each login takes a second.
func TestNothingLostAtKeyChanges(t *testing.T) {
	for _, begins := range []string{"client", "server", "client, slow login", "server, slow login"} {
		t.Run(begins, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				begins, slow := strings.CutSuffix(begins, ", slow login")
				if slow {
					w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
						time.Sleep(time.Second)
						return &auth.Identity{Name: "alice"}, nil
					})
				}
				window := time.Minute // the client's: min(hand-window, reneg-sec/2)
				if begins == "server" {
					w.cfg.Renegotiate = 5 * time.Second
				} else {
					window = 2500 * time.Millisecond
				}
				w.start()
				alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
				type held struct {
					id tlsctl.KeyID
					at time.Time
				}
				keys := []held{{0, time.Now()}} // newest last
				sent, came, up := 0, 0, 0
				next := time.Now().Add(5 * time.Second)
				for range 6000 {
					time.Sleep(10 * time.Millisecond)
					if begins == "client" && time.Now().After(next) {
						next = next.Add(5 * time.Second)
						go alice.ctl.Renegotiate(w.ctx)
					}
					newest := keys[len(keys)-1]
					alice.sendKey = newest.id
					if older := keys[0]; time.Since(newest.at) < window && time.Since(older.at) >= window {
						alice.sendKey = older.id
					}
					alice.send(udp(alice.addr4(), lanHost, nil))
					w.inject(udp(lanHost, alice.addr4(), nil))
					sent++
					up += len(w.written())
					alice.mu.Lock()
					for _, id := range alice.under {
						if id == newest.id || id == keys[0].id {
							came++
						}
					}
					alice.mu.Unlock()
					alice.got()
					// Used from the next round on: a client acknowledges the exchange before it sends with its key.
					if ids := alice.ctl.KeyIDs(); ids[len(ids)-1] != keys[len(keys)-1].id {
						keys = append(keys, held{ids[len(ids)-1], time.Now()})
						keys = keys[len(keys)-2:]
					}
				}
				if up != sent || came != sent {
					t.Errorf("of %d packets each way %d and %d arrived", sent, up, came)
				}
				if n := len(alice.ctl.KeyIDs()); n < 11 {
					t.Errorf("%d keys in a minute, want at least 11", n)
				}
			})
		})
	}
}

// A key that has carried what it may is followed by another; while its successor cannot be agreed on, the client is
// asked once a hand-window (S073).
func TestSpentKeyIsReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.RenegotiatePackets = 100
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		spend := func() {
			for range 60 {
				alice.mustReach()
			}
			time.Sleep(2 * time.Second)
		}
		spend()
		if got := alice.ctl.KeyIDs(); len(got) != 2 {
			t.Fatalf("keys %v after 120 packets, want two", got)
		}
		alice.sendKey = 1
		var resets atomic.Int64
		alice.deliver(func(pkt []byte) { // deaf to renegotiations
			if op, _, _, ok := tlsctl.PeekSession(pkt); ok && op == tlsctl.OpSoftReset {
				resets.Add(1)
				return
			}
			if pkt[0]&7 <= 1 {
				alice.ctl.Deliver(pkt)
			}
		})
		spend()
		if resets.Load() == 0 {
			t.Fatal("no renegotiation was begun after another 120 packets")
		}
		time.Sleep(50 * time.Second)
		first := resets.Load()
		time.Sleep(5 * time.Minute)
		alice.mustReach()
		if began := w.log.count("renegotiation failed"); began < 3 || began > 6 {
			t.Errorf("%d failed renegotiations in five minutes, want one a minute (resets: %d, then %d)", began, first, resets.Load())
		}
		alice.deliver(alice.ctl.Deliver)
		time.Sleep(2 * time.Minute)
		if got := alice.ctl.KeyIDs(); len(got) != 3 {
			t.Errorf("keys %v once the client listens again, want three", got)
		}
	})
}

// Whose packet ids run out does not wait for the client to change keys first, or nothing could be sent until it does.
func TestKeySwitchesAtItsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		time.Sleep(2 * time.Minute)
		alice.exchange()
		if got := alice.sentUnder(); got != 0 {
			t.Fatalf("sent under key %d before the client used the new one", got)
		}
		if _, ok := w.srv.table.all(nil)[0].ring.Sending().Reserve(0xff000000); !ok {
			t.Fatal("the key is spent already")
		}
		time.Sleep(1100 * time.Millisecond)
		if got := alice.sentUnder(); got != 1 {
			t.Errorf("sent under key %d when its ids run out", got)
		}
		alice.mustReach()
	})
}

// A session that ended is not brought back to life by a key that comes late.
func TestInstallAfterEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		w.peer("alice", homeAddr).connect()
		c := w.srv.table.all(nil)[0]
		c.die()
		secret := func(b byte) tlsctl.Secret { return slices.Repeat(tlsctl.Secret{b}, 128) }
		err := c.Install(tlsctl.KeyMaterial{ID: 1, Cipher: "AES-256-GCM", ToClient: secret(1), FromClient: secret(2), V2: true, Started: time.Now()})
		if err == nil {
			t.Error("a key was installed in a session that has ended")
		}
		for id := range datachan.KeyID(8) {
			if c.ring.Receiving(id) != nil {
				t.Errorf("key %d lives", id)
			}
		}
		if c.ring.Sending() != nil {
			t.Error("a key sends")
		}
		c.session.End(errEnded)
	})
}

// A key that the client never shows to have is not sent with, and dies when it is withdrawn; one that the client uses
// stays, whatever became of its negotiation (S074).
func TestWithdrawnKey(t *testing.T) {
	for _, used := range []bool{false, true} {
		inBubble(t, func(t *testing.T, w *world) {
			w.start()
			alice := w.peer("alice", homeAddr).connect()
			c := w.srv.table.all(nil)[0]
			time.Sleep(2 * time.Minute)
			secret := func(b byte) tlsctl.Secret { return slices.Repeat(tlsctl.Secret{b}, 128) }
			must(t, c.Install(tlsctl.KeyMaterial{ID: 1, Cipher: "AES-256-GCM", ToClient: secret(1), FromClient: secret(2), V2: true, Started: time.Now()}))
			key := c.ring.Receiving(1)
			time.Sleep(3 * time.Minute)
			if got := alice.sentUnder(); got != 0 {
				t.Errorf("sent under key %d, which the client does not have", got)
			}
			if used {
				c.hear(key)
			}
			c.Withdraw(1)
			if got := c.ring.Receiving(1); (got != nil) != used {
				t.Errorf("used %v: after it was withdrawn key 1 is %v", used, got)
			}
			if got := c.ring.Sending() == key; got != used {
				t.Errorf("used %v: key 1 sends: %v", used, got)
			}
		})
	}
}
