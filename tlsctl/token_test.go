package tlsctl_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// pushes returns what of the client's messages begins with a prefix.
func pushes(c *ctltest.Client, prefix string) (found []string) {
	for _, m := range c.Messages() {
		if strings.HasPrefix(m, prefix) {
			found = append(found, m)
		}
	}
	return found
}

// A token, and the name to go with it, come with the options; a later one comes by itself, at once, whether with
// a renegotiation or in between; and a client that asks again gets the newest.
func TestToken(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.client.Username = ""
		n := 0
		s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
			g := ctltest.DefaultGrant
			g.Token, g.TokenUser = fmt.Sprintf("SESS_ID_AT_%d", n), "alice"
			if n++; n == 3 {
				g.Token = "" // no news
			}
			return &g, nil
		})
		c := s.connect(ctx)
		defer s.done(c)
		want := "peer-id 7,auth-token SESS_ID_AT_0,auth-token-user YWxpY2U=,cipher AES-256-GCM"
		if got := strings.Join(c.Options(), ","); !strings.Contains(got, want) {
			t.Errorf("options %q, want %q", got, want)
		}
		for i := range 2 {
			time.Sleep(2 * time.Second)
			if err := c.Renegotiate(ctx); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if got := pushes(c, "PUSH_REPLY,auth-token"); !slices.Equal(got, []string{"PUSH_REPLY,auth-token SESS_ID_AT_1"}) {
				t.Errorf("after renegotiation %d: %q", i, got)
			}
		}
		start := time.Now()
		if err := s.live().RenewToken("SESS_ID_AT_9"); err != nil {
			t.Error(err)
		}
		if _, err := c.AwaitMessage(ctx, "PUSH_REPLY,auth-token SESS_ID_AT_9"); err != nil || time.Since(start) > 0 {
			t.Errorf("a renewed token came after %v: %v", time.Since(start), err)
		}
		if err := s.live().RenewToken("SESS ID"); err == nil {
			t.Error("a token of two words was taken")
		}
		time.Sleep(31 * time.Second)
		c.Say("PUSH_REQUEST")
		time.Sleep(time.Second)
		if got := c.Messages()[len(c.Messages())-1]; !strings.Contains(got, ",auth-token SESS_ID_AT_9,") {
			t.Errorf("asked again, it heard %q", got)
		}
		synctest.Wait()
		checkKeys(t, c, s.live().Owner, 0, 1, 2)
	})
}

// A token that cannot be pushed is no reason to let somebody in without one.
func TestBadToken(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
			return &tlsctl.Grant{Token: "a,b"}, nil
		})
		c := s.dial()
		defer s.done(c)
		if err := c.Connect(ctx); err == nil || !strings.HasPrefix(err.Error(), "AUTH_FAILED,TEMP") {
			t.Errorf("got %v", err)
		}
		if got := s.live().Owner.Keys(); got != nil {
			t.Errorf("keys %v", got)
		}
	})
}

// With a token a client may begin to call itself what it was told to, and nothing else.
func TestTokenUserIsLocked(t *testing.T) {
	for name, good := range map[string]bool{"alice": true, "carol": true, "adele": false} {
		inBubble(t, func(t *testing.T, ctx context.Context) {
			s := newSetup(t)
			first := true
			s.client.Exchange = func(x []byte) []byte {
				if first {
					first = false
					return x
				}
				return bytes.Replace(x, []byte("alice"), []byte(name), 1)
			}
			s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
				return &tlsctl.Grant{Token: "SESS_ID_AT_1", TokenUser: "carol"}, nil
			})
			testLocked(t, ctx, s, good, nil)
		})
	}
}

// What is told for good reaches the client though a renegotiation comes between: OpenVPN 2 reads nothing more under
// the old key then, OpenVPN 3 goes on.
func TestToldDuringRenegotiation(t *testing.T) {
	for _, p := range ctltest.Profiles {
		for _, when := range []string{"before", "during", "failing", "unasked"} {
			t.Run(p.Name+" "+when, func(t *testing.T) {
				inBubble(t, func(t *testing.T, _ context.Context) {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
					defer cancel()
					s := newSharedSetup(t)
					p.Apply(&s.client)
					s.up.Delay, s.down.Delay = 20*time.Millisecond, 20*time.Millisecond
					admit := make(chan error, 1)
					s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
						if h.First {
							return &ctltest.DefaultGrant, nil
						}
						select {
						case err := <-admit:
							return &ctltest.DefaultGrant, err
						case <-ctx.Done():
							return nil, ctx.Err()
						}
					})
					c := s.connect(ctx)
					defer s.done(c)
					time.Sleep(3 * time.Second)
					tell := func() {
						if err := s.live().RenewToken("SESS_ID_AT_7"); err != nil {
							t.Error(err)
						}
						if err := s.live().Update([]string{"-route"}); (err == nil) != s.takesUpdates() {
							t.Errorf("update: %v", err)
						}
					}
					switch when {
					case "before": // it is on its way when the client begins
						tell()
						admit <- nil
						if err := c.Renegotiate(ctx); err != nil {
							t.Fatal(err)
						}
					case "during":
						renegotiated := make(chan error, 1)
						go func() { renegotiated <- c.Renegotiate(ctx) }()
						time.Sleep(time.Second)
						tell()
						time.Sleep(10 * time.Second)
						if got := pushes(c, "PUSH_REPLY,auth-token"); got != nil {
							t.Errorf("messages %q under a key that some clients do not read any more", got)
						}
						admit <- nil
						if err := <-renegotiated; err != nil {
							t.Fatal(err)
						}
					case "failing":
						s.up.Drop(func(pkt []byte) bool { return pkt[0]>>3 == byte(tlsctl.OpControl) && pkt[0]&7 == 1 })
						short, cancel := context.WithTimeout(ctx, 5*time.Second)
						defer cancel()
						if err := c.Renegotiate(short); err == nil {
							t.Fatal("it did not fail")
						}
						tell()
						time.Sleep(2 * time.Minute)
						if p.Name[0] == '2' {
							return // such a client begins again, and nothing is heard by it until then
						}
					case "unasked": // nothing comes between
						tell()
						time.Sleep(time.Minute)
						if got := pushes(c, "PUSH_REPLY,auth-token"); len(got) != 1 {
							t.Errorf("messages %q", got)
						}
						admit <- nil
						if err := c.Renegotiate(ctx); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Second)
						if got := pushes(c, "PUSH_REPLY,auth-token"); len(got) != 1 {
							t.Errorf("after a renegotiation %q", got)
						}
					}
					if _, err := c.AwaitMessage(ctx, "PUSH_REPLY,auth-token SESS_ID_AT_7"); err != nil {
						t.Error(err)
					}
					if s.takesUpdates() {
						if _, err := c.AwaitMessage(ctx, "PUSH_UPDATE,-route"); err != nil {
							t.Error(err)
						}
					}
				})
			})
		}
	}
}

// Only the newest token is owed, however many were made while nobody could be told; and one that is made before the
// client asks for its options comes with them.
func TestTokenNotYetTold(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSharedSetup(t)
		ctltest.V24.Apply(&s.client)
		c := s.dial()
		defer s.done(c)
		if err := c.Handshake(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		s.live().RenewToken("SESS_ID_AT_0")
		time.Sleep(time.Second)
		if got := c.Messages(); got != nil {
			t.Errorf("messages %q before it has asked", got)
		}
		if err := c.Pull(ctx); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(c.Options(), "auth-token SESS_ID_AT_0") {
			t.Errorf("options %q", c.Options())
		}
		time.Sleep(time.Second)
		s.up.Drop(func(pkt []byte) bool { return pkt[0]&7 == 1 }) // the renegotiation stands still
		s.live().Renegotiate()
		time.Sleep(time.Second)
		for i := range 3 {
			s.live().RenewToken(fmt.Sprintf("SESS_ID_AT_%d", i+1))
		}
		s.up.Drop(func([]byte) bool { return false })
		if _, err := c.AwaitMessage(ctx, "PUSH_REPLY,auth-token"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := pushes(c, "PUSH_REPLY,auth-token"); !slices.Equal(got, []string{"PUSH_REPLY,auth-token SESS_ID_AT_3"}) {
			t.Errorf("messages %q", got)
		}
	})
}

// Who is not established, or does not know it, is not updated.
func TestUpdate(t *testing.T) {
	for _, p := range []*ctltest.Profile{ctltest.V26, ctltest.V27, ctltest.V311} {
		inBubble(t, func(t *testing.T, ctx context.Context) {
			s := newSharedSetup(t)
			p.Apply(&s.client)
			admit := make(chan struct{})
			s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
				<-admit
				return &ctltest.DefaultGrant, nil
			})
			c := s.dial()
			defer s.done(c)
			if err := c.Handshake(ctx); err != nil {
				t.Fatal(err)
			}
			options := []string{"-route", "route 10.1.0.0 255.255.0.0", "?block-ipv4"}
			if err := s.live().Update(options); err != tlsctl.ErrNoUpdate {
				t.Errorf("%s, before it is in: %v", p.Name, err)
			}
			close(admit)
			if err := c.Pull(ctx); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if err := s.live().Update([]string{"ping 10"}); err == nil || err == tlsctl.ErrNoUpdate {
				t.Errorf("%s: an option that ends the connection: %v", p.Name, err)
			}
			want := []string{"PUSH_UPDATE,-route,route 10.1.0.0 255.255.0.0,?block-ipv4"}
			switch err := s.live().Update(options); {
			case p == ctltest.V26:
				want = nil
				if err != tlsctl.ErrNoUpdate {
					t.Errorf("%s: %v", p.Name, err)
				}
			case err != nil:
				t.Errorf("%s: %v", p.Name, err)
			}
			time.Sleep(time.Minute)
			if got := pushes(c, "PUSH_UPDATE"); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", p.Name, got, want)
			}
		})
	}
}
