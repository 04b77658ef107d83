package tlsctl_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// admitting makes all owners of a setup decide with f.
func (s *setup) admitting(f func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error)) {
	s.newOwner = func() *ctltest.Owner { return &ctltest.Owner{OnAdmit: f} }
}

// renegotiating has f run before a renegotiation is admitted. The first negotiation is at once.
func (s *setup) renegotiating(f func()) {
	s.admitting(func(_ context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
		if !h.First {
			f()
		}
		return &ctltest.DefaultGrant, nil
	})
}

// While a login is open nothing of its result leaves the server, however often the client asks; afterwards the reply
// comes, and one of it (S029, S041).
func TestSlowAdmit(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("old=%v", old), func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				if old {
					s.client.PeerInfo = ctltest.PeerInfo24
					s.client.PushRequest = 100 * time.Millisecond
				}
				s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
					time.Sleep(8 * time.Second)
					return &ctltest.DefaultGrant, nil
				})
				c := s.dial()
				defer s.done(c)
				start := time.Now()
				if err := c.Connect(ctx); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took < 8*time.Second || took > 8200*time.Millisecond {
					t.Errorf("connected after %v", took)
				}
				for range 100 {
					c.Say("PUSH_REQUEST")
					time.Sleep(50 * time.Millisecond)
				}
				if got := c.Messages(); len(got) != 1 {
					t.Errorf("%d messages, want one PUSH_REPLY: %q", len(got), got)
				}
				checkKeys(t, c, s.live().Owner, 0)
			})
		})
	}
}

// An old client that does not ask gets nothing; one that asks again after half a minute gets the reply again, without
// another admission.
func TestPushRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.client.PeerInfo = ctltest.PeerInfo24
		c := s.dial()
		defer s.done(c)
		if err := c.Handshake(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if got := c.Messages(); len(got) != 0 {
			t.Errorf("messages %q before any request", got)
		}
		for i := range 3 {
			c.Say("PUSH_REQUEST")
			time.Sleep(time.Second)
			if got := c.Messages(); len(got) != i+1 {
				t.Errorf("%d replies after %d requests", len(got), i+1)
			}
			time.Sleep(30 * time.Second)
		}
		if got, want := s.live().Owner.Events(), []string{"admit 0", "install 0", "confirm 0", "established"}; !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}

// An OpenVPN 3 client cannot take a second record before it has acknowledged our key exchange (7.6).
func TestNothingBehindUnacknowledgedExchange(t *testing.T) {
	for _, then := range []string{"grant", "deny", "ask"} {
		t.Run(then, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				s.cfg.Timing.RefusalDelay = -1
				var deaf atomic.Bool // the server hears nothing
				var fresh []tlsctl.PacketID
				highest := tlsctl.PacketID(0)
				s.up.Drop(func([]byte) bool { return deaf.Load() })
				s.down.Drop(func(pkt []byte) bool {
					p, err := tlsctl.ParsePacket(pkt)
					if err != nil {
						t.Error(err)
					} else if p.Opcode == tlsctl.OpControl && p.ID > highest {
						highest = p.ID
						if deaf.Load() {
							fresh = append(fresh, p.ID)
						}
					}
					return false
				})
				s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
					deaf.Store(true) // our exchange is on its way
					switch then {
					case "deny":
						return nil, &tlsctl.Denial{Public: "no"}
					case "ask":
						if _, err := h.Ask(ctx, tlsctl.Question{}); err != nil {
							t.Error(err)
						}
						<-ctx.Done()
					}
					return &ctltest.DefaultGrant, nil
				})
				c := s.dial()
				defer s.done(c)
				go c.Connect(ctx)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if len(fresh) > 1 {
					t.Errorf("messages %d were sent without the acknowledgement of any, want the key exchange alone", fresh)
				}
				deaf.Store(false)
				time.Sleep(5 * time.Second)
				if got := c.Messages(); len(got) != 1 {
					t.Errorf("messages %q", got)
				}
			})
		})
	}
}

// Refusals of all kinds reach the client with their reason, two seconds after its login came, and nothing else does
// (S039, S045). After that the session is gone in five seconds, whatever the client keeps sending (S030).
func TestRefused(t *testing.T) {
	deny := func(err error) func(*testing.T, *setup) {
		return func(_ *testing.T, s *setup) {
			s.admitting(func(context.Context, *tlsctl.Hello) (*tlsctl.Grant, error) { return nil, err })
		}
	}
	for _, test := range []struct {
		name string
		set  func(t *testing.T, s *setup)
		want string
		at   time.Duration // 0: two seconds
	}{
		{"wrong password", deny(&tlsctl.Denial{Public: "wrong user name or password"}), "AUTH_FAILED,wrong user name or password", 0},
		{"wrapped denial", deny(fmt.Errorf("login: %w", &tlsctl.Denial{Public: "no"})), "AUTH_FAILED,no", 0},
		{"without a reason", deny(&tlsctl.Denial{}), "AUTH_FAILED", 0},
		{"temporary", deny(&tlsctl.Denial{Temporary: true}), "AUTH_FAILED,TEMP", 0},
		{"temporary with text", deny(&tlsctl.Denial{Temporary: true, Public: "busy"}), "AUTH_FAILED,TEMP:busy", 0},
		{"directory away", deny(errors.New("connection refused")), "AUTH_FAILED,TEMP:temporary failure, try again later", 0},
		{"directory away, old client", func(t *testing.T, s *setup) {
			deny(errors.New("connection refused"))(t, s)
			s.client.PeerInfo = ctltest.PeerInfo24
		}, "AUTH_FAILED,temporary failure, try again later", 0},
		{"slow no", func(t *testing.T, s *setup) {
			s.admitting(func(context.Context, *tlsctl.Hello) (*tlsctl.Grant, error) {
				time.Sleep(10 * time.Second)
				return nil, &tlsctl.Denial{Public: "no"}
			})
		}, "AUTH_FAILED,no", 10 * time.Second},
		{"no from a slow directory", func(t *testing.T, s *setup) {
			s.admitting(func(context.Context, *tlsctl.Hello) (*tlsctl.Grant, error) {
				time.Sleep(2500 * time.Millisecond)
				return nil, &tlsctl.Denial{Public: "no"}
			})
		}, "AUTH_FAILED,no", 4 * time.Second},
		{"another no from a slow directory", func(t *testing.T, s *setup) {
			s.admitting(func(context.Context, *tlsctl.Hello) (*tlsctl.Grant, error) {
				time.Sleep(3900 * time.Millisecond)
				return nil, &tlsctl.Denial{Public: "no"}
			})
		}, "AUTH_FAILED,no", 4 * time.Second},
		{"no answer from a slow directory", func(t *testing.T, s *setup) {
			s.admitting(func(context.Context, *tlsctl.Hello) (*tlsctl.Grant, error) {
				time.Sleep(10*time.Second + time.Millisecond)
				return nil, &tlsctl.Denial{Temporary: true}
			})
		}, "AUTH_FAILED,TEMP", 10 * time.Second},
		{"no when the time for it is nearly over", func(t *testing.T, s *setup) {
			s.cfg.Timing.HandWindow = 5 * time.Second
			s.admitting(func(context.Context, *tlsctl.Hello) (*tlsctl.Grant, error) {
				time.Sleep(2500 * time.Millisecond)
				return nil, &tlsctl.Denial{Public: "no"}
			})
		}, "AUTH_FAILED,no", 2500 * time.Millisecond},
		{"no grant", deny(nil), "AUTH_FAILED", 0},
		{"no login", func(t *testing.T, s *setup) { s.client.Login, s.cfg.WantLogin = false, true },
			"AUTH_FAILED,user name and password required", 0},
		{"long name", func(t *testing.T, s *setup) { s.client.Username = strings.Repeat("a", 256) },
			"AUTH_FAILED,user name or password is too long", 0},
		{"long password", func(t *testing.T, s *setup) { s.client.Password = strings.Repeat("a", 4097) },
			"AUTH_FAILED,user name or password is too long", 0},
		{"no cipher", func(t *testing.T, s *setup) { s.client.PeerInfo = "IV_CIPHERS=BF-CBC\nIV_PROTO=990\n" },
			"AUTH_FAILED,Data channel cipher negotiation failed (no shared cipher)", 0},
		{"tap", func(t *testing.T, s *setup) { s.client.Options = "V4,dev-type tap,key-method 2,tls-client" },
			"AUTH_FAILED,this server takes tun clients only: write dev tun in the profile", 0},
		{"tun, at a server for tap", func(t *testing.T, s *setup) {
			s.cfg.Tap, s.client.Options = true, "V4,dev-type tun,key-method 2,tls-client"
		}, "AUTH_FAILED,this server takes tap clients only: write dev tap in the profile", 0},
		{"revoked", func(t *testing.T, s *setup) {
			der, err := s.ca.Revoke(1, time.Now().Add(time.Hour), s.client.TLS.Certificates[0].Leaf.SerialNumber)
			if err != nil {
				t.Fatal(err)
			}
			crl, err := tlsctl.ParseCRL(der, []*x509.Certificate{s.ca.Cert})
			if err != nil {
				t.Fatal(err)
			}
			s.cfg.Certs.CRL.Store(crl)
		}, "AUTH_FAILED,certificate revoked", 0},
		{"CRL out of date", func(t *testing.T, s *setup) { // S068
			der, err := s.ca.Revoke(1, time.Now().Add(time.Hour), big.NewInt(99))
			if err != nil {
				t.Fatal(err)
			}
			crl, err := tlsctl.ParseCRL(der, []*x509.Certificate{s.ca.Cert})
			if err != nil {
				t.Fatal(err)
			}
			s.cfg.Certs.CRL.Store(crl)
			time.Sleep(2 * time.Hour)
		}, "AUTH_FAILED,certificate revoked", 0},
		{"name", func(t *testing.T, s *setup) {
			s.client.TLS.Certificates[0] = s.issue("../alice", x509.ExtKeyUsageClientAuth)
		}, "AUTH_FAILED,certificate name not acceptable", 0},
		{"data key", func(t *testing.T, s *setup) {
			s.newOwner = func() *ctltest.Owner {
				return &ctltest.Owner{OnInstall: func(tlsctl.KeyMaterial) error { return errors.New("no place") }}
			}
		}, "AUTH_FAILED,TEMP:temporary failure, try again later", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t)
				test.set(t, s)
				c := s.dial()
				defer s.done(c)
				start := time.Now()
				err := c.Connect(t.Context())
				if refused, ok := errors.AsType[*ctltest.Refused](err); !ok || refused.Text != test.want {
					t.Fatalf("got %v, want %q", err, test.want)
				}
				if test.at == 0 {
					test.at = 2 * time.Second
				}
				if took := time.Since(start); took < test.at || took > test.at+100*time.Millisecond {
					t.Errorf("refused after %v, want %v", took, test.at)
				}
				if got := c.Messages(); len(got) != 1 {
					t.Errorf("messages %q", got)
				}
				err = s.live().Wait()
				if _, ok := errors.AsType[*tlsctl.Denial](err); !ok {
					t.Errorf("the session ended with %v", err)
				}
				if took := time.Since(start); took > test.at+5100*time.Millisecond {
					t.Errorf("the session went on for %v", took)
				}
				for _, e := range s.live().Owner.Events() {
					if e == "established" || e == "install 0" && test.name != "data key" {
						t.Errorf("event %q", e)
					}
				}
			})
		})
	}
}

// A refused client that ignores it and goes on asking and renegotiating is gone all the same (S030).
func TestRefusedGoesOnTalking(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		c := s.connect(ctx)
		defer s.done(c)
		time.Sleep(10 * time.Second)
		start := time.Now()
		s.live().Deny(&tlsctl.Denial{Public: "revoked"})
		synctest.Wait()
		if left, at := s.live().Owner.Left(); len(left) != 1 || !at.Equal(start) {
			t.Errorf("left with %v at %v", left, at)
		}
		stop := context.AfterFunc(ctx, func() {})
		defer stop()
		ended := make(chan error)
		go func() { ended <- s.live().Wait() }()
		for {
			select {
			case err := <-ended:
				if took := time.Since(start); took > 5100*time.Millisecond {
					t.Errorf("gone after %v", took)
				}
				if d, ok := errors.AsType[*tlsctl.Denial](err); !ok || d.Public != "revoked" {
					t.Errorf("ended with %v", err)
				}
				if left, _ := s.live().Owner.Left(); len(left) != 1 {
					t.Errorf("left %d times", len(left))
				}
				return
			case <-time.After(100 * time.Millisecond):
				c.SoftReset(1)
				c.SayOn(0, []byte("PUSH_REQUEST\x00"))
				c.SayOn(0, []byte("EXIT\x00"))
			}
		}
	})
}

// What a client must keep the same in a renegotiation: user name and certificate.
func TestIdentityIsLocked(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(s *setup, x []byte) []byte
		good   bool
	}{
		{"nothing", func(s *setup, x []byte) []byte { return x }, true},
		{"password", func(s *setup, x []byte) []byte { return bytes.Replace(x, []byte("secret"), []byte("tokens"), 1) }, true},
		{"user name", func(s *setup, x []byte) []byte { return bytes.Replace(x, []byte("alice"), []byte("adele"), 1) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				first := true
				s.client.Exchange = func(x []byte) []byte {
					if first {
						first = false
						return x
					}
					return test.change(s, x)
				}
				testLocked(t, ctx, s, test.good, nil)
			})
		})
	}
	t.Run("certificate", func(t *testing.T) {
		inBubble(t, func(t *testing.T, ctx context.Context) {
			s := newSetup(t)
			testLocked(t, ctx, s, false, func() {
				// The same name again, another certificate.
				s.client.TLS.Certificates[0] = s.issue("alice", x509.ExtKeyUsageClientAuth)
			})
		})
	})
}

func testLocked(t *testing.T, ctx context.Context, s *setup, good bool, change func()) {
	c := s.connect(ctx)
	defer s.done(c)
	time.Sleep(2 * time.Second)
	if change != nil {
		change()
	}
	if err := c.Renegotiate(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	admitted := slices.Contains(s.live().Owner.Events(), "admit 1")
	left, _ := s.live().Owner.Left()
	if admitted != good || (left == nil) != good {
		t.Errorf("admit was asked: %v, session ended: %v; want %v, %v", admitted, left != nil, good, !good)
	}
}

// TLS failures are told by an alert, and end the session.
func TestCertificateRefusedByTLS(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.client.TLS.Certificates[0] = s.issue("alice", x509.ExtKeyUsageServerAuth)
		c := s.dial()
		defer s.done(c)
		err := c.Connect(ctx)
		if err == nil || !strings.Contains(err.Error(), "remote error: tls: bad certificate") {
			t.Errorf("client got %v", err)
		}
		err = s.live().Wait()
		if _, ok := errors.AsType[*tlsctl.TLSError](err); !ok {
			t.Errorf("session ended with %v", err)
		}
		if got := s.live().Owner.Events(); !slices.Equal(got, []string{"leaving"}) {
			t.Errorf("events %q", got)
		}
	})
}

// An alert that is lost goes out again: the client shall not wait for its whole minute. Where it never arrives the session
// is over within seconds all the same.
func TestAlertIsLost(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprintf("for good=%v", deaf), func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				s.client.TLS.Certificates[0] = s.issue("alice", x509.ExtKeyUsageServerAuth)
				c := s.dial()
				defer s.done(c)
				// The client sends its certificate when it has what the server says first; what comes down behind that is the
				// alert, and acknowledgements.
				var greeted atomic.Bool
				var shown atomic.Int64
				control := func(pkt []byte) bool { return pkt[0]>>3 == byte(tlsctl.OpControl) }
				s.up.Drop(func(pkt []byte) bool {
					if control(pkt) && greeted.Load() {
						shown.CompareAndSwap(0, time.Now().UnixNano())
					}
					return false
				})
				s.down.Drop(func(pkt []byte) bool {
					if at := shown.Load(); at != 0 {
						return deaf || time.Since(time.Unix(0, at)) < time.Second
					}
					if control(pkt) {
						greeted.Store(true)
					}
					return false
				})
				start := time.Now()
				within, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				err := c.Connect(within)
				if heard := err != nil && strings.Contains(err.Error(), "remote error: tls: bad certificate"); heard == deaf {
					t.Errorf("client got %v", err)
				}
				if _, ok := errors.AsType[*tlsctl.TLSError](s.live().Wait()); !ok {
					t.Errorf("session ended with %v", s.live().Wait())
				}
				if took := time.Since(start); !deaf && took > 3*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
