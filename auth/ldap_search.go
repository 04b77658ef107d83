package auth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// What is read of a user's entry: the groups it knows of itself, the names that WhoAmI may answer with, and how it may
// be disabled.
var userAttributes = []string{
	"memberOf", "uid", "sAMAccountName", "userPrincipalName", "userAccountControl", "nsAccountLock", "pwdAccountLockedTime",
}

// search never follows an alias or a referral: where those lead, nobody has vouched for (security S054, S056).
func (c *directoryConn) search(base string, scope, sizeLimit int, filter string, attributes ...string) (*ldap.SearchResult, error) {
	if err := c.step(opSearchEntry, opSearchReference, opSearchDone); err != nil {
		return nil, err
	}
	seconds := max(1, int(c.timeout.Seconds()))
	return c.ldap.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, sizeLimit, seconds, false, filter, attributes, nil))
}

// findUser returns the one entry that the filter finds. None, or more than one, is a *Denied.
func (c *directoryConn) findUser(base, filter string) (*ldap.Entry, error) {
	result, err := c.search(base, ldap.ScopeWholeSubtree, 2, filter, userAttributes...)
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded), err == nil && len(result.Entries) > 1:
		return nil, &Denied{Reason: "more than one directory entry has this name", Public: PublicRefusal}
	case err != nil:
		return nil, fmt.Errorf("search for the user: %w", answered(err))
	case len(result.Entries) == 0:
		return nil, &Denied{Reason: "not in the directory", Public: PublicRefusal, Err: ErrUnknownUser}
	}
	entry := result.Entries[0]
	if _, err := parseDN(entry.DN); err != nil {
		return nil, &oddAnswer{fmt.Errorf("search for the user: %w", err)}
	}
	return entry, nil
}

// groupsOf returns the groups that the entry is known to be in: all that its memberOf names, and those required ones
// that list it. It is a *Denied when groups are required and the entry is in none of them.
func (c *directoryConn) groupsOf(entry *ldap.Entry, required []group) ([]string, error) {
	groups := entry.GetEqualFoldAttributeValues("memberOf")
	if len(groups) > maxGroups {
		return nil, &oddAnswer{fmt.Errorf("user is in %d groups, at most %d are read", len(groups), maxGroups)}
	}
	groups = normalGroups(groups)
	if len(required) == 0 {
		return groups, nil
	}
	in := slices.ContainsFunc(required, func(g group) bool { return slices.Contains(groups, normalDN(g.dn)) })
	for _, g := range required {
		if in {
			break
		}
		var err error
		if in, err = c.listed(entry, g); err != nil {
			return nil, err
		}
		if in {
			groups = normalGroups(append(groups, g.text))
		}
	}
	if !in {
		return nil, &Denied{Reason: fmt.Sprintf("%q is in no required group", entry.DN), Public: PublicRefusal}
	}
	return groups, nil
}

// listed asks whether the group lists the entry as a member. The directory compares the names, so a group of
// any size costs one small answer.
func (c *directoryConn) listed(entry *ldap.Entry, g group) (bool, error) {
	dn := ldap.EscapeFilter(entry.DN)
	filter := "(|(member=" + dn + ")(uniqueMember=" + dn + "))"
	result, err := c.search(g.text, ldap.ScopeBaseObject, 1, filter, "1.1")
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("search group %q: %w", g.text, answered(err))
	}
	for _, found := range result.Entries {
		if dn, err := parseDN(found.DN); err == nil && dn.EqualFold(g.dn) {
			return true, nil
		}
	}
	return false, nil
}

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
