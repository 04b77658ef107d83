package hooks

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Session runs the scripts of one client, one after the other in the order of the calls. Close removes its files.
//
// Any goroutine may use it. When ctx ends while a call waits for its turn, the script is not run.
type Session struct {
	r    *Runner
	turn turn

	mu    sync.Mutex
	login *Login // the latest; its files are told to later scripts
}

// Session begins the scripts of one client.
func (r *Runner) Session() *Session { return &Session{r: r} }

// Close removes the files of a login that nobody waited for. Calls after it are allowed: client-disconnect is one.
func (s *Session) Close() {
	s.mu.Lock()
	l := s.login
	s.mu.Unlock()
	if l != nil {
		l.remove()
	}
}

// run waits for the session's turn and runs a script.
func (s *Session) run(ctx context.Context, k Kind, who string, args []string, env Env) (exitStatus, error) {
	leave, err := s.turn.wait(ctx)
	if err != nil {
		return 0, fmt.Errorf("%s script: waiting for an earlier one: %w", k, err)
	}
	defer leave()
	return s.r.run(ctx, k, who, args, env)
}

// environment is what a script of this session is told whatever its hook.
func (s *Session) environment(c *ClientInfo) Env {
	env := s.r.environment(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.login != nil {
		s.login.addTo(&env)
	}
	return env
}

// TLSVerify asks about each certificate of the chain, from the root to the client's own. The error is a *Refusal when
// the script did not agree.
func (s *Session) TLSVerify(ctx context.Context, c *ClientInfo) error {
	if !s.r.Has(TLSVerify) {
		return nil
	}
	leave, err := s.turn.wait(ctx)
	if err != nil {
		return fmt.Errorf("%s script: waiting for an earlier one: %w", TLSVerify, err)
	}
	defer leave()
	for depth := len(c.Chain) - 1; depth >= 0; depth-- {
		if err := s.verify(ctx, c, depth); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) verify(ctx context.Context, c *ClientInfo, depth int) error {
	d := s.r.daemon.Load()
	env := d.environment()
	env.set("redirect_gateway", flag(d.RedirectGateway))
	if c.Trusted.IsValid() { // at a renegotiation all is known before the first certificate comes, but parts of subjects
		env.addClient(c, 0)
		env = slices.DeleteFunc(env, func(v Var) bool {
			n, _, _ := strings.Cut(strings.TrimPrefix(v.Name, "X509_"), "_")
			at, err := strconv.Atoi(n)
			return strings.HasPrefix(v.Name, "X509_") && err == nil && at < depth
		})
	} else {
		env.addClient(c, depth)
	}
	s.mu.Lock()
	if s.login != nil {
		s.login.addTo(&env)
	}
	s.mu.Unlock()
	cert := &c.Chain[depth]
	if dir := s.r.o.Load().ExportCert; dir != "" {
		path, err := makeFile(dir, "pef", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.DER}))
		if err != nil {
			return fmt.Errorf("%s script: %w", TLSVerify, err)
		}
		defer os.Remove(path)
		env.set("peer_cert", path)
	}
	status, err := s.r.run(ctx, TLSVerify, c.CommonName, []string{strconv.Itoa(depth), cleanArgument(cert.Subject)}, env)
	if err != nil {
		return err
	}
	if status != 0 {
		return &Refusal{Kind: TLSVerify, Reason: fmt.Sprintf("exit status %d at depth %d, %s", status, depth, clean(cert.Subject))}
	}
	return nil
}

// poll is how often a file is looked at that will hold an answer later. OpenVPN looks once a second.
const poll = 250 * time.Millisecond

// ClientConnect asks for the settings of a client that has logged in: lines as in a client's own file. It waits for an
// answer that the script defers, until ctx ends. The error is a *Refusal when the client may not come in.
func (s *Session) ClientConnect(ctx context.Context, c *ClientInfo) (lines []byte, err error) {
	if !s.r.Has(ClientConnect) {
		return nil, nil
	}
	config, err := makeFile(s.r.o.Load().TempDir, "cc", nil)
	if err != nil {
		return nil, fmt.Errorf("%s script: %w", ClientConnect, err)
	}
	defer os.Remove(config)
	later, err := makeFile(s.r.o.Load().TempDir, "ccr", nil)
	if err != nil {
		return nil, fmt.Errorf("%s script: %w", ClientConnect, err)
	}
	defer os.Remove(later)
	leave, err := s.turn.wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s script: waiting for an earlier one: %w", ClientConnect, err)
	}
	defer leave()
	env := s.environment(c)
	env.set("client_connect_config_file", config)
	env.set("client_connect_deferred_file", later)
	status, err := s.r.run(ctx, ClientConnect, c.CommonName, []string{config}, env)
	if err != nil {
		return nil, err
	}
	if status != 0 {
		return nil, &Refusal{Kind: ClientConnect, Reason: fmt.Sprintf("exit status %d", status)}
	}
	switch answer, err := readAnswer(later); {
	case err != nil:
		return nil, fmt.Errorf("%s script: %w", ClientConnect, err)
	case len(answer) > 0 && answer[0] != '1':
		yes, err := awaitAnswer(ctx, later)
		if err != nil {
			return nil, fmt.Errorf("%s script: deferred: %w", ClientConnect, err)
		}
		if !yes {
			return nil, &Refusal{Kind: ClientConnect, Reason: "0 in client_connect_deferred_file"}
		}
	}
	if lines, err = readAnswer(config); err != nil {
		return nil, fmt.Errorf("%s script: %w", ClientConnect, err)
	}
	return lines, nil
}

// awaitAnswer waits until a file begins with 1 or 0.
func awaitAnswer(ctx context.Context, path string) (yes bool, err error) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		answer, err := readAnswer(path)
		switch {
		case err != nil:
			return false, err
		case len(answer) > 0 && answer[0] == '1':
			return true, nil
		case len(answer) > 0 && answer[0] == '0':
			return false, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, fmt.Errorf("no answer in %s: %w", path, context.Cause(ctx))
		}
	}
}

// ClientDisconnect tells that a client which had connected is gone.
func (s *Session) ClientDisconnect(ctx context.Context, c *ClientInfo, received, sent uint64, lasted time.Duration) error {
	if !s.r.Has(ClientDisconnect) {
		return nil
	}
	env := s.environment(c)
	env.set("bytes_received", strconv.FormatUint(received, 10))
	env.set("bytes_sent", strconv.FormatUint(sent, 10))
	env.set("time_duration", strconv.FormatInt(int64(lasted/time.Second), 10))
	status, err := s.run(ctx, ClientDisconnect, c.CommonName, nil, env)
	if err == nil && status != 0 {
		err = fmt.Errorf("%s script: exit status %d", ClientDisconnect, status)
	}
	return err
}

// An AddressOp is what became of an inside address.
type AddressOp string

const (
	AddressAdd    AddressOp = "add"
	AddressUpdate AddressOp = "update" // it was somebody's before
	AddressDelete AddressOp = "delete"
)

// LearnAddress tells that an address inside belongs to a client now, or to nobody any more. An address of full length
// is written without its length. After an add or update that failed, the address must not be used. Of a delete the
// script is told nothing but the address; c may be nil then.
func (s *Session) LearnAddress(ctx context.Context, op AddressOp, p netip.Prefix, c *ClientInfo) error {
	addr := p.String()
	if p.IsSingleIP() {
		addr = p.Addr().String()
	}
	return s.learn(ctx, op, addr, c)
}

// LearnMAC is LearnAddress for tap devices: mac is aa:bb:cc:dd:ee:ff or aa:bb:cc:dd:ee:ff@VLAN.
func (s *Session) LearnMAC(ctx context.Context, op AddressOp, mac string, c *ClientInfo) error {
	return s.learn(ctx, op, clean(mac), c)
}

func (s *Session) learn(ctx context.Context, op AddressOp, addr string, c *ClientInfo) error {
	if !s.r.Has(LearnAddress) {
		return nil
	}
	var env Env
	args, who := []string{string(op), addr}, ""
	if c != nil {
		who = c.CommonName
	}
	if op != AddressDelete {
		env = s.environment(c)
		args = append(args, cleanArgument(c.CommonName))
	}
	status, err := s.run(ctx, LearnAddress, who, args, env)
	if err != nil {
		return err
	}
	if status != 0 {
		return &Refusal{Kind: LearnAddress, Reason: fmt.Sprintf("exit status %d for %s", status, strings.Join(args, " "))}
	}
	return nil
}
