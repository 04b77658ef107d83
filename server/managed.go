package server

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"time"

	"postern/auth"
	"postern/server/hooks"
	"postern/server/management"
	"postern/tlsctl"
)

// managed is what management clients are asked about one client, and what they said (management-client-auth). Each
// negotiation with a login is put to them under a number of its own; an answer to an older one is none.
type managed struct {
	mu        sync.Mutex
	key       management.KeyID     // guarded by mu: of the newest negotiation that was put to them; 0: none
	decisions chan decision        // guarded by mu: where that one's answer goes; nil when it is decided
	questions chan tlsctl.Question // guarded by mu: with decisions
	let       bool                 // guarded by mu: the newest one was let in
	lines     []byte               // guarded by mu: of the first client-auth
	who       *hooks.ClientInfo    // guarded by mu: what they were told of the client
}

// A decision is client-auth or client-deny.
type decision struct {
	denied         bool
	reason, public string
}

// begin makes the next negotiation the one that is asked about.
func (m *managed) begin(who *hooks.ClientInfo) (key management.KeyID, decisions <-chan decision, questions <-chan tlsctl.Question) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.key++
	m.decisions, m.questions, m.let, m.who = make(chan decision, 1), make(chan tlsctl.Question, 1), false, who
	return m.key, m.decisions, m.questions
}

// over closes the question about a negotiation.
func (m *managed) over(key management.KeyID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key == key {
		m.decisions, m.questions = nil, nil
	}
}

var errNotAsked = errors.New("no login waits for this answer")

// decide takes an answer; the first one counts.
func (m *managed) decide(key management.KeyID, d decision, lines []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case key == 0 || key != m.key:
		return errNotAsked
	case m.decisions == nil && m.let && !d.denied && len(lines) == 0:
		return nil // it is in already
	case m.decisions == nil:
		return errNotAsked
	}
	if m.let = !d.denied; m.let && m.lines == nil && len(lines) > 0 {
		m.lines = []byte(strings.Join(lines, "\n") + "\n")
	}
	m.decisions <- d
	m.decisions, m.questions = nil, nil
	return nil
}

// pend has the client's user asked something while the answer is awaited.
func (m *managed) pend(key management.KeyID, q tlsctl.Question) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if key == 0 || key != m.key || m.questions == nil {
		return errNotAsked
	}
	select {
	case m.questions <- q:
		return nil
	default:
		return errors.New("another question is on its way")
	}
}

// said is what the client's file of client-config-dir would say.
func (m *managed) said() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lines
}

// asked is what management clients were told of a client, nil when they were not asked.
func (m *managed) asked() *hooks.ClientInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.who
}

// managedLogin puts one negotiation's login to the management clients and waits for their answer.
func (c *client) managedLogin(ctx context.Context, r *auth.Request, h *tlsctl.Hello, v *hooks.ClientInfo) error {
	who := *v
	who.Username, who.Peer = r.Username, peerVars(h.Peer)
	if r.Token != nil {
		who.SessionID, who.SessionState = r.Token.Session, r.Token.State.String()
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key, decisions, questions := c.managed.begin(&who)
	defer c.managed.over(key)
	m, env := c.srv.parts.Management, c.environment(&who)
	ask := m.ClientConnect
	if !h.First {
		ask = m.ClientReauth
	}
	ask(c.id, key, c.srv.Connected(), func(yield func(string, string) bool) {
		if r.Password == nil || yield("password", string(r.Password)) {
			env(yield)
		}
	})
	for {
		select {
		case d := <-decisions:
			switch {
			case !d.denied:
				return nil
			case strings.HasPrefix(d.public, "CRV1:"): // no guess, but a question to come back with the answer to
				return &tlsctl.Denial{Challenge: d.public, Err: errors.New(d.reason)}
			}
			return &auth.Denied{Reason: "a management client: " + d.reason, Public: d.public}
		case q := <-questions:
			asking.Go(func() { c.putManaged(ctx, key, q, h, &who) })
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// putManaged puts a question to the client's user, and gives what comes back to the management clients. That it cannot
// be put decides nothing: who asked has the last word.
func (c *client) putManaged(ctx context.Context, key management.KeyID, q tlsctl.Question, h *tlsctl.Hello, who *hooks.ClientInfo) {
	response, err := h.Ask(ctx, q)
	defer clear(response)
	switch {
	case err != nil:
		c.log.Debug().Err(err).Msg("a management client's question was not answered")
	case response != nil:
		c.srv.parts.Management.ClientCRResponse(c.id, key, base64.StdEncoding.EncodeToString(response), c.srv.Connected(), c.environment(who))
	}
}

// anyClient finds a client that may not be in yet.
func (o *ManagementOwner) anyClient(id management.ClientID) (*client, error) {
	if s := o.server.Load(); s != nil {
		for _, c := range s.table.all(nil) {
			if c.id == id {
				return c, nil
			}
		}
	}
	return nil, errNoClient
}

// ClientAuth implements management.Logins.
func (o *ManagementOwner) ClientAuth(id management.ClientID, key management.KeyID, lines []string) error {
	c, err := o.anyClient(id)
	if err != nil {
		return err
	}
	return c.managed.decide(key, decision{}, lines)
}

// ClientDeny implements management.Logins.
func (o *ManagementOwner) ClientDeny(id management.ClientID, key management.KeyID, reason, clientReason string) error {
	c, err := o.anyClient(id)
	if err != nil {
		return err
	}
	return c.managed.decide(key, decision{denied: true, reason: reason, public: clientReason}, nil)
}

// ClientPending implements management.Logins.
func (o *ManagementOwner) ClientPending(id management.ClientID, key management.KeyID, extra string, timeout time.Duration) error {
	c, err := o.anyClient(id)
	if err != nil {
		return err
	}
	q, _, ok := parseQuestion(extra)
	if !ok {
		return errors.New("not CR_TEXT:FLAGS:TEXT, WEB_AUTH:FLAGS:URL or OPEN_URL:URL")
	}
	q.Timeout = timeout
	return c.managed.pend(key, q)
}
