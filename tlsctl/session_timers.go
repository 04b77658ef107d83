package tlsctl

import (
	"slices"
	"time"
)

// wakeAt asks for work at t, unless it is zero.
func (s *Session) wakeAt(t time.Time) {
	if !t.IsZero() && t.Before(s.wake) {
		s.wake = t
	}
}

// passed reports whether a timer is over, and asks for work when it will be. A zero one never is.
func (s *Session) passed(now, t time.Time) bool {
	if t.IsZero() {
		return false
	}
	if now.Before(t) {
		s.wakeAt(t)
		return false
	}
	return true
}

// keepTime looks at all timers but those of single packets.
func (s *Session) keepTime(now time.Time) {
	if s.leaving != nil {
		if s.verdict != "" && s.passed(now, s.verdictAt) && s.verdictOn.conn.idle() {
			s.say(s.verdictOn, s.verdict)
			s.verdict, s.until = "", now.Add(s.timing.Linger)
		}
		if s.passed(now, s.until) || s.lastWords != nil && s.lastWords.conn.idle() {
			s.end(s.leaving)
		}
		return
	}
	for _, n := range s.negotiated {
		s.watch(now, n)
	}
	if s.passed(now, s.expires) {
		s.end(ErrHandshakeTimeout)
	}
	// The control channel of an older key is read as long as its client may not have moved on.
	s.negotiated = slices.DeleteFunc(s.negotiated, func(n *negotiation) bool {
		return s.current != nil && n.over && n != s.current && s.passed(now, s.current.started.Add(2*s.timing.HandWindow))
	})
	if s.current == nil || s.next != nil {
		return
	}
	s.forgetDebts()
	if s.passed(now, s.renegotiate) {
		s.wanted = true
	}
	if s.wanted && s.current.conn.idle() {
		n := s.add(now, s.lastKey.next(), 0)
		n.rel.queue(OpSoftReset, nil)
	}
}

// watch ends a negotiation that takes too long. Acknowledgements and retransmissions are no progress.
func (s *Session) watch(now time.Time, n *negotiation) {
	if n.over {
		if n == s.current && n.rel.exhausted(now) {
			s.end(ErrSilent)
		}
		return
	}
	s.pursue(now, n)
	late := s.passed(now, n.deadline)
	if n.first && !n.readable {
		if n.fed == 0 {
			late = late || s.passed(now, n.started.Add(s.timing.FirstByte))
		} else {
			late = late || s.passed(now, n.lastByte.Add(s.timing.Progress))
		}
	}
	if late {
		s.abort(now, n, ErrHandshakeTimeout)
	}
}

// abort ends a negotiation that is under way.
func (s *Session) abort(now time.Time, n *negotiation, err error) {
	if n.cancel == nil {
		s.decided(now, n, err)
		return
	}
	n.cancel(err) // negotiate will report
}
