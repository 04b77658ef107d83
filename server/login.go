package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"postern/auth"
	"postern/server/hooks"
	"postern/tlsctl"
)

// Login is how clients log in, and how that goes on while they are connected. A reload brings another.
type Login struct {
	Auth   auth.Authenticator // nil when clients need no login
	Tokens *auth.Tokens       // what clients log in with afterwards; nil: there are none
	// Watcher is asked about those who are connected, as often as the configuration says; nil: nobody is.
	Watcher auth.Watcher
	// Local is asked too, every few seconds, and waits for nobody; nil: nobody is.
	Local auth.Watcher
	// HasFactor reports whether a user, by canonical name, gets in with that factor only. Policies ask for those that
	// config.Policy.Factor names; nil: nobody has any.
	HasFactor func(user, factor string) bool
}

// loginTimeout bounds what the login's back ends may take (S058). The time that a user needs to answer a question is
// not theirs.
const loginTimeout = 10 * time.Second

// answerTime is what tlsctl keeps of a login's time for judging the last answer and saying so.
const answerTime = 5 * time.Second

// scriptTimeout is the same where a script has a say, which may wait for what the user does elsewhere. The negotiation has
// a limit of its own.
const scriptTimeout = 5 * time.Minute

// login asks who a client is, and its user what is missing, and returns who it is.
//
//	Authenticate -- yes, no, later --> the client is told
//	     |   ^
//	     |   | State, Response           *auth.Challenge: the user is asked within the session, if the client can do
//	     v   |                           that; otherwise the session ends with the question, and the next one brings
//	*auth.Challenge -> Hello.Ask         the answer as its password
func (c *client) login(ctx context.Context, live *live, h *tlsctl.Hello, certCN string, v *hooks.ClientInfo) (*auth.Identity, error) {
	c.log.Debug().Str("user", h.Username).Msg("asking for a login")
	r := &auth.Request{Username: h.Username, Password: h.Password, CommonName: certCN, Source: c.path.Load().addr, Can: methods(h), Script: c.loginScript(h, v)}
	if len(h.Chain) > 0 {
		sum := sha256.Sum256(h.Chain[0].RawSubjectPublicKeyInfo)
		r.CertKey = sum[:]
	}
	shown := c.shown(r)
	until := c.opened.Add(live.cfg.HandWindow) // when it is to be in
	if !h.First {
		until = time.Now().Add(live.cfg.HandWindow)
	}
	within := loginTimeout
	switch {
	case r.Script != nil:
		within = scriptTimeout
	case !h.First:
		within = min(within, live.cfg.HandWindow/2) // the negotiation's end would judge nobody
	}
	var token *auth.TokenReport // of what the client has shown, whatever it is asked then
	for {
		id, err := c.authenticate(ctx, live.login, r, within)
		if token == nil {
			token = r.Token
		}
		clear(r.Response)
		challenge := (*auth.Challenge)(nil)
		switch {
		case err == nil:
			if r.State == "" {
				c.proved(shown)
			}
			return id, nil
		case !errors.As(err, &challenge):
			if who := c.stands(h, token, shown, err); who != nil {
				return who, nil
			}
			return nil, refusal(h.Username, err)
		}
		clear(r.Password) // it has been judged, and an answer may take minutes (S047)
		q, wait, ok := question(challenge, h)
		if within = wait; q.Method == tlsctl.AskText {
			// Asked is who has the wrong password too, and for that nobody is given more time (S010).
			q.Timeout = min(challenge.Within, time.Until(until)-answerTime)
			ok = ok && q.Timeout > 0
		}
		switch {
		case !ok && challenge.URL != "":
			return nil, &tlsctl.Denial{Public: "this login needs a client that can open web pages", Err: fmt.Errorf("login %q: client can open no web page", h.Username)}
		case !ok:
			return nil, &tlsctl.Denial{Challenge: challenge.CRV1(), Err: fmt.Errorf("login %q: %w", h.Username, err)}
		}
		r = &auth.Request{Username: challenge.Username, CommonName: r.CommonName, CertKey: r.CertKey, Source: c.path.Load().addr, Can: r.Can, State: challenge.State, Script: r.Script}
		if q.Method == tlsctl.JustWait && !h.CanAsk(q.Method) {
			continue // it waits for as long as it does
		}
		switch r.Response, err = h.Ask(ctx, q); {
		case errors.Is(err, tlsctl.ErrNoAnswer):
			return nil, &tlsctl.Denial{Public: "no answer in time", Err: fmt.Errorf("login %q: %w", h.Username, err)}
		case err != nil && ctx.Err() != nil:
			return nil, err
		case err != nil:
			return nil, &tlsctl.Denial{Public: auth.PublicRefusal, Err: fmt.Errorf("login %q: %w", h.Username, err)}
		}
	}
}

// authenticate asks once. A yes has a name, and comes in time.
func (c *client) authenticate(ctx context.Context, l Login, r *auth.Request, within time.Duration) (id *auth.Identity, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	switch {
	case l.Tokens != nil:
		id, err = l.Tokens.Login(ctx, &c.tokens, l.Auth, r)
	case r.State == "" && auth.IsToken(r.Password):
		// Of a time when there were some: it is nobody's password, and no guess at one.
		return nil, &auth.Denied{Reason: "token: there are none here", Public: "token expired", Err: auth.ErrTokenOver}
	default:
		id, err = l.Auth.Authenticate(ctx, r)
	}
	switch {
	case err != nil:
		return nil, err
	case id == nil || id.Name == "":
		return nil, errors.New("the back end said yes without a name")
	case ctx.Err() != nil:
		return nil, ctx.Err() // a yes that comes too late is none (S040)
	}
	return id, nil
}

// refusal is what a client hears whose login was not good.
func refusal(user string, err error) error {
	err = fmt.Errorf("login %q: %w", user, err)
	if denial := (*tlsctl.Denial)(nil); errors.As(err, &denial) {
		return denial
	}
	if denied := (*auth.Denied)(nil); errors.As(err, &denied) {
		return &tlsctl.Denial{Public: denied.Public, Session: errors.Is(err, auth.ErrTokenOver), Err: err}
	}
	return comeAgain("the login service cannot be reached, try again later", err)
}

// methods is how a client's user can be asked for more. Every client can come again with an answer.
func methods(h *tlsctl.Hello) auth.Methods {
	m := auth.ByReturn | auth.ByWaiting
	if h.CanAsk(tlsctl.AskText) {
		m |= auth.ByText
	}
	if h.CanAsk(tlsctl.AskWeb) || h.CanAsk(tlsctl.AskURL) {
		m |= auth.ByWebPage
	}
	return m
}

// question is how a challenge is put to a client's user within the session, and for how long its answer may be judged;
// not ok when it cannot be.
func question(c *auth.Challenge, h *tlsctl.Hello) (q tlsctl.Question, judge time.Duration, ok bool) {
	q.Timeout = c.Within
	switch {
	case c.URL != "" && h.CanAsk(tlsctl.AskWeb):
		q.Method, q.Flags, q.Text = tlsctl.AskWeb, c.Flags, c.URL
		return q, c.Within, true
	case c.URL != "":
		q.Method, q.Text = tlsctl.AskURL, c.URL
		return q, c.Within, h.CanAsk(tlsctl.AskURL)
	case c.Text == "":
		return q, c.Within, true
	}
	q.Method, q.Flags, q.Text = tlsctl.AskText, []string{"R"}, c.Text
	if c.Echo {
		q.Flags = append(q.Flags, "E")
	}
	return q, loginTimeout, h.CanAsk(tlsctl.AskText)
}

// withToken adds to a grant what the client is to log in with from now on.
func (c *client) withToken(live *live, g *tlsctl.Grant) *tlsctl.Grant {
	if live.login.Auth != nil && live.login.Tokens != nil {
		g.Token, g.TokenUser = c.tokens.Token(), c.tokens.User()
	}
	return g
}

// renewToken gives the client another token when its last one has been renewed long enough ago. One whose time is over
// is not: the client logs in again when it renegotiates. The keeper calls it.
func (c *client) renewToken(live *live, clock int64) {
	t := live.login.Tokens
	if t == nil || !c.established.Load() {
		return
	}
	if c.renewed == 0 {
		c.renewed = clock
	}
	if clock-c.renewed < seconds(t.Interval()) {
		return
	}
	c.renewed = clock
	if text, ok := t.Renew(&c.tokens); ok {
		if err := c.session.RenewToken(text); err != nil {
			c.log.Error().Err(err).Msg("renew token")
		}
	}
}
