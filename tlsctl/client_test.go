package tlsctl_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// A player is a tlsctl.Client joined to the server of a setup, and what it was told.
type player struct {
	*tlsctl.Client
	send func([]byte)

	mu       sync.Mutex
	keys     []tlsctl.KeyMaterial
	heard    []string
	outcomes []error
}

func (p *player) Send(pkt []byte) { p.send(pkt) }

func (p *player) Install(k tlsctl.KeyMaterial) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	k.ToClient, k.FromClient = slices.Clone(k.ToClient), slices.Clone(k.FromClient)
	p.keys = append(p.keys, k)
	return nil
}

func (p *player) Heed(m string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, m)
}

func (p *player) Renegotiated(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outcomes = append(p.outcomes, err)
}

// same wants both ends to have the same keys, under these ids.
func (p *player) same(t *testing.T, o *ctltest.Owner, ids ...tlsctl.KeyID) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	theirs := o.Keys()
	if len(p.keys) != len(ids) || len(theirs) != len(ids) {
		t.Fatalf("client has %d keys, server %d, want %d", len(p.keys), len(theirs), len(ids))
	}
	for i, k := range p.keys {
		s := theirs[i]
		if k.ID != ids[i] || s.ID != k.ID || string(k.ToClient) != string(s.ToClient) || string(k.FromClient) != string(s.FromClient) ||
			k.Cipher != s.Cipher || k.PeerID != s.PeerID || k.V2 != s.V2 || k.Epoch != s.Epoch || k.Digest != s.Digest {
			t.Errorf("key %d: the ends differ, or it is not id %d", i, ids[i])
		}
	}
}

// play starts the server of s and a Client in place of the scripted one.
func (s *setup) play(change func(*tlsctl.ClientConfig)) *player {
	s.t.Helper()
	server, err := ctltest.NewServer(&s.cfg, s.newOwner)
	if err != nil {
		s.t.Fatal(err)
	}
	s.server = server
	p := new(player)
	first := true
	reply := func(pkt []byte) { s.down.Send(pkt, p.Deliver) }
	p.send = func(pkt []byte) {
		s.up.Send(pkt, func(b []byte) {
			if !s.client.Stream {
				server.Deliver(address, b, reply)
				return
			}
			f := first
			first = false
			if err := server.DeliverStream(address, b, f, reply); err != nil {
				s.t.Errorf("deliver: %v", err)
			}
		})
	}
	cfg := tlsctl.ClientConfig{TLS: s.client.TLS, Wrap: s.client.Wrap, Login: true, Username: "alice", Password: "secret", PeerInfo: s.client.PeerInfo}
	if change != nil {
		change(&cfg)
	}
	p.Client = tlsctl.NewClient(cfg, p)
	return p
}

func (s *setup) playedOut(p *player) {
	p.Close()
	s.server.Close(errTestOver)
	if n := tlsctl.Panics(); n != 0 {
		s.t.Errorf("%d panics", n)
	}
}

// A Client gets in under every wrap over a wire that loses, doubles and reorders, renegotiates and is renegotiated
// with, and both ends have the same keys each time.
func TestClient(t *testing.T) {
	for _, wrap := range wrapCases() {
		for _, stream := range []bool{false, true} {
			for _, info := range []string{"", ctltest.PeerInfo24, strings.Replace(tlsctl.ClientPeerInfo, "=990", "=2014", 1)} {
				t.Run(wrap.name, func(t *testing.T) {
					inBubble(t, func(t *testing.T, ctx context.Context) {
						s := newSharedSetup(t)
						wrap.set(t, s)
						s.cfg.Epoch = true
						s.client.Stream, s.client.PeerInfo = stream, info
						if !stream {
							s.up = ctltest.Wire{Loss: 0.1, Double: 0.1, Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}
							s.down = ctltest.Wire{Loss: 0.1, Double: 0.1, Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}
						}
						p := s.play(nil)
						defer s.playedOut(p)
						if err := p.Connect(ctx); err != nil {
							t.Fatalf("connect: %v", err)
						}
						if !slices.Contains(p.Options(), "peer-id 7") {
							t.Errorf("options %q", p.Options())
						}
						time.Sleep(2 * time.Second)
						if err := p.Renegotiate(ctx); err != nil {
							t.Fatalf("renegotiate: %v", err)
						}
						time.Sleep(30 * time.Second)
						l := s.server.Opened()[0]
						l.Renegotiate()
						time.Sleep(30 * time.Second)
						synctest.Wait()
						p.same(t, l.Owner, 0, 1, 2)
						if len(p.outcomes) != 1 || p.outcomes[0] != nil {
							t.Errorf("outcomes of the server's renegotiation: %v", p.outcomes)
						}
						l.Tell(tlsctl.Restart)
						time.Sleep(20 * time.Second)
						if p.mu.Lock(); len(p.heard) == 0 || p.heard[len(p.heard)-1] != "RESTART" {
							t.Errorf("heard %q", p.heard)
						}
						p.mu.Unlock()
						if err := p.Err(); err != nil {
							t.Errorf("client ended: %v", err)
						}
					})
				})
			}
		}
	}
}

// A Client that says goodbye is gone at once, and one that is refused says why.
func TestClientLeaves(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSharedSetup(t)
		p := s.play(nil)
		defer s.playedOut(p)
		if err := p.Connect(ctx); err != nil {
			t.Fatal(err)
		}
		if !p.Exit() {
			t.Error("no goodbye")
		}
		if err := s.live().Wait(); !errors.Is(err, tlsctl.ErrExit) {
			t.Errorf("session ended with %v", err)
		}
	})
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSharedSetup(t)
		s.newOwner = func() *ctltest.Owner {
			return &ctltest.Owner{OnAdmit: func(context.Context, *tlsctl.Hello) (*tlsctl.Grant, error) {
				return nil, &tlsctl.Denial{Public: "not you"}
			}}
		}
		p := s.play(nil)
		defer s.playedOut(p)
		refused := new(tlsctl.Refused)
		if err := p.Connect(ctx); !errors.As(err, &refused) || refused.Text != "AUTH_FAILED,not you" {
			t.Errorf("connect: %v", err)
		}
	})
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSharedSetup(t)
		s.down.Drop(func([]byte) bool { return true })
		p := s.play(nil)
		defer s.playedOut(p)
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := p.Connect(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("connect to nobody: %v", err)
		}
	})
}

// What a server says may be anything: no packet of it makes the Client panic.
func FuzzClientDeliver(f *testing.F) {
	f.Add([]byte{8 << 3, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0})
	f.Add([]byte{4 << 3, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 1, 22, 3, 3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, pkt []byte) {
		p := &player{send: func([]byte) {}}
		p.Client = tlsctl.NewClient(tlsctl.ClientConfig{}, p)
		defer p.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = p.Connect(ctx)
		p.Deliver([]byte{8 << 3, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0})
		p.Deliver(pkt)
	})
}
