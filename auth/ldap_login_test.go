package auth_test

import (
	"net"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/auth"
)

// S051: a directory that takes every bind, as one takes those without a password, is not even asked.
func TestEmptyPasswordNeverBound(t *testing.T) {
	s := startStub(t, &stub{})
	l := newLDAP(t, stubOptions(s))
	for _, password := range []string{"", "\x00", "\x00secret", "secret\x00"} {
		_, err := login(l, "alice", password)
		wantDenied(t, err, "", map[bool]string{true: "empty password", false: auth.PublicRefusal}[password == ""])
	}
	if n := s.connections(); n != 0 {
		t.Errorf("the directory saw %d connections", n)
	}
}

// S052: finding the user is no login, and neither is a yes that was meant for someone else.
func TestBoundAsTheEntry(t *testing.T) {
	for _, c := range []struct {
		name   string
		whoami func(string) *ber.Packet
		in     bool
	}{
		{"the entry", nil, true},
		{"the entry, spelled otherwise", func(string) *ber.Packet { return extended(0, "dn:UID=alice, OU=People,dc=example,dc=NET") }, true},
		{"a login name of the entry", func(string) *ber.Packet { return extended(0, `u:EXAMPLE\alice`) }, true},
		{"not offered", func(string) *ber.Packet { return extended(ldap.LDAPResultProtocolError, "") }, true},
		{"anonymous", func(string) *ber.Packet { return extended(0, "") }, false},
		{"anonymous, as a DN", func(string) *ber.Packet { return extended(0, "dn:") }, false},
		{"no value", func(string) *ber.Packet { return envelope(result(ldap.ApplicationExtendedResponse, 0, "")) }, false},
		{"another entry", func(string) *ber.Packet { return extended(0, "dn:uid=bob,ou=people,dc=example,dc=net") }, false},
		{"an entry below", func(string) *ber.Packet { return extended(0, "dn:cn=x,"+aliceDN) }, false},
		{"another login name", func(string) *ber.Packet { return extended(0, `u:EXAMPLE\bob`) }, false},
		{"the domain alone", func(string) *ber.Packet { return extended(0, `u:EXAMPLE\`) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startStub(t, &stub{whoami: c.whoami})
			_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
			if c.in && err != nil {
				t.Fatal(err)
			}
			if !c.in {
				wantDenied(t, err, "the directory says it is", auth.PublicRefusal)
			}
			binds := s.userBinds()
			if len(binds) != 1 || binds[0].dn != aliceDN || binds[0].password != "secret" {
				t.Fatalf("user binds: %+v", binds)
			}
			for _, r := range s.requests(ldap.ApplicationSearchRequest) {
				if r.conn == binds[0].conn {
					t.Error("the user's connection was also the service account's")
				}
			}
		})
	}
	t.Run("service account alone", func(t *testing.T) {
		s := startStub(t, &stub{bind: func(dn, _ string) *ber.Packet {
			if dn == serviceDN {
				return nil
			}
			return bindResult(ldap.LDAPResultInvalidCredentials, "")
		}})
		_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
		wantDenied(t, err, "wrong password", auth.PublicRefusal)
	})
}

// A success of another operation is no success of the bind.
func TestAnswerToAnotherOperation(t *testing.T) {
	s := startStub(t, &stub{bind: func(dn, _ string) *ber.Packet {
		if dn == serviceDN {
			return nil
		}
		return envelope(result(ldap.ApplicationSearchResultDone, 0, ""))
	}})
	_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
	wantBroken(t, err, "not asked for")
}

// Binding as an entry without a name would be an anonymous bind.
func TestEntryWithoutName(t *testing.T) {
	for _, dn := range []string{"", " ", "alice"} {
		s := startStub(t, &stub{entries: []stubEntry{{dn: dn}}})
		_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
		wantBroken(t, err, "DN")
		if n := len(s.userBinds()); n != 0 {
			t.Errorf("bound as %q", dn)
		}
	}
}

// S060: why an account may not log in is for the log; the client reads the same for all.
func TestReasons(t *testing.T) {
	data := func(code string) *ber.Packet {
		return bindResult(49, "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data "+code+", v3839")
	}
	for _, c := range []struct {
		reason string
		answer *ber.Packet
	}{
		{"wrong password", bindResult(49, "")},
		{"wrong password", bindResult(49, "data of no use")},
		{"wrong password", data("52e")},
		{"account not found", data("525")},
		{"at this hour", data("530")},
		{"from this machine", data("531")},
		{"password expired", data("532")},
		{"account disabled", data("533")},
		{"account expired", data("701")},
		{"password must be changed", data("773")},
		{"account locked", data("775")},
		{"password expired", bindResult(49, "", policyError(0))},
		{"account locked", bindResult(49, "", policyError(1))},
		{"password must be changed", bindResult(0, "", policyError(2))},
		{"password policy error 5", bindResult(0, "", policyError(5))},
		{"Exceed password retry limit", bindResult(ldap.LDAPResultConstraintViolation, "Exceed password retry limit.")},
		{"Account inactivated", bindResult(ldap.LDAPResultUnwillingToPerform, "Account inactivated.")},
	} {
		s := startStub(t, &stub{bind: func(dn, _ string) *ber.Packet {
			if dn == serviceDN {
				return nil
			}
			return c.answer
		}})
		_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
		wantDenied(t, err, c.reason, auth.PublicRefusal)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is in %q", err)
		}
	}
}

// Any other answer to the bind says nothing about the password.
func TestBusyIsNotWrongPassword(t *testing.T) {
	for _, code := range []int64{1, 3, 8, 11, 13, 51, 52, 54, 80} {
		s := startStub(t, &stub{bind: func(dn, _ string) *ber.Packet {
			if dn == serviceDN {
				return nil
			}
			return bindResult(code, "try later")
		}})
		_, err := login(newLDAP(t, stubOptions(s)), "alice", "secret")
		wantBroken(t, err, "try later")
	}
}

// S061: what one server has said no to is not tried on the next, and neither is what one may have judged.
func TestPasswordTriedOnce(t *testing.T) {
	second := startStub(t, &stub{})
	for _, c := range []struct {
		name   string
		denied bool
		answer func(c net.Conn, id int64)
	}{
		{"wrong", true, func(c net.Conn, id int64) { send(c, id, bindResult(49, "")) }},
		{"closed without an answer", false, func(c net.Conn, id int64) { c.Close() }},
		{"busy", false, func(c net.Conn, id int64) { send(c, id, bindResult(51, "")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := &stub{}
			first.intercept = func(conn net.Conn, op ber.Tag, id int64) bool {
				if op != ldap.ApplicationBindRequest || len(first.userBinds()) == 0 {
					return false
				}
				c.answer(conn, id)
				return true
			}
			startStub(t, first)
			_, err := login(newLDAP(t, stubOptions(first, second)), "alice", "secret")
			if c.denied {
				wantDenied(t, err, "wrong password", auth.PublicRefusal)
			} else {
				wantBroken(t, err, "")
			}
			if n := len(first.userBinds()); n != 1 {
				t.Errorf("%d binds at the first server", n)
			}
		})
	}
	if n := second.connections(); n != 0 {
		t.Errorf("%d connections to the second server", n)
	}
}
