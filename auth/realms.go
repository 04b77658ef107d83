package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rs/zerolog"
)

// Realms is several directories, each for the names that end with @ and its realm; one of them, without a realm, has
// every other name. Any goroutine.
type Realms struct {
	named map[string]*LDAP
	other *LDAP // nil: names without a known realm are unknown
	list  []*LDAP
}

var (
	_ Authenticator = (*Realms)(nil)
	_ Voucher       = (*Realms)(nil)
	_ Watcher       = (*Realms)(nil)
)

// NewRealms checks the options and connects to nothing.
func NewRealms(directories []LDAPOptions, log zerolog.Logger) (*Realms, error) {
	r := &Realms{named: make(map[string]*LDAP)}
	for _, o := range directories {
		o.Realm = strings.ToLower(o.Realm)
		l, err := NewLDAP(o, log)
		if err != nil {
			return nil, err
		}
		r.list = append(r.list, l)
		switch {
		case o.Realm == "" && r.other != nil, r.named[o.Realm] != nil:
			return nil, fmt.Errorf("two directories for the realm %q", o.Realm)
		case o.Realm == "":
			r.other = l
		default:
			r.named[o.Realm] = l
		}
	}
	if len(r.list) == 0 {
		return nil, errors.New("no directory")
	}
	return r, nil
}

// of returns the directory that has a canonical name.
func (r *Realms) of(name string) (*LDAP, error) {
	if at := strings.LastIndexByte(name, '@'); at >= 0 {
		if l := r.named[name[at+1:]]; l != nil {
			return l, nil
		}
	}
	if r.other != nil {
		return r.other, nil
	}
	return nil, &Denied{Reason: "not a name of any realm", Public: PublicRefusal, Err: errRealm}
}

// Authenticate judges a login by its password.
func (r *Realms) Authenticate(ctx context.Context, q *Request) (*Identity, error) {
	name, err := credentials(q)
	if err != nil {
		return nil, err
	}
	l, err := r.of(name)
	if err != nil {
		return nil, err
	}
	return l.Authenticate(ctx, q)
}

// Authorize is LDAP.Authorize.
func (r *Realms) Authorize(ctx context.Context, name string) (*Identity, error) {
	return ofRealm(r, name, func(l *LDAP) (*Identity, error) { return l.Authorize(ctx, name) })
}

// Vouch is LDAP.Vouch.
func (r *Realms) Vouch(ctx context.Context, name string) (*Identity, error) {
	return ofRealm(r, name, func(l *LDAP) (*Identity, error) { return l.Vouch(ctx, name) })
}

func ofRealm(r *Realms, name string, do func(*LDAP) (*Identity, error)) (*Identity, error) {
	canonical, err := CanonicalName(name)
	if err != nil {
		return nil, &Denied{Reason: err.Error(), Public: PublicRefusal}
	}
	l, err := r.of(canonical)
	if err != nil {
		return nil, err
	}
	return do(l)
}

// Changes implements Watcher. What one directory tells counts when another is away.
func (r *Realms) Changes(ctx context.Context, connected []*Identity) (changes []Change, err error) {
	by := make(map[*LDAP][]*Identity)
	for _, who := range connected {
		if l, unknown := r.of(who.Name); unknown == nil {
			by[l] = append(by[l], who)
		} else {
			changes = append(changes, Change{Name: who.Name, Reason: "of no realm"})
		}
	}
	var failures []error
	for _, l := range r.list {
		some, err := l.Changes(ctx, by[l])
		if err != nil {
			failures = append(failures, err)
		}
		changes = append(changes, some...)
	}
	return changes, errors.Join(failures...)
}

// Test is LDAP.Test.
func (r *Realms) Test(ctx context.Context, name string, password []byte, tell func(LDAPStep)) (*Identity, error) {
	return ofRealm(r, name, func(l *LDAP) (*Identity, error) { return l.Test(ctx, name, password, tell) })
}

// CertificateAlone lets in whom a directory knows by the name in the certificate, without a password: the directory
// still decides who may connect.
func CertificateAlone(r *Realms) Authenticator { return certificateAlone{r} }

type certificateAlone struct{ realms *Realms }

func (c certificateAlone) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	if r.CommonName == "" {
		return nil, &Denied{Reason: "no certificate", Public: PublicRefusal}
	}
	return c.realms.Authorize(ctx, r.CommonName)
}

// DirectoryOnly has a watcher asked about those whom a directory has let in: it knows nothing of local users.
func DirectoryOnly(w Watcher) Watcher { return directoryOnly{w} }

type directoryOnly struct{ Watcher }

func (d directoryOnly) Changes(ctx context.Context, connected []*Identity) ([]Change, error) {
	var theirs []*Identity
	for _, who := range connected {
		if strings.Contains(who.By, "ldap") {
			theirs = append(theirs, who)
		}
	}
	return d.Watcher.Changes(ctx, theirs)
}
