package auth_test

import (
	"fmt"
	"net"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/auth"
)

// S059: an answer about another group is no membership of this one.
func TestAnswerAboutAnotherGroup(t *testing.T) {
	const group = "cn=vpn,ou=groups,dc=example,dc=net"
	for answer, in := range map[string]bool{group: true, "cn=vpn,ou=other,dc=example,dc=net": false, "": false} {
		s := &stub{}
		s.intercept = func(c net.Conn, op ber.Tag, id int64) bool {
			searches := s.requests(ldap.ApplicationSearchRequest)
			if op != ldap.ApplicationSearchRequest || searches[len(searches)-1].dn != group {
				return false
			}
			send(c, id, envelope(stubEntry{dn: answer}.packet()))
			send(c, id, envelope(result(ldap.ApplicationSearchResultDone, 0, "")))
			return true
		}
		startStub(t, s)
		o := stubOptions(s)
		o.RequireGroups = []string{group}
		_, err := login(newLDAP(t, o), "alice", "secret")
		if in && err != nil {
			t.Error(err)
		}
		if !in {
			wantDenied(t, err, "in no required group", auth.PublicRefusal)
		}
	}
}

// S059: a memberOf counts when it is the required DN as a whole.
func TestMemberOfWhole(t *testing.T) {
	const group = "cn=vpn,ou=groups,dc=example,dc=net"
	for memberOf, in := range map[string]bool{
		group:                                     true,
		"CN=VPN,OU=Groups,DC=Example,DC=Net":      true,
		"cn=vpn, ou=groups, dc=example, dc=net":   true,
		"cn=vpn,ou=groups,dc=example,dc=net ":     true,
		"cn=vpn,ou=other,dc=example,dc=net":       false,
		"cn=x,cn=vpn,ou=groups,dc=example,dc=net": false,
		"cn=vpn,ou=groups,dc=example,dc=net,dc=x": false,
		`cn=vpn\,ou=groups\,dc=example\,dc=net`:   false,
		"ou=groups,dc=example,dc=net":             false,
		"cn=vpn+ou=x,ou=groups,dc=example,dc=net": false,
		"cn=vpn2,ou=groups,dc=example,dc=net":     false,
		"":                                        false,
		"vpn":                                     false,
	} {
		s := startStub(t, &stub{entries: []stubEntry{{dn: aliceDN, attributes: map[string][]string{"memberof": {"cn=a,dc=b", memberOf}}}}})
		o := stubOptions(s)
		o.RequireGroups = []string{group}
		_, err := login(newLDAP(t, o), "alice", "secret")
		if in && err != nil {
			t.Errorf("memberOf %q: %v", memberOf, err)
		}
		if !in {
			wantDenied(t, err, "in no required group", auth.PublicRefusal)
		}
	}
}

// A user whose entry the directory cannot present does not make the directory dead for the others.
func TestOddEntryHarmsNobodyElse(t *testing.T) {
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprintf("cn=%d,dc=example", i)
	}
	s := startStub(t, &stub{entries: []stubEntry{{dn: aliceDN, attributes: map[string][]string{"memberOf": many}}}})
	l := newLDAP(t, stubOptions(s))
	for range 3 {
		_, err := login(l, "alice", "secret")
		wantBroken(t, err, "more than 1000 groups")
	}
	if n := len(s.requests(ldap.ApplicationSearchRequest)); n != 3 {
		t.Errorf("%d searches for 3 logins", n)
	}
}
