package tlsctl_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// Handshakes and a renegotiation get through a wire that loses three packets in ten, doubles one and reorders all.
func TestLossyWire(t *testing.T) {
	for _, wrap := range wrapCases()[:4] {
		for seed := range uint64(12) {
			t.Run(fmt.Sprint(wrap.name, " ", seed), func(t *testing.T) {
				inBubble(t, func(t *testing.T, ctx context.Context) {
					s := newSetup(t)
					wrap.set(t, s)
					// Time to wait for what a wire like this costs; the limits have tests of their own.
					s.cfg.Timing.FirstByte, s.cfg.Timing.Progress = time.Minute, time.Minute
					s.cfg.Timing.HandWindow = 3 * time.Minute
					s.client.Steady = true
					for i, w := range []*ctltest.Wire{&s.up, &s.down} {
						w.Loss, w.Double = 0.3, 0.1
						w.Delay, w.Jitter = 10*time.Millisecond, 60*time.Millisecond
						w.Seed(2*seed + uint64(i))
					}
					c := s.dial()
					defer s.done(c)
					if err := c.Connect(ctx); err != nil {
						t.Fatalf("connect: %v", err)
					}
					if err := c.Renegotiate(ctx); err != nil {
						t.Fatalf("renegotiate: %v", err)
					}
					time.Sleep(3 * time.Minute) // until the last acknowledgement has come through
					checkKeys(t, c, s.server.Opened()[len(s.server.Opened())-1].Owner, 0, 1)
					if _, lost := s.up.Count(); lost == 0 {
						t.Error("the wire lost nothing")
					}
				})
			})
		}
	}
}

// Twenty renegotiations in a row, begun by either end and by both at once: ids go round from 7 to 1, both ends have
// the same keys, and messages go through all the time (S074).
func TestRenegotiateTwentyTimes(t *testing.T) {
	for _, wrap := range wrapCases() {
		for _, stream := range []bool{false, true} {
			for _, moveZero := range []bool{false, true} {
				t.Run(fmt.Sprint(wrap.name, stream, moveZero), func(t *testing.T) {
					inBubble(t, func(t *testing.T, ctx context.Context) {
						s := newSetup(t)
						wrap.set(t, s)
						s.client.Stream, s.client.MoveZero = stream, moveZero
						s.up.Delay, s.down.Delay = 20*time.Millisecond, 20*time.Millisecond
						c := s.dial()
						defer s.done(c)
						if err := c.Connect(ctx); err != nil {
							t.Fatalf("connect: %v", err)
						}
						want := []tlsctl.KeyID{0}
						for i := range 20 {
							time.Sleep(2 * time.Second)
							want = append(want, tlsctl.KeyID(i%7+1))
							if i%3 != 0 {
								s.live().Renegotiate()
							}
							if i%3 != 1 {
								if i%6 == 5 {
									time.Sleep(10 * time.Millisecond) // the resets cross
								}
								if err := c.Renegotiate(ctx); err != nil {
									t.Fatalf("renegotiation %d: %v", i, err)
								}
							}
							if err := c.AwaitKey(ctx, i+2); err != nil {
								t.Fatalf("renegotiation %d: %v", i, err)
							}
							s.live().Tell(tlsctl.Message(fmt.Sprintf("INFO,%d", i)))
							if _, err := c.AwaitMessage(ctx, fmt.Sprintf("INFO,%d", i)); err != nil {
								t.Fatalf("message %d: %v", i, err)
							}
						}
						time.Sleep(time.Second) // the last acknowledgement
						checkKeys(t, c, s.live().Owner, want...)
						if f := c.Failures(); f != nil {
							t.Errorf("failures: %v", f)
						}
					})
				})
			}
		}
	}
}

// The server begins by itself, after nine tenths of its interval at the earliest and all of it at the latest.
func TestServerRenegotiatesInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.cfg.Timing.Renegotiate = 40 * time.Second
		c := s.connect(ctx)
		defer s.done(c)
		var gaps []time.Duration
		for n := range 5 {
			before := time.Now()
			if err := c.AwaitKey(ctx, n+2); err != nil {
				t.Fatal(err)
			}
			gap := time.Since(before)
			if gap < 36*time.Second || gap > 40*time.Second+time.Millisecond {
				t.Errorf("renegotiated after %v", gap)
			}
			gaps = append(gaps, gap)
		}
		if slices.Max(gaps) == slices.Min(gaps) {
			t.Error("all clients would come together")
		}
	})
}

// A client of OpenVPN 3 goes on talking in the TLS session of the old key, and both are heard.
func TestMessagesOnOldKey(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.client.MoveZero = true
		c := s.connect(ctx)
		defer s.done(c)
		if err := c.Renegotiate(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second) // repeats of PUSH_REPLY are rare
		before := len(c.Messages())
		if err := c.SayOn(0, []byte("PUSH_REQUEST\x00")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := c.Messages()[before:]; len(got) != 1 || !strings.HasPrefix(got[0], "PUSH_REPLY,") {
			t.Errorf("answered %q", got)
		}
		if !c.ZeroMoved() {
			t.Error("the server did not follow to the dynamic wrap under key id 0")
		}
		if err := c.SayOn(0, []byte("EXIT\x00")); err != nil {
			t.Fatal(err)
		}
		if err := s.live().Wait(); err != tlsctl.ErrExit {
			t.Errorf("the session ended with %v, want %v", err, tlsctl.ErrExit)
		}
	})
}

// Soft resets at the wrong time or with the wrong key id do nothing (S021).
func TestSoftResetOutOfTurn(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		admit := make(chan struct{})
		owner := &ctltest.Owner{OnAdmit: func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
			<-admit
			return &ctltest.DefaultGrant, nil
		}}
		s.newOwner = func() *ctltest.Owner { return owner }
		c := s.dial()
		defer s.done(c)
		if err := c.Handshake(ctx); err != nil {
			t.Fatal(err)
		}
		for key := range tlsctl.KeyID(8) { // before the first key
			c.SoftReset(key)
		}
		time.Sleep(time.Second)
		close(admit)
		if err := c.Pull(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		sent, _ := s.down.Count()
		for key := range tlsctl.KeyID(8) {
			if key != 1 {
				c.SoftReset(key)
			}
		}
		time.Sleep(time.Second)
		if now, _ := s.down.Count(); now != sent {
			t.Errorf("the server answered with %d packets", now-sent)
		}
		if got, want := owner.Events(), []string{"admit 0", "install 0", "confirm 0", "established"}; !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}

// A renegotiation whose TLS fails leaves the old key alone, until its time is over (12.3, 12.4).
func TestRenegotiationFails(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.cfg.Timing.Transition = 150 * time.Second
		c := s.connect(ctx)
		defer s.done(c)
		time.Sleep(2 * time.Second)
		s.up.Drop(func(pkt []byte) bool { return pkt[0]>>3 == byte(tlsctl.OpControl) })
		short, cancel := context.WithTimeout(ctx, 50*time.Second)
		defer cancel()
		began := time.Now()
		if err := c.Renegotiate(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("renegotiate: %v", err)
		}
		time.Sleep(90 * time.Second)
		if left, _ := s.live().Owner.Left(); left != nil {
			t.Fatalf("the session ended: %v", left)
		}
		if err := s.live().Wait(); err != tlsctl.ErrHandshakeTimeout {
			t.Errorf("the session ended with %v", err)
		}
		if took := time.Since(began); took < 149*time.Second || took > 151*time.Second {
			t.Errorf("the old key lived for %v", took)
		}
	})
}

// A refusal in a renegotiation ends the session: its keys at once, the rest within five seconds (S030, S042). So does
// an error, an answer that comes too late, and another identity under the same session.
func TestRenegotiationRefused(t *testing.T) {
	type test struct {
		name  string
		admit func(ctx context.Context) error
		want  string
		late  time.Duration
	}
	for _, test := range []test{
		{"denied", func(context.Context) error { return &tlsctl.Denial{Public: "account disabled"} },
			"AUTH_FAILED,account disabled", 0},
		{"directory away", func(context.Context) error { return errors.New("directory away") },
			"AUTH_FAILED,TEMP:temporary failure, try again later", 0},
		{"late no", func(context.Context) error { time.Sleep(20 * time.Second); return &tlsctl.Denial{} },
			"AUTH_FAILED", 20 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				s.newOwner = func() *ctltest.Owner {
					return &ctltest.Owner{OnAdmit: func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
						if h.First {
							return &ctltest.DefaultGrant, nil
						}
						return nil, test.admit(ctx)
					}}
				}
				c := s.connect(ctx)
				defer s.done(c)
				time.Sleep(2 * time.Second)
				began := time.Now()
				if err := c.Renegotiate(ctx); err != nil {
					t.Fatal(err)
				}
				if m, err := c.AwaitMessage(ctx, "AUTH_FAILED"); m != test.want {
					t.Errorf("client heard %q (%v), want %q", m, err, test.want)
				}
				err := s.live().Wait()
				if _, ok := errors.AsType[*tlsctl.Denial](err); !ok {
					t.Errorf("the session ended with %v", err)
				}
				_, at := s.live().Owner.Left()
				if got := at.Sub(began); got > test.late+100*time.Millisecond {
					t.Errorf("keys died after %v", got)
				}
				if took := time.Since(began); took > test.late+5100*time.Millisecond {
					t.Errorf("the session went on for %v", took)
				}
				if got, want := s.live().Owner.Events(), []string{"admit 0", "install 0", "confirm 0", "established", "admit 1", "leaving"}; !slices.Equal(got, want) {
					t.Errorf("events %q, want %q", got, want)
				}
			})
		})
	}
}

// A client may send with a renegotiated key as soon as it has our half of the exchange. So the key is there before,
// however long the login takes.
func TestKeyIsThereBeforeTheClientHasIt(t *testing.T) {
	for _, p := range ctltest.Profiles {
		t.Run(p.Name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				p.Apply(&s.client)
				s.renegotiating(func() { time.Sleep(3 * time.Second) })
				c := s.connect(ctx)
				defer s.done(c)
				time.Sleep(2 * time.Second)
				if err := c.Renegotiate(ctx); err != nil {
					t.Fatal(err)
				}
				if got, want := s.live().Owner.Events(), "install 1"; !slices.Contains(got, want) {
					t.Errorf("the client has the key, the server has not: %q", got)
				}
				time.Sleep(time.Second)
				if got, want := s.live().Owner.Events(), "confirm 1"; !slices.Contains(got, want) {
					t.Errorf("never confirmed: %q", got)
				}
			})
		})
	}
}

// A key whose client never shows that it has it is withdrawn, and never confirmed: it must not be sent with (S074).
func TestUnconfirmedKeyIsWithdrawn(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.renegotiating(func() {
			s.down.Drop(func([]byte) bool { return true }) // our half gets lost, however often it is sent
		})
		c := s.connect(ctx)
		defer s.done(c)
		time.Sleep(2 * time.Second)
		s.live().Renegotiate()
		time.Sleep(3 * time.Minute)
		got := s.live().Owner.Events()
		if !slices.Contains(got, "install 1") || !slices.Contains(got, "withdraw 1") || slices.Contains(got, "confirm 1") {
			t.Errorf("events %q, want key 1 installed and withdrawn", got)
		}
	})
}

// A client's last acknowledgement of a renegotiation is lost, and the client, which has its key, begins the next before
// we have sent our half again often enough. It has moved on and acknowledges nothing of the old one any more: what it
// begins is as good as the acknowledgement.
func TestNextRenegotiationAcknowledgesTheOneBefore(t *testing.T) {
	for _, p := range ctltest.Profiles {
		t.Run(p.Name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				p.Apply(&s.client)
				c := s.connect(ctx)
				defer s.done(c)
				time.Sleep(2 * time.Second)
				// Once our half is on its way, nothing comes back under that key.
				s.up.Drop(func(pkt []byte) bool {
					return pkt[0]&7 == 1 && slices.Contains(s.live().Owner.Events(), "install 1")
				})
				if err := c.Renegotiate(ctx); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				if got := s.live().Owner.Events(); slices.Contains(got, "confirm 1") {
					t.Fatalf("confirmed without an acknowledgement: this shows nothing: %q", got)
				}
				time.Sleep(5 * time.Second)
				began := time.Now()
				if err := c.Renegotiate(ctx); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("the next renegotiation took %v", took)
				}
				time.Sleep(time.Second)
				if got := s.live().Owner.Events(); !slices.Contains(got, "confirm 1") || !slices.Contains(got, "confirm 2") || slices.Contains(got, "withdraw 1") {
					t.Errorf("events %q, want both keys confirmed", got)
				}
			})
		})
	}
}
