package auth

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// skipTime is how long a server that failed is passed over while another one answers (security S061).
	skipTime = 30 * time.Second
	// When no server answers there is no passing over; then a failed one is left alone for a time that doubles from
	// shortestPause to longestPause (security F19).
	shortestPause = 100 * time.Millisecond
	longestPause  = 5 * time.Second
)

// A server is a directory server and how it has been lately. While it is well everybody asks it. Once it has failed
// one login at a time tries whether it is well again, and the others do not wait for that.
type server struct {
	*endpoint
	log  zerolog.Logger
	kind atomic.Int32 // kindUnknown until it was asked

	mu       sync.Mutex
	failures int // since the last answer
	failed   time.Time
	cause    error
	trying   bool // a login is finding out
}

// enter lets a login ask the server, or says why it may not. Whoever entered calls worked, broke or passed.
func (s *server) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures == 0 {
		return nil
	}
	if s.trying {
		return fmt.Errorf("%s failed a moment ago, and is being tried: %w", s.url, s.cause)
	}
	s.trying = true
	return nil
}

// worked notes that the server has answered.
func (s *server) worked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures > 0 {
		s.log.Info().Int("failures", s.failures).Msg("directory server answers again")
	}
	s.failures, s.cause, s.trying = 0, nil, false
}

// passed notes that it has not been found out how the server is.
func (s *server) passed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trying = false
}

// broke notes that the server could not be asked by a login that began then. Only the first time is worth a warning,
// and logins that were under way together count as one failure.
func (s *server) broke(err error, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trying = false
	if s.failures > 0 && began.Before(s.failed) {
		return
	}
	event := s.log.Debug()
	if s.failures == 0 {
		event = s.log.Warn()
	}
	event.Err(err).Msg("directory server cannot be asked")
	s.failures++
	s.failed, s.cause = time.Now(), err
}

// state tells whether the server is well, or else whether it may be asked now all the same if no other is well.
func (s *server) state(now time.Time) (well, tolerable bool, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures == 0 {
		return true, true, nil
	}
	pause := min(shortestPause<<min(s.failures-1, 10), longestPause)
	since := now.Sub(s.failed)
	return since >= skipTime, since >= pause, s.cause
}

// candidates returns the servers to ask now, in order: those that are well, then those that have failed lately and
// have had their pause. The error says why there is none.
func candidates(servers []*server) ([]*server, error) {
	now := time.Now()
	var well, failed []*server
	var causes []error
	for _, s := range servers {
		isWell, tolerable, cause := s.state(now)
		switch {
		case isWell:
			well = append(well, s)
		case tolerable:
			failed = append(failed, s)
		default:
			causes = append(causes, fmt.Errorf("%s failed a moment ago: %w", s.url, cause))
		}
	}
	if list := append(well, failed...); len(list) > 0 {
		return list, nil
	}
	return nil, errors.Join(causes...)
}
