package tlsctl_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// What can happen to a session whose client has sent its login.
var modelEvents = []string{"ask", "soft reset", "renegotiate", "exit", "yes", "no", "broken", "time"}

// Whatever happens in whatever order, no key and no option leave before the login they belong to was agreed to, and
// nothing does after a refusal or a goodbye (S039, S041).
func TestNothingBeforeAuthorised(t *testing.T) {
	var all [][]string
	var add func(prefix []string, length int)
	add = func(prefix []string, length int) {
		if length == 0 {
			all = append(all, slices.Clone(prefix))
			return
		}
		for _, e := range modelEvents {
			add(append(prefix, e), length-1)
		}
	}
	for length := range 4 {
		add(nil, length)
	}
	chance := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var events []string
		for range 8 {
			events = append(events, modelEvents[chance.IntN(len(modelEvents))])
		}
		all = append(all, events)
	}
	if testing.Short() {
		all = all[:100]
	}
	reached := make(map[string]int)
	for _, events := range all {
		name := strings.Join(events, ",")
		synctest.Test(t, func(t *testing.T) { modelRun(t, name, events, reached) })
		if t.Failed() {
			return
		}
	}
	// A model that never gets anywhere shows nothing.
	for _, e := range []string{"install 0", "install 1", "install 2", "refused 0", "refused 1", "established", "leaving"} {
		if reached[e] == 0 && !testing.Short() {
			t.Errorf("no run reached %q", e)
		}
	}
}

func modelRun(t *testing.T, name string, events []string, reached map[string]int) {
	s := newSetup(t)
	owner := new(ctltest.Owner)
	pending := make(chan error)
	owner.OnAdmit = func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
		select {
		case err := <-pending:
			if err == nil {
				owner.Note(fmt.Sprintf("granted %d", h.KeyID))
				return &ctltest.DefaultGrant, nil
			}
			owner.Note(fmt.Sprintf("refused %d", h.KeyID))
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.newOwner = func() *ctltest.Owner { return owner }
	c := s.dial()
	defer s.done(c)
	if err := c.Handshake(t.Context()); err != nil {
		t.Fatalf("%s: handshake: %v", name, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, e := range events {
		switch e {
		case "ask":
			c.Say("PUSH_REQUEST")
		case "soft reset":
			go c.Renegotiate(ctx)
		case "renegotiate":
			s.live().Renegotiate()
		case "exit":
			c.Say("EXIT")
		case "yes", "no", "broken":
			err := map[string]error{"yes": nil, "no": &tlsctl.Denial{Public: "no"}, "broken": errors.New("broken")}[e]
			select {
			case pending <- err:
			default: // nobody asks
			}
		case "time":
			time.Sleep(70 * time.Second)
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
	}
	granted := make(map[string]bool)
	var final bool // nothing may be given any more
	keys := 0
	for _, e := range owner.Events() {
		reached[e]++
		word, id, _ := strings.Cut(e, " ")
		switch word {
		case "granted":
			granted[id] = true
		case "refused", "leaving":
			final = true
		case "install":
			if !granted[id] || final {
				t.Errorf("%s: events %q", name, owner.Events())
			}
			delete(granted, id)
			keys++
		case "established":
			if keys == 0 || final {
				t.Errorf("%s: events %q", name, owner.Events())
			}
		}
	}
	for _, m := range c.Messages() {
		if strings.HasPrefix(m, "PUSH_REPLY") && keys == 0 {
			t.Errorf("%s: PUSH_REPLY without a key; events %q", name, owner.Events())
		}
	}
}
