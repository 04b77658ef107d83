package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
)

// guarded is a back end behind a Throttle: "secret" is everyone's password but nobody's, who is unknown; and when
// broken it says so. Each answer takes a second.
type guarded struct {
	logins auth.Authenticator

	mu     sync.Mutex
	asked  int
	bad    int
	broken bool
}

func newGuarded(t *testing.T, o auth.ThrottleOptions, spare bool) *guarded {
	g := &guarded{}
	throttle := auth.NewThrottle(o, zerolog.New(zerolog.NewTestWriter(t)))
	var next auth.Authenticator = backend(g.answer)
	if spare {
		next = throttle.Spare(next)
	}
	g.logins = throttle.Limit(next)
	return g
}

func (g *guarded) answer(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
	time.Sleep(time.Second)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	switch {
	case g.broken:
		return nil, errors.New("broken")
	case r.Username == "nobody":
		return nil, &auth.Denied{Reason: "unknown", Public: auth.PublicRefusal, Err: auth.ErrUnknownUser}
	case string(r.Password) == "secret":
		return &auth.Identity{Name: r.Username, By: "test"}, nil
	}
	g.bad++
	return nil, &auth.Denied{Reason: "wrong password", Public: auth.PublicRefusal}
}

func (g *guarded) login(user, password, source string) error {
	_, err := g.logins.Authenticate(context.Background(), &auth.Request{
		Username: user, Password: []byte(password), Source: netip.AddrPortFrom(netip.MustParseAddr(source), 1194),
	})
	return err
}

// refused reports whether err is the refusal of the Throttle, which the client reads like any other.
func refused(t *testing.T, err error) bool {
	t.Helper()
	var denied *auth.Denied
	if !errors.As(err, &denied) || denied.Reason != "too many failed logins" {
		return false
	}
	if denied.Public != auth.PublicRefusal {
		t.Errorf("the client reads %q", denied.Public)
	}
	return true
}

// S046: five failures of one user from one source close that source to that user, for 15 minutes.
func TestThrottleUserAndSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, auth.ThrottleOptions{}, false)
		for i := range 5 {
			if err := g.login("alice", "wrong", "192.0.2.1"); refused(t, err) {
				t.Fatalf("refused at guess %d", i+1)
			}
		}
		// Another spelling, or the same address otherwise written, is no way round; nor is another port.
		for _, user := range []string{"alice", "ALICE", "ａｌｉｃｅ"} {
			for _, source := range []string{"192.0.2.1", "::ffff:192.0.2.1"} {
				if err := g.login(user, "secret", source); !refused(t, err) {
					t.Errorf("%s from %s: %v", user, source, err)
				}
			}
		}
		if g.asked != 5 {
			t.Errorf("the back end was asked %d times", g.asked)
		}
		if err := g.login("bob", "secret", "192.0.2.1"); err != nil {
			t.Errorf("bob from there: %v", err)
		}
		if err := g.login("alice", "secret", "192.0.2.2"); err != nil {
			t.Errorf("alice from elsewhere: %v", err)
		}
		time.Sleep(14 * time.Minute)
		if err := g.login("alice", "secret", "192.0.2.1"); !refused(t, err) {
			t.Errorf("after 14 minutes: %v", err)
		}
		time.Sleep(time.Minute)
		if err := g.login("alice", "secret", "192.0.2.1"); err != nil {
			t.Errorf("after 15 minutes: %v", err)
		}
	})
}

// Failures count within 15 minutes, and until a success.
func TestThrottleForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, auth.ThrottleOptions{}, false)
		for range 12 { // never five in 15 minutes
			if err := g.login("alice", "wrong", "192.0.2.1"); refused(t, err) {
				t.Fatal("refused for failures long ago")
			}
			time.Sleep(4 * time.Minute)
		}
		g = newGuarded(t, auth.ThrottleOptions{}, false)
		for range 4 {
			for range 4 {
				g.login("alice", "wrong", "192.0.2.1")
			}
			if err := g.login("alice", "secret", "192.0.2.1"); err != nil {
				t.Fatalf("right password after four wrong ones: %v", err)
			}
		}
		// What the source did is not forgotten for that, or an account of one's own would allow to guess others'.
		for range 4 {
			g.login("bob", "wrong", "192.0.2.1")
		}
		if err := g.login("carol", "secret", "192.0.2.1"); !refused(t, err) {
			t.Errorf("after 20 failures of the source: %v", err)
		}
	})
}

// S046: twenty failures of a source close it, whomever they were for; an IPv6 source is a /64.
func TestThrottleSource(t *testing.T) {
	for name, source := range map[string]func(i int) string{
		"IPv4": func(int) string { return "192.0.2.1" },
		"IPv6": func(i int) string { return fmt.Sprintf("2001:db8::%x:1", i+1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarded(t, auth.ThrottleOptions{}, false)
				for i := range 20 {
					user := fmt.Sprintf("user%d", i)
					if i%2 == 0 {
						user = "nobody" // names are guessed too
					}
					if i >= 8 && user == "nobody" {
						user = fmt.Sprintf("other%d", i)
					}
					if err := g.login(user, "wrong", source(i)); refused(t, err) {
						t.Fatalf("refused at guess %d", i+1)
					}
				}
				if err := g.login("alice", "secret", source(99)); !refused(t, err) {
					t.Errorf("after 20 failures: %v", err)
				}
				for _, other := range []string{"192.0.2.2", "2001:db8:0:1::1"} {
					if err := g.login("alice", "secret", other); err != nil {
						t.Errorf("from %s: %v", other, err)
					}
				}
				time.Sleep(15 * time.Minute)
				if err := g.login("alice", "secret", source(0)); err != nil {
					t.Errorf("after 15 minutes: %v", err)
				}
			})
		})
	}
}

// A hundred guesses at once are no way round either; those beyond the limit wait for those before.
func TestThrottleAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, auth.ThrottleOptions{}, false)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { g.login("alice", "wrong", "192.0.2.1") })
		}
		wg.Wait()
		if g.asked != 5 {
			t.Errorf("the back end was asked %d times", g.asked)
		}
		// Right passwords at once all get in: an office after a power cut.
		for i := range 100 {
			wg.Go(func() {
				if err := g.login(fmt.Sprintf("user%d", i%10), "secret", "192.0.2.3"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// Waiting ends with the context, and is no denial.
func TestThrottleWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, auth.ThrottleOptions{PerUserAndSource: 1}, false)
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { g.login("alice", "secret", "192.0.2.1") })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := g.logins.Authenticate(ctx, &auth.Request{
			Username: "alice", Password: []byte("secret"), Source: netip.MustParseAddrPort("192.0.2.1:1"),
		})
		wantBroken(t, err, "deadline")
	})
}

// A broken back end is no failure of the user's; an empty password is no guess.
func TestThrottleCountsGuessesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, auth.ThrottleOptions{}, true)
		g.broken = true
		for range 30 {
			wantBroken(t, g.login("alice", "secret", "192.0.2.1"), "broken")
			wantDenied(t, g.login("alice", "", "192.0.2.1"), "empty", "empty password")
			wantDenied(t, g.login("al ice", "x", "192.0.2.1"), "canonical", auth.PublicRefusal)
		}
		g.broken = false
		if err := g.login("alice", "secret", "192.0.2.1"); err != nil {
			t.Error(err)
		}
	})
}

// S046: however many sources guess, the directory sees three bad binds of a user in 15 minutes, and the owner still
// gets in from where they were before.
func TestSpareDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, auth.ThrottleOptions{}, true)
		if err := g.login("alice", "secret", "198.51.100.7"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() { g.login("alice", "wrong", fmt.Sprintf("10.0.%d.%d", i/200, i%200)) })
		}
		wg.Wait()
		if g.bad != 3 {
			t.Errorf("the directory saw %d bad binds", g.bad)
		}
		if err := g.login("alice", "secret", "203.0.113.1"); !refused(t, err) {
			t.Errorf("from an unknown source: %v", err)
		}
		if err := g.login("alice", "wrong", "198.51.100.7"); refused(t, err) {
			t.Error("the owner cannot mistype")
		}
		if err := g.login("alice", "secret", "198.51.100.7"); err != nil {
			t.Errorf("the owner: %v", err)
		}
		if err := g.login("alice", "wrong", "198.51.100.7"); refused(t, err) {
			t.Error("the owner cannot mistype twice")
		}
		if err := g.login("alice", "secret", "198.51.100.7"); !refused(t, err) {
			t.Errorf("the reserve has no end: %v", err)
		}
		if g.bad != 5 {
			t.Errorf("the directory saw %d bad binds", g.bad)
		}
		if err := g.login("bob", "secret", "203.0.113.1"); err != nil {
			t.Errorf("another user: %v", err)
		}
		time.Sleep(15 * time.Minute)
		if err := g.login("alice", "secret", "203.0.113.1"); err != nil {
			t.Errorf("after 15 minutes: %v", err)
		}
	})
}

// Being refused unasked is no guess: an owner who meets the guesser's leftovers is not locked out for longer.
func TestSparedIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, auth.ThrottleOptions{}, true)
		for i := range 3 {
			g.login("alice", "wrong", fmt.Sprintf("10.0.0.%d", i))
		}
		for range 10 {
			if err := g.login("alice", "secret", "203.0.113.1"); !refused(t, err) {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(5*time.Minute + time.Second)
		if err := g.login("alice", "secret", "203.0.113.1"); err != nil {
			t.Error(err)
		}
	})
}

// Logins at once wait for each other rather than being refused for what those before might turn out to be; and where
// there is no user there is no bind to spare.
func TestSpareWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, auth.ThrottleOptions{}, true)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if err := g.login("alice", "secret", fmt.Sprintf("10.0.0.%d", i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i := range 20 {
			if err := g.login("nobody", "secret", fmt.Sprintf("10.0.0.%d", i)); refused(t, err) {
				t.Fatalf("refused at guess %d of an unknown name", i+1)
			}
		}
	})
}

// A place where a user was is known for 30 days.
func TestHomesForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, auth.ThrottleOptions{}, true)
		g.login("alice", "secret", "198.51.100.7")
		time.Sleep(31 * 24 * time.Hour)
		for i := range 3 {
			g.login("alice", "wrong", fmt.Sprintf("10.0.0.%d", i))
		}
		if err := g.login("alice", "secret", "198.51.100.7"); !refused(t, err) {
			t.Errorf("after 31 days: %v", err)
		}
	})
}

// A panic of the back end leaves no login pending for ever.
func TestThrottlePanic(t *testing.T) {
	throttle := auth.NewThrottle(auth.ThrottleOptions{PerUserAndSource: 1, BadBinds: 1}, zerolog.Nop())
	a := throttle.Limit(throttle.Spare(backend(func(context.Context, *auth.Request) (*auth.Identity, error) { panic("broken") })))
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := auth.All(a).Authenticate(ctx, &auth.Request{Username: "alice", Password: []byte("x")})
		cancel()
		wantBroken(t, err, "panicked")
	}
}
