package server

import (
	"sync"
	"time"
)

// alarmEvery is how often one alarm is repeated.
const alarmEvery = time.Minute

// alarms is when each kind of alarm was last raised.
type alarms struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// alarmOnce logs an alarm, at most once a minute of each kind.
func (s *Server) alarmOnce(kind string, err error) {
	a := &s.alarms
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if last, ok := a.last[kind]; ok && now.Sub(last) < alarmEvery {
		return
	}
	if a.last == nil {
		a.last = make(map[string]time.Time)
	}
	a.last[kind] = now
	s.log.Error().Err(err).Str("alarm", kind).Send()
}
