package auth_test

import (
	"slices"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/auth"
)

// What a stub does that has a tree: search as RFC 4511 has it, with Active Directory's rule for members of members.

// put makes an entry, or another one of it; with nil attributes it is deleted.
func (s *stub) put(dn string, attributes map[string][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tree = slices.DeleteFunc(s.tree, func(e stubEntry) bool { return sameDN(e.dn, dn) })
	if attributes != nil {
		s.tree = append(s.tree, stubEntry{dn, attributes})
	}
}

func sameDN(a, b string) bool {
	x, errX := auth.NormalDN(a)
	y, errY := auth.NormalDN(b)
	return errX == nil && errY == nil && x == y
}

func below(dn, base string) bool {
	x, _ := auth.NormalDN(dn)
	y, _ := auth.NormalDN(base)
	return x == y || strings.HasSuffix(x, ","+y)
}

// find returns what a search request finds, with the attributes it wants. The mutex is held.
func (s *stub) find(op *ber.Packet) (found []stubEntry, code int64) {
	base, scope, limit := op.Children[0].Value.(string), op.Children[1].Value.(int64), op.Children[3].Value.(int64)
	var wanted []string
	for _, a := range op.Children[7].Children {
		wanted = append(wanted, strings.ToLower(a.Value.(string)))
	}
	exists := base == ""
	for _, e := range s.tree {
		exists = exists || sameDN(e.dn, base)
		switch {
		case scope == ldap.ScopeBaseObject && e.dn != base && !sameDN(e.dn, base):
			continue
		case scope != ldap.ScopeBaseObject && (e.dn == "" || !below(e.dn, base)):
			continue
		}
		if !s.matches(op.Children[6], e) {
			continue
		}
		picked := stubEntry{e.dn, map[string][]string{}}
		for name, values := range e.attributes {
			if slices.Contains(wanted, strings.ToLower(name)) {
				picked.attributes[name] = values
			}
		}
		if found = append(found, picked); limit > 0 && int64(len(found)) > limit {
			return found[:limit], ldap.LDAPResultSizeLimitExceeded
		}
	}
	if !exists {
		return nil, ldap.LDAPResultNoSuchObject
	}
	return found, 0
}

func (s *stub) matches(f *ber.Packet, e stubEntry) bool {
	switch f.Tag {
	case ldap.FilterAnd:
		return !slices.ContainsFunc(f.Children, func(c *ber.Packet) bool { return !s.matches(c, e) })
	case ldap.FilterOr:
		return slices.ContainsFunc(f.Children, func(c *ber.Packet) bool { return s.matches(c, e) })
	case ldap.FilterNot:
		return !s.matches(f.Children[0], e)
	case ldap.FilterPresent:
		return strings.EqualFold(f.Data.String(), "objectClass") || len(e.values(f.Data.String())) > 0
	case ldap.FilterEqualityMatch:
		want := f.Children[1].Data.String()
		return slices.ContainsFunc(e.values(f.Children[0].Data.String()), func(v string) bool {
			return strings.EqualFold(v, want) || strings.Contains(v, "=") && sameDN(v, want)
		})
	case ldap.FilterGreaterOrEqual:
		want := f.Children[1].Data.String()
		return slices.ContainsFunc(e.values(f.Children[0].Data.String()), func(v string) bool { return v >= want })
	case ldap.FilterExtensibleMatch:
		var rule, attribute, value string
		for _, part := range f.Children {
			switch part.Tag {
			case ldap.MatchingRuleAssertionMatchingRule:
				rule = part.Data.String()
			case ldap.MatchingRuleAssertionType:
				attribute = part.Data.String()
			case ldap.MatchingRuleAssertionMatchValue:
				value = part.Data.String()
			}
		}
		return rule == "1.2.840.113556.1.4.1941" && s.inChain(e, attribute, value, 0)
	}
	return false
}

func (s *stub) inChain(e stubEntry, attribute, value string, depth int) bool {
	if depth > 20 {
		return false
	}
	return slices.ContainsFunc(e.values(attribute), func(v string) bool {
		if sameDN(v, value) {
			return true
		}
		i := slices.IndexFunc(s.tree, func(e stubEntry) bool { return sameDN(e.dn, v) })
		return i >= 0 && s.inChain(s.tree[i], attribute, value, depth+1)
	})
}

func (e stubEntry) values(name string) []string {
	for have, values := range e.attributes {
		if strings.EqualFold(have, name) {
			return values
		}
	}
	return nil
}
