package server

import (
	"errors"
	"math/rand/v2"
	"time"

	"postern/tlsctl"
)

// What a client is told when its session ends decides what it does: RESTART has it connect again, with what the user
// typed or without, HALT has it stop, and after silence it waits until its own timer runs out. AUTH_FAILED is for who
// may not be connected (deny).
//
//	server ends                       RESTART,[P]  or, with explicit-exit-notify 2, the next server's turn
//	nothing heard for the ping time   RESTART,[P]  it may hear us still
//	session-timeout                   RESTART      the user logs in again
//	inactive                          HALT         who does not need it shall not come back at once
//	same name, from elsewhere         HALT         or two devices would end each other's sessions for ever
//	same outside address              silence      whoever was there is gone
//	certificate ends, is revoked      AUTH_FAILED
//	no room, no login service         AUTH_FAILED,TEMP
const (
	wordUnheard   = tlsctl.RestartKeep + "nothing was heard for the ping timeout"
	wordTimeout   = tlsctl.Restart + ",session-timeout"
	wordInactive  = tlsctl.Halt + ",inactive"
	wordElsewhere = tlsctl.Halt + ",connected from elsewhere"
	wordServerEnd = "server ends"
)

// dismiss ends a client's session, whose keys are dead at once, with a word to the client.
func (s *Server) dismiss(c *client, word tlsctl.Message, why string) {
	if c.die() {
		c.session.Dismiss(word, errors.New(why))
	}
}

// displace ends the session of a client whose place a newer one takes.
func (s *Server) displace(old, by *client) {
	const why = "a newer session of the same name or address"
	if old.path.Load().outside == by.path.Load().outside {
		s.end(old, why)
		return
	}
	s.dismiss(old, wordElsewhere, why)
}

// serverEnds is what c is told when the server ends. notify is explicit-exit-notify.
func (c *client) serverEnds(notify int) tlsctl.Message {
	switch g := c.decided(); {
	case notify < 2:
		return tlsctl.RestartKeep + wordServerEnd
	case g != nil && g.peerInfo.Release().Major >= 3: // it does not know both flags at once
		return tlsctl.RestartNext + ":" + wordServerEnd
	default:
		return tlsctl.RestartKeepNext + wordServerEnd
	}
}

// comeAgain turns a client away that may come again: after a while that is not the same for all, so that not all come at
// once.
func comeAgain(public string, err error) *tlsctl.Denial {
	return &tlsctl.Denial{Public: public, Temporary: true, Backoff: 5*time.Second + rand.N(10*time.Second), Err: err}
}

// tryNext is comeAgain, where another server of the client's list may have what this one has not.
func tryNext(public string, err error) *tlsctl.Denial {
	d := comeAgain(public, err)
	d.Advance = "remote"
	return d
}
