package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/rs/zerolog"
)

// LDAPOptions says which directory to ask and how.
type LDAPOptions struct {
	URLs           []string // ldap://host[:port] or ldaps://host[:port], asked in this order
	StartTLS       bool     // on ldap:// URLs; a refusal is an error, never clear text
	CA             []byte   // PEM; nil means the system's CAs
	BindDN         string   // service account that searches; "" searches anonymously
	BindPassword   string
	UserBase       string
	UserFilter     string        // %u is the login, escaped; "" means (uid=%u)
	RequireGroups  []string      // DNs, the user must be in any of them; none means that no group is needed
	Timeout        time.Duration // for each step; 0 means 5 s
	AllowCleartext bool          // passwords unencrypted to a server that is not on this machine
}

const (
	// loginTime bounds a login whatever the steps take (security S058).
	loginTime = 10 * time.Second
	// maxConns is how many connections to the directory there are at most; a login uses one at a time.
	maxConns = 32
)

// LDAP asks a directory: it looks for the user's entry with the service account, checks the group, and binds as the
// entry with the password. Only that bind, on a connection of its own, is a login.
type LDAP struct {
	o       LDAPOptions
	filter  *userFilter
	groups  []group
	servers []*server
	conns   chan struct{} // holds one element for each login under way
	log     zerolog.Logger
}

// A group is a required group.
type group struct {
	text string
	dn   *ldap.DN
}

// NewLDAP checks the options and connects to nothing.
func NewLDAP(o LDAPOptions, log zerolog.Logger) (*LDAP, error) {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.UserFilter == "" {
		o.UserFilter = "(uid=%u)"
	}
	l := &LDAP{o: o, conns: make(chan struct{}, maxConns), log: log}
	if len(o.URLs) == 0 {
		return nil, errors.New("no ldap URL")
	}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("ldap timeout of %v", o.Timeout)
	}
	var roots *x509.CertPool
	if o.CA != nil {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("ldap CA: no certificate in it")
		}
	}
	for _, u := range o.URLs {
		e, err := parseEndpoint(u, &o, roots)
		if err != nil {
			return nil, err
		}
		l.servers = append(l.servers, &server{endpoint: e, log: log.With().Str("server", u).Logger()})
	}
	var err error
	if l.filter, err = parseUserFilter(o.UserFilter); err != nil {
		return nil, err
	}
	if _, err := parseDN(o.UserBase); err != nil {
		return nil, fmt.Errorf("user base: %w", err)
	}
	if o.BindDN != "" {
		if _, err := parseDN(o.BindDN); err != nil {
			return nil, fmt.Errorf("bind DN: %w", err)
		}
		if o.BindPassword == "" {
			return nil, errors.New("bind DN without a password: the directory would take that for an anonymous bind")
		}
	} else if o.BindPassword != "" {
		return nil, errors.New("bind password without a bind DN")
	}
	for _, g := range o.RequireGroups {
		dn, err := parseDN(g)
		if err != nil {
			return nil, fmt.Errorf("required group: %w", err)
		}
		l.groups = append(l.groups, group{g, dn})
	}
	return l, nil
}

// An oddAnswer is about one login and neither yes nor no. The server that gave it is as good as before: or else one
// user with a strange entry could shut out all others.
type oddAnswer struct{ err error }

func (o *oddAnswer) Error() string { return o.err.Error() }
func (o *oddAnswer) Unwrap() error { return o.err }

// answered makes err an *oddAnswer when it is a result that the server has sent in good health.
func answered(err error) error {
	var result *ldap.Error
	if !errors.As(err, &result) || result.ResultCode >= ldap.ErrorNetwork {
		return err
	}
	if result.ResultCode == ldap.LDAPResultBusy || result.ResultCode == ldap.LDAPResultUnavailable {
		return err
	}
	return &oddAnswer{err}
}

// parseDN is the library's, which takes the empty DN, less the empty DN: binding as it is anonymous.
func parseDN(s string) (*ldap.DN, error) {
	dn, err := ldap.ParseDN(s)
	if err != nil {
		return nil, fmt.Errorf("DN %q: %w", s, err)
	}
	if len(dn.RDNs) == 0 {
		return nil, errors.New("empty DN")
	}
	return dn, nil
}

func (l *LDAP) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	name, err := credentials(r)
	if err != nil {
		return nil, err
	}
	return l.consult(ctx, func(ctx context.Context, s *server) (*Identity, bool, error) {
		return l.ask(ctx, s, name, r.Password)
	})
}

// consult asks the servers in turn until one has answered, yes or no. A server that may have seen a password is
// the last: a wrong password tried on several would lock the account the sooner (security S061).
func (l *LDAP) consult(ctx context.Context, ask func(context.Context, *server) (id *Identity, tried bool, err error)) (id *Identity, err error) {
	// The library has had panics on strange answers; one of those must cost this login and no more.
	defer func() {
		if p := recover(); p != nil {
			l.log.Error().Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("ldap login panicked")
			id, err = nil, errors.New("ldap login panicked")
		}
	}()
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()

	select {
	case l.conns <- struct{}{}:
		defer func() { <-l.conns }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for one of %d directory connections: %w", maxConns, ctx.Err())
	}
	servers, err := candidates(l.servers)
	if err != nil {
		return nil, fmt.Errorf("no directory server to ask: %w", err)
	}
	var failures []error
	for _, s := range servers {
		began := time.Now()
		id, tried, err := ask(ctx, s)
		var denied *Denied
		if err == nil || errors.As(err, &denied) {
			s.worked()
			return id, err
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, ctx.Err())
		}
		failures = append(failures, fmt.Errorf("%s: %w", s.url, err))
		if caller.Err() != nil {
			break // the client has gone, which is not the server's fault
		}
		var odd *oddAnswer
		if !errors.As(err, &odd) {
			s.broke(err, began)
		}
		if tried || ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("ask the directory: %w", errors.Join(failures...))
}

// ask runs one login at one server. Tried means that the server may have seen the password.
func (l *LDAP) ask(ctx context.Context, s *server, name string, password []byte) (id *Identity, tried bool, err error) {
	entry, groups, err := l.lookup(ctx, s, name)
	if err != nil {
		return nil, false, err
	}
	c, err := s.dial(ctx, l.o.Timeout)
	if err != nil {
		return nil, false, err
	}
	defer c.close() // bound as a user: never for anyone else
	if err := c.login(entry, password); err != nil {
		return nil, true, err
	}
	// What the context ended meanwhile is no yes any more.
	if err := ctx.Err(); err != nil {
		return nil, true, err
	}
	return &Identity{Name: name, Groups: groups, By: "ldap"}, true, nil
}

// lookup finds the user's entry, and the groups that matter, on a connection of the service account. It comes before
// the password is tried: who is in no required group cannot come in, so need not have a bind spent on them.
func (l *LDAP) lookup(ctx context.Context, s *server, name string) (*ldap.Entry, []string, error) {
	c, err := s.dial(ctx, l.o.Timeout)
	if err != nil {
		return nil, nil, err
	}
	defer c.close()
	if l.o.BindDN != "" {
		if err := c.step(opBindResponse); err != nil {
			return nil, nil, err
		}
		if err := c.ldap.Bind(l.o.BindDN, l.o.BindPassword); err != nil {
			return nil, nil, fmt.Errorf("bind as the service account: %w", err)
		}
	}
	entry, err := c.findUser(l.o.UserBase, l.filter.For(name))
	if err != nil {
		return nil, nil, err
	}
	groups, err := c.groupsOf(entry, l.groups)
	if err != nil {
		return nil, nil, err
	}
	return entry, groups, nil
}
