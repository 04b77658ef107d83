package auth

import (
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// A bindTemplate makes what a user binds as of the login: a DN ("uid=%u,ou=people,dc=example,dc=org"), or what Active
// Directory takes instead ("%u@corp.example", `CORP\%u`, "%u"). Immutable.
type bindTemplate struct {
	text  string
	parts []string // around the places
	dn    bool
}

// parseBindTemplate accepts a template with %u in it; in a DN only where it is a value or a part of one: there escaping
// makes every name harmless (security S053).
func parseBindTemplate(text string) (*bindTemplate, error) {
	t := &bindTemplate{text: text, parts: strings.Split(text, "%u"), dn: strings.Contains(text, "=")}
	if len(t.parts) == 1 {
		return nil, fmt.Errorf("bind template %q has no %%u", text)
	}
	if !t.dn {
		if strings.ContainsAny(text, " ,") {
			return nil, fmt.Errorf("bind template %q is neither a DN nor a name such as %%u@corp.example", text)
		}
		return t, nil
	}
	name := "u" // that occurs nowhere else
	for strings.Contains(text, name) {
		name += "u"
	}
	dn, err := parseDN(strings.Join(t.parts, name))
	if err != nil {
		return nil, fmt.Errorf("bind template: %w", err)
	}
	places := 0
	for _, rdn := range dn.RDNs {
		for _, a := range rdn.Attributes {
			places += strings.Count(a.Value, name)
		}
	}
	if places != len(t.parts)-1 {
		return nil, fmt.Errorf("bind template %q: %%u may only stand in values", text)
	}
	return t, nil
}

// For returns what a user binds as. A name that would change what the template says is a *Denied: unlike a DN, the
// other forms have no escaping.
func (t *bindTemplate) For(name string) (string, error) {
	if t.dn {
		return strings.Join(t.parts, ldap.EscapeDN(name)), nil
	}
	special := `\/="<>;,+`
	if t.text != "%u" {
		special += "@"
	}
	if strings.ContainsAny(name, special) {
		return "", &Denied{Reason: fmt.Sprintf("login name %q does not fit into %q", name, t.text), Public: PublicRefusal, Err: ErrUnknownUser}
	}
	return strings.Join(t.parts, name), nil
}
