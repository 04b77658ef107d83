package auth_test

import (
	"fmt"
	"net"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/auth"
)

// S054: exactly one entry, also from a directory that does not care for the size limit.
func TestExactlyOneEntry(t *testing.T) {
	for n, reason := range map[int]string{0: "not in the directory", 1: "", 2: "more than one", 3: "more than one", 50: "more than one"} {
		entries := []stubEntry{}
		for i := range n {
			entries = append(entries, stubEntry{dn: fmt.Sprintf("uid=alice,ou=%d,ou=people,dc=example,dc=net", i)})
		}
		s := startStub(t, &stub{entries: entries})
		_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
		if n == 1 {
			if err != nil {
				t.Errorf("one entry: %v", err)
			}
			continue
		}
		wantDenied(t, err, reason, auth.PublicRefusal)
		if n := len(s.userBinds()); n != 0 {
			t.Errorf("%d entries, and a bind", n)
		}
		for _, r := range s.requests(ldap.ApplicationSearchRequest) {
			if r.deref != ldap.NeverDerefAliases {
				t.Errorf("aliases may lead elsewhere: %d", r.deref)
			}
		}
	}
}

// A directory that keeps to the size limit says that there were more.
func TestSizeLimitReached(t *testing.T) {
	s := startStub(t, &stub{intercept: func(c net.Conn, op ber.Tag, id int64) bool {
		if op != ldap.ApplicationSearchRequest {
			return false
		}
		send(c, id, envelope(stubEntry{dn: aliceDN}.packet()))
		send(c, id, envelope(result(ldap.ApplicationSearchResultDone, ldap.LDAPResultSizeLimitExceeded, "")))
		return true
	}})
	_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
	wantDenied(t, err, "more than one", auth.PublicRefusal)
}

// S056: nothing at all goes where a referral points.
func TestReferralsNotFollowed(t *testing.T) {
	elsewhere := startStub(t, &stub{})
	referral := func(op ber.Tag) *ber.Packet {
		p := result(op, ldap.LDAPResultReferral, "")
		list := ber.Encode(ber.ClassContext, ber.TypeConstructed, 3, nil, "")
		list.AppendChild(octets(elsewhere.URL + "/ou=people,dc=example,dc=net"))
		p.AppendChild(list)
		return envelope(p)
	}
	reference := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultReference, nil, "")
	reference.AppendChild(octets(elsewhere.URL + "/" + aliceDN))

	t.Run("of the search", func(t *testing.T) {
		s := startStub(t, &stub{intercept: func(c net.Conn, op ber.Tag, id int64) bool {
			if op == ldap.ApplicationSearchRequest {
				send(c, id, referral(ldap.ApplicationSearchResultDone))
			}
			return op == ldap.ApplicationSearchRequest
		}})
		_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
		wantBroken(t, err, "Referral")
	})
	t.Run("of a part of the tree", func(t *testing.T) {
		s := startStub(t, &stub{intercept: func(c net.Conn, op ber.Tag, id int64) bool {
			if op == ldap.ApplicationSearchRequest {
				send(c, id, envelope(reference))
				send(c, id, envelope(result(ldap.ApplicationSearchResultDone, 0, "")))
			}
			return op == ldap.ApplicationSearchRequest
		}})
		_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
		wantDenied(t, err, "not in the directory", auth.PublicRefusal)
	})
	t.Run("of the bind", func(t *testing.T) {
		s := startStub(t, &stub{bind: func(dn, _ string) *ber.Packet {
			if dn == serviceDN {
				return nil
			}
			return referral(ldap.ApplicationBindResponse)
		}})
		_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
		wantBroken(t, err, "Referral")
	})
	if elsewhere.connections() != 0 || elsewhere.received != 0 {
		t.Errorf("the other directory saw %d connections and %d bytes", elsewhere.connections(), elsewhere.received)
	}
}
