package auth

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"
)

// NormalDN returns the one form of a distinguished name by which names are compared, as a whole (security S059): types
// and values in lower case, spaces around values left out, escapes written one way, the parts of a multi-valued RDN
// sorted. ou and 2.5.4.11 stay two types, as they are for the directory that has sent them.
func NormalDN(s string) (string, error) {
	dn, err := parseDN(s)
	if err != nil {
		return "", err
	}
	for _, rdn := range dn.RDNs {
		for _, a := range rdn.Attributes {
			if !isAttributeType(a.Type) {
				return "", fmt.Errorf("DN %q: %q is no type of an attribute", s, a.Type)
			}
		}
	}
	return normalDN(dn), nil
}

// isAttributeType reports whether s may stand before a value: a name, or the dotted numbers that go for one.
func isAttributeType(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-.") == ""
}

func normalDN(dn *ldap.DN) string {
	rdns := make([]string, len(dn.RDNs))
	for i, rdn := range dn.RDNs {
		parts := make([]string, len(rdn.Attributes))
		for j, a := range rdn.Attributes {
			parts[j] = strings.ToLower(a.Type) + "=" + escapeValue(a.Value)
		}
		slices.Sort(parts)
		rdns[i] = strings.Join(parts, "+")
	}
	return strings.Join(rdns, ",")
}

// escapeValue writes a value in lower case, as RFC 4514 wants it in a DN. What is no text stays what it is, in hex.
func escapeValue(v string) string {
	if !utf8.ValidString(v) {
		return "#" + hex.EncodeToString([]byte(v))
	}
	v = strings.ToLower(v)
	var b strings.Builder
	for i := range len(v) {
		switch c := v[i]; {
		case strings.IndexByte(`"+,;<>\=`, c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(v)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c == 0x7f:
			b.WriteString(`\` + hex.EncodeToString([]byte{c}))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
