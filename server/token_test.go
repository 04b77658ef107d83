package server

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/tlsctl/ctltest"
)

// A register is a back end that knows one password for everybody, and who is still there.
type register struct {
	mu     sync.Mutex
	asked  []string // passwords
	vouch  int      // how often it was asked to vouch
	gone   map[string]bool
	away   bool
	called string // what it calls everybody; "": what they call themselves
}

var errAway = errors.New("directory is away")

func (g *register) Authenticate(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, string(r.Password))
	name := r.Username
	if g.called != "" {
		name = g.called
	}
	switch {
	case g.away:
		return nil, errAway
	case string(r.Password) != "secret" || g.gone[name]:
		return nil, &auth.Denied{Reason: "wrong password", Public: auth.PublicRefusal}
	}
	return &auth.Identity{Name: name, By: "register"}, nil
}

func (g *register) Vouch(_ context.Context, name string) (*auth.Identity, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.vouch++
	switch {
	case g.away:
		return nil, errAway
	case g.gone[name]:
		return nil, &auth.Denied{Reason: "not there any more", Public: auth.PublicRefusal}
	}
	return &auth.Identity{Name: name, By: "register"}, nil
}

func (g *register) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

// passwords is what it was asked.
func (g *register) passwords() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.asked)
}

// withTokens makes the world's login a register with tokens.
func (w *world) withTokens(o auth.TokenOptions) *register {
	w.t.Helper()
	g := &register{gone: make(map[string]bool)}
	w.login, w.tokens = g, w.newTokens(g, o)
	return g
}

func (w *world) newTokens(g *register, o auth.TokenOptions) *auth.Tokens {
	w.t.Helper()
	if o.Secret == nil {
		o.Secret = auth.NewTokenSecret()
	}
	if o.Renewal == 0 {
		o.Renewal = time.Hour
	}
	if o.Voucher == nil {
		o.Voucher = g
	}
	o.MatchCertificate = true
	t, err := auth.NewTokens(o, zerolog.New(w.log))
	must(w.t, err)
	return t
}

// tokenPeer is a client that logs in with a password, and with its token once it has one, as stock clients do.
func (w *world) tokenPeer(name string) *peer { return w.tokenPeerNamed(name, name) }

// tokenPeerNamed is one that calls itself otherwise than its certificate.
func (w *world) tokenPeerNamed(cert, user string) *peer {
	w.t.Helper()
	var p *peer
	p = w.peer(cert, homeAddr, withLogin(user, "secret"), func(c *ctltest.Config) {
		c.Credentials = func() (string, string) { return p.credentials(user, "secret") }
	})
	return p
}

func (p *peer) credentials(user, password string) (string, string) {
	token, name := p.ctl.Token()
	if token != "" {
		password = token
	}
	if name != "" {
		user = name
	}
	return user, password
}

// again is a session of the same client, from another port, that logs in with these words.
func (p *peer) again(port uint16, user, password string) *peer {
	p.w.t.Helper()
	return p.w.peerWith(p.cert, netip.AddrPortFrom(otherAddr.Addr(), port), withLogin(user, password))
}

// A client is pushed a token, uses it at renegotiations without anybody being asked, gets another each time and at each
// renewal, and comes again with it.
func TestTokenTakesThePlaceOfThePassword(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		g := w.withTokens(auth.TokenOptions{Renewal: 10 * time.Minute})
		w.start()
		alice := w.tokenPeer("alice").connect()
		first, name := alice.ctl.Token()
		if !strings.HasPrefix(first, "SESS_ID_AT_") || name != "" {
			t.Fatalf("pushed %q, name %q", first, name)
		}
		time.Sleep(time.Minute)
		alice.renegotiate()
		second, _ := alice.ctl.Token()
		if second == first {
			t.Error("no other token after a renegotiation")
		}
		for i := range 3 {
			before, _ := alice.ctl.Token()
			time.Sleep(10*time.Minute + time.Second)
			if after, _ := alice.ctl.Token(); after == before {
				t.Errorf("renewal %d: no other token", i)
			}
		}
		alice.renegotiate()
		alice.mustReach()
		token, _ := alice.ctl.Token()
		alice.ctl.Close()
		again := alice.again(1, "alice", token).connect()
		again.mustReach()
		if got := g.passwords(); !slices.Equal(got, []string{"secret"}) {
			t.Errorf("the back end saw %q, want the password once", got)
		}
	})
}

// A client without a token, as after `auth-nocache` with tokens off, sends the password at each renegotiation, and one
// who does not get it right is out.
func TestPasswordAtRenegotiation(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		g := &register{}
		w.login = g
		w.start()
		var mu sync.Mutex
		password := "secret"
		alice := w.peer("alice", homeAddr, withLogin("alice", ""), func(c *ctltest.Config) {
			c.Credentials = func() (string, string) {
				mu.Lock()
				defer mu.Unlock()
				return "alice", password
			}
		}).connect()
		time.Sleep(time.Minute)
		alice.renegotiate()
		alice.mustReach()
		mu.Lock()
		password = "guess"
		mu.Unlock()
		time.Sleep(time.Minute)
		alice.ctl.Renegotiate(w.ctx)
		if _, err := alice.ctl.AwaitMessage(w.ctx, "AUTH_FAILED"); err != nil {
			t.Fatal(err)
		}
		alice.mustNotReach()
		if got, want := g.passwords(), []string{"secret", "secret", "guess"}; !slices.Equal(got, want) {
			t.Errorf("the back end saw %q, want %q", got, want)
		}
	})
}

// mustNotReach sends a packet that must not come through.
func (p *peer) mustNotReach() {
	p.w.t.Helper()
	p.w.written()
	p.send(udp(p.addr4(), lanHost, []byte("ask")))
	if got := p.w.written(); len(got) != 0 {
		p.w.t.Errorf("%s: %d packets came through", p.name, len(got))
	}
}

// S048: when 12 hours are over the client is told that its session is, at the next renegotiation or when it comes again,
// however often it was renewed; and comes in with the password.
func TestTokenEndsAfterTwelveHours(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.Renegotiate = time.Hour
		g := w.withTokens(auth.TokenOptions{})
		w.start()
		alice := w.tokenPeer("alice").connect()
		began := time.Now()
		text, err := alice.ctl.AwaitMessage(w.ctx, "AUTH_FAILED")
		if want := "AUTH_FAILED,SESSION: token expired"; err != nil || text != want {
			t.Fatalf("%q, %v, want %q", text, err, want)
		}
		// Renegotiations are jittered down by up to 10 %.
		if lasted := time.Since(began); lasted < 12*time.Hour || lasted > 13*time.Hour {
			t.Errorf("the session lasted %v, want 12 to 13 h", lasted)
		}
		if got := g.passwords(); len(got) != 1 {
			t.Errorf("the back end saw %q", got)
		}
		token, _ := alice.ctl.Token()
		if text, _ := alice.again(1, "alice", token).refusal(); text != "AUTH_FAILED,SESSION: token expired" {
			t.Errorf("with the old token again: %q", text)
		}
		alice.again(2, "alice", "secret").connect().mustReach()
	})
}

// S049: a token is good for its user with its certificate. Whoever tries another's is told no more than that it is over,
// and no back end sees it.
func TestTokenOfAnother(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		g := w.withTokens(auth.TokenOptions{})
		w.start()
		alice := w.tokenPeer("alice").connect()
		token, _ := alice.ctl.Token()
		asked := len(g.passwords())
		bob := w.peer("bob", otherAddr, withLogin("bob", "secret")).connect()
		for i, c := range []struct{ name, user, password string }{
			{"bob", "bob", token},
			{"bob", "alice", token},
			{"bob", "", token},
			{"alice", "alice", token}, // alice's name on another key
			{"bob", "bob", token[:len(token)-1]},
			{"bob", "bob", "SESS_ID_AT_"},
		} {
			text, after := w.peer(c.name, netip.AddrPortFrom(thirdAddr.Addr(), uint16(i)), withLogin(c.user, c.password)).refusal()
			want := "AUTH_FAILED,SESSION: token expired"
			if len(c.password) < len(token) {
				want = "AUTH_FAILED," + auth.PublicRefusal // it is a password, and a wrong one
			}
			if text != want {
				t.Errorf("%s as %q: %q, want %q", c.name, c.user, text, want)
			}
			if off := after - 2*time.Second; off < -300*time.Millisecond || off > 300*time.Millisecond {
				t.Errorf("%s as %q: refused after %v, want 2 s", c.name, c.user, after)
			}
		}
		if got := g.passwords()[asked:]; slices.Contains(got, token) {
			t.Errorf("the back end saw a token: %q", got)
		}
		alice.mustReach()
		bob.mustReach()
	})
}

// S049: a user who is gone, or is another than before, loses the token at once; and one who is only in the directory is
// asked about every 15 minutes. S062: a directory that is away ends no session that has a good token.
func TestTokenOfWhoIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(g *register, epoch *string)
		after  time.Duration // of the change
		want   string        // at the renegotiation; "": it goes on
		again  string        // with the token, from a new session
	}{
		"epoch":          {func(_ *register, epoch *string) { *epoch = "2" }, time.Second, "AUTH_FAILED,SESSION: token expired", "AUTH_FAILED,SESSION: token expired"},
		"gone, 16 min":   {func(g *register, _ *string) { g.gone["alice"] = true }, 16 * time.Minute, "AUTH_FAILED," + auth.PublicRefusal, "AUTH_FAILED," + auth.PublicRefusal},
		"away, 16 min":   {func(g *register, _ *string) { g.away = true }, 16 * time.Minute, "", "AUTH_FAILED,TEMP"},
		"away, 90 min":   {func(g *register, _ *string) { g.away = true }, 90 * time.Minute, "", "AUTH_FAILED,TEMP"},
		"gone, only now": {func(g *register, _ *string) { g.gone["alice"] = true }, time.Second, "", "AUTH_FAILED," + auth.PublicRefusal},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				var mu sync.Mutex
				epoch := "1"
				g := w.withTokens(auth.TokenOptions{Renewal: 20 * time.Minute, Epoch: func(string) string {
					mu.Lock()
					defer mu.Unlock()
					return epoch
				}})
				w.start()
				alice := w.tokenPeer("alice").connect()
				mu.Lock()
				g.set(func() { c.change(g, &epoch) })
				mu.Unlock()
				time.Sleep(c.after)
				go alice.ctl.Renegotiate(w.ctx)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				text := ""
				for _, m := range alice.ctl.Messages() {
					if strings.HasPrefix(m, "AUTH_FAILED") {
						text = m
					}
				}
				if text != c.want {
					t.Errorf("at the renegotiation %q, want %q", text, c.want)
				}
				if in := len(w.clients()) == 1; in != (c.want == "") {
					t.Errorf("connected: %v", w.clients())
				}
				token, _ := alice.ctl.Token()
				if text, _ := alice.again(1, "alice", token).refusal(); !strings.HasPrefix(text, c.again) {
					t.Errorf("again: %q, want %q", text, c.again)
				}
			})
		})
	}
}

// A reload keeps tokens: the secret is the same. When it takes tokens away, those that are left are nobody's password.
func TestReloadKeepsTokens(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		secret := auth.NewTokenSecret()
		g := w.withTokens(auth.TokenOptions{Secret: secret})
		w.start()
		alice := w.tokenPeer("alice").connect()
		next := *w.cfg
		_, err := w.srv.Reload(&next, Login{Auth: g, Tokens: w.newTokens(g, auth.TokenOptions{Secret: secret})})
		must(t, err)
		time.Sleep(time.Minute)
		alice.renegotiate()
		alice.mustReach()

		next2 := next
		_, err = w.srv.Reload(&next2, Login{Auth: g})
		must(t, err)
		time.Sleep(time.Minute)
		go alice.ctl.Renegotiate(w.ctx)
		if text, err := alice.ctl.AwaitMessage(w.ctx, "AUTH_FAILED"); err != nil || text != "AUTH_FAILED,SESSION: token expired" {
			t.Errorf("%q, %v", text, err)
		}
		if got := g.passwords(); !slices.Equal(got, []string{"secret"}) {
			t.Errorf("the back end saw %q, want the password once", got)
		}

		// Tokens that come with a reload reach who is connected at the next renegotiation.
		bob := w.peer("bob", thirdAddr, withLogin("bob", "secret")).connect()
		next3 := next2
		_, err = w.srv.Reload(&next3, Login{Auth: g, Tokens: w.newTokens(g, auth.TokenOptions{Secret: secret})})
		must(t, err)
		time.Sleep(time.Minute)
		bob.renegotiate()
		if token, _ := bob.ctl.Token(); token == "" {
			t.Error("bob has no token")
		}
	})
}

// A client that goes by another name than its back end knows it by is told the name to use with its token, and used to.
func TestTokenUserIsPushed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		g := w.withTokens(auth.TokenOptions{})
		g.called = "alice"
		w.start()
		alice := w.tokenPeerNamed("alice", "a.liddell").connect()
		token, name := alice.ctl.Token()
		if token == "" || name != "alice" {
			t.Fatalf("pushed %q and the name %q, want alice", token, name)
		}
		for range 3 {
			time.Sleep(time.Minute)
			alice.renegotiate()
		}
		alice.mustReach()
		if got := g.passwords(); len(got) != 1 {
			t.Errorf("the back end saw %q", got)
		}
	})
}

// With `external-auth` the back end is asked each time, hears what the token is worth, and decides; back ends that know
// of no tokens vouch for whom a good one names.
func TestExternalTokens(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		var states []string
		g := w.withTokens(auth.TokenOptions{External: true})
		inner := auth.ByToken(auth.Vouched(g), g)
		w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			mu.Lock()
			states = append(states, r.Token.State.String())
			mu.Unlock()
			return inner.Authenticate(ctx, r)
		})
		w.start()
		alice := w.tokenPeer("alice").connect()
		time.Sleep(time.Minute)
		alice.renegotiate()
		alice.mustReach()
		if g.vouch != 1 {
			t.Errorf("asked to vouch %d times, want once", g.vouch)
		}
		token, _ := alice.ctl.Token()
		g.set(func() { g.gone["alice"] = true })
		go alice.ctl.Renegotiate(w.ctx)
		if text, err := alice.ctl.AwaitMessage(w.ctx, "AUTH_FAILED"); err != nil || text != "AUTH_FAILED,"+auth.PublicRefusal {
			t.Errorf("gone: %q, %v", text, err)
		}
		g.set(func() { g.gone["alice"] = false })
		time.Sleep(2 * time.Hour)
		if text, _ := alice.again(1, "alice", token).refusal(); text != "AUTH_FAILED,SESSION: token expired" {
			t.Errorf("expired: %q", text)
		}
		if text, _ := alice.again(2, "alice", "SESS_ID_AT_"+strings.Repeat("A", 80)).refusal(); text != "AUTH_FAILED,SESSION: token expired" {
			t.Errorf("forged: %q", text)
		}
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"Initial", "Authenticated", "Authenticated", "Expired", "Invalid"}; !slices.Equal(states, want) {
			t.Errorf("states %q, want %q", states, want)
		}
		if got := g.passwords(); !slices.Equal(got, []string{"secret"}) {
			t.Errorf("the back end saw %q, want the password once", got)
		}
	})
}

// With `external-auth` too, nobody who is in with a good token is put out because nobody can be asked about it (S062): a
// script that takes too long is a back end that is away, and so is one that fails after it has asked the user. A token that
// is over needs somebody's yes: without it its client is told to come again, and has no tunnel (S042, S048), not even by a
// token that was good when it was shown before.
func TestExternalTokensNobodyToAsk(t *testing.T) {
	for _, how := range []string{"fails", "hangs", "asks the user first"} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.cfg.Renegotiate = 24 * time.Hour
				if how == "hangs" {
					w.cfg.HandWindow = 5 * time.Second // less than a back end has otherwise
				}
				g := w.withTokens(auth.TokenOptions{External: true, Renewal: time.Hour})
				inner := auth.ByToken(auth.Vouched(g), g)
				var judged auth.TokenState
				w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
					g.mu.Lock()
					away := g.away
					if r.State == "" {
						judged = r.Token.State
					}
					g.mu.Unlock()
					switch {
					case away && how == "hangs":
						<-ctx.Done()
						return nil, ctx.Err()
					case away && how == "asks the user first" && r.State == "":
						return nil, &auth.Challenge{State: "s", Username: r.Username, Within: time.Minute}
					case away:
						return nil, errAway
					}
					return inner.Authenticate(ctx, r)
				})
				w.start()
				old := "" // shown in place of the newest
				var alice *peer
				alice = w.peer("alice", homeAddr, withLogin("alice", "secret"), func(c *ctltest.Config) {
					c.Credentials = func() (string, string) {
						if old != "" {
							return "alice", old
						}
						return alice.credentials("alice", "secret")
					}
				})
				alice.connect()
				first, _ := alice.ctl.Token()
				time.Sleep(time.Minute)
				alice.renegotiate()
				g.set(func() { g.away = true })
				for range 3 {
					time.Sleep(time.Minute)
					alice.renegotiate()
					alice.mustReach()
				}
				if judged != auth.TokenAuthenticated {
					t.Errorf("the token was %v", judged)
				}
				time.Sleep(3 * time.Hour)
				old = first // the one that somebody has said yes about
				go alice.ctl.Renegotiate(w.ctx)
				text, err := alice.ctl.AwaitMessage(w.ctx, "AUTH_FAILED")
				if err != nil || !strings.HasPrefix(text, "AUTH_FAILED,TEMP") {
					t.Errorf("with a token that is over: %q, %v", text, err)
				}
				if judged != auth.TokenExpired {
					t.Errorf("the token was %v", judged)
				}
				alice.mustNotReach()
				g.set(func() { g.away = false })
				if text, _ := alice.again(1, "alice", old).refusal(); text != "AUTH_FAILED,SESSION: token expired" {
					t.Errorf("when somebody can be asked: %q", text)
				}
			})
		})
	}
}

// `auth-user-pass-optional`: a client without a login is judged like any other; whoever judges sees empty strings.
func TestLoginOptional(t *testing.T) {
	for _, optional := range []bool{false, true} {
		inBubble(t, func(t *testing.T, w *world) {
			w.cfg.LoginOptional = optional
			var mu sync.Mutex
			var asked []string
			w.login = loginFunc(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, r.Username+":"+string(r.Password))
				if r.CommonName == "kiosk" {
					return &auth.Identity{Name: r.CommonName}, nil
				}
				return nil, &auth.Denied{Reason: "no login", Public: auth.PublicRefusal}
			})
			w.start()
			kiosk := w.peer("kiosk", homeAddr)
			if !optional {
				if text, _ := kiosk.refusal(); text != "AUTH_FAILED,user name and password required" {
					t.Errorf("without the directive: %q", text)
				}
				return
			}
			kiosk.connect().mustReach()
			if text, _ := w.peer("alice", otherAddr).refusal(); text != "AUTH_FAILED,"+auth.PublicRefusal {
				t.Errorf("alice: %q", text)
			}
			mu.Lock()
			defer mu.Unlock()
			if want := []string{":", ":"}; !slices.Equal(asked, want) {
				t.Errorf("asked %q, want %q", asked, want)
			}
		})
	}
}

// S049, F22: a local user who is removed is out within seconds, with and without a token; others stay.
func TestRemovedLocalUserEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		local := &roll{groups: make(map[string][]string)}
		local.set("alice", "local")
		local.set("bob", "local")
		w.login, w.local = local, local
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		bob := w.peer("bob", otherAddr, withLogin("bob", "secret")).connect()
		time.Sleep(time.Minute)
		local.set("alice")
		began := time.Now()
		if text, err := alice.ctl.AwaitMessage(w.ctx, "AUTH_FAILED"); err != nil || text != "AUTH_FAILED,"+auth.PublicRefusal {
			t.Errorf("alice: %q, %v", text, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("alice was out after %v, want 5 s", took)
		}
		alice.mustNotReach()
		bob.mustReach()
	})
}
