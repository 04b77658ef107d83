package tlsctl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// push sends PUSH_REPLY.
func (s *Session) push(now time.Time) {
	replies, err := s.terms.replies(s.granted, s.identity.Peer, s.token)
	if err != nil { // the same options and as good a token were fine before
		s.end(fmt.Errorf("push reply: %w", err))
		return
	}
	first := s.pushed.IsZero()
	s.pushed = now
	s.sayAll(replies)
	if first {
		s.updates.Store(s.identity.Peer.Can(FeaturePushUpdate))
		s.owner.Established()
	}
}

// say writes a message, one record of its own.
func (s *Session) say(n *negotiation, m Message) {
	if _, err := n.tls.Write(m.record()); err != nil && s.leaving == nil {
		s.end(fmt.Errorf("send message: %w", tlsFailure(err)))
	}
}

// readMessages reads what there is of a client's messages.
func (s *Session) readMessages(n *negotiation) {
	if n.dead || s.ended {
		return
	}
	var b [2048]byte
	ignored, told := 0, time.Time{} // one line a second, whatever the client sends (S103)
	for {
		size, err := n.tls.Read(b[:])
		n.messages.add(b[:size],
			s.heed,
			func(bad []byte) {
				ignored++
				if time.Since(told) < time.Second {
					return
				}
				told = time.Now()
				if bytes.HasPrefix(bad, []byte(responsePrefix)) {
					bad = nil
				}
				s.log.Debug().Int("so_far", ignored).Hex("text", bad[:min(len(bad), 64)]).Msg("ignored an ill-formed message")
			})
		clear(b[:size])
		switch {
		case err == nil:
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
		case n != s.current && n.over:
			n.dead = true // an older TLS session may end as it likes
		case errors.Is(err, io.EOF):
			s.exit()
		case s.leaving == nil:
			s.end(tlsFailure(err))
		}
		return
	}
}

// heed does what a client's message asks for.
func (s *Session) heed(m []byte) {
	if s.leaving != nil {
		return
	}
	now := time.Now()
	switch string(m) {
	case "PUSH_REQUEST":
		switch {
		case s.current == nil:
			s.asked = true
		case s.pushed.IsZero() || now.Sub(s.pushed) >= pushInterval:
			s.push(now)
		}
	case "EXIT":
		s.exit()
	default:
		if response, ok := bytes.CutPrefix(m, []byte(responsePrefix)); ok {
			s.answered(response)
		}
		// INFO, ACC and what is unknown are ignored.
	}
}
