package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// CodePlace says where in a plain password the code is, for clients that have one field for both.
type CodePlace uint8

const (
	CodeLast  CodePlace = iota // a password that ends with six digits ends with the code
	CodeFirst                  // one that begins with six digits begins with it
	CodeApart                  // nowhere: a password is a password
)

// TOTPOptions says how codes are asked for.
type TOTPOptions struct {
	File string // of secrets, which AddTOTP writes
	// Place is where the code is when the client sends one field. A password without six digits there has no code in
	// it, and the user is asked for one, if Request.Can.
	Place CodePlace
	// Optional lets users without a secret in by their password alone. Beware of back ends that know one user by
	// several names: only the one in the file has a secret.
	Optional bool
	// Used remembers from one run to the next which codes are spent. Without it the codes of the first minute are
	// refused, since the run before may have taken them.
	Used UsedFile
	// Within is how long a user may take to answer; 0 means 2 min.
	Within time.Duration
	// Text is what the user is asked; "" means DefaultCodeText.
	Text string
	// Guesses is how many wrong codes there may be. They are not counted together with wrong passwords: whoever has
	// the password could otherwise clear the count in between by getting it right.
	Guesses ThrottleOptions
}

// A UsedFile is rewritten in place, so that no right to its directory is needed. *os.File is one.
type UsedFile interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

var _ UsedFile = (*os.File)(nil)

// TOTP is the second factor that users have in an authenticator app. Any goroutine. It is kept over a reload: it knows
// which codes are spent, and holds the logins of those who are looking for their telephone.
type TOTP struct {
	o     TOTPOptions
	log   zerolog.Logger
	base  zerolog.Logger // without the file
	codes Authenticator  // whose passwords are codes
	held  *heldLogins
	spent *spentCodes

	throttle *Throttle // of codes

	mu      sync.Mutex
	seen    stamp // of the version last read, good or bad
	secrets map[string]TOTPSecret
}

const (
	// maxHeld and maxHeldPerSource bound the logins that wait for a code.
	maxHeld          = 4096
	maxHeldPerSource = 64
	// askDelay is when a Challenge is returned, counted from the login. The time that a back end takes would otherwise
	// tell what it has found out (security S045); refusals wait as long.
	askDelay = 2 * time.Second

	publicNoCode = "a one-time code is needed besides the password"
)

// DefaultCodeText is what users are asked when nothing else is said.
const DefaultCodeText = "One-time code"

// NewTOTP reads the secrets file, which is as private as a user file, and again whenever it has changed.
func NewTOTP(o TOTPOptions, log zerolog.Logger) (*TOTP, error) {
	if o.Within == 0 {
		o.Within = 2 * time.Minute
	}
	if o.Text == "" {
		o.Text = DefaultCodeText
	}
	t := &TOTP{
		o:    o,
		log:  log.With().Str("file", o.File).Logger(),
		base: log,
		held: newHeldLogins(maxHeld, maxHeldPerSource, o.Within),

		throttle: NewThrottle(o.Guesses, log),
	}
	var err error
	if t.spent, err = newSpentCodes(o.Used, time.Now()); err != nil {
		t.log.Warn().Err(err).Msg("it is not known which one-time codes are spent: those of the first minute are refused")
	}
	if err := t.open(); err != nil {
		return nil, err
	}
	return t, nil
}

// With is what a reload makes of t: the same with other options, but for Used, Within and Guesses. Spent codes, open
// challenges and wrong guesses are those of both.
func (t *TOTP) With(o TOTPOptions) (*TOTP, error) {
	o.Used, o.Within, o.Guesses = t.o.Used, t.o.Within, t.o.Guesses
	if o.Text == "" {
		o.Text = DefaultCodeText
	}
	next := &TOTP{o: o, log: t.base.With().Str("file", o.File).Logger(), base: t.base, held: t.held, spent: t.spent, throttle: t.throttle}
	if err := next.open(); err != nil {
		return nil, err
	}
	return next, nil
}

// open reads the secrets for the first time.
func (t *TOTP) open() error {
	t.codes = t.throttle.Limit(t.throttle.Spare(codeJudge{t}))
	text, seen, err := readUsersFile(t.o.File)
	if err != nil {
		return err
	}
	t.seen = seen
	return t.takeLocked(text)
}

// Holds reports whether the user with this canonical name has a secret.
func (t *TOTP) Holds(name string) bool { return t.secret(name) != nil }

// Epoch is for TokenOptions: a new secret ends the tokens that were got with the old one.
func (t *TOTP) Epoch(name string) string { return string(t.secret(name)) }

func (t *TOTP) secret(name string) TOTPSecret {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.refreshLocked(); err != nil {
		t.log.Error().Err(err).Msg("file of TOTP secrets is bad, the last good one stays in use")
	}
	return t.secrets[name]
}

// refreshLocked reads the file again when it has changed.
func (t *TOTP) refreshLocked() error {
	info, err := os.Lstat(t.o.File)
	var now stamp
	if err == nil {
		now = stampOf(info)
	}
	if now == t.seen {
		return nil
	}
	text, seen, err := readUsersFile(t.o.File)
	if err != nil {
		t.seen = now
		return err
	}
	t.seen = seen
	return t.takeLocked(text)
}

func (t *TOTP) takeLocked(text []byte) error {
	lines, err := parseTOTP(text)
	if err != nil {
		return fmt.Errorf("%s:%w", t.o.File, err)
	}
	t.secrets = make(map[string]TOTPSecret)
	for _, l := range lines {
		if l.name != "" {
			t.secrets[l.name] = l.secret
		}
	}
	return nil
}

// Require lets those in whom next lets in and who show their code. Neither refusal nor Challenge tells which of the
// two was wrong, nor whether there is such a user (security S045).
//
// A code is only looked at once the password is right: a wrong password is then no guess at the code, and nobody
// without the password can use up the owner's guesses, nor spend their codes.
func (t *TOTP) Require(next Authenticator) Authenticator { return requireTOTP{t, next} }

type requireTOTP struct {
	t    *TOTP
	next Authenticator
}

func (q requireTOTP) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	t := q.t
	name, err := CanonicalName(r.Username)
	if err != nil {
		return nil, &Denied{Reason: err.Error(), Public: PublicRefusal}
	}
	if r.State != "" {
		return t.resume(ctx, name, r)
	}
	if t.o.Optional && !t.Holds(name) {
		id, err := q.next.Authenticate(ctx, r)
		if err == nil && (id == nil || id.Name != name) {
			return nil, errOtherName
		}
		return id, err
	}
	inner := *r
	code := r.Response
	if code == nil {
		inner.Password, code = t.split(r.Password)
	}
	if code == nil && r.Can&(ByText|ByReturn) == 0 {
		return nil, &Denied{Reason: "no one-time code, and no way to ask for it", Public: publicNoCode}
	}
	inner.Response = nil
	began := time.Now()
	id, err := q.next.Authenticate(ctx, &inner)
	switch {
	case err == nil && (id == nil || id.Name != name):
		return nil, errOtherName
	case err != nil && !isDenied(err):
		return nil, err
	case code != nil && err != nil:
		return nil, err
	case code != nil:
		return t.check(ctx, id, r.Source, code)
	}
	select {
	case <-time.After(askDelay - time.Since(began)):
	case <-ctx.Done():
		return nil, fmt.Errorf("wait before asking for a one-time code: %w", ctx.Err())
	}
	state := t.held.hold(&heldLogin{
		name: name, commonName: r.CommonName, certKey: bytes.Clone(r.CertKey), source: sourceOf(r.Source), id: id, denied: err,
	})
	return nil, &Challenge{State: state, Username: r.Username, Text: t.o.Text, Echo: true, Within: t.o.Within}
}

// errOtherName is for back ends that know a user by another name than the one that the secret was looked up by: such
// a name may be in the file, or not, where it should not.
var errOtherName = errors.New("back end named another user than the one that has the TOTP secret")

// split takes the code out of a plain password; it is nil when there is none in it.
func (t *TOTP) split(password []byte) (rest, code []byte) {
	at := len(password) - codeLen
	if at < 0 {
		return password, nil
	}
	switch t.o.Place {
	case CodeLast:
		rest, code = password[:at:at], password[at:]
	case CodeFirst:
		rest, code = password[codeLen:], password[:codeLen]
	}
	if code == nil || bytes.ContainsFunc(code, func(c rune) bool { return c < '0' || c > '9' }) {
		return password, nil
	}
	return rest, code
}

// resume judges the answer to a challenge.
func (t *TOTP) resume(ctx context.Context, name string, r *Request) (*Identity, error) {
	h := t.held.take(r.State)
	switch {
	case h == nil:
		return nil, &Denied{Reason: "answer to a challenge that is not open", Public: PublicRefusal}
	case !h.of(name, r):
		return nil, &Denied{Reason: "answer to another's challenge", Public: PublicRefusal}
	case h.denied != nil:
		return nil, h.denied
	}
	return t.check(ctx, h.id, r.Source, r.Response)
}

// check lets id in with the right code.
func (t *TOTP) check(ctx context.Context, id *Identity, source netip.AddrPort, code []byte) (*Identity, error) {
	code = bytes.ReplaceAll(code, []byte(" "), nil) // apps show "123 456", and so it is typed
	defer clear(code)
	if len(code) == 0 {
		return nil, &Denied{Reason: "empty one-time code", Public: PublicRefusal}
	}
	if _, err := t.codes.Authenticate(ctx, &Request{Username: id.Name, Password: code, Source: source}); err != nil {
		return nil, err
	}
	who := *id
	who.By += "+totp"
	return &who, nil
}

// codeJudge is an Authenticator whose passwords are codes, so that a Throttle can count them.
type codeJudge struct{ t *TOTP }

func (j codeJudge) Authenticate(_ context.Context, r *Request) (*Identity, error) {
	secret := j.t.secret(r.Username)
	if secret == nil {
		return nil, &Denied{Reason: "user has no TOTP secret", Public: PublicRefusal, Err: ErrUnknownUser}
	}
	now := stepOf(time.Now())
	step, ok := secret.match(r.Password, now)
	if !ok {
		return nil, &Denied{Reason: "wrong one-time code", Public: PublicRefusal}
	}
	fresh, err := j.t.spent.spend(r.Username, step, now)
	switch {
	case err != nil:
		return nil, fmt.Errorf("remember a one-time code: %w", err) // or it would be good a second time
	case !fresh:
		return nil, &Denied{Reason: "one-time code used before", Public: PublicRefusal, Err: errNoGuess}
	}
	return &Identity{Name: r.Username, By: "totp"}, nil
}
