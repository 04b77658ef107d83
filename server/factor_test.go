package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/netip"
	"path/filepath"
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

// A safe is a TOTP for alice and bob over a register.
type safe struct {
	w       *world
	g       *register
	totp    *auth.TOTP
	options auth.TOTPOptions
	secrets map[string]auth.TOTPSecret
}

// withCodes makes the world's login one with codes. What a run before may have taken is over.
func (w *world) withCodes(o auth.TOTPOptions) *safe {
	w.t.Helper()
	s := &safe{w: w, g: &register{gone: make(map[string]bool)}, secrets: make(map[string]auth.TOTPSecret)}
	o.File = filepath.Join(w.t.TempDir(), "totp-secrets")
	for _, name := range []string{"alice", "bob"} {
		var err error
		s.secrets[name], err = auth.AddTOTP(o.File, name)
		must(w.t, err)
	}
	var err error
	s.totp, err = auth.NewTOTP(o, zerolog.New(w.log))
	must(w.t, err)
	s.options, w.login = o, s.over(s.totp)
	time.Sleep(time.Minute)
	return s
}

// over is the login as cmd/postern composes it.
func (s *safe) over(t *auth.TOTP) auth.Authenticator {
	return auth.Answers(t.Require(auth.MatchCertificate(s.g)))
}

func (s *safe) code(name string) string { return s.secrets[name].Code(time.Now()) }

// next waits until another code is shown.
func (s *safe) next() { time.Sleep(30 * time.Second) }

func static(password, code string) string {
	return string(auth.FormatStatic([]byte(password), []byte(code)))
}

// announcing has a client say that its user can be asked these ways.
func announcing(sso string) func(*ctltest.Config) {
	return func(c *ctltest.Config) { c.PeerInfo = ctltest.PeerInfo26 + "IV_SSO=" + sso + "\n" }
}

// from is a place nobody else is at.
func from(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)}), 1194)
}

// A code comes beside the password, behind it or before it; is good once, from wherever it comes; and all that is wrong
// is refused alike (S045). Without a password or a code in it nobody is asked (S051).
func TestCodeWithThePassword(t *testing.T) {
	for _, place := range []auth.CodePlace{auth.CodeLast, auth.CodeFirst, auth.CodeApart} {
		inBubble(t, func(t *testing.T, w *world) {
			s := w.withCodes(auth.TOTPOptions{Place: place})
			w.start()
			code := s.code("alice")
			one := map[auth.CodePlace]string{auth.CodeLast: "secret" + code, auth.CodeFirst: code + "secret", auth.CodeApart: static("secret", code[:3]+" "+code[3:])}[place]
			alice := w.peer("alice", homeAddr, withLogin("alice", one)).connect()
			alice.mustReach()
			s.next()
			fresh := s.code("alice")
			again := w.peerWith(alice.cert, from(1), withLogin("alice", static("secret", fresh))).connect()
			again.mustReach()

			asked := len(s.g.passwords())
			const denied = "AUTH_FAILED," + auth.PublicRefusal
			for i, c := range []struct {
				what, cert, password, want string
				asks                       bool // that the password is looked at
			}{
				{"the same code", "alice", static("secret", fresh), denied, true},
				{"the code before", "alice", static("secret", code), denied, true},
				{"no code", "alice", static("secret", ""), denied, true},
				{"a wrong code", "alice", static("secret", "000000"), denied, true},
				{"bob's code", "alice", static("secret", s.code("bob")), denied, true},
				{"a wrong password", "bob", static("guess", s.code("bob")), denied, true},
				{"no password", "bob", static("", s.code("bob")), "AUTH_FAILED,empty password", false},
				{"nothing at all", "bob", static("", ""), "AUTH_FAILED,empty password", false},
				{"half a challenge", "bob", "SCRV1:c2VjcmV0", denied, false},
				{"not base64", "bob", "SCRV1:secret:123456", denied, false},
				{"a zero byte", "bob", "SCRV1:AHNlY3JldA==:MTIzNDU2", denied, false},
				{"a made-up answer", "bob", "CRV1::abcdef::" + s.code("bob"), denied, false},
				{"half an answer", "bob", "CRV1::abcdef", denied, false},
				{"a user without a secret", "carol", static("secret", "123456"), denied, true},
			} {
				cert := alice.cert
				if c.cert != "alice" {
					var err error
					cert, err = w.ca.Issue(c.cert, x509.ExtKeyUsageClientAuth, nil)
					must(t, err)
				}
				p := w.peerWith(cert, from(100+i), withLogin(c.cert, c.password))
				text, after := p.refusal()
				if text != c.want {
					t.Errorf("%s: %q, want %q", c.what, text, c.want)
				}
				if off := after - 2*time.Second; off < -300*time.Millisecond || off > 300*time.Millisecond {
					t.Errorf("%s: refused after %v, want 2 s", c.what, after)
				}
				got := len(s.g.passwords())
				if got-asked > 1 || got > asked != c.asks {
					t.Errorf("%s: the back end was asked %d times", c.what, got-asked)
				}
				asked = got
			}
			for _, p := range s.g.passwords() {
				if p != "secret" && p != "guess" {
					t.Errorf("the back end saw %q", p)
				}
			}
			again.mustReach()
		})
	}
}

// Whoever gives a password without a code is asked by the dynamic challenge, right or wrong, and comes again with the
// answer; which is good once, and for whom it was asked.
func TestCodeByDynamicChallenge(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.withCodes(auth.TOTPOptions{Text: "Code: from the app"})
		w.start()
		certs := map[string]tls.Certificate{}
		for _, name := range []string{"alice", "bob"} {
			var err error
			certs[name], err = w.ca.Issue(name, x509.ExtKeyUsageClientAuth, nil)
			must(t, err)
		}
		port := 0
		come := func(name, password string) *peer {
			port++
			return w.peerWith(certs[name], from(port), withLogin(name, password))
		}
		first := func(name, password string) (state string) {
			t.Helper()
			text, after := come(name, password).refusal()
			c, err := auth.ParseCRV1(strings.TrimPrefix(text, "AUTH_FAILED,"))
			if err != nil || c.Username != name || c.Text != "Code: from the app" || !c.Echo {
				t.Fatalf("%s: %q, %v", name, text, err)
			}
			if off := after - 2*time.Second; off < -300*time.Millisecond || off > 300*time.Millisecond {
				t.Errorf("%s: asked after %v, want 2 s", name, after)
			}
			return c.State
		}
		answer := func(name, state, code string) *peer {
			return come(name, string(auth.FormatReply(state, []byte(code))))
		}
		state := first("alice", "secret")
		answer("alice", state, s.code("alice")).connect().mustReach()
		for what, try := range map[string]func() *peer{
			"the state again":        func() *peer { return answer("alice", state, s.code("alice")) },
			"a wrong password":       func() *peer { return answer("bob", first("bob", "guess"), s.code("bob")) },
			"a wrong code":           func() *peer { return answer("bob", first("bob", "secret"), "000000") },
			"no code":                func() *peer { return answer("bob", first("bob", "secret"), "") },
			"alice's state from bob": func() *peer { return answer("bob", first("alice", "secret"), s.code("bob")) },
			"a state of yesterday": func() *peer {
				state := first("alice", "secret")
				time.Sleep(2*time.Minute + time.Second)
				return answer("alice", state, s.code("alice"))
			},
			"another key": func() *peer {
				state := first("alice", "secret")
				return w.peer("alice", from(200), withLogin("alice", string(auth.FormatReply(state, []byte(s.code("alice"))))))
			},
		} {
			s.next()
			if text, _ := try().refusal(); text != "AUTH_FAILED,"+auth.PublicRefusal {
				t.Errorf("%s: %q", what, text)
			}
		}
		s.next()
		answer("alice", first("alice", "secret"), s.code("alice")).connect().mustReach()
		answer("bob", first("bob", "secret"), s.code("bob")).connect().mustReach()
	})
}

// respond answers the question that a client was asked.
func (p *peer) respond(answer string) {
	p.w.t.Helper()
	must(p.w.t, p.ctl.Say("CR_RESPONSE,"+base64.StdEncoding.EncodeToString([]byte(answer))))
}

// A client that can ask within the session does: the login goes on when the answer is there, and not for longer than any
// other; meanwhile nobody else waits.
func TestCodeByText(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.withCodes(auth.TOTPOptions{})
		w.start()
		bob := w.peer("bob", homeAddr, withLogin("bob", static("secret", s.code("bob")))).connect()
		cert, err := w.ca.Issue("alice", x509.ExtKeyUsageClientAuth, nil)
		must(t, err)
		for i, c := range []struct {
			password string
			answer   func() (string, time.Duration) // and when
			want     string                         // "" is in
			after    time.Duration                  // of the answer, or of the login without one
		}{
			{"secret", func() (string, time.Duration) { return s.code("alice"), 20 * time.Second }, "", 0},
			{"secret", func() (string, time.Duration) { return "000000", 20 * time.Second }, "AUTH_FAILED," + auth.PublicRefusal, 0},
			{"guess", func() (string, time.Duration) { return s.code("alice"), 20 * time.Second }, "AUTH_FAILED," + auth.PublicRefusal, 0},
			{"secret", func() (string, time.Duration) { return "", 20 * time.Second }, "AUTH_FAILED," + auth.PublicRefusal, 0},
			{"guess", nil, "AUTH_FAILED,no answer in time", 55 * time.Second},
			{"secret", nil, "AUTH_FAILED,no answer in time", 55 * time.Second},
			{"secret", func() (string, time.Duration) { return s.code("alice"), 50 * time.Second }, "", 0},
		} {
			s.next()
			alice := w.peerWith(cert, from(1+i), withLogin("alice", c.password), announcing("webauth,crtext"))
			began := time.Now()
			done := make(chan error, 1)
			go func() { done <- alice.ctl.Connect(w.ctx) }()
			pending, err := alice.ctl.AwaitMessage(w.ctx, "AUTH_PENDING")
			must(t, err)
			question, err := alice.ctl.AwaitMessage(w.ctx, "INFO_PRE")
			must(t, err)
			if pending != "AUTH_PENDING,timeout 60" || question != "INFO_PRE,CR_TEXT:R,E:One-time code" {
				t.Errorf("%d: asked %q and %q", i, pending, question)
			}
			if after := time.Since(began); after < 2*time.Second || after > 2500*time.Millisecond {
				t.Errorf("%d: asked after %v, want 2 s", i, after)
			}
			bob.mustReach()
			if c.answer != nil {
				_, after := c.answer()
				time.Sleep(after)
				text, _ := c.answer()
				began = time.Now()
				alice.respond(text)
			}
			got := ""
			if err := <-done; err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("%d: %q, want %q", i, got, c.want)
			}
			if after := time.Since(began); after < c.after-time.Second || after > c.after+time.Second {
				t.Errorf("%d: %q after %v, want %v", i, got, after, c.after)
			}
			if got == "" {
				alice.mustReach()
			}
			alice.ctl.Close()
		}
	})
}

// A client that sends its password at a renegotiation is asked for another code: within the session where it can be, and
// traffic goes on meanwhile.
func TestCodeAtRenegotiation(t *testing.T) {
	for _, can := range []bool{true, false} {
		inBubble(t, func(t *testing.T, w *world) {
			s := w.withCodes(auth.TOTPOptions{})
			w.start()
			alice := w.peer("alice", homeAddr)
			password := static("secret", s.code("alice"))
			sso := announcing("crtext")
			if !can {
				sso = announcing("")
			}
			alice = w.peerWith(alice.cert, from(1), withLogin("alice", ""), sso, func(c *ctltest.Config) {
				c.Credentials = func() (string, string) { return "alice", password }
			}).connect()
			time.Sleep(time.Minute)
			password = "secret"
			done := make(chan error, 1)
			go func() { done <- alice.ctl.Renegotiate(w.ctx) }()
			if !can {
				if text, err := alice.ctl.AwaitMessage(w.ctx, "AUTH_FAILED"); err != nil || !strings.HasPrefix(text, "AUTH_FAILED,CRV1:R,E:") {
					t.Errorf("%q, %v, want a dynamic challenge", text, err)
				}
				alice.mustNotReach()
				return
			}
			_, err := alice.ctl.AwaitMessage(w.ctx, "INFO_PRE,CR_TEXT")
			must(t, err)
			time.Sleep(20 * time.Second)
			alice.mustReach()
			alice.respond(s.code("alice"))
			must(t, <-done)
			time.Sleep(time.Minute)
			alice.sendKey = 1
			alice.mustReach()
		})
	}
}

// Where hand-window leaves no time to ask within the session, the client comes again with the answer.
func TestNoTimeToAsk(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.withCodes(auth.TOTPOptions{})
		w.cfg.HandWindow = 6 * time.Second
		w.start()
		if text, _ := w.peer("alice", homeAddr, withLogin("alice", "secret"), announcing("crtext")).refusal(); !strings.HasPrefix(text, "AUTH_FAILED,CRV1:R,E:") {
			t.Errorf("%q, want a dynamic challenge", text)
		}
	})
}

// With a token nobody is asked for another code; and what was sent the first time is no login a second time.
func TestCodeOnceASession(t *testing.T) {
	for _, tokens := range []bool{true, false} {
		inBubble(t, func(t *testing.T, w *world) {
			s := w.withCodes(auth.TOTPOptions{})
			if tokens {
				w.tokens = w.newTokens(s.g, auth.TokenOptions{Epoch: s.totp.Epoch})
			}
			w.start()
			var alice *peer
			first := static("secret", s.code("alice"))
			alice = w.peer("alice", homeAddr, withLogin("alice", first), func(c *ctltest.Config) {
				c.Credentials = func() (string, string) { return alice.credentials("alice", first) }
			})
			alice.connect()
			for range 3 {
				time.Sleep(time.Minute)
				if !tokens {
					break
				}
				alice.renegotiate()
				alice.mustReach()
			}
			if tokens { // a new secret ends what was got with the old one
				_, err := auth.RenewTOTP(s.options.File, "alice")
				must(t, err)
			}
			go alice.ctl.Renegotiate(w.ctx)
			want := map[bool]string{true: "AUTH_FAILED,SESSION: token expired", false: "AUTH_FAILED," + auth.PublicRefusal}[tokens]
			if text, err := alice.ctl.AwaitMessage(w.ctx, "AUTH_FAILED"); err != nil || text != want {
				t.Errorf("tokens %v: %q, %v, want %q", tokens, text, err, want)
			}
			if tokens && len(s.g.passwords()) != 1 {
				t.Errorf("the back end saw %q", s.g.passwords())
			}
		})
	}
}

// Of many who come with one code at once, one is let in.
func TestCodeOnceAtOneTime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.DuplicateCN = true
		s := w.withCodes(auth.TOTPOptions{Guesses: auth.ThrottleOptions{PerUserAndSource: 100, BadBinds: 100}})
		w.start()
		cert, err := w.ca.Issue("alice", x509.ExtKeyUsageClientAuth, nil)
		must(t, err)
		const n = 20
		results := make(chan error, n)
		password := static("secret", s.code("alice"))
		for i := range n {
			p := w.peerWith(cert, from(1+i), withLogin("alice", password))
			go func() { results <- p.ctl.Connect(w.ctx) }()
		}
		in := 0
		for range n {
			if err := <-results; err == nil {
				in++
			} else if err.Error() != "AUTH_FAILED,"+auth.PublicRefusal {
				t.Error(err)
			}
		}
		if in != 1 {
			t.Errorf("%d were let in, want one", in)
		}
	})
}

// A reload keeps in mind which codes are spent, and answers to challenges of before are good.
func TestReloadKeepsCodes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		s := w.withCodes(auth.TOTPOptions{})
		w.start()
		code := s.code("alice")
		alice := w.peer("alice", homeAddr, withLogin("alice", static("secret", code))).connect()
		bob := w.peer("bob", from(1), withLogin("bob", "secret"))
		text, _ := bob.refusal()
		c, err := auth.ParseCRV1(strings.TrimPrefix(text, "AUTH_FAILED,"))
		must(t, err)

		o := s.options
		o.Optional, o.Text = true, "Another text"
		if s.totp, err = s.totp.With(o); err != nil {
			t.Fatal(err)
		}
		next := *w.cfg
		_, err = w.srv.Reload(&next, Login{Auth: s.over(s.totp)})
		must(t, err)
		if text, _ := w.peerWith(alice.cert, from(2), withLogin("alice", static("secret", code))).refusal(); text != "AUTH_FAILED,"+auth.PublicRefusal {
			t.Errorf("the code again: %q", text)
		}
		if text, _ := w.peer("alice", from(3), withLogin("alice", "secret")).refusal(); !strings.HasSuffix(text, ":Another text") {
			t.Errorf("alice is asked %q", text)
		}
		w.peer("carol", from(4), withLogin("carol", "secret")).connect() // codes are optional now, and carol has no secret
		w.peerWith(bob.cert, from(5), withLogin("bob", string(auth.FormatReply(c.State, []byte(s.code("bob")))))).connect().mustReach()
	})
}

// S010, S039: a factor elsewhere, as a web page, uses the way that codes use. It comes behind the password, and its
// users have more time than a login. What it says is one answer among others.
type page struct {
	next auth.Authenticator
	how  func(state string) *auth.Challenge

	mu   sync.Mutex
	held map[string]*auth.Identity
	said map[string]chan bool
}

func newPage(next auth.Authenticator, how func(state string) *auth.Challenge) *page {
	return &page{next: next, how: how, held: make(map[string]*auth.Identity), said: make(map[string]chan bool)}
}

func (p *page) Authenticate(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
	if r.State == "" {
		id, err := p.next.Authenticate(ctx, r)
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		state := "s-" + id.Name
		p.held[state], p.said[state] = id, make(chan bool, 1)
		c := p.how(state)
		c.State, c.Username = state, r.Username
		return nil, c
	}
	p.mu.Lock()
	id, said := p.held[r.State], p.said[r.State]
	delete(p.held, r.State)
	p.mu.Unlock()
	if id == nil || id.Name != r.Username {
		return nil, &auth.Denied{Reason: "nobody is waited for", Public: auth.PublicRefusal}
	}
	select {
	case yes := <-said:
		if yes {
			return id, nil
		}
		return nil, &auth.Denied{Reason: "the page says no", Public: auth.PublicRefusal}
	case <-ctx.Done():
		return nil, &auth.Denied{Reason: "nobody came to the page", Public: auth.PublicRefusal, Err: ctx.Err()}
	}
}

// say is what the page's own users do.
func (p *page) say(name string, yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said["s-"+name] <- yes
}

// The factors of tomorrow: a page that is opened, and a telephone that is waited for.
func TestFactorElsewhere(t *testing.T) {
	const url = "https://login.example/s"
	open := func(state string) *auth.Challenge {
		return &auth.Challenge{URL: url, Flags: []string{"external"}, Within: 4 * time.Minute}
	}
	ring := func(string) *auth.Challenge { return &auth.Challenge{Within: 4 * time.Minute} }
	for what, c := range map[string]struct {
		how      func(string) *auth.Challenge
		sso      string
		password string
		yes      bool
		after    time.Duration // 0: never
		messages []string
		want     string
	}{
		"page":                    {open, "webauth,openurl", "secret", true, 3 * time.Minute, []string{"AUTH_PENDING,timeout 245", "INFO_PRE,WEB_AUTH:external:" + url}, ""},
		"page, older client":      {open, "openurl", "secret", true, 3 * time.Minute, []string{"AUTH_PENDING,timeout 245", "INFO_PRE,OPEN_URL:" + url}, ""},
		"page, no":                {open, "webauth", "secret", false, time.Minute, nil, "AUTH_FAILED," + auth.PublicRefusal},
		"page, nobody came":       {open, "webauth", "secret", true, 0, nil, "AUTH_FAILED," + auth.PublicRefusal},
		"page, wrong password":    {open, "webauth", "guess", true, 0, []string{}, "AUTH_FAILED," + auth.PublicRefusal},
		"page, client opens none": {open, "crtext", "secret", true, 0, []string{}, "AUTH_FAILED,this login needs a client that can open web pages"},
		"telephone":               {ring, "", "secret", true, 3 * time.Minute, []string{"AUTH_PENDING,timeout 245"}, ""},
		"telephone, no":           {ring, "", "secret", false, time.Minute, nil, "AUTH_FAILED," + auth.PublicRefusal},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				g := &register{}
				p := newPage(auth.MatchCertificate(g), c.how)
				w.login, w.cfg.Renegotiate = auth.Answers(p), time.Hour
				w.start()
				alice := w.peer("alice", homeAddr, withLogin("alice", c.password), announcing(c.sso))
				done := make(chan error, 1)
				go func() { done <- alice.ctl.Connect(w.ctx) }()
				if c.after > 0 {
					time.Sleep(c.after)
					synctest.Wait()
					if len(w.clients()) > 0 || alice.ctl.Options() != nil {
						t.Error("in before the factor has said yes")
					}
					p.say("alice", c.yes)
				}
				got := ""
				if err := <-done; err != nil {
					got = err.Error()
				}
				if got != c.want {
					t.Errorf("%q, want %q; log:\n%s", got, c.want, w.log)
				}
				if asked := slices.DeleteFunc(alice.ctl.Messages(), func(m string) bool { return !strings.HasPrefix(m, "AUTH_PENDING") && !strings.HasPrefix(m, "INFO_PRE") }); c.messages != nil && !slices.Equal(asked, c.messages) {
					t.Errorf("asked %q, want %q", asked, c.messages)
				}
				if got == "" {
					alice.mustReach()
				}
				if n := len(g.passwords()); n != 1 {
					t.Errorf("the password was tried %d times", n)
				}
			})
		})
	}
}

// One who leaves while being asked leaves nothing behind.
func TestLeavingWhileAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.withCodes(auth.TOTPOptions{})
		w.start()
		for i, ways := range []string{"crtext", "webauth"} {
			alice := w.peer("alice", from(1+i), withLogin("alice", "secret"), announcing(ways))
			go alice.ctl.Connect(w.ctx)
			time.Sleep(5 * time.Second)
			alice.ctl.Close()
		}
		time.Sleep(2 * time.Minute)
		if n := w.srv.table.count(); n != 0 || w.srv.Snapshot().HalfOpen != 0 {
			t.Errorf("%d sessions, %d half-open", n, w.srv.Snapshot().HalfOpen)
		}
	})
}

// S047: while a user looks for a code the password is not kept.
func TestPasswordIsNotKeptWhileAsking(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		var kept [][]byte
		w.login = loginFunc(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
			mu.Lock()
			defer mu.Unlock()
			if r.State == "" {
				kept = append(kept, r.Password)
				return nil, &auth.Challenge{State: "s", Username: r.Username, Text: "Code", Within: time.Minute}
			}
			if len(r.Password) > 0 {
				t.Errorf("the password came again: %q", r.Password)
			}
			kept = append(kept, r.Response)
			return &auth.Identity{Name: r.Username}, nil
		})
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret"), announcing("crtext"))
		done := make(chan error, 1)
		go func() { done <- alice.ctl.Connect(w.ctx) }()
		_, err := alice.ctl.AwaitMessage(w.ctx, "INFO_PRE,CR_TEXT:R:Code")
		must(t, err)
		synctest.Wait()
		mu.Lock()
		if len(kept) != 1 || strings.Trim(string(kept[0]), "\x00") != "" {
			t.Errorf("kept %q", kept)
		}
		mu.Unlock()
		alice.respond("123456")
		must(t, <-done)
		synctest.Wait()
		if len(kept) != 2 || strings.Trim(string(kept[1]), "\x00") != "" {
			t.Errorf("kept %q", kept)
		}
	})
}
