package auth

import (
	"context"
	"errors"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// userAttributes is what is read of a user's entry: the groups it knows of itself and what others know them by, the
// names that WhoAmI may answer with, how it may be disabled, and what policy wants of it.
func userAttributes(o *LDAPOptions) []string {
	list := []string{"memberOf", "primaryGroupID", "objectSid", "uid", "sAMAccountName", "userPrincipalName"}
	list = append(list, stateAttributes...)
	for _, a := range []string{o.Addr4, o.Addr6, o.Pool, o.Routes} {
		if a != "" {
			list = append(list, a)
		}
	}
	return list
}

// search never follows an alias or a referral: where those lead, nobody has vouched for (security S054, S056).
func (c *directoryConn) search(base string, scope, sizeLimit int, filter string, attributes ...string) (*ldap.SearchResult, error) {
	if err := c.step(opSearchEntry, opSearchReference, opSearchDone); err != nil {
		return nil, err
	}
	seconds := max(1, int(c.timeout.Seconds()))
	result, err := c.ldap.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, sizeLimit, seconds, false, filter, attributes, nil))
	return result, c.answers.explain(err)
}

// findUser returns the one entry that the filter finds. None, or more than one, is a *Denied.
func (c *directoryConn) findUser(ctx context.Context, base, filter string, attributes []string) (*ldap.Entry, error) {
	trace(ctx, stepSearch, "below %s for %s", base, filter)
	result, err := c.search(base, ldap.ScopeWholeSubtree, 2, filter, attributes...)
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded), err == nil && len(result.Entries) > 1:
		return nil, &Denied{Reason: "more than one directory entry has this name", Public: PublicRefusal, Err: errAmbiguous}
	case err != nil:
		return nil, inStep(stepSearch, answered(err))
	case len(result.Entries) == 0:
		return nil, &Denied{Reason: "not in the directory", Public: PublicRefusal, Err: ErrUnknownUser}
	}
	entry := result.Entries[0]
	if _, err := parseDN(entry.DN); err != nil {
		return nil, &oddAnswer{inStep(stepSearch, err)}
	}
	trace(ctx, stepEntry, "%s", entry.DN)
	return entry, nil
}

// errAmbiguous is inside the *Denied for a name that several entries have.
var errAmbiguous = errors.New("ambiguous name")

// isEntry reports whether an authorization identity (RFC 4513 section 5.2.1.8) is the entry's: "dn:" and its name, or
// "u:" and a login name of it, with or without a domain.
func isEntry(authzID string, entry *ldap.Entry) bool {
	if name, ok := strings.CutPrefix(authzID, "dn:"); ok {
		a, err := parseDN(name)
		if err != nil {
			return false
		}
		b, err := parseDN(entry.DN)
		return err == nil && a.EqualFold(b)
	}
	name, ok := strings.CutPrefix(authzID, "u:")
	if !ok {
		return false
	}
	if i := strings.LastIndexByte(name, '\\'); i >= 0 {
		name = name[i+1:] // DOMAIN\name
	}
	for _, attribute := range []string{"sAMAccountName", "uid", "userPrincipalName"} {
		for _, value := range entry.GetEqualFoldAttributeValues(attribute) {
			if value != "" && strings.EqualFold(value, name) {
				return true
			}
		}
	}
	return false
}
