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

// wrapsOf are the wraps that a version knows.
func wrapsOf(p *ctltest.Profile) (wraps []wrapCase) {
	for _, w := range wrapCases() {
		switch {
		case w.name == "tls-crypt-v2" && !p.Early, w.name == "tls-crypt-v2 without cookie" && (p.Early || !p.CryptV2):
		default:
			wraps = append(wraps, w)
		}
	}
	return wraps
}

// patient gives a setup the time that a bad wire costs; the limits have tests of their own.
func (s *setup) patient() {
	s.cfg.Timing.HandWindow = 10 * time.Minute
	s.cfg.Timing.FirstByte, s.cfg.Timing.Progress = s.cfg.Timing.HandWindow, s.cfg.Timing.HandWindow
}

// bad makes both wires lose, double and reorder.
func (s *setup) bad(seed uint64, loss float64) {
	for i, w := range []*ctltest.Wire{&s.up, &s.down} {
		w.Loss, w.Double = loss, loss/2
		w.Delay, w.Jitter = 10*time.Millisecond, 60*time.Millisecond
		w.Seed(2*seed + uint64(i))
	}
}

// awaitKeys waits until the server has n keys.
func (s *setup) awaitKeys(ctx context.Context, n int) error {
	for len(s.live().Owner.Keys()) < n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("server has %d keys, want %d: %w", len(s.live().Owner.Keys()), n, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// Clients of every version connect under every wrap they know, over streams and over a wire that loses, doubles and
// reorders; renegotiate, begun by either end; take a token; and leave.
func TestProfiles(t *testing.T) {
	for _, p := range ctltest.Profiles {
		for _, wrap := range wrapsOf(p) {
			for _, stream := range []bool{false, true} {
				way := "datagrams"
				if stream {
					way = "stream"
				}
				t.Run(p.Name+"/"+wrap.name+"/"+way, func(t *testing.T) {
					inBubble(t, func(t *testing.T, _ context.Context) {
						ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
						defer cancel()
						testProfile(t, ctx, p, wrap, stream)
					})
				})
			}
		}
	}
}

func testProfile(t *testing.T, ctx context.Context, p *ctltest.Profile, wrap wrapCase, stream bool) {
	s := newSharedSetup(t)
	s.client.Stream = stream
	wrap.set(t, s)
	p.Apply(&s.client)
	s.patient()
	s.client.PushWithin = 0
	s.cfg.Epoch = true
	if stream {
		s.up.Delay, s.down.Delay = 20*time.Millisecond, 20*time.Millisecond
	} else {
		s.bad(uint64(len(p.Name)), 0.2)
	}
	token := func(n int) string { return fmt.Sprintf("SESS_ID_AT_%d", n) }
	s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
		g := ctltest.DefaultGrant
		g.Token = token(int(h.KeyID))
		return &g, nil
	})
	c := s.dial()
	defer s.done(c)
	if err := c.Connect(ctx); err != nil {
		t.Fatalf("connect: %v", err)
	}
	if !slices.Contains(c.Options(), "auth-token "+token(0)) {
		t.Errorf("options %q", c.Options())
	}
	if err := s.awaitKeys(ctx, 1); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if err := c.Renegotiate(ctx); err != nil {
		t.Fatalf("renegotiate: %v", err)
	}
	if err := s.awaitKeys(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitMessage(ctx, "PUSH_REPLY,auth-token "+token(1)); err != nil {
		t.Errorf("token after the first renegotiation: %v", err)
	}
	// Which is under the old key still, if the client is of OpenVPN 3.
	if err := c.Say("INFO,still here"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	s.live().Renegotiate()
	if err := errors.Join(c.AwaitKey(ctx, 3), s.awaitKeys(ctx, 3)); err != nil {
		t.Fatalf("renegotiation of the server's: %v", err)
	}
	if _, err := c.AwaitMessage(ctx, "PUSH_REPLY,auth-token "+token(2)); err != nil {
		t.Errorf("token after the second renegotiation: %v", err)
	}
	if err := s.live().RenewToken(token(9)); err != nil {
		t.Errorf("renew token: %v", err)
	}
	if _, err := c.AwaitMessage(ctx, "PUSH_REPLY,auth-token "+token(9)); err != nil {
		t.Errorf("token in between: %v", err)
	}
	if updated := s.live().Update([]string{"route 10.8.0.0 255.255.0.0"}); (updated == nil) != s.takesUpdates() {
		t.Errorf("update: %v", updated)
	} else if updated == nil {
		if _, err := c.AwaitMessage(ctx, "PUSH_UPDATE,route 10.8.0.0 255.255.0.0"); err != nil {
			t.Errorf("update: %v", err)
		}
	}
	checkKeys(t, c, s.live().Owner, 0, 1, 2)
	for _, k := range s.live().Owner.Keys() {
		if want := strings.Contains(strings.Join(c.Options(), ","), "aead-epoch"); k.Epoch != want || !k.V2 {
			t.Errorf("key %d: epoch %v, V2 %v, want %v, true", k.ID, k.Epoch, k.V2, want)
		}
	}
	moved := s.client.MoveZero && !strings.HasPrefix(p.Name, "3.6") && !strings.HasPrefix(p.Name, "3.7")
	if c.ZeroMoved() != moved {
		t.Errorf("the last packet of key id 0 was under the dynamic wrap: %v, want %v", c.ZeroMoved(), moved)
	}
	s.live().Tell(tlsctl.RestartNext)
	if m, err := c.AwaitMessage(ctx, "RESTART"); m != "RESTART,[N]" {
		t.Errorf("told to begin again: %q, %v", m, err)
	}
	want := error(tlsctl.ErrExit)
	if left := c.Leave(); left != p.Loud {
		t.Errorf("said goodbye on the control channel: %v, want %v", left, p.Loud)
	} else if !left {
		want = errors.New("exit on the data channel") // which the owner hears
		s.live().End(want)
	}
	if err := s.live().Wait(); err != want {
		t.Errorf("the session ended with %v, want %v", err, want)
	}
	if f := c.Failures(); f != nil {
		t.Errorf("failures: %v", f)
	}
}

// takesUpdates reports whether the client announces PUSH_UPDATE.
func (s *setup) takesUpdates() bool {
	return tlsctl.ParsePeerInfo(s.client.PeerInfo).Can(tlsctl.FeaturePushUpdate)
}
