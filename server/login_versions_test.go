package server

import (
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/tlsctl/ctltest"
)

// Every version logs in by each way that it has, goes on with its token, and is told when that is over; docs/compatibility.md
// says so.
func TestLoginOfEveryVersion(t *testing.T) {
	for _, v := range ctltest.Profiles {
		t.Run(v.Name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				s := w.withCodes(auth.TOTPOptions{})
				w.tokens = w.newTokens(s.g, auth.TokenOptions{Renewal: 10 * time.Minute, Epoch: s.totp.Epoch})
				w.start()
				first := w.peer("alice", homeAddr)
				at := 0
				come := func(password string, more ...func(*ctltest.Config)) *peer {
					at++
					var p *peer
					p = w.peerWith(first.cert, from(at), append([]func(*ctltest.Config){withLogin("alice", password), v.Apply, func(c *ctltest.Config) {
						c.Credentials = func() (string, string) { return p.credentials("alice", password) }
					}}, more...)...)
					return p
				}
				asks := v != ctltest.V24
				within := func(c *ctltest.Config) {
					if !strings.Contains(c.PeerInfo, "crtext") { // OpenVPN 3 says so, OpenVPN 2 what its user interface says
						c.PeerInfo += "IV_SSO=crtext\n"
					}
				}
				apart := func(c *ctltest.Config) { c.PeerInfo = strings.ReplaceAll(c.PeerInfo, "crtext", "none") }

				// Beside the password, and then by token: at renegotiations, renewed in between, in a new session.
				p := come(static("secret", s.code("alice"))).connect()
				for range 2 {
					time.Sleep(11 * time.Minute)
					p.renegotiate()
				}
				p.mustReach()
				token, name := p.ctl.Token()
				if !strings.HasPrefix(token, "SESS_ID_AT_") || name != "" {
					t.Errorf("pushed %q, name %q", token, name)
				}
				come(token).connect().mustReach()
				if n := len(s.g.passwords()); n != 1 {
					t.Errorf("the back end was asked %d times, want once", n)
				}

				// Behind the password.
				come("secret" + s.code("alice")).connect().mustReach()

				// By dynamic challenge.
				s.next()
				text, _ := come("secret", apart).refusal()
				c, err := auth.ParseCRV1(strings.TrimPrefix(text, "AUTH_FAILED,"))
				if err != nil {
					t.Fatalf("%q: %v", text, err)
				}
				come(string(auth.FormatReply(c.State, []byte(s.code("alice")))), apart).connect().mustReach()

				// Within the session.
				if asks {
					s.next()
					p := come("secret", within)
					done := make(chan error, 1)
					go func() { done <- p.ctl.Connect(w.ctx) }()
					if _, err := p.ctl.AwaitMessage(w.ctx, "INFO_PRE,CR_TEXT:R,E:One-time code"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(20 * time.Second)
					p.respond(s.code("alice"))
					if err := <-done; err != nil {
						t.Fatal(err)
					}
					p.mustReach()
				}

				// No more, whatever it is.
				const denied = "AUTH_FAILED," + auth.PublicRefusal
				if text, _ := come(static("secret", "000000")).refusal(); text != denied {
					t.Errorf("a wrong code: %q", text)
				}
				if _, err := auth.RenewTOTP(s.options.File, "alice"); err != nil {
					t.Fatal(err)
				}
				if text, _ := come(token).refusal(); text != "AUTH_FAILED,SESSION: token expired" {
					t.Errorf("a token that is over: %q", text)
				}
			})
		})
	}
}
