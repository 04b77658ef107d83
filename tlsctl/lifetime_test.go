package tlsctl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// A client that says EXIT loses its keys at once and is acknowledged for five seconds; saying it again postpones
// nothing (S030).
func TestExit(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		c := s.connect(ctx)
		defer s.done(c)
		start := time.Now()
		c.Say("EXIT")
		synctest.Wait()
		if left, at := s.live().Owner.Left(); len(left) != 1 || left[0] != tlsctl.ErrExit || at.Sub(start) > 100*time.Millisecond {
			t.Errorf("left with %v after %v", left, at.Sub(start))
		}
		for range 4 {
			time.Sleep(time.Second)
			c.Say("EXIT")
		}
		if err := s.live().Wait(); err != tlsctl.ErrExit {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("ended after %v", took)
		}
	})
}

// Dismiss waits until the client has its message, and not for one that does not answer.
func TestDismiss(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprintf("deaf=%v", deaf), func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				c := s.connect(ctx)
				defer s.done(c)
				time.Sleep(time.Second)
				s.up.Drop(func([]byte) bool { return deaf })
				start := time.Now()
				s.live().Dismiss(tlsctl.Restart, errTestOver)
				if err := s.live().Wait(); err != errTestOver {
					t.Errorf("ended with %v", err)
				}
				took := time.Since(start)
				if !deaf && took > 100*time.Millisecond || deaf && took != 2*time.Second {
					t.Errorf("it took %v", took)
				}
				synctest.Wait()
				if m, err := c.AwaitMessage(ctx, "RESTART"); m != "RESTART" {
					t.Errorf("client heard %q, %v", m, err)
				}
			})
		})
	}
}

// What was told before the context ends is still said.
func TestTellBeforeEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		c := s.connect(ctx)
		defer s.done(c)
		s.live().Tell(tlsctl.RestartNext)
		s.server.Close(errTestOver)
		if err := s.live().Wait(); err != errTestOver {
			t.Errorf("ended with %v", err)
		}
		if m, err := c.AwaitMessage(ctx, "RESTART"); m != "RESTART,[N]" {
			t.Errorf("client heard %q, %v", m, err)
		}
	})
}

// End is immediate, at any time.
func TestEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		reason := errors.New("replaced by a newer session")
		s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		c := s.dial()
		defer s.done(c)
		if err := c.Handshake(ctx); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		s.live().End(reason)
		if err := s.live().Wait(); err != reason {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v", took)
		}
		if left, _ := s.live().Owner.Left(); !slices.Equal(left, []error{reason}) {
			t.Errorf("left with %v", left)
		}
	})
}

// A session that is told to end has lost its keys at once, even if a login goes on that does not listen.
func TestEndDuringStubbornLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.renegotiating(func() { time.Sleep(10 * time.Second) })
		c := s.connect(ctx)
		defer s.done(c)
		time.Sleep(2 * time.Second)
		s.live().Renegotiate()
		time.Sleep(time.Second)
		s.live().End(errTestOver)
		synctest.Wait()
		if left, _ := s.live().Owner.Left(); !slices.Equal(left, []error{errTestOver}) {
			t.Errorf("left with %v", left)
		}
		s.live().Wait()
		if got, want := s.live().Owner.Events(), []string{"admit 0", "install 0", "confirm 0", "established", "admit 1", "leaving"}; !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}

// The time limits until a client is in (S010). Acknowledgements and retransmissions prolong none.
func TestHandshakeDeadlines(t *testing.T) {
	for _, test := range []struct {
		name string
		// mute tells whether a packet of the client is lost, n TLS-bearing packets before it having come through.
		mute  func(p *tlsctl.Packet, n int) bool
		admit time.Duration
		want  time.Duration
	}{
		{"no TLS byte", func(p *tlsctl.Packet, n int) bool { return p.Opcode == tlsctl.OpControl && p.ID > 0 }, 0, 10 * time.Second},
		{"TLS stands still", func(p *tlsctl.Packet, n int) bool { return p.Opcode == tlsctl.OpControl && p.ID > 1 }, 0, 15 * time.Second},
		{"never acknowledges", func(p *tlsctl.Packet, n int) bool {
			return p.Opcode == tlsctl.OpAck && slices.Contains(p.Acks, 2)
		}, 0, 60 * time.Second},
		{"login takes for ever", func(p *tlsctl.Packet, n int) bool { return false }, time.Hour, 60 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
					if test.admit == 0 {
						return &ctltest.DefaultGrant, nil
					}
					select {
					case <-time.After(test.admit):
					case <-ctx.Done():
					}
					return nil, ctx.Err()
				})
				n := 0
				s.up.Drop(func(pkt []byte) bool {
					p, err := tlsctl.ParsePacket(pkt)
					if err != nil {
						t.Error(err)
						return false
					}
					drop := test.mute(&p, n)
					if !drop && len(p.Payload) > 0 {
						n++
					}
					return drop
				})
				c := s.dial()
				defer s.done(c)
				start := time.Now()
				go c.Connect(ctx)
				time.Sleep(time.Second)
				if err := s.live().Wait(); !errors.Is(err, tlsctl.ErrHandshakeTimeout) {
					t.Errorf("ended with %v", err)
				}
				if took := time.Since(start); took < test.want || took > test.want+100*time.Millisecond {
					t.Errorf("ended after %v, want %v", took, test.want)
				}
				for _, e := range s.live().Owner.Events() {
					if e == "install 0" || e == "established" {
						t.Errorf("event %q", e)
					}
				}
			})
		})
	}
}

// A session whose client fell silent costs at most nine transmissions of a packet (S004).
func TestSilentClient(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		c := s.connect(ctx)
		defer s.done(c)
		time.Sleep(time.Second)
		s.up.Drop(func([]byte) bool { return true })
		before, _ := s.down.Count()
		s.live().Tell("INFO,anybody there?")
		if err := s.live().Wait(); err != tlsctl.ErrSilent {
			t.Errorf("ended with %v", err)
		}
		if after, _ := s.down.Count(); after-before != 9 {
			t.Errorf("%d packets were sent, want 9", after-before)
		}
	})
}

// A panic in what a session calls ends that session, is counted, and is no other's business (S019, F04).
func TestPanicEndsOneSession(t *testing.T) {
	for name, owner := range map[string]*ctltest.Owner{
		"in Admit": {OnAdmit: func(context.Context, *tlsctl.Hello) (*tlsctl.Grant, error) { panic("boom") }},
		"in Run":   {OnInstall: func(tlsctl.KeyMaterial) error { panic("boom") }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				owners := []*ctltest.Owner{new(ctltest.Owner), owner}
				s.newOwner = func() *ctltest.Owner {
					o := owners[0]
					owners = owners[1:]
					return o
				}
				good := s.dial()
				defer good.Close()
				if err := good.Connect(ctx); err != nil {
					t.Fatal(err)
				}
				before := tlsctl.Panics()
				bad := s.dial()
				defer bad.Close()
				go bad.Connect(ctx)
				time.Sleep(time.Second)
				if err := s.server.Opened()[1].Wait(); err == nil || strings.Contains(err.Error(), "boom") {
					t.Errorf("ended with %v", err)
				}
				if got := tlsctl.Panics() - before; got != 1 {
					t.Errorf("%d panics were counted, want 1", got)
				}
				if left, _ := owner.Left(); len(left) != 1 {
					t.Errorf("left with %v", left)
				}
				if err := good.Renegotiate(ctx); err != nil {
					t.Errorf("the other session: %v", err)
				}
				s.server.Close(errTestOver)
				tlsctl.ForgetPanics()
			})
		})
	}
}

// Before it is in, a client may send 64 KiB of TLS and 128 packets (S024); afterwards 64 KiB in ten seconds (S025).
func TestLimits(t *testing.T) {
	t.Run("TLS bytes", func(t *testing.T) {
		inBubble(t, func(t *testing.T, ctx context.Context) {
			s := newSetup(t)
			s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			c := s.dial()
			defer s.done(c)
			if err := c.Handshake(ctx); err != nil {
				t.Fatal(err)
			}
			for range 70 {
				c.SayOn(0, bytes.Repeat([]byte{'x'}, 1000))
				time.Sleep(50 * time.Millisecond)
			}
			if err := s.live().Wait(); !errors.Is(err, tlsctl.ErrLimit) {
				t.Errorf("ended with %v", err)
			}
		})
	})
	t.Run("packets", func(t *testing.T) {
		inBubble(t, func(t *testing.T, ctx context.Context) {
			s := newSetup(t)
			s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			c := s.dial()
			defer s.done(c)
			if err := c.Handshake(ctx); err != nil {
				t.Fatal(err)
			}
			for range 130 {
				c.Say("INFO,")
				time.Sleep(20 * time.Millisecond)
			}
			if err := s.live().Wait(); !errors.Is(err, tlsctl.ErrLimit) {
				t.Errorf("ended with %v", err)
			}
		})
	})
	t.Run("afterwards", func(t *testing.T) {
		inBubble(t, func(t *testing.T, ctx context.Context) {
			s := newSetup(t)
			c := s.connect(ctx)
			defer s.done(c)
			for range 600 { // 10 a second, 100 bytes each: 10 KB in ten seconds
				c.Say("INFO," + strings.Repeat("x", 30))
				time.Sleep(100 * time.Millisecond)
			}
			synctest.Wait()
			if left, _ := s.live().Owner.Left(); left != nil {
				t.Fatalf("a talkative client was sent away: %v", left)
			}
			for range 70 {
				c.Say("INFO," + strings.Repeat("x", 1000))
				time.Sleep(20 * time.Millisecond)
			}
			if err := s.live().Wait(); !errors.Is(err, tlsctl.ErrLimit) {
				t.Errorf("ended with %v", err)
			}
		})
	})
}

// Messages are messages however they are cut into records, and ill-formed ones do nothing (S026).
func TestMessagesInRecords(t *testing.T) {
	for _, test := range []struct {
		name    string
		records []string
		exits   bool
	}{
		{"one", []string{"EXIT\x00"}, true},
		{"byte by byte", []string{"E", "X", "I", "T", "\x00"}, true},
		{"two in one", []string{"INFO,x\x00EXIT\x00"}, true},
		{"line end", []string{"EXIT\r\n\x00"}, true},
		{"no end", []string{"EXIT"}, false},
		{"longer word", []string{"EXITS\x00"}, false},
		{"control byte", []string{"EX\x01IT\x00"}, false},
		{"after a bad one", []string{"INFO\x1b[2J\x00", "EXIT\x00"}, true},
		{"after a long one", append(slices.Repeat([]string{strings.Repeat("EXIT", 300)}, 5), "\x00EXIT\x00"), true},
		{"inside a long one", append(slices.Repeat([]string{strings.Repeat("x", 1000)}, 5), "EXIT\x00"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				c := s.connect(ctx)
				defer s.done(c)
				for _, r := range test.records {
					c.SayOn(0, []byte(r))
					time.Sleep(50 * time.Millisecond)
				}
				synctest.Wait()
				if left, _ := s.live().Owner.Left(); (left != nil) != test.exits {
					t.Errorf("left: %v, want %v", left, test.exits)
				}
			})
		})
	}
}

// A key exchange that is none ends the session silently.
func TestMalformedExchange(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.client.Exchange = func(x []byte) []byte { return x[:100] }
		c := s.dial()
		defer s.done(c)
		go c.Connect(ctx)
		time.Sleep(time.Second)
		if err := s.live().Wait(); err == nil || !strings.Contains(err.Error(), "read key exchange") {
			t.Errorf("ended with %v", err)
		}
		if got := c.Messages(); got != nil {
			t.Errorf("messages %q", got)
		}
	})
}
