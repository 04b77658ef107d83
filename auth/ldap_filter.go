package auth

import (
	"fmt"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// A userFilter is a search filter with places for the login name: "(&(objectClass=person)(uid=%u))". Immutable.
type userFilter struct {
	parts []string // around the places
}

// parseUserFilter accepts a filter with %u in it, and only where it is a value or a part of one: there escaping makes
// every name harmless, in the name of an attribute it would not (security S053).
func parseUserFilter(template string) (*userFilter, error) {
	f := &userFilter{parts: strings.Split(template, "%u")}
	places := len(f.parts) - 1
	if places == 0 {
		return nil, fmt.Errorf("user filter %q has no %%u", template)
	}
	// A name that occurs nowhere else; 'u' is no hex digit, so it cannot complete an escape either.
	name := "u"
	for strings.Contains(template, name) {
		name += "u"
	}
	tree, err := ldap.CompileFilter(strings.Join(f.parts, name))
	if err != nil {
		return nil, fmt.Errorf("user filter %q: %w", template, err)
	}
	if countInValues(tree, name) != places {
		return nil, fmt.Errorf("user filter %q: %%u may only stand in values", template)
	}
	return f, nil
}

// countInValues returns how often name occurs in the values that the filter compares with.
func countInValues(filter *ber.Packet, name string) int {
	n := 0
	switch filter.Tag {
	case ldap.FilterAnd, ldap.FilterOr, ldap.FilterNot:
		for _, child := range filter.Children {
			n += countInValues(child, name)
		}
	case ldap.FilterEqualityMatch, ldap.FilterGreaterOrEqual, ldap.FilterLessOrEqual, ldap.FilterApproxMatch:
		n = strings.Count(filter.Children[1].Data.String(), name)
	case ldap.FilterSubstrings:
		for _, piece := range filter.Children[1].Children {
			n += strings.Count(piece.Data.String(), name)
		}
	case ldap.FilterExtensibleMatch:
		for _, part := range filter.Children {
			if part.Tag == ldap.MatchingRuleAssertionMatchValue {
				n += strings.Count(part.Data.String(), name)
			}
		}
	}
	return n
}

// For returns the filter for one login name.
func (f *userFilter) For(name string) string {
	return strings.Join(f.parts, ldap.EscapeFilter(name))
}
