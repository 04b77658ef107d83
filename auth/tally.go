package auth

import (
	"container/list"
	"slices"
	"time"
)

// A moment is a time since the Throttle was made, never 0. There may be very many, and a time.Time is three times as
// large.
type moment time.Duration

// A tally is what is remembered of one user or source.
type tally struct {
	failures []moment // within the window, oldest first
	until    moment   // refused until then
	last     moment   // last success, where that matters
	pending  int      // logins under way: each may turn out to be a failure

	place *list.Element // in tallies.idle; nil while logins are under way
}

func (y *tally) blocked(now moment) bool { return now < y.until }

// room reports whether one more login may fail without there being more than most failures in the window.
func (y *tally) room(now, window moment, most int) bool {
	y.expire(now, window)
	return len(y.failures)+y.pending < most
}

// fail counts a failure. When there are now most of them in the window, the tally is blocked for as long, and its
// count begins anew.
func (y *tally) fail(now, window moment, most int) (blocked bool) {
	y.expire(now, window)
	y.failures = append(y.failures, now)
	if len(y.failures) < most {
		return false
	}
	y.failures, y.until = nil, now+window
	return true
}

func (y *tally) expire(now, window moment) {
	y.failures = slices.DeleteFunc(y.failures, func(at moment) bool { return now-at >= window })
}

func (y *tally) blank() bool { return len(y.failures) == 0 && y.until == 0 && y.last == 0 }

// tallies is a bounded table of them. The one untouched for longest makes room; one with logins under way never does,
// so there may be as many more as there are logins. For one goroutine at a time.
type tallies[K comparable] struct {
	most int
	held map[K]*tally
	idle *list.List // of K, the one touched last in front
}

func newTallies[K comparable](most int) *tallies[K] {
	return &tallies[K]{most: most, held: make(map[K]*tally), idle: list.New()}
}

// peek returns the tally of k, nil when nothing is known of it.
func (s *tallies[K]) peek(k K) *tally { return s.held[k] }

// take returns the tally of k, which stays in the table until settle.
func (s *tallies[K]) take(k K) *tally {
	y := s.held[k]
	if y == nil {
		y = &tally{}
		s.held[k] = y
	}
	if y.place != nil {
		s.idle.Remove(y.place)
		y.place = nil
	}
	return y
}

// settle ends what take began: nothing is kept of a blank tally, and of the others the oldest may go.
func (s *tallies[K]) settle(k K) {
	y := s.held[k]
	switch {
	case y.pending > 0:
		return
	case y.blank():
		delete(s.held, k)
		return
	}
	y.place = s.idle.PushFront(k)
	if s.idle.Len() > s.most {
		delete(s.held, s.idle.Remove(s.idle.Back()).(K))
	}
}
