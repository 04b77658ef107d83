package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// TokenOptions says what tokens there are.
type TokenOptions struct {
	Secret *TokenSecret
	// Lifetime is how long after a full login tokens are renewed. 0, and what is longer, means 12 h (security S048).
	Lifetime time.Duration
	// Renewal is how often a session gets a new token; each is good for twice as long.
	Renewal time.Duration
	// Shared means that servers of another make have the same secret. Tokens are then theirs, and not bound to the
	// certificate's key nor to an epoch.
	Shared bool
	// External means that a token alone lets nobody in: the back end is asked each time, and sees what the token is worth
	// in Request.Token.
	External bool
	// MatchCertificate wants the name that a token stands for to be the certificate's, as the function of that name.
	MatchCertificate bool
	// NamedByCertificate takes the certificate's name in place of the one that was typed, as the function of that name.
	NamedByCertificate bool
	// Epoch returns what changes when the tokens of a user must not be good any more; nil means never. Not for Shared.
	Epoch func(name string) string
	// Voucher is asked about users whose tokens are good, at least every 15 min; nil believes the token alone.
	Voucher Voucher
}

// A Voucher says whether a user may still come in, without a password to try. The errors are an Authenticator's.
type Voucher interface {
	Vouch(ctx context.Context, name string) (*Identity, error)
}

// A TokenReport is what an external back end gets to know of a login's token.
type TokenReport struct {
	State   TokenState
	Session string // 16 characters, the same as long as the client keeps renewing
}

const (
	maxTokenLife = 12 * time.Hour
	// vouchTime is how long a user is believed to be what they were (security S049).
	vouchTime = 15 * time.Minute
	// publicTokenOver is what a client reads whatever is wrong with its token.
	publicTokenOver = "token expired"
)

// ErrTokenOver is inside the *Denied of a token. There is a form of its own for telling that, AUTH_FAILED,SESSION: the
// client then drops the token and logs in anew.
var ErrTokenOver = errors.New("token is not good any more")

// Tokens lets clients in without a password that have had it right before: `auth-gen-token`. Any goroutine.
type Tokens struct {
	o   TokenOptions
	log zerolog.Logger
}

func NewTokens(o TokenOptions, log zerolog.Logger) (*Tokens, error) {
	if o.Secret == nil {
		return nil, errors.New("tokens without a secret")
	}
	if o.Renewal < time.Second {
		return nil, fmt.Errorf("tokens that are renewed every %v", o.Renewal)
	}
	if o.Lifetime < 0 {
		return nil, fmt.Errorf("tokens for %v", o.Lifetime)
	}
	if o.Lifetime == 0 || o.Lifetime > maxTokenLife {
		o.Lifetime = maxTokenLife
	}
	if o.Shared && o.Epoch != nil {
		return nil, errors.New("tokens shared with other servers cannot be revoked")
	}
	return &Tokens{o, log}, nil
}

// Interval is how often Renew wants to be called.
func (t *Tokens) Interval() time.Duration { return t.o.Renewal }

// A TokenSession is what the logins of one session have in common. The zero value is a session before its first; it
// outlives a reload, and with it the Tokens. Any goroutine.
type TokenSession struct {
	mu sync.Mutex
	tokenLogin
}

// A tokenLogin is the last good login of a session.
type tokenLogin struct {
	named   bool // there is a session id
	id      [sessionIDLen]byte
	initial uint64

	// The times in the session's tokens go on from wall at the pace of a clock that nobody sets, so that setting the other
	// one ends no session (security F13).
	wall    time.Time // at mono, by the clock on the wall
	mono    time.Time
	who     *Identity // nil before the first login
	asked   time.Time // when a back end has last said so
	user    string    // that the token is made over; "" for a client that sends no name
	push    string    // the name that the client is to use, when it is another than it sent
	certKey []byte
	text    string // the token
	report  TokenReport
}

// clock is what the session's tokens go by, at now.
func (l *tokenLogin) clock(now time.Time) time.Time {
	if l.who == nil {
		return now
	}
	return l.wall.Add(now.Sub(l.mono))
}

// Token returns the token that the client should have, "" before the first login.
func (s *TokenSession) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}

// Report says how the last good login came about, false before the first.
func (s *TokenSession) Report() (r TokenReport, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report, s.who != nil
}

// User returns the name for `auth-token-user`: the client's token is good with that name, and not with the one that it
// has sent. It is "" when there is nothing to push.
func (s *TokenSession) User() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.push
}

// Know is for who has asked a back end about the user meanwhile: who is what logins by token say from now on. Nothing
// happens before the first login.
func (s *TokenSession) Know(who *Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.who != nil && s.who.Name == who.Name {
		s.who, s.asked = who, time.Now()
	}
}

// Login judges one login of s: by its token, when the password is one, and otherwise by next. When it is good s has
// a new token. Whatever becomes of it, r.Token says what the token was worth. The logins of one session come one after
// the other.
func (t *Tokens) Login(ctx context.Context, s *TokenSession, next Authenticator, r *Request) (*Identity, error) {
	s.mu.Lock()
	if !s.named {
		rand.Read(s.id[:])
		s.named = true
	}
	before := s.tokenLogin
	s.mu.Unlock()

	report := new(TokenReport)
	r.Token = report
	if t.o.NamedByCertificate && r.CommonName != "" {
		inner := *r
		inner.Username = r.CommonName
		r = &inner
	}
	now := time.Now()
	at := before.clock(now)
	var tok token
	state := TokenInitial
	if r.State == "" && IsToken(r.Password) {
		tok, state = t.judge(&before, r, at)
	}
	*report = TokenReport{state, sessionName(&before, &tok, state)}
	after := before
	var err error
	switch {
	case state == TokenInitial || t.o.External:
		after.who, err = t.ask(ctx, next, r, *report)
		after.asked = now
	case state == TokenAuthenticated:
		after.who, after.asked, err = t.known(ctx, &before, r, now)
	default:
		err = overDenied(state)
	}
	if err != nil {
		return nil, err
	}
	if before.who != nil && before.who.Name != after.who.Name {
		return nil, &Denied{Reason: fmt.Sprintf("session of %q, login of %q", before.who.Name, after.who.Name), Public: PublicRefusal}
	}
	switch state {
	case TokenAuthenticated: // the session and the time of its full login go on, whichever connection this is
		after.id, after.initial, after.push = tok.session, tok.initial, before.push
		after.user = t.sent(r)
	case TokenAuthenticatedEmptyUser:
		after.id, after.initial, after.user, after.push = tok.session, tok.initial, "", ""
	default:
		after.initial, at = unixTime(now), now
		after.user, after.push = t.nameFor(after.who, r)
	}
	after.certKey = slices.Clone(r.CertKey)
	after.wall, after.mono = at.Round(0), now
	fresh := token{after.id, after.initial, unixTime(at)}
	after.text = fresh.sign(t.key(after.who.Name, after.certKey), after.user)

	after.report = *report
	s.mu.Lock()
	s.tokenLogin = after
	s.mu.Unlock()
	id := *after.who
	id.Groups = slices.Clone(id.Groups)
	return &id, nil
}

// judge looks at a token that stands for a login of the session.
func (t *Tokens) judge(before *tokenLogin, r *Request, now time.Time) (token, TokenState) {
	user := t.sent(r)
	name, err := tokenName(user, r)
	if err != nil {
		return token{}, TokenInvalid
	}
	session := &before.id
	if before.who == nil {
		session = nil // a new connection, which brings its session along
	}
	return judgeToken(r.Password, t.key(name, r.CertKey), user, session, now, t.o.Lifetime, t.o.Renewal)
}

// sent returns the user name as tokens are made over it: canonical, or to the letter where others do so.
func (t *Tokens) sent(r *Request) string {
	if name, err := CanonicalName(r.Username); err == nil && !t.o.Shared {
		return name
	}
	return r.Username
}

// tokenName returns who a token made over user stands for. A client without a user name is its certificate.
func tokenName(user string, r *Request) (string, error) {
	if user == "" {
		return CanonicalName(r.CommonName)
	}
	return CanonicalName(user)
}

// nameFor returns the name to make a first token over, and what the client has to be told of it.
func (t *Tokens) nameFor(who *Identity, r *Request) (user, push string) {
	user = t.sent(r)
	if name, err := tokenName(user, r); err == nil && name == who.Name {
		return user, ""
	}
	return who.Name, who.Name
}

func (t *Tokens) key(name string, certKey []byte) []byte {
	if t.o.Shared {
		return t.o.Secret.key[:]
	}
	epoch := ""
	if t.o.Epoch != nil {
		epoch = t.o.Epoch(name)
	}
	return t.o.Secret.bound(certKey, epoch)
}

// ask has the back end decide.
func (t *Tokens) ask(ctx context.Context, next Authenticator, r *Request, report TokenReport) (*Identity, error) {
	inner := *r
	inner.Token = &report
	if report.State == TokenAuthenticatedEmptyUser || report.State == TokenExpiredEmptyUser {
		inner.Username = "" // nothing proves it
	}
	id, err := next.Authenticate(ctx, &inner)
	if err == nil && (id == nil || id.Name == "") {
		err = errors.New("back end named no user")
	}
	return id, err
}

// known returns who a good token stands for.
func (t *Tokens) known(ctx context.Context, before *tokenLogin, r *Request, now time.Time) (*Identity, time.Time, error) {
	name, err := tokenName(t.sent(r), r)
	if err != nil {
		return nil, now, &Denied{Reason: err.Error(), Public: publicTokenOver, Err: ErrTokenOver}
	}
	if t.o.MatchCertificate {
		if _, err := MatchCertificate(proven{}).Authenticate(ctx, &Request{Username: name, Password: r.Password, CommonName: r.CommonName}); err != nil {
			return nil, now, err
		}
	}
	switch {
	case before.who != nil && (t.o.Voucher == nil || now.Sub(before.asked) < vouchTime):
		return before.who, before.asked, nil
	case t.o.Voucher == nil:
		return &Identity{Name: name, By: "token"}, now, nil
	}
	id, err := t.o.Voucher.Vouch(ctx, name)
	switch {
	case err == nil && (id == nil || id.Name != name):
		err = errors.New("back end vouched for another user")
	case err == nil:
		who := *id
		who.By = "token+" + id.By
		return &who, now, nil
	}
	if before.who == nil || isDenied(err) {
		return nil, now, err
	}
	// A directory that is away ends no session that it has let in (security S062).
	t.log.Warn().Err(err).Str("user", name).Msg("nobody vouches for this user at present; the session goes on with its token")
	return before.who, before.asked, nil
}

// proven is for a login whose password has been judged.
type proven struct{}

func (proven) Authenticate(context.Context, *Request) (*Identity, error) { return nil, nil }

// Renew gives the session a new token, when its last one is still good. It reports false when the time of the login is
// over or the token has been revoked: the client must then log in again, at the latest when it renegotiates.
func (t *Tokens) Renew(s *TokenSession) (text string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.who == nil {
		return "", false
	}
	at := s.clock(time.Now())
	key := t.key(s.who.Name, s.certKey)
	tok, state := judgeToken([]byte(s.text), key, s.user, &s.id, at, t.o.Lifetime, t.o.Renewal)
	if state != TokenAuthenticated {
		return "", false
	}
	tok.renewed = unixTime(at)
	s.text = tok.sign(key, s.user)
	return s.text, true
}

// sessionName is the session id as an external back end sees it: the token's, where that is one of ours.
func sessionName(before *tokenLogin, tok *token, state TokenState) string {
	id := before.id
	if state > TokenInvalid {
		id = tok.session
	}
	return base64.StdEncoding.EncodeToString(id[:])
}

func unixTime(t time.Time) uint64 { return uint64(max(0, t.Unix())) }
