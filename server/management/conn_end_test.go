package management_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/management"
)

// What was queued when the server ends still arrives, the answer to the signal that ends it included.
func TestServerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		owner := newFakeOwner()
		i := management.New(management.Options{}, owner, quiet())
		owner.after = func(call string) {
			if call == "signal SIGTERM" {
				i.State(management.State{Time: time.Unix(7, 0), Name: "EXITING", Detail: "SIGTERM"})
				cancel()
				synctest.Wait() // the end comes before the reply does
			}
		}
		c, deaf := connect(ctx, t, i, management.Access{}), connectDeaf(ctx, t, i, management.Access{})
		c.heard()
		c.ask("state on")
		start := time.Now()
		c.send("signal SIGTERM\n")
		if err := <-c.done; err != nil {
			t.Errorf("it ended with %v", err)
		}
		c.wants("the last words", c.heard(), lines("SUCCESS: signal SIGTERM thrown", ">STATE:7,EXITING,SIGTERM,,,,,")+"<EOF>")
		<-deaf.done
		if d := time.Since(start); d != time.Second {
			t.Errorf("the one that does not read had %v", d)
		}
		deaf.nc.Close()
	})
}

// A tool that comes when the server ends, and never gives a password, keeps nothing waiting.
func TestServerEndsAtThePrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := management.New(management.Options{}, newFakeOwner(), quiet())
		for _, wait := range []time.Duration{0, time.Second} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(wait, cancel)
			synctest.Wait()
			start := time.Now()
			c := connect(ctx, t, i, management.Access{Password: []byte("x")})
			if err := <-c.done; err != nil || time.Since(start) != wait {
				t.Errorf("it ended after %v with %v, want %v", time.Since(start), err, wait)
			}
			c.nc.Close()
		}
	})
}

func TestSignalOnLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner := newFakeOwner()
		i := management.New(management.Options{SignalOnLeave: true}, owner, quiet())
		a, b := connect(t.Context(), t, i, management.Access{}), connect(t.Context(), t, i, management.Access{})
		a.heard()
		a.leave()
		if got := owner.calls(); got != nil {
			t.Errorf("while one is there: %q", got)
		}
		b.leave()
		if got := owner.calls(); !slices.Equal(got, []string{"signal SIGUSR1"}) {
			t.Errorf("after the last: %q", got)
		}
		locked := connect(t.Context(), t, i, management.Access{Password: []byte("x")})
		locked.heard()
		locked.leave()
		if got := owner.calls(); got != nil {
			t.Errorf("after one that was not let in: %q", got)
		}
	})
}
