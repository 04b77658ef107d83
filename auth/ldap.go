package auth

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/rs/zerolog"
)

// LDAPOptions says which directory to ask and how.
type LDAPOptions struct {
	Realm          string   // names that end with @Realm are this directory's, which knows them without that; "" every name
	URLs           []string // ldap://host[:port] or ldaps://host[:port], asked in this order
	Domain         string   // DNS domain whose SRV records name servers, after those of URLs; "" none
	StartTLS       bool     // on ldap:// URLs and for the servers of Domain; a refusal is an error, never clear text
	CA             []byte   // PEM; nil means the system's CAs
	Cert, Key      []byte   // PEM: our certificate, for servers that want one
	BindDN         string   // service account that searches; "" searches anonymously
	BindPassword   string
	BindAs         string // what users bind as, with %u: a DN or a user principal name; "" is the entry that was found
	UserBase       string
	UserFilter     string        // %u is the login, escaped; "" means (uid=%u)
	RequireGroups  []string      // DNs, the user must be in any of them; none means that no group is needed
	GroupSearches  []GroupSearch // find groups that are as good as those of RequireGroups
	GroupBase      string        // where groups are; "" is what UserBase ends with
	AllGroups      bool          // find every group of a user, not only whether there is a required one
	DirectOnly     bool          // members of a group within a group are not members
	Addr4, Addr6   string        // attributes with the user's fixed addresses; "" none
	Pool, Routes   string        // attributes with the name of the user's pool, and networks to route; "" none
	Timeout        time.Duration // for each step; 0 means 5 s
	AllowCleartext bool          // passwords unencrypted to a server that is not on this machine
	Resolver       Resolver      // for Domain; nil is the system's
}

const (
	// loginTime bounds a login whatever the steps take (security S058).
	loginTime = 10 * time.Second
	// queueTime is how much of it a login may wait for its turn: who has it later has no time left to ask anything, and
	// better comes again.
	queueTime = loginTime / 2
	// maxConns is how many connections to the directory there are at most; a login uses one at a time.
	maxConns = 32
)

// LDAP asks a directory: it looks for the user's entry with the service account, checks the group, and binds as the
// entry with the password. Only that bind, on a connection of its own, is a login. Any goroutine.
type LDAP struct {
	o       LDAPOptions
	filter  *userFilter
	bindAs  *bindTemplate // nil: users bind as their entries
	groups  groupRules
	attrs   []string // what is read of a user's entry
	servers serverList
	conns   chan struct{} // holds one element for each login under way
	idle    idlePool
	log     zerolog.Logger

	mu   sync.Mutex
	seen census // guarded by mu: of the users who are connected
}

// NewLDAP checks the options and connects to nothing.
func NewLDAP(o LDAPOptions, log zerolog.Logger) (*LDAP, error) {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.UserFilter == "" {
		o.UserFilter = "(uid=%u)"
	}
	if o.Realm != "" {
		log = log.With().Str("realm", o.Realm).Logger()
	}
	l := &LDAP{o: o, conns: make(chan struct{}, maxConns), log: log}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("ldap timeout of %v", o.Timeout)
	}
	trust, err := newTrust(&o)
	if err != nil {
		return nil, err
	}
	if l.servers, err = newServerList(&o, trust, log); err != nil {
		return nil, err
	}
	if l.filter, err = parseUserFilter(o.UserFilter); err != nil {
		return nil, err
	}
	base, err := parseDN(o.UserBase)
	if err != nil {
		return nil, fmt.Errorf("user base: %w", err)
	}
	if o.BindDN != "" {
		if _, err := parseDN(o.BindDN); err != nil && !isPrincipal(o.BindDN) {
			return nil, fmt.Errorf("bind DN: %w", err)
		}
		if o.BindPassword == "" {
			return nil, errors.New("bind DN without a password: the directory would take that for an anonymous bind")
		}
	} else if o.BindPassword != "" {
		return nil, errors.New("bind password without a bind DN")
	}
	if o.BindAs != "" {
		if l.bindAs, err = parseBindTemplate(o.BindAs); err != nil {
			return nil, err
		}
	}
	if l.groups, err = newGroupRules(&o, base); err != nil {
		return nil, err
	}
	l.attrs = userAttributes(&o)
	return l, nil
}

// isPrincipal reports whether a service account is given as Active Directory takes it besides a DN: name@domain.
func isPrincipal(s string) bool {
	name, domain, ok := strings.Cut(s, "@")
	return ok && name != "" && domain != "" && !strings.ContainsAny(s, " =,\\") && !strings.Contains(domain, "@")
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

// Authenticate judges a login by its password.
func (l *LDAP) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	name, err := credentials(r)
	if err != nil {
		return nil, err
	}
	if err := l.holds(name); err != nil {
		return nil, err
	}
	return consult(ctx, l, func(ctx context.Context, s *server) (*Identity, bool, error) {
		if l.bindAs != nil && l.o.BindDN == "" {
			return l.bindFirst(ctx, s, name, r.Password)
		}
		return l.ask(ctx, s, name, r.Password)
	})
}

// Authorize judges a login for which something else has vouched, such as its certificate: everything but the password.
func (l *LDAP) Authorize(ctx context.Context, name string) (*Identity, error) {
	return l.find(ctx, name, false)
}

// Vouch looks for the user's entry and groups as a login does, and for what says that the account is at an end; it
// binds with no password but the service account's. A lock that ends by itself is no reason: whoever guesses at the
// user's password would end the user's sessions.
func (l *LDAP) Vouch(ctx context.Context, name string) (*Identity, error) {
	return l.find(ctx, name, true)
}

func (l *LDAP) find(ctx context.Context, name string, lenient bool) (*Identity, error) {
	name, err := CanonicalName(name)
	if err != nil {
		return nil, &Denied{Reason: err.Error(), Public: PublicRefusal}
	}
	if err := l.holds(name); err != nil {
		return nil, err
	}
	if l.bindAs != nil && l.o.BindDN == "" {
		return nil, errNoService
	}
	return consult(ctx, l, func(ctx context.Context, s *server) (id *Identity, tried bool, err error) {
		err = l.withService(ctx, s, func(c *directoryConn) error {
			p, err := l.lookup(ctx, s, c, name)
			if err != nil {
				return err
			}
			if state := accountState(p.entry, time.Now()); state.reason != "" && !(lenient && state.passing) {
				return p.refused(state.reason)
			}
			id, err = l.identity(name, p)
			return err
		})
		return id, false, err
	})
}

var errNoService = errors.New("users are found with their own passwords only: ldap-bind-dn is not set")

// holds says no to the names of other realms.
func (l *LDAP) holds(name string) error {
	if l.o.Realm == "" || strings.HasSuffix(name, "@"+l.o.Realm) && len(name) > len(l.o.Realm)+1 {
		return nil
	}
	return &Denied{Reason: fmt.Sprintf("not a name of the realm %s", l.o.Realm), Public: PublicRefusal, Err: errRealm}
}

// errRealm is inside the *Denied of names that no directory here is asked about.
var errRealm = fmt.Errorf("of no realm: %w", ErrUnknownUser)

// login is the name as the directory knows it.
func (l *LDAP) login(name string) string {
	if l.o.Realm == "" {
		return name
	}
	return strings.TrimSuffix(name, "@"+l.o.Realm)
}

// consult asks the servers in turn until one has answered, yes or no. A server that may have seen a password is
// the last: a wrong password tried on several would lock the account the sooner (security S061).
func consult[T any](ctx context.Context, l *LDAP, ask func(context.Context, *server) (answer T, tried bool, err error)) (answer T, err error) {
	var none T
	// The library has had panics on strange answers; one of those must cost this login and no more.
	defer func() {
		if p := recover(); p != nil {
			l.log.Error().Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("ldap login panicked")
			answer, err = none, errors.New("ldap login panicked")
		}
	}()
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()

	if err := l.queue(ctx); err != nil {
		return none, err
	}
	defer func() { <-l.conns }()
	l.idle.trim(maxConns - len(l.conns))
	servers, err := l.servers.candidates(ctx)
	if err != nil {
		return none, fmt.Errorf("no directory server to ask: %w", err)
	}
	var failures []error
	for i, s := range servers {
		if cause := s.enter(); cause != nil {
			failures = append(failures, cause)
			continue
		}
		began := time.Now()
		answer, tried, err := guarded(ctx, s, ask)
		var denied *Denied
		if err == nil || errors.As(err, &denied) {
			s.worked()
			return answer, err
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, ctx.Err())
		}
		failures = append(failures, fmt.Errorf("%s: %w", s.url, err))
		if !tried && i < len(servers)-1 {
			trace(ctx, stepServer, "cannot be asked, so the next one is: %v", err)
		}
		var odd *oddAnswer
		switch {
		case caller.Err() != nil: // the client has gone, which is not the server's fault
			s.passed()
			return none, fmt.Errorf("ask the directory: %w", errors.Join(failures...))
		case errors.As(err, &odd), l.hurried(ctx, began):
			s.passed()
		default:
			s.broke(err, began)
		}
		if tried || ctx.Err() != nil {
			break
		}
	}
	return none, fmt.Errorf("ask the directory: %w", errors.Join(failures...))
}

// queue waits for one of the connections.
func (l *LDAP) queue(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queueTime)
	defer cancel()
	select {
	case l.conns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for one of %d directory connections: %w", maxConns, ctx.Err())
	}
}

// hurried reports whether a login whose time is over left the server that it began to ask then less of it than a step may
// take: others must not be turned away for that. The deadline is looked at itself, since whatever waited for it may be
// back before the context knows.
func (l *LDAP) hurried(ctx context.Context, began time.Time) bool {
	end, ok := ctx.Deadline()
	return ok && !time.Now().Before(end) && time.Since(began) < min(l.o.Timeout, queueTime)
}

// guarded asks, and does not leave a server's trial open should that panic.
func guarded[T any](ctx context.Context, s *server, ask func(context.Context, *server) (T, bool, error)) (answer T, tried bool, err error) {
	calm := false
	defer func() {
		if !calm {
			s.passed()
		}
	}()
	answer, tried, err = ask(ctx, s)
	calm = true
	return answer, tried, err
}

// ask runs one login at one server. Tried means that the server may have seen the password. The group is looked for
// before the password is tried: who is in no required group cannot come in, so need not have a bind spent on them.
func (l *LDAP) ask(ctx context.Context, s *server, name string, password []byte) (id *Identity, tried bool, err error) {
	var p *person
	err = l.withService(ctx, s, func(c *directoryConn) error {
		p, id, err = l.judge(ctx, s, c, name)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	as := p.entry.DN
	if l.bindAs != nil {
		if as, err = l.bindAs.For(l.login(name)); err != nil {
			return nil, false, err
		}
	}
	c, err := s.dial(ctx, l.o.Timeout)
	if err != nil {
		return nil, false, err
	}
	defer c.close() // bound as a user: never for anyone else
	if err := c.bind(ctx, as, password); err != nil {
		return nil, true, err
	}
	if err := c.confirm(ctx, as, p.entry); err != nil {
		return nil, true, err
	}
	// What the context ended meanwhile is no yes any more.
	if err := ctx.Err(); err != nil {
		return nil, true, err
	}
	return id, true, nil
}

// bindFirst runs a login without a service account: what is read of the user, the user reads.
func (l *LDAP) bindFirst(ctx context.Context, s *server, name string, password []byte) (id *Identity, tried bool, err error) {
	as, err := l.bindAs.For(l.login(name))
	if err != nil {
		return nil, false, err
	}
	c, err := s.dial(ctx, l.o.Timeout)
	if err != nil {
		return nil, false, err
	}
	defer c.close()
	if err := c.bind(ctx, as, password); err != nil {
		return nil, true, err
	}
	p, id, err := l.judge(ctx, s, c, name)
	if err != nil {
		return nil, true, err
	}
	if err := c.confirm(ctx, as, p.entry); err != nil {
		return nil, true, err
	}
	return id, true, ctx.Err()
}

// judge is everything of a login but the password.
func (l *LDAP) judge(ctx context.Context, s *server, c *directoryConn, name string) (*person, *Identity, error) {
	p, err := l.lookup(ctx, s, c, name)
	if err != nil {
		return nil, nil, err
	}
	if state := accountState(p.entry, time.Now()); state.reason != "" {
		return nil, nil, p.refused(state.reason)
	}
	trace(ctx, stepState, "nothing in the entry is against it")
	id, err := l.identity(name, p)
	return p, id, err
}

// withService has do use a connection of the service account: one that waited, or a new one. A directory that has
// forgotten a waiting one without saying so is not to blame.
func (l *LDAP) withService(ctx context.Context, s *server, do func(*directoryConn) error) error {
	use := func(c *directoryConn) error {
		calm := false
		defer func() {
			if !calm {
				c.close()
			}
		}()
		err := do(c)
		if calm = usable(err); calm {
			l.idle.put(s, c, maxConns-len(l.conns))
		}
		return err
	}
	if c := l.idle.take(ctx, s); c != nil && !tracing(ctx) {
		began := time.Now()
		err := use(c)
		if usable(err) || ctx.Err() != nil || time.Since(began) >= min(time.Second, l.o.Timeout) {
			return err
		}
	} else if c != nil {
		c.close()
	}
	c, err := s.dial(ctx, l.o.Timeout)
	if err != nil {
		return err
	}
	if err := c.bindService(ctx, l.o.BindDN, l.o.BindPassword); err != nil {
		c.close()
		return err
	}
	return use(c)
}

// usable reports whether a connection is as good as before, whatever err says about a user.
func usable(err error) bool {
	var odd *oddAnswer
	return err == nil || isDenied(err) || errors.As(err, &odd)
}

// A person is what the directory knows of a user.
type person struct {
	entry  *ldap.Entry
	groups *memberships
}

func (p *person) refused(reason string) error {
	return &Denied{Reason: fmt.Sprintf("%s: %q", reason, p.entry.DN), Public: PublicRefusal, Err: errNotTried}
}

// errNotTried is inside the *Denied of logins whose password the directory has not seen.
var errNotTried = errors.New("the password was not tried")

// lookup finds the user's entry, and the groups that matter.
func (l *LDAP) lookup(ctx context.Context, s *server, c *directoryConn, name string) (*person, error) {
	entry, err := c.findUser(ctx, l.o.UserBase, l.filter.For(l.login(name)), l.attrs)
	if err != nil {
		return nil, err
	}
	groups, err := l.groups.of(ctx, s, c, entry)
	if err != nil {
		return nil, err
	}
	return &person{entry, groups}, nil
}
