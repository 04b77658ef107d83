package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// ThrottleOptions says how many guesses there are. The zero value is security S046.
type ThrottleOptions struct {
	PerUserAndSource int           // failures until that source is refused that user; 0 means 5
	PerSource        int           // failures until that source is refused; 0 means 20
	BadBinds         int           // failures of one user that the directory may see; 0 means 3
	Reserve          int           // further ones, from where that user has logged in before; 0 means 2
	Window           time.Duration // within which failures count, and for which is refused; 0 means 15 min
}

// A Throttle counts wrong guesses. One of them serves all the doors by which logins come, each of which wraps its back
// ends by Limit, and those whose accounts lock themselves by Spare:
//
//	t := NewThrottle(ThrottleOptions{}, log)
//	logins := MatchCertificate(t.Limit(FileFirst(users, t.Spare(directory))))
//
// A source is an IPv4 address or an IPv6 /64. Only *Denied counts as a failure: a broken back end is no guess, and
// nor is what was right before.
// Counters are lost when the program ends.
type Throttle struct {
	o   ThrottleOptions
	log zerolog.Logger

	began time.Time

	mu      sync.Mutex
	sources *tallies[netip.Prefix]
	pairs   *tallies[userAt]
	users   *tallies[string] // what the directory has seen
	homes   *tallies[userAt] // where users have logged in
	wrong   *wrongPasswords
	free    chan struct{} // closed, and made anew, when a login ends
}

// userAt is a user at a source.
type userAt struct {
	name   string
	source netip.Prefix
}

const (
	// maxTallies bounds each of the tables; the entry untouched for longest makes room.
	maxTallies = 65536
	// homeTime is how long a source where a user has logged in is known.
	homeTime = 30 * 24 * time.Hour
)

func NewThrottle(o ThrottleOptions, log zerolog.Logger) *Throttle {
	set := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	set(&o.PerUserAndSource, 5)
	set(&o.PerSource, 20)
	set(&o.BadBinds, 3)
	set(&o.Reserve, 2)
	if o.Window == 0 {
		o.Window = 15 * time.Minute
	}
	return &Throttle{
		o:       o,
		log:     log,
		began:   time.Now(),
		sources: newTallies[netip.Prefix](maxTallies),
		pairs:   newTallies[userAt](maxTallies),
		users:   newTallies[string](maxTallies),
		homes:   newTallies[userAt](maxTallies),
		wrong:   newWrongPasswords(maxTallies / 16),
		free:    make(chan struct{}),
	}
}

// Limit refuses a source that has guessed too often, without asking next.
func (t *Throttle) Limit(next Authenticator) Authenticator { return limit{t, next} }

type limit struct {
	t    *Throttle
	next Authenticator
}

func (l limit) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	name, err := credentials(r)
	if err != nil {
		return nil, err
	}
	t, at := l.t, userAt{name, sourceOf(r.Source)}
	window := moment(t.o.Window)
	err = t.enter(ctx, func(now moment) verdict {
		source, pair := t.sources.take(at.source), t.pairs.take(at)
		defer t.sources.settle(at.source)
		defer t.pairs.settle(at)
		if source.blocked(now) || pair.blocked(now) {
			return refuse
		}
		if source.room(now, window, t.o.PerSource) && pair.room(now, window, t.o.PerUserAndSource) {
			source.pending++
			pair.pending++
			return proceed
		}
		return wait
	})
	if err != nil {
		return nil, err
	}
	var failed, succeeded bool
	defer func() { // also when next panics
		t.mu.Lock()
		defer t.mu.Unlock()
		now := t.now()
		source, pair := t.sources.take(at.source), t.pairs.take(at)
		defer t.sources.settle(at.source)
		defer t.pairs.settle(at)
		defer t.leave()
		source.pending--
		pair.pending--
		switch {
		case failed:
			if source.fail(now, window, t.o.PerSource) {
				t.log.Warn().Stringer("source", at.source).Msg("logins refused: too many failures from this source")
			}
			if pair.fail(now, window, t.o.PerUserAndSource) {
				t.log.Warn().Str("user", name).Stringer("source", at.source).
					Msg("logins refused: too many failures of this user from this source")
			}
		case succeeded:
			pair.failures = nil // not the source's: who has one account could go on guessing others
			t.homes.take(at).last = now
			t.homes.settle(at)
		}
	}()
	id, err := l.next.Authenticate(ctx, r)
	failed = isGuess(err) && !errors.Is(err, errSpared) // who was spared has guessed nothing
	succeeded = err == nil && id != nil
	return id, err
}

// Spare passes only so many wrong passwords of one user on to next, fewer than lock an account there. Some of them
// are kept for sources where the user has logged in before, so that a guesser elsewhere cannot keep the owner out. What
// was wrong a moment ago is not passed on again: a client that repeats a saved password uses nothing up.
func (t *Throttle) Spare(next Authenticator) Authenticator { return spare{t, next} }

type spare struct {
	t    *Throttle
	next Authenticator
}

func (s spare) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	name, err := credentials(r)
	if err != nil {
		return nil, err
	}
	t, at := s.t, userAt{name, sourceOf(r.Source)}
	if t.wrong.holds(name, r.Password, time.Now()) {
		return nil, &Denied{Reason: "the same wrong password as a moment ago", Public: PublicRefusal, Err: errSpared}
	}
	err = t.enter(ctx, func(now moment) verdict {
		user, most := t.users.take(name), t.o.BadBinds
		defer t.users.settle(name)
		if home := t.homes.peek(at); home != nil && now-home.last < moment(homeTime) {
			most += t.o.Reserve
		}
		switch {
		case user.room(now, moment(t.o.Window), most):
			user.pending++
			return proceed
		case user.pending > 0:
			return wait
		}
		return refuse
	})
	if err != nil {
		return nil, err
	}
	var failed bool
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		user := t.users.take(name)
		defer t.users.settle(name)
		defer t.leave()
		user.pending--
		if failed {
			user.failures = append(user.failures, t.now())
		}
	}()
	id, err := s.next.Authenticate(ctx, r)
	// Nobody's password was tried for an unknown user, or for one who is not to come in whatever it is.
	failed = isGuess(err) && !errors.Is(err, ErrUnknownUser) && !errors.Is(err, errNotTried)
	switch {
	case errors.Is(err, errWrongPassword):
		t.wrong.add(name, r.Password, time.Now())
	case err == nil:
		t.wrong.forget(name)
	}
	return id, err
}

type verdict int

const (
	refuse verdict = iota
	wait           // those under way may use up what is left, or not
	proceed
)

// errSpared is inside the *Denied for logins that were refused unasked.
var errSpared = errors.New("too many failed logins")

// enter asks decide, under the mutex, until it does not say wait.
func (t *Throttle) enter(ctx context.Context, decide func(now moment) verdict) error {
	for {
		t.mu.Lock()
		v, free := decide(t.now()), t.free
		t.mu.Unlock()
		switch v {
		case proceed:
			return nil
		case refuse:
			return &Denied{Reason: errSpared.Error(), Public: PublicRefusal, Err: errSpared}
		}
		select {
		case <-free:
		case <-ctx.Done():
			return fmt.Errorf("wait for other logins of this user or source: %w", ctx.Err())
		}
	}
}

func (t *Throttle) now() moment { return moment(time.Since(t.began)) + 1 }

// leave wakes those that wait. The mutex is held.
func (t *Throttle) leave() {
	close(t.free)
	t.free = make(chan struct{})
}

func isGuess(err error) bool { return isDenied(err) && !errors.Is(err, errNoGuess) }

func isDenied(err error) bool {
	var denied *Denied
	return errors.As(err, &denied)
}

// sourceOf returns what addresses are counted by: one IPv4 address, or an IPv6 /64, which is one line.
func sourceOf(a netip.AddrPort) netip.Prefix {
	addr := a.Addr().Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: all such are one source
	}
	return p
}
