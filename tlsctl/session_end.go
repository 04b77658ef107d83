package tlsctl

import (
	"time"
)

// Shutdown is Dismiss with ErrShutdown.
func (s *Session) Shutdown(m Message) { s.Dismiss(m, ErrShutdown) }

// Dismiss ends the session, and Run returns reason, after m (none if empty) was acknowledged by an established client or
// Timing.Farewell is over.
func (s *Session) Dismiss(m Message, reason error) {
	s.order(func(now time.Time) {
		if s.current == nil || m == "" {
			s.end(reason)
			return
		}
		if s.leaving != nil {
			return // the client hears something already
		}
		s.leave(reason)
		s.say(s.current, m)
		s.until, s.lastWords = now.Add(s.timing.Farewell), s.current
	})
}

// End ends the session at once, without a word to the client; Run returns reason.
func (s *Session) End(reason error) {
	s.order(func(time.Time) { s.end(reason) })
}

// Deny ends the session with AUTH_FAILED; Run returns d once the client can have heard it. A client that is not
// established yet hears nothing.
func (s *Session) Deny(d *Denial) {
	s.order(func(now time.Time) {
		switch {
		case s.leaving != nil:
		case s.current == nil:
			s.end(d)
		default:
			s.refuse(s.current, d, now)
		}
	})
}

// refuse ends the session with AUTH_FAILED, sent on n, not before at, and when n has nothing else unacknowledged: an
// OpenVPN 3 client that finds a second record behind our key exchange takes both for one broken message. The decision
// is final: from here on packets are acknowledged and nothing else.
func (s *Session) refuse(n *negotiation, d *Denial, at time.Time) {
	s.leave(d)
	var peer PeerInfo
	if n.hello != nil {
		peer = n.hello.Peer
	}
	s.verdict, s.verdictOn, s.verdictAt = authFailed(d, peer), n, at
	if s.until = at.Add(s.timing.Linger); s.current == nil {
		s.until = n.deadline // nothing is lost by waiting until the client listens
	}
}

// leave begins the end of a session that still has something to say or to acknowledge.
func (s *Session) leave(reason error) {
	s.leaving = reason
	s.leaveOnce(reason)
	for _, n := range s.negotiated {
		if !n.over && n.cancel != nil {
			n.cancel(reason)
		}
	}
}

func (s *Session) leaveOnce(reason error) {
	if !s.left {
		s.left = true
		s.owner.Leaving(reason)
	}
}

// end ends the session once what is queued was sent.
func (s *Session) end(err error) {
	if !s.ended {
		s.ended, s.err = true, err
		s.leaveOnce(err)
	}
}

// exit lets a client go that has said goodbye: it is acknowledged for some time still, lest a late packet of it be
// taken for a new client's.
func (s *Session) exit() {
	if s.leaving == nil {
		s.leave(ErrExit)
		s.until = time.Now().Add(s.timing.Linger)
	}
}
