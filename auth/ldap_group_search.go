package auth

import (
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// A GroupSearch finds groups by a filter, all of which count as required ones.
type GroupSearch struct {
	Base      string // where the groups are, with everything below
	Filter    string // finds them
	Attribute string // of a group, holds its members
	ByName    bool   // members are written as the value that their DN begins with, not as DNs
}

// A groupSearch is one that has been looked at.
type groupSearch struct {
	GroupSearch
	filter string
}

func parseGroupSearch(g GroupSearch) (groupSearch, error) {
	if _, err := parseDN(g.Base); err != nil {
		return groupSearch{}, fmt.Errorf("base of groups: %w", err)
	}
	filter := inBrackets(g.Filter)
	if _, err := ldap.CompileFilter(filter); err != nil {
		return groupSearch{}, fmt.Errorf("filter of groups %q: %w", g.Filter, err)
	}
	if g.Attribute == "" || strings.ContainsFunc(g.Attribute, func(r rune) bool {
		return r != '-' && r != ';' && r != '.' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return groupSearch{}, fmt.Errorf("%q is not the name of an attribute", g.Attribute)
	}
	return groupSearch{g, filter}, nil
}

// inBrackets puts brackets around a filter that has none, which some take to be meant.
func inBrackets(filter string) string {
	if strings.HasPrefix(filter, "(") {
		return filter
	}
	return "(" + filter + ")"
}

// of is the filter that finds the groups of one member.
func (s *groupSearch) of(member string) string {
	return "(&" + s.filter + "(" + s.Attribute + "=" + ldap.EscapeFilter(member) + "))"
}

// searched puts those groups into m that r.searches find with the entry among their members, and reports whether there
// are any. Unless all are wanted it ends at the first. The directory compares the names.
func (r *groupRules) searched(c *directoryConn, entry *ldap.Entry, all bool, m *memberships) (found bool, err error) {
	for _, s := range r.searches {
		value := entry.DN
		if s.ByName {
			dn, err := parseDN(entry.DN)
			if err != nil || len(dn.RDNs[0].Attributes) != 1 {
				continue // it has no such value
			}
			value = dn.RDNs[0].Attributes[0].Value
		}
		result, err := c.search(s.Base, ldap.ScopeWholeSubtree, maxGroups+1, s.of(value), "1.1")
		if err != nil {
			return false, inStep(stepGroups, fmt.Errorf("search below %q: %w", s.Base, answered(err)))
		}
		for _, e := range result.Entries {
			m.add(e.DN, "", s.Attribute)
			found = true
		}
		if found && !all {
			break
		}
	}
	return found, m.bounded()
}
