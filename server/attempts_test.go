package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/tlsctl/ctltest"
)

// why asks as postern why does.
func (w *world) why(who string) *Why {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.srv.serveWhy(rec, httptest.NewRequest("GET", "/why?who="+url.QueryEscape(who), nil))
	answer := new(Why)
	must(w.t, json.Unmarshal(rec.Body.Bytes(), answer))
	return answer
}

// story is an attempt in one line: its steps, ! before those that failed.
func (a *Attempt) story() string {
	var steps []string
	for _, s := range a.Steps {
		name := s.Step
		if s.Failed {
			name = "!" + name
		}
		steps = append(steps, name)
	}
	return strings.Join(steps, " ")
}

// Why tells how far each attempt came, and what it failed at, without a secret in it; over UDP and TCP.
func TestWhy(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			switch r.Username {
			case "bob":
				return nil, &auth.Denied{Reason: `in no required group: "uid=bob"`, Public: auth.PublicRefusal}
			case "carol":
				return nil, errors.New("ask the directory: connect: refused")
			}
			return passwords(ctx, r)
		})
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		alice.mustReach()
		time.Sleep(2 * time.Second)
		only := func(who, want, detail string) {
			t.Helper()
			got := w.why(who)
			if len(got.Attempts) != 1 {
				t.Fatalf("%s: %d attempts", who, len(got.Attempts))
			}
			a := got.Attempts[0]
			if a.story() != want {
				t.Errorf("%s: %s, want %s", who, a.story(), want)
			}
			if text := fmt.Sprint(a.Steps); !strings.Contains(text, detail) || strings.Contains(text, "secret") {
				t.Errorf("%s: %s, want %q in it", who, text, detail)
			}
		}
		in := "first packet cookie TLS certificate login policy address connected"
		in = strings.Replace(in, " policy", "", 1)
		only("alice", in+" first data", "10.8.0.2 fd00:8::1000")
		only("ALICE", in+" first data", "alice")
		only(homeAddr.Addr().String(), in+" first data", "2.6.14 linux")
		alice.renegotiate()
		only("alice", in+" first data renegotiation", "")

		w.peer("bob", otherAddr, withLogin("bob", "secret")).refusal()
		time.Sleep(time.Minute)
		only("bob", "first packet cookie TLS certificate !login ended", "in no required group")
		w.peer("carol", thirdAddr, withLogin("carol", "secret")).refusal()
		time.Sleep(time.Minute)
		only("carol", "first packet cookie TLS certificate !login ended", "ask the directory")

		// Somebody without a certificate of ours never gets to a name: the address knows.
		other, err := ctltest.NewAuthority("Other CA")
		must(t, err)
		w.ca, other = other, w.ca
		stranger := netip.MustParseAddrPort("203.0.113.77:1000")
		if err := w.peer("mallory", stranger, withLogin("mallory", "secret")).ctl.Connect(w.ctx); err == nil {
			t.Error("mallory is in")
		}
		w.ca = other
		time.Sleep(2 * time.Minute)
		only(stranger.Addr().String(), "first packet cookie !ended", "")
		if g := w.why(stranger.Addr().String()).Greeted; g == nil || g.Answered == 0 {
			t.Errorf("first packets: %+v", g)
		}
		if got := w.why("nobody"); len(got.Attempts) != 0 || got.Greeted != nil {
			t.Errorf("nobody: %+v", got)
		}
	})
}

// However many come, what is remembered is bounded; one user's failures do not push out the others', nor do strangers.
func TestWhyBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		a := &w.srv.attempts
		one := func(user string, notes int) {
			s := &Attempt{}
			a.mu.Lock()
			a.strangers = append(a.strangers, s)
			a.mu.Unlock()
			a.name(s, user, "")
			for range notes {
				a.note(s, "step", strings.Repeat("\x1b[2J\u202e", 100), false)
			}
			if n := len(s.Steps); n > maxSteps {
				t.Fatalf("%d steps", n)
			}
			if notes == 0 {
				return
			}
			if d := s.Steps[0].Detail; len(d) > maxStepText+3 || strings.ContainsAny(d, "\x1b\u202e") {
				t.Fatalf("detail %q", d)
			}
		}
		one("alice", 100)
		for range 500 {
			one("bob", 1)
		}
		if n := len(w.why("bob").Attempts); n != maxEachName {
			t.Errorf("%d attempts of bob, want %d", n, maxEachName)
		}
		if n := len(w.why("alice").Attempts); n != 1 {
			t.Errorf("%d attempts of alice, want 1", n)
		}
		for i := range 3000 {
			one(fmt.Sprint("user", i), 0)
			a.greet(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), false, time.Now())
		}
		if len(a.named) != maxNamed || len(a.strangers) != 0 || len(a.place) != maxGreeted {
			t.Errorf("%d named, %d strangers, %d addresses", len(a.named), len(a.strangers), len(a.place))
		}
		at := time.Now()
		var n byte
		if allocs := testing.AllocsPerRun(2000, func() { n++; a.greet(netip.AddrFrom4([4]byte{10, 1, byte(at.Nanosecond()), n}), false, at) }); allocs > 0 {
			t.Errorf("a stranger's packet allocates %v times", allocs)
		}
	})
}
