package tlsctl_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

var askCode = tlsctl.Question{Method: tlsctl.AskText, Flags: []string{"R", "E"}, Text: "Enter the code:", Timeout: 2 * time.Minute}

// crText lets the client's user be asked in the session.
func (s *setup) crText() {
	if !strings.Contains(s.client.PeerInfo, "IV_SSO=") {
		s.client.PeerInfo += "IV_SSO=webauth,openurl,crtext\n"
	}
}

// answering has the client answer each question after a time.
func answering(ctx context.Context, c *ctltest.Client, after time.Duration, answers ...string) {
	for i, a := range answers {
		for {
			asked := 0
			for _, m := range c.Messages() {
				if strings.HasPrefix(m, "INFO_PRE,CR_TEXT:R") {
					asked++
				}
			}
			if asked > i {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(after):
			c.Say("CR_RESPONSE," + base64.StdEncoding.EncodeToString([]byte(a)))
		}
	}
}

// asking admits who answers 123456, and asks again twice.
func asking(q tlsctl.Question) func(context.Context, *tlsctl.Hello) (*tlsctl.Grant, error) {
	return func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
		for range 3 {
			switch code, err := h.Ask(ctx, q); {
			case err != nil:
				return nil, &tlsctl.Denial{Public: "no code", Err: err}
			case string(code) == "123456":
				return &ctltest.DefaultGrant, nil
			}
		}
		return nil, &tlsctl.Denial{Public: "wrong code"}
	}
}

// The users of all versions that can be asked answer within the session, at the first login and in a renegotiation,
// on a bad wire too; whoever can be told so waits for more than a minute.
func TestAsk(t *testing.T) {
	for _, p := range ctltest.Profiles[1:] { // 2.4 knows nothing of it
		for _, loss := range []float64{0, 0.15} {
			t.Run(fmt.Sprint(p.Name, " ", loss), func(t *testing.T) {
				inBubble(t, func(t *testing.T, _ context.Context) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					s := newSharedSetup(t)
					p.Apply(&s.client)
					s.crText()
					after := 90 * time.Second
					if p == ctltest.V25 {
						after = 20 * time.Second // it knows no AUTH_PENDING, and waits for a minute
					}
					if loss > 0 {
						s.bad(1, loss)
						s.cfg.Timing.FirstByte, s.cfg.Timing.Progress = time.Minute, time.Minute
						if after = 20 * time.Second; p == ctltest.V25 {
							s.patient()
							s.client.PushWithin = 0
						}
					}
					s.admitting(asking(askCode))
					c := s.dial()
					defer s.done(c)
					go answering(ctx, c, after, "123456", "654321", "123456")
					start := time.Now()
					if err := c.Connect(ctx); err != nil {
						t.Fatalf("connect: %v", err)
					}
					if took := time.Since(start); took < after {
						t.Errorf("connected after %v", took)
					}
					if err := s.awaitKeys(ctx, 1); err != nil {
						t.Fatal(err)
					}
					got := c.Messages()
					if i := slices.Index(got, "INFO_PRE,CR_TEXT:R,E:Enter the code:"); i < 1 || !strings.HasPrefix(got[i-1], "AUTH_PENDING") ||
						i+1 >= len(got) || !strings.HasPrefix(got[i+1], "PUSH_REPLY,") {
						t.Errorf("messages %q", got)
					}
					time.Sleep(2 * time.Second)
					if p == ctltest.V25 && loss == 0 {
						after = 10 * time.Second
					}
					if err := c.Renegotiate(ctx); err != nil {
						t.Fatalf("renegotiate: %v", err)
					}
					if err := s.awaitKeys(ctx, 2); err != nil {
						t.Fatal(err)
					}
					checkKeys(t, c, s.live().Owner, 0, 1)
				})
			})
		}
	}
}

// How long a question may be open, and what the client is told about it (S010).
func TestAskDeadlines(t *testing.T) {
	const (
		v26 = ctltest.PeerInfo26 + "IV_SSO=crtext\n"
		v25 = "IV_VER=2.5.11\nIV_PROTO=6\nIV_CIPHERS=AES-256-GCM\nIV_SSO=crtext\n"
	)
	for _, test := range []struct {
		name    string
		info    string
		timeout time.Duration
		timing  tlsctl.Timing
		pending string
		unfixed bool // the owner does not take no for an answer
		at      time.Duration
	}{
		{"two minutes", v26, 2 * time.Minute, tlsctl.Timing{}, "AUTH_PENDING,timeout 125", false, 120 * time.Second},
		{"as long as can be", v26, 0, tlsctl.Timing{}, "AUTH_PENDING,timeout 300", false, 295 * time.Second},
		{"an hour", v26, time.Hour, tlsctl.Timing{Renegotiate: -1}, "AUTH_PENDING,timeout 300", false, 295 * time.Second},
		{"half a short interval", v26, time.Hour, tlsctl.Timing{Renegotiate: 4 * time.Minute}, "AUTH_PENDING,timeout 120", false, 115 * time.Second},
		{"short", v26, 20 * time.Second, tlsctl.Timing{}, "AUTH_PENDING,timeout 60", false, 20 * time.Second},
		{"cannot be told", v25, 2 * time.Minute, tlsctl.Timing{}, "AUTH_PENDING", false, 55 * time.Second},
		{"stubborn owner", v26, 2 * time.Minute, tlsctl.Timing{}, "AUTH_PENDING,timeout 125", true, 120 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t)
				s.cfg.Timing = test.timing
				s.client.PeerInfo = test.info
				start := time.Now()
				s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
					q := askCode
					q.Timeout = test.timeout
					_, err := h.Ask(ctx, q)
					if took := time.Since(start).Round(time.Second); err != tlsctl.ErrNoAnswer || took != test.at {
						t.Errorf("got %v after %v, want %v", err, took, test.at)
					}
					if test.unfixed {
						<-ctx.Done()
						return &ctltest.DefaultGrant, nil
					}
					return nil, &tlsctl.Denial{Public: "no code"}
				})
				c := s.dial()
				defer s.done(c)
				go c.Connect(t.Context())
				time.Sleep(time.Second)
				err := s.live().Wait()
				want := []string{test.pending, "INFO_PRE,CR_TEXT:R,E:Enter the code:", "AUTH_FAILED,no code"}
				if test.unfixed {
					want = want[:2]
					if took := time.Since(start).Round(time.Second); err != tlsctl.ErrHandshakeTimeout || took != 125*time.Second {
						t.Errorf("ended with %v after %v", err, took)
					}
				} else if _, ok := errors.AsType[*tlsctl.Denial](err); !ok {
					t.Errorf("ended with %v", err)
				}
				if got := c.Messages(); !slices.Equal(got, want) {
					t.Errorf("messages %q, want %q", got, want)
				}
			})
		})
	}
}

// Whom and what and when not to ask.
func TestCannotAsk(t *testing.T) {
	for _, test := range []struct {
		name string
		info string
		q    tlsctl.Question
		want string // of the error; "": none
	}{
		{"answered", ctltest.PeerInfo26 + "IV_SSO=webauth,crtext\n", askCode, ""},
		{"others' ways", ctltest.PeerInfo26 + "IV_SSO=webauth,openurl\n", askCode, tlsctl.ErrCannotAsk.Error()},
		{"no ways", ctltest.PeerInfo26, askCode, tlsctl.ErrCannotAsk.Error()},
		{"to wait", ctltest.PeerInfo26, tlsctl.Question{}, ""},
		{"to wait, old", ctltest.PeerInfo24, tlsctl.Question{}, tlsctl.ErrCannotAsk.Error()},
		{"web page", ctltest.PeerInfo26 + "IV_SSO=webauth\n", tlsctl.Question{Method: tlsctl.AskWeb, Text: "https://example.com/?a=b"}, ""},
		{"URL", ctltest.PeerInfo26 + "IV_SSO=openurl\n", tlsctl.Question{Method: tlsctl.AskURL, Text: "https://example.com/"}, ""},
		{"told only", ctltest.PeerInfo26 + "IV_SSO=crtext\n", tlsctl.Question{Method: tlsctl.AskText, Text: "look at your telephone"}, ""},
		{"unknown way", ctltest.PeerInfo26 + "IV_SSO=smell\n", tlsctl.Question{Method: "smell"}, `question by the unknown method "smell"`},
		{"control byte", ctltest.PeerInfo26 + "IV_SSO=crtext\n", tlsctl.Question{Method: tlsctl.AskText, Text: "a\nb"},
			"question is too long, or holds a control byte"},
		{"too long", ctltest.PeerInfo26 + "IV_SSO=crtext\n", tlsctl.Question{Method: tlsctl.AskText, Text: strings.Repeat("x", 1006)},
			"question is too long, or holds a control byte"},
		{"just not too long", ctltest.PeerInfo26 + "IV_SSO=crtext\n", tlsctl.Question{Method: tlsctl.AskText, Text: strings.Repeat("x", 1005)}, ""},
		{"flags", ctltest.PeerInfo26 + "IV_SSO=crtext\n", tlsctl.Question{Method: tlsctl.AskText, Flags: []string{"R:"}}, `question with flags "R:"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				s.client.PeerInfo = test.info
				var h *tlsctl.Hello
				s.admitting(func(ctx context.Context, hello *tlsctl.Hello) (*tlsctl.Grant, error) {
					h = hello
					if _, err := h.Ask(ctx, test.q); err == nil && test.want != "" || err != nil && err.Error() != test.want {
						t.Errorf("got %v, want %q", err, test.want)
					}
					return &ctltest.DefaultGrant, nil
				})
				c := s.dial()
				defer s.done(c)
				go answering(ctx, c, time.Second, "123456")
				if err := c.Connect(ctx); err != nil {
					t.Fatal(err)
				}
				if got := c.Messages(); test.want != "" && len(got) != 1 {
					t.Errorf("messages %q", got)
				}
				if _, err := h.Ask(ctx, test.q); err == nil || test.want == "" && err != tlsctl.ErrCannotAsk {
					t.Errorf("after the login: %v", err)
				}
				if got := c.Messages(); !strings.HasPrefix(got[len(got)-1], "PUSH_REPLY") {
					t.Errorf("messages %q", got)
				}
			})
		})
	}
	if _, err := new(tlsctl.Hello).Ask(t.Context(), askCode); err != tlsctl.ErrCannotAsk {
		t.Errorf("a made-up hello: %v", err)
	}
}

// While a question is open no other is asked, and it ends with whoever asks and with whoever is asked.
func TestQuestionEnds(t *testing.T) {
	stop := errors.New("stop")
	for _, test := range []struct {
		name string
		do   func(s *setup, c *ctltest.Client, cancel context.CancelCauseFunc)
		want error // nil: any
	}{
		{"the asker stops", func(s *setup, c *ctltest.Client, cancel context.CancelCauseFunc) { cancel(stop) }, stop},
		{"the client leaves", func(s *setup, c *ctltest.Client, cancel context.CancelCauseFunc) { c.Say("EXIT") }, nil},
		{"the session is ended", func(s *setup, c *ctltest.Client, cancel context.CancelCauseFunc) { s.live().End(stop) }, nil},
		{"the server ends", func(s *setup, c *ctltest.Client, cancel context.CancelCauseFunc) { go s.server.Close(stop) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				s.crText()
				s.client.PeerInfo = ctltest.PeerInfo26 + "IV_SSO=crtext\n"
				mine, cancel := context.WithCancelCause(ctx)
				ended := make(chan struct{})
				s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
					defer close(ended)
					var wg sync.WaitGroup
					wg.Go(func() {
						time.Sleep(time.Second)
						if _, err := h.Ask(ctx, askCode); err != tlsctl.ErrCannotAsk {
							t.Errorf("another question: %v", err)
						}
					})
					_, err := h.Ask(mine, askCode)
					if err == nil || test.want != nil && err != test.want {
						t.Errorf("got %v, want %v", err, test.want)
					}
					wg.Wait()
					if test.name == "the asker stops" { // and begins again
						if code, err := h.Ask(ctx, askCode); string(code) != "123456" {
							t.Errorf("asked again: %q, %v", string(code), err)
						}
					}
					return nil, err
				})
				c := s.dial()
				defer s.done(c)
				go c.Connect(ctx)
				time.Sleep(5 * time.Second)
				start := time.Now()
				test.do(s, c, cancel)
				if test.name == "the asker stops" {
					time.Sleep(100 * time.Millisecond)
					c.Say("CR_RESPONSE,MTIzNDU2")
				}
				<-ended
				if took := time.Since(start); took > time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// An answer is base64 in its one form, and nobody reads it in a log: not a good one, not one that is ill-formed in any
// way, not one that nobody asked for.
func TestAnswerForms(t *testing.T) {
	for _, test := range []struct {
		name, say string
		want      string
		err       string
	}{
		{"good", "CR_RESPONSE,MTIzNDU2", "123456", ""},
		{"padded", "CR_RESPONSE,cMOkOnNzMQ==", "p\u00e4:ss1", ""},
		{"empty", "CR_RESPONSE,", "", ""},
		{"longest", "CR_RESPONSE," + strings.Repeat("QUFB", 252), strings.Repeat("AAA", 252), ""},
		{"too long", "CR_RESPONSE," + strings.Repeat("QUFB", 253), "", "answer is too long"},
		{"not padded", "CR_RESPONSE,MTIzNDU", "", "answer is not base64"},
		{"another form of the same", "CR_RESPONSE,MTIzNDV=", "", "answer is not base64"},
		{"spaces", "CR_RESPONSE,MTIz NDU2", "", "answer is not base64"},
		{"zero byte", "CR_RESPONSE,MTIAMw==", "", "answer holds a zero byte"},
		{"line end inside", "CR_RESPONSE,MTIz\nNDU2", "", tlsctl.ErrNoAnswer.Error()}, // no message at all (S026)
		{"another word", "CR_RESPONSES,MTIzNDU2", "", tlsctl.ErrNoAnswer.Error()},
		{"no comma", "CR_RESPONSE", "", tlsctl.ErrNoAnswer.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				var mu sync.Mutex
				var log bytes.Buffer
				s := newSetup(t)
				s.cfg.Log = zerolog.New(zerolog.SyncWriter(&log))
				s.client.PeerInfo = ctltest.PeerInfo26 + "IV_SSO=crtext\n"
				s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
					got, err := h.Ask(ctx, askCode)
					mu.Lock()
					defer mu.Unlock()
					if string(got) != test.want || (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
						t.Errorf("got %q, %v, want %q, %q", string(got), err, test.want, test.err)
					}
					return &ctltest.DefaultGrant, nil
				})
				c := s.dial()
				defer s.done(c)
				if err := c.Handshake(ctx); err != nil {
					t.Fatal(err)
				}
				c.Say(test.say) // too early for anybody
				if _, err := c.AwaitMessage(ctx, "INFO_PRE,"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				c.Say(test.say)
				c.Say(test.say) // again
				if err := c.Pull(ctx); err != nil {
					t.Fatal(err)
				}
				c.Say(test.say) // and when all is over
				time.Sleep(time.Second)
				synctest.Wait()
				secret := test.say[len("CR_RESPONSE"):]
				if text := log.String(); len(secret) > 8 && (strings.Contains(text, secret[1:9]) || strings.Contains(text, fmt.Sprintf("%x", secret[1:9]))) {
					t.Errorf("log: %s", text)
				}
			})
		})
	}
}

// A dynamic challenge goes out at once and whole; that it is not for good, or only the token is over, is told in forms
// of their own to who understands them.
func TestOtherDenials(t *testing.T) {
	const crv1 = "CRV1:R,E:Om01u7Fh4LrGBS7uh0SWmzwabUiGiW6l:Y3Ix:Please enter token PIN"
	for _, test := range []struct {
		d        tlsctl.Denial
		old, new string // before 2.6 and 3.8, and since
		at       time.Duration
	}{
		{tlsctl.Denial{Challenge: crv1, Public: "wrong user name or password"}, "AUTH_FAILED," + crv1, "AUTH_FAILED," + crv1, 0},
		{tlsctl.Denial{Session: true, Public: "token expired"}, "AUTH_FAILED,SESSION: token expired", "AUTH_FAILED,SESSION: token expired", 2 * time.Second},
		{tlsctl.Denial{Temporary: true, Public: "try again later"}, "AUTH_FAILED,try again later", "AUTH_FAILED,TEMP:try again later", 2 * time.Second},
		{tlsctl.Denial{Public: "no"}, "AUTH_FAILED,no", "AUTH_FAILED,no", 2 * time.Second},
	} {
		for _, p := range ctltest.Profiles {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSharedSetup(t)
				p.Apply(&s.client)
				s.admitting(func(context.Context, *tlsctl.Hello) (*tlsctl.Grant, error) { return nil, &test.d })
				c := s.dial()
				defer s.done(c)
				start := time.Now()
				err := c.Connect(ctx)
				want := test.new
				if !p.Loud { // which came with the same versions
					want = test.old
				}
				if refused, ok := errors.AsType[*ctltest.Refused](err); !ok || refused.Text != want {
					t.Errorf("%s: got %v, want %q", p.Name, err, want)
				}
				if took := time.Since(start); took < test.at || took > test.at+100*time.Millisecond {
					t.Errorf("%s: refused after %v, want %v", p.Name, took, test.at)
				}
			})
		}
	}
}

// Who is sent to a web page, or only told to wait, waits until the owner knows what came of it.
func TestAskElsewhere(t *testing.T) {
	for _, q := range []tlsctl.Question{
		{Method: tlsctl.AskWeb, Flags: []string{"external"}, Text: "https://example.com/?login=1:2"},
		{Method: tlsctl.AskURL, Text: "https://example.com/"},
		{Method: tlsctl.JustWait},
	} {
		for _, p := range ctltest.Profiles[1:] {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSharedSetup(t)
				p.Apply(&s.client)
				s.crText()
				after := 90 * time.Second
				if p == ctltest.V25 {
					after = 40 * time.Second
				}
				s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
					if !h.CanAsk(q.Method) {
						return &ctltest.DefaultGrant, nil
					}
					if answer, err := h.Ask(ctx, q); answer != nil || err != nil {
						t.Errorf("%s: %q, %v", p.Name, string(answer), err)
					}
					time.Sleep(after)
					return &ctltest.DefaultGrant, nil
				})
				c := s.dial()
				defer s.done(c)
				start := time.Now()
				if err := c.Connect(ctx); err != nil {
					t.Errorf("%s: %v", p.Name, err)
				}
				asked := p != ctltest.V25 || q.Method != tlsctl.JustWait
				if took := time.Since(start); (took >= after) != asked {
					t.Errorf("%s: connected after %v", p.Name, took)
				}
				want := map[tlsctl.Method]string{
					tlsctl.AskWeb: "INFO_PRE,WEB_AUTH:external:https://example.com/?login=1:2",
					tlsctl.AskURL: "INFO_PRE,OPEN_URL:https://example.com/",
				}[q.Method]
				if got := pushes(c, "INFO_PRE"); want == "" && got != nil || want != "" && !slices.Equal(got, []string{want}) {
					t.Errorf("%s: %q, want %q", p.Name, got, want)
				}
			})
		}
	}
}

// A client that waits long asks many times for its options meanwhile, which does not count as too much (S024); and if
// it is refused in the end, it hears so, whatever it has still to acknowledge by then.
func TestLongQuestion(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		s.up.Delay, s.down.Delay = 20*time.Millisecond, 20*time.Millisecond
		s.client.PeerInfo = ctltest.PeerInfo26 + "IV_SSO=crtext\n"
		s.client.Cadence = []time.Duration{970 * time.Millisecond}
		s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
			code, err := h.Ask(ctx, askCode)
			if string(code) != "1" || err != nil {
				t.Errorf("got %q, %v", string(code), err)
			}
			if _, err := h.Ask(ctx, tlsctl.Question{}); err != nil {
				t.Error(err)
			}
			return nil, &tlsctl.Denial{Public: "wrong code"}
		})
		c := s.dial()
		defer s.done(c)
		go answering(ctx, c, 118*time.Second, "1")
		start := time.Now()
		if err := c.Connect(ctx); err == nil || err.Error() != "AUTH_FAILED,wrong code" {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}
