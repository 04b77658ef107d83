package tlsctl

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// decided takes the outcome of a negotiation.
func (s *Session) decided(now time.Time, n *negotiation, err error) {
	if n.cancel != nil {
		n.cancel(nil)
		n.cancel = nil // it holds its context
	}
	n.over = true
	if n == s.next {
		s.next = nil
		if n.heard {
			s.lastKey = n.key
		}
	}
	defer n.forgetSecrets()
	if s.leaving != nil || s.ended {
		return // that decision was final
	}
	if err == nil {
		err = s.authorise(now, n)
	}
	var denied *Denial
	var panicked *panicError
	switch {
	case err == nil:
	case errors.As(err, &denied):
		s.refuse(n, denied, s.verdictTime(now, n, denied))
	case n.first && n.alerted(err):
		// The alert goes out again until it has arrived: a client that hears nothing waits for a minute.
		s.leave(err)
		s.until, s.lastWords = now.Add(s.timing.Linger), n
	case n.first, errors.As(err, &panicked):
		s.end(err)
	default:
		// The old key goes on, until its time is over, and we do not try again at once.
		s.log.Info().Err(err).Uint8("key", uint8(n.key)).Msg("renegotiation failed")
		n.dead = true
		if n.installed {
			s.owner.Withdraw(n.key)
		}
		if s.expires.IsZero() {
			s.expires = n.started.Add(s.timing.Transition)
		}
		if !s.renegotiate.IsZero() {
			s.renegotiate = n.started.Add(2 * s.timing.HandWindow)
		}
		s.payDebts()
	}
}

// verdictTime is when a client is told that its login has failed: at one time after it came, so that the time tells nothing
// about the reason (S045). What took longer is told at the next multiple of that time: with a slow directory an unknown user
// is known sooner than a wrong password. That ends with the fifth: then it was the user who took so long, or a script. In a
// renegotiation the silence of the data channel has told already, and a temporary failure is the same for every name.
func (s *Session) verdictTime(now time.Time, n *negotiation, d *Denial) time.Time {
	every := s.timing.RefusalDelay
	if !n.first || d.Challenge != "" || every <= 0 {
		return now
	}
	at := n.asked.Add(every)
	if late := now.Sub(at); late > 0 {
		if d.Temporary || late > 4*every {
			return now
		}
		if at = at.Add((late + every - 1) / every * every); at.After(n.deadline.Add(-every)) {
			return now // or the session would be over before
		}
	}
	return at
}

func (n *negotiation) forgetSecrets() {
	for _, x := range []*exchange{n.theirs, n.ours} {
		if x != nil {
			x.wipe()
		}
	}
	n.theirs, n.ours = nil, nil
}

// authorise is the one way to a data key and to PUSH_REPLY. It wants a negotiation that decide has found good.
func (s *Session) authorise(now time.Time, n *negotiation) error {
	if n.grant == nil || n.hello == nil {
		return &Denial{Err: errors.New("not admitted")}
	}
	if n.first {
		if err := s.prepare(n); err != nil {
			return &Denial{Temporary: true, Public: "temporary failure, try again later", Err: err}
		}
	}
	if !n.installed {
		if err := s.install(n); err != nil {
			return err
		}
	}
	s.owner.Confirm(n.key)
	s.log.Debug().Uint8("key", uint8(n.key)).Uint16("tls", n.state.Version).Msg("negotiated")
	// Beside the new one only the one before goes on being read.
	s.negotiated = slices.DeleteFunc(s.negotiated, func(o *negotiation) bool { return o.over && o != n && o != s.current })
	s.current = n
	s.lastKey = n.key
	s.expires = time.Time{}
	s.renegotiate = time.Time{}
	if d := s.timing.Renegotiate; d > 0 {
		// Not all clients at once.
		s.renegotiate = n.started.Add(d - time.Duration(rand.Int64N(int64(d/10)+1)))
	}
	if !n.first {
		s.payDebts()
		s.setToken(n.grant.Token)
	}
	if s.asked || n.first && n.hello.Peer.Can(FeatureRequestPush) {
		s.push(now)
	}
	return nil
}

// prepare settles for the whole session what the first negotiation decides.
func (s *Session) prepare(n *negotiation) error {
	// TLS 1.2 without extended master secret exports nothing.
	exported, err := exportKeys(&n.state, exportDynamic)
	t, bad := newTerms(s.cfg, n.hello, n.grant, err == nil)
	if bad != nil {
		return bad
	}
	if _, err := t.replies(n.grant.Push, n.hello.Peer, n.grant.Token); err != nil {
		return err
	}
	if t.dynamic {
		s.exported = exported
	} else {
		clear(exported)
	}
	if theirs := optionValue(n.hello.Options, "auth"); t.digest != "" && theirs != "" && !strings.EqualFold(theirs, t.digest) {
		s.log.Warn().Str("client", theirs).Str("server", t.digest).Msg("the client has another auth: no data will pass")
	}
	s.terms, s.granted, s.token = t, slices.Clone(n.grant.Push), n.grant.Token
	s.identity = n.hello
	s.identity.Password = nil
	return nil
}

// install derives the data key and hands it over. The error is a *Denial.
func (s *Session) install(n *negotiation) error {
	if err := s.handOver(n); err != nil {
		return &Denial{Temporary: true, Public: "temporary failure, try again later", Err: fmt.Errorf("install data key: %w", err)}
	}
	n.installed = true
	return nil
}

func (s *Session) handOver(n *negotiation) error {
	var keys keyBlock
	var err error
	if s.terms.exporter {
		keys, err = exportKeys(&n.state, exportDataKeys)
	} else {
		keys, err = deriveKeys(n.theirs, n.ours, s.open.Client, s.open.Server)
	}
	if err != nil {
		return err
	}
	defer clear(keys)
	return s.owner.Install(KeyMaterial{
		ID:         n.key,
		Cipher:     s.terms.cipher,
		Digest:     s.terms.digest,
		ToClient:   keys.toClient(),
		FromClient: keys.fromClient(),
		PeerID:     s.terms.peerID,
		V2:         s.terms.v2,
		Epoch:      s.terms.epoch,
		Framing:    s.terms.framing,
		Started:    n.started,
	})
}
