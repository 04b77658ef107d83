package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Credentials are what a client logs in with. Control bytes become '_' on the way to a script.
type Credentials struct {
	Username string
	Password []byte // not kept
}

// Exit statuses of auth-user-pass-verify.
const (
	exitYes   exitStatus = 0
	exitLater exitStatus = 2
)

// A Login is what auth-user-pass-verify answered when it did not refuse.
type Login struct {
	// Pending is what the client is to be told while it waits; nil when it is told nothing.
	Pending *Pending

	kind     Kind
	deferred bool
	control  string // the paths; removed, but still told, when the login is over
	pending  string
	reason   string
	once     sync.Once
}

// Pending is a step that the user has to take elsewhere.
type Pending struct {
	Timeout time.Duration // the script's wish
	Method  string        // "webauth", "openurl", "crtext", ...: one that the client knows
	Extra   string        // goes to the client behind INFO_PRE: "WEB_AUTH::https://..."
}

// Deferred reports whether the answer is still to come.
func (l *Login) Deferred() bool { return l.deferred }

// Wait returns nil when the login is accepted, and a *Refusal when it is refused; it waits for that until ctx ends.
// The files of the login are gone when it returns.
func (l *Login) Wait(ctx context.Context) error {
	if !l.deferred {
		return nil
	}
	defer l.remove()
	yes, err := awaitAnswer(ctx, l.control)
	if err != nil {
		return fmt.Errorf("%s script: deferred: %w", l.kind, err)
	}
	if !yes {
		return l.refusal("0 in auth_control_file")
	}
	return nil
}

// refusal reads what the client may know.
func (l *Login) refusal(reason string) error {
	public, err := readAnswer(l.reason)
	if err != nil {
		reason += "; " + err.Error()
	}
	return &Refusal{Kind: l.kind, Public: publicReason(public), Reason: reason}
}

// maxReason is how much of a reason fits into AUTH_FAILED.
const maxReason = 256

// publicReason is one printable line.
func publicReason(b []byte) string {
	s := strings.TrimRight(string(b), "\r\n")
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.ToValidUTF8(clean(s), "_")
}

func (l *Login) remove() {
	l.once.Do(func() {
		for _, path := range []string{l.control, l.pending, l.reason} {
			if path != "" {
				os.Remove(path)
			}
		}
	})
}

func (l *Login) addTo(e *Env) {
	e.set("auth_control_file", l.control)
	e.set("auth_pending_file", l.pending)
	e.set("auth_failed_reason_file", l.reason)
}

// AuthUserPassVerify asks whether name and password are right. The error is a *Refusal when they are not. The answer
// may be deferred: then the client may have to be told something, and Wait has the answer.
func (s *Session) AuthUserPassVerify(ctx context.Context, c *ClientInfo, cred Credentials) (*Login, error) {
	if !s.r.Has(AuthUserPassVerify) {
		return &Login{}, nil
	}
	leave, err := s.turn.wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s script: waiting for an earlier one: %w", AuthUserPassVerify, err)
	}
	defer leave()
	l, err := s.r.newLogin()
	if err != nil {
		return nil, fmt.Errorf("%s script: %w", AuthUserPassVerify, err)
	}
	s.mu.Lock()
	before := s.login
	s.login = l
	s.mu.Unlock()
	if before != nil {
		before.remove()
	}
	if err := s.ask(ctx, l, c, cred); err != nil {
		l.remove()
		return nil, err
	}
	if !l.deferred {
		l.remove()
	}
	return l, nil
}

// ask runs the script of a login, and reads what it says if it does not refuse.
func (s *Session) ask(ctx context.Context, l *Login, c *ClientInfo, cred Credentials) error {
	env := s.environment(c)
	env.set("username", cred.Username)
	var args []string
	if o := s.r.o.Load(); o.PasswordInFile {
		content := slices.Concat([]byte(clean(cred.Username)), []byte{'\n'}, cleanBytes(cred.Password), []byte{'\n'})
		path, err := makeFile(o.TempDir, "up", content)
		clear(content)
		if err != nil {
			return fmt.Errorf("%s script: %w", AuthUserPassVerify, err)
		}
		defer os.Remove(path)
		args = append(args, path)
	} else {
		env.set("password", string(cred.Password))
	}
	status, err := s.r.run(ctx, AuthUserPassVerify, c.CommonName, args, env)
	switch {
	case err != nil:
		return err
	case status == exitYes:
		return nil
	case status != exitLater:
		return l.refusal(fmt.Sprintf("exit status %d", status))
	}
	l.deferred = true
	pending, err := readAnswer(l.pending)
	if err == nil && len(pending) > 0 {
		l.Pending, err = parsePending(pending)
	}
	if err != nil {
		return fmt.Errorf("%s script: %w", AuthUserPassVerify, err)
	}
	if p := l.Pending; p != nil && !p.knownTo(c) {
		return &Refusal{
			Kind:   AuthUserPassVerify,
			Public: fmt.Sprintf("Authentication failed, required pending auth method '%s' not supported", p.Method),
			Reason: fmt.Sprintf("the client does not know the method %q", p.Method),
		}
	}
	return nil
}

func (r *Runner) newLogin() (*Login, error) {
	l := &Login{kind: AuthUserPassVerify}
	for _, f := range []struct {
		kind string
		path *string
	}{{"acf", &l.control}, {"apf", &l.pending}, {"afr", &l.reason}} {
		var err error
		if *f.path, err = makeFile(r.o.Load().TempDir, f.kind, nil); err != nil {
			l.remove()
			return nil, err
		}
	}
	return l, nil
}

// cleanBytes is clean for what must not become a string.
func cleanBytes(b []byte) []byte {
	b = bytes.Clone(b)
	for i, c := range b {
		if control(c) {
			b[i] = '_'
		}
	}
	return b
}

// Bounds of what a script may have the client wait for and be told.
const (
	maxPendingTime  = 24 * time.Hour
	maxPendingExtra = 1024
)

// parsePending reads the three lines of auth_pending_file: seconds, method, text for the client.
func parsePending(b []byte) (*Pending, error) {
	lines := strings.SplitN(string(b), "\n", 4)
	if len(lines) < 3 {
		return nil, errors.New("auth_pending_file: three lines are needed: seconds, method, text for the client")
	}
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	seconds, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || seconds <= 0 || seconds > int(maxPendingTime/time.Second) {
		return nil, fmt.Errorf("auth_pending_file: line 1, %.20q: not a number of seconds", lines[0])
	}
	p := &Pending{Timeout: time.Duration(seconds) * time.Second, Method: lines[1], Extra: lines[2]}
	if p.Method == "" || clean(p.Method) != p.Method || strings.ContainsAny(p.Method, " ,:") {
		return nil, fmt.Errorf("auth_pending_file: line 2, %.40q: not the name of a method", lines[1])
	}
	if clean(p.Extra) != p.Extra || len(p.Extra) > maxPendingExtra {
		return nil, fmt.Errorf("auth_pending_file: line 3: longer than %d bytes, or with control bytes", maxPendingExtra)
	}
	return p, nil
}

// knownTo reports whether the client's IV_SSO names the method.
func (p *Pending) knownTo(c *ClientInfo) bool {
	for _, v := range c.Peer {
		if v.Name == "IV_SSO" {
			return slices.Contains(strings.Split(v.Value, ","), p.Method)
		}
	}
	return false
}

// ClientCRResponse hands a client's answer to a challenge to the script, while a login waits. response is what the
// client sent behind CR_RESPONSE: base64, which OpenVPN leaves to the script to decode. The script is told the login's
// files and answers there. The error is a *Refusal when the login is to fail at once.
func (s *Session) ClientCRResponse(ctx context.Context, c *ClientInfo, response string) error {
	if !s.r.Has(ClientCRResponse) {
		return nil
	}
	path, err := makeFile(s.r.o.Load().TempDir, "cr", []byte(clean(response)+"\n"))
	if err != nil {
		return fmt.Errorf("%s script: %w", ClientCRResponse, err)
	}
	defer os.Remove(path)
	status, err := s.run(ctx, ClientCRResponse, c.CommonName, []string{path}, s.environment(c))
	if err != nil {
		return err
	}
	if status != 0 {
		return &Refusal{Kind: ClientCRResponse, Reason: fmt.Sprintf("exit status %d", status)}
	}
	return nil
}
