package auth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
	"github.com/rs/zerolog"

	"postern/auth"
)

// stubOptions ask the stubs in turn, without a required group.
func stubOptions(stubs ...*stub) auth.LDAPOptions {
	o := auth.LDAPOptions{
		BindDN:       serviceDN,
		BindPassword: "service-secret",
		UserBase:     "ou=people,dc=example,dc=net",
		Timeout:      5 * time.Second,
	}
	for _, s := range stubs {
		o.URLs = append(o.URLs, s.URL)
	}
	return o
}

func TestNewLDAPRefuses(t *testing.T) {
	good := func() auth.LDAPOptions {
		return auth.LDAPOptions{
			URLs:         []string{"ldaps://ldap.example.net"},
			BindDN:       serviceDN,
			BindPassword: "x",
			UserBase:     "ou=people,dc=example,dc=net",
		}
	}
	if _, err := auth.NewLDAP(good(), zerolog.Nop()); err != nil {
		t.Fatalf("good options: %v", err)
	}
	for _, c := range []struct {
		name, want string
		set        func(o *auth.LDAPOptions)
	}{
		{"no URL", "no ldap URL", func(o *auth.LDAPOptions) { o.URLs = nil }},
		{"clear text", "clear text", func(o *auth.LDAPOptions) { o.URLs = []string{"ldap://ldap.example.net"} }},
		{"clear text, second URL", "clear text", func(o *auth.LDAPOptions) { o.URLs = append(o.URLs, "ldap://10.0.0.1") }},
		{"clear text to a name like loopback", "clear text", func(o *auth.LDAPOptions) { o.URLs = []string{"ldap://127.0.0.1.example.net"} }},
		{"other scheme", "ldap://", func(o *auth.LDAPOptions) { o.URLs = []string{"http://ldap.example.net"} }},
		{"socket", "ldap://", func(o *auth.LDAPOptions) { o.URLs = []string{"ldapi:///"} }},
		{"no scheme", "ldap://", func(o *auth.LDAPOptions) { o.URLs = []string{"ldap.example.net"} }},
		{"no host", "no host", func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://:636"} }},
		{"bad port", "port", func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://h:65536"} }},
		{"a base in the URL", "only scheme", func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://h/dc=example"} }},
		{"a user in the URL", "only scheme", func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://u:p@h"} }},
		{"CA without a certificate", "CA", func(o *auth.LDAPOptions) { o.CA = []byte("nothing") }},
		{"filter without a place", "no %u", func(o *auth.LDAPOptions) { o.UserFilter = "(uid=alice)" }},
		{"filter that does not parse", "filter", func(o *auth.LDAPOptions) { o.UserFilter = "(uid=%u" }},
		{"name as attribute", "values", func(o *auth.LDAPOptions) { o.UserFilter = "(%u=alice)" }},
		{"name as attribute and value", "values", func(o *auth.LDAPOptions) { o.UserFilter = "(&(%u=*)(uid=%u))" }},
		{"name as matching rule", "values", func(o *auth.LDAPOptions) { o.UserFilter = "(uid:%u:=alice)" }},
		{"no user base", "user base", func(o *auth.LDAPOptions) { o.UserBase = "" }},
		{"bad user base", "user base", func(o *auth.LDAPOptions) { o.UserBase = "people" }},
		{"bad bind DN", "bind DN", func(o *auth.LDAPOptions) { o.BindDN = "postern" }},
		{"bind without a password", "password", func(o *auth.LDAPOptions) { o.BindPassword = "" }},
		{"password without a DN", "without a bind DN", func(o *auth.LDAPOptions) { o.BindDN = "" }},
		{"bad group", "required group", func(o *auth.LDAPOptions) { o.RequireGroups = []string{"vpn-users"} }},
		{"empty group", "required group", func(o *auth.LDAPOptions) { o.RequireGroups = []string{" "} }},
		{"negative timeout", "timeout", func(o *auth.LDAPOptions) { o.Timeout = -1 }},
	} {
		o := good()
		c.set(&o)
		_, err := auth.NewLDAP(o, zerolog.Nop())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
		}
	}
	for _, u := range []string{"ldap://127.0.0.1:389", "ldap://[::1]", "ldap://localhost"} {
		o := good()
		o.URLs = []string{u}
		if _, err := auth.NewLDAP(o, zerolog.Nop()); err != nil {
			t.Errorf("clear text to %s: %v", u, err)
		}
	}
	o := good()
	o.URLs, o.AllowCleartext = []string{"ldap://10.0.0.1"}, true
	if _, err := auth.NewLDAP(o, zerolog.Nop()); err != nil {
		t.Errorf("clear text allowed: %v", err)
	}
}

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

// hostileNames mean something in a filter, a DN, a path, a format or a shell, and must mean themselves only.
var hostileNames = []string{
	"*", "a*", "*a", "(", ")", "()", "((", "))", `\`, `\\`, `\2a`, `\28`, `\00`, `a\`, `\zz`, ",", "+", `"`, "<", ">", ";",
	"=", "#", "#abc", "a=b", "a,b", "a+b", `a"b`, "a<b>", "a;b", "uid=*", "*)(uid=*", "a)(|(uid=*", "a)(objectclass=*",
	"*)(|(mail=*", "admin)(!(&(1=0", "x)(&", "|", "&", "!", "!a", "&(a=b)", "|(a=b)", "%u", "%", "%s%n", "~=a", ">=a", "<=a",
	":=a", ":dn:=a", "a:b", "a@example.net", `EXAMPLE\a`, "..", "../../etc", "${jndi:x}", "ä", "müller", "ß", "日本語", "пользователь",
	"a-b_c.d", "1.2.840.113556.1.4.1941:", "a'b", "`id`", "$(id)",
}

// S053: whatever the name, the directory decodes a filter of the same shape with that name as its value.
func TestFilterShape(t *testing.T) {
	s := startStub(t, &stub{entries: []stubEntry{}})
	o := stubOptions(s)
	o.UserFilter = "(&(objectClass=person)(|(uid=%u)(mail=%u)))"
	l := newLDAP(t, o)
	names := hostileNames
	if len(names) < 60 {
		t.Fatalf("only %d names", len(names))
	}
	for _, name := range names {
		canonical, err := auth.CanonicalName(name)
		if err != nil {
			t.Errorf("%q has no canonical form: %v", name, err)
			continue
		}
		_, err = login(l, name, "secret")
		wantDenied(t, err, "not in the directory", auth.PublicRefusal)
		searches := s.requests(ldap.ApplicationSearchRequest)
		got := searches[len(searches)-1].filter
		if got.Tag != ldap.FilterAnd || len(got.Children) != 2 || got.Children[1].Tag != ldap.FilterOr || len(got.Children[1].Children) != 2 {
			t.Errorf("%q changed the shape of the filter", name)
			continue
		}
		for i, attribute := range []string{"uid", "mail"} {
			leaf := got.Children[1].Children[i]
			if leaf.Tag != ldap.FilterEqualityMatch || leaf.Children[0].Data.String() != attribute || leaf.Children[1].Data.String() != canonical {
				t.Errorf("%q became %s=%q, tag %d", name, leaf.Children[0].Data, leaf.Children[1].Data, leaf.Tag)
			}
		}
	}
	if n := len(s.userBinds()); n != 0 {
		t.Errorf("%d binds of users that were not found", n)
	}
}

// S053: the user's DN is the directory's, and still escaped in the search for groups.
func TestGroupFilterEscapesDN(t *testing.T) {
	dn := `cn=Smith\2C J*(x)\5C,ou=people,dc=example,dc=net`
	s := startStub(t, &stub{entries: []stubEntry{{dn: dn}}})
	o := stubOptions(s)
	o.RequireGroups = []string{"cn=vpn,dc=example,dc=net"}
	_, err := login(newLDAP(t, o), "smith", "secret")
	wantDenied(t, err, "in no required group", auth.PublicRefusal)
	searches := slices.DeleteFunc(s.requests(ldap.ApplicationSearchRequest), func(r stubRequest) bool { return r.dn != o.RequireGroups[0] })
	if len(searches) != 1 {
		t.Fatalf("%d searches for the group", len(searches))
	}
	or := searches[0].filter
	if or.Tag != ldap.FilterOr || len(or.Children) != 2 {
		t.Fatalf("filter has tag %d and %d children", or.Tag, len(or.Children))
	}
	for i, attribute := range []string{"member", "uniqueMember"} {
		leaf := or.Children[i]
		if leaf.Tag != ldap.FilterEqualityMatch || leaf.Children[0].Data.String() != attribute || leaf.Children[1].Data.String() != dn {
			t.Errorf("asked for %s=%q", leaf.Children[0].Data, leaf.Children[1].Data)
		}
	}
	if n := len(s.userBinds()); n != 0 {
		t.Errorf("password tried %d times for someone in no required group", n)
	}
}

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

// S055: no password goes to a server whose certificate is not verified.
func TestCertificateVerified(t *testing.T) {
	ca := newCA(t)
	for _, c := range []struct {
		name, want string
		tls        *tls.Config
	}{
		{"good", "", ca.server(t, nil)},
		{"wrong CA", "unknown authority", newCA(t).server(t, nil)},
		{"wrong name", "not 127.0.0.1", ca.server(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} })},
		{"expired", "expired", ca.server(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })},
		{"for clients", "usage", ca.server(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })},
	} {
		for _, starttls := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, StartTLS %v", c.name, starttls), func(t *testing.T) {
				s := &stub{tls: c.tls}
				if starttls {
					s = &stub{}
					s.intercept = upgrade(s, c.tls, nil)
				}
				startStub(t, s)
				o := stubOptions(s)
				o.CA, o.StartTLS = ca.pem, starttls
				_, err := login(newLDAP(t, o), "alice", "secret")
				if c.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				wantBroken(t, err, c.want)
				if n := len(s.requests(ldap.ApplicationBindRequest)); n != 0 {
					t.Errorf("%d binds", n)
				}
			})
		}
	}
}

// upgrade answers StartTLS with success and what else is to follow in the same segment, then serves with TLS.
func upgrade(s *stub, config *tls.Config, injected []byte) func(net.Conn, ber.Tag, int64) bool {
	return func(c net.Conn, op ber.Tag, id int64) bool {
		if _, secured := c.(*tls.Conn); secured || op != ldap.ApplicationExtendedRequest {
			return false
		}
		c.Write(append(encode(id, envelope(result(ldap.ApplicationExtendedResponse, 0, ""))), injected...))
		s.serve(tls.Server(c, config), s.connections())
		c.Close()
		return true
	}
}

// S055: StartTLS that fails, or that somebody has put bytes behind, never ends in clear text.
func TestStartTLSNeverFallsBack(t *testing.T) {
	ca := newCA(t)
	config := ca.server(t, nil)
	answer := func(answer []byte) func(net.Conn, ber.Tag, int64) bool {
		return func(c net.Conn, op ber.Tag, id int64) bool {
			c.Write(answer)
			return true
		}
	}
	for _, c := range []struct {
		name, want string
		intercept  func(s *stub) func(net.Conn, ber.Tag, int64) bool
	}{
		{"refused", "Unavailable", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return answer(encode(1, envelope(result(ldap.ApplicationExtendedResponse, ldap.LDAPResultUnavailable, "no"))))
		}},
		{"unknown", "Protocol Error", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return answer(encode(1, envelope(result(ldap.ApplicationExtendedResponse, ldap.LDAPResultProtocolError, ""))))
		}},
		{"another message's answer", "something else", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return answer(encode(2, envelope(result(ldap.ApplicationExtendedResponse, 0, ""))))
		}},
		{"a bind's answer", "something else", func(*stub) func(net.Conn, ber.Tag, int64) bool { return answer(encode(1, bindResult(0, ""))) }},
		{"no TLS behind it", "TLS", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return answer(encode(1, envelope(result(ldap.ApplicationExtendedResponse, 0, ""))))
		}},
		{"closed", "StartTLS", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return func(c net.Conn, _ ber.Tag, _ int64) bool { c.Close(); return true }
		}},
		{"injected bind answer", "TLS: with", func(s *stub) func(net.Conn, ber.Tag, int64) bool {
			return upgrade(s, config, encode(2, bindResult(0, "")))
		}},
		{"injected byte", "TLS: with", func(s *stub) func(net.Conn, ber.Tag, int64) bool { return upgrade(s, config, []byte{0}) }},
		{"half an answer", "StartTLS", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return answer(encode(1, envelope(result(ldap.ApplicationExtendedResponse, 0, "")))[:9])
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &stub{}
			s.intercept = c.intercept(s)
			startStub(t, s)
			o := stubOptions(s)
			o.CA, o.StartTLS, o.Timeout = ca.pem, true, 500*time.Millisecond
			_, err := login(newLDAP(t, o), "alice", "secret")
			wantBroken(t, err, c.want)
			if n := len(s.requests(ldap.ApplicationBindRequest)); n != 0 {
				t.Errorf("%d binds", n)
			}
		})
	}
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

// S061: a server that failed is left alone while another one answers.
func TestDeadServerSkipped(t *testing.T) {
	dead := startStub(t, &stub{intercept: func(c net.Conn, _ ber.Tag, _ int64) bool { c.Close(); return true }})
	alive := startStub(t, &stub{})
	l := newLDAP(t, stubOptions(dead, alive))
	for range 10 {
		if _, err := login(l, "alice", "secret"); err != nil {
			t.Fatal(err)
		}
	}
	if n := dead.connections(); n != 1 {
		t.Errorf("the dead server was asked %d times", n)
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

// S057, S058, F17 to F19: silence, dribble and rubbish at every step end in time, in an error and with nothing left.
func TestHostileDirectory(t *testing.T) {
	before := runtime.NumGoroutine()
	big := strings.Repeat("x", 70_000)
	deep := octets("x")
	for range 40 {
		p := ber.NewSequence("")
		p.AppendChild(deep)
		deep = p
	}
	deepEntry := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
	deepEntry.AppendChild(octets(aliceDN))
	deepEntry.AppendChild(deep)
	entry := stubEntry{dn: aliceDN}.packet()

	answers := map[string]func(c net.Conn, id int64){
		"silence":        func(c net.Conn, id int64) {},
		"close":          func(c net.Conn, id int64) { c.Close() },
		"reset":          func(c net.Conn, id int64) { reset(c) },
		"half":           func(c net.Conn, id int64) { c.Write(encode(id, bindResult(0, ""))[:7]) },
		"half and close": func(c net.Conn, id int64) { c.Write(encode(id, bindResult(0, ""))[:7]); c.Close() },
		"dribble": func(c net.Conn, id int64) {
			for _, b := range encode(id, envelope(result(opOf[id], 0, big))) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		},
		"garbage":          func(c net.Conn, id int64) { c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) },
		"zeros":            func(c net.Conn, id int64) { c.Write(make([]byte, 4096)) },
		"indefinite":       func(c net.Conn, id int64) { c.Write([]byte{0x30, 0x80, 2, 1, byte(id)}) },
		"claims 4 GiB":     func(c net.Conn, id int64) { c.Write([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}) },
		"claims 2 MiB":     func(c net.Conn, id int64) { c.Write([]byte{0x30, 0x83, 0x20, 0, 0}) },
		"empty":            func(c net.Conn, id int64) { c.Write([]byte{0x30, 0}) },
		"no operation":     func(c net.Conn, id int64) { c.Write([]byte{0x30, 3, 2, 1, byte(id)}) },
		"empty operation":  func(c net.Conn, id int64) { c.Write([]byte{0x30, 5, 2, 1, byte(id), 0x61, 0}) },
		"notice of ending": func(c net.Conn, id int64) { send(c, 0, extended(52, "")) },
		"nested":           func(c net.Conn, id int64) { send(c, id, envelope(deepEntry)) },
		"large value": func(c net.Conn, id int64) {
			send(c, id, envelope(stubEntry{dn: aliceDN, attributes: map[string][]string{"memberOf": {big}}}.packet()))
		},
		"large result": func(c net.Conn, id int64) {
			reference := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultReference, nil, "")
			reference.AppendChild(octets(big[:60_000]))
			for range 40 {
				send(c, id, envelope(reference))
			}
		},
		"never done": func(c net.Conn, id int64) { send(c, id, envelope(entry)) },
		"id of another": func(c net.Conn, id int64) {
			send(c, id+7, envelope(result(ldap.ApplicationSearchResultDone, 0, "")))
		},
		"bad result code": func(c net.Conn, id int64) { send(c, id, envelope(result(ldap.ApplicationSearchResultDone, 1<<16, ""))) },
	}
	// What the search step says of those; at others they may fail for being no answer to what was asked.
	wants := map[string]string{
		"close": "EOF", "half and close": "EOF", "garbage": "malformed", "zeros": "malformed", "indefinite": "malformed",
		"claims 4 GiB": "larger than", "claims 2 MiB": "larger than", "empty": "malformed", "no operation": "malformed",
		"notice of ending": "ends the connection", "nested": "nested deeper", "large value": "value of 70000 bytes",
		"large result": "larger than", "silence": "timeout", "half": "timeout", "never done": "timeout", "dribble": "timeout",
		"id of another": "timeout", "bad result code": "out of range",
	}
	steps := map[string]ber.Tag{"bind": ldap.ApplicationBindRequest, "search": ldap.ApplicationSearchRequest, "whoami": ldap.ApplicationExtendedRequest}
	t.Run("steps", func(t *testing.T) {
		for stepName, step := range steps {
			for answerName, answer := range answers {
				t.Run(stepName+"/"+answerName, func(t *testing.T) {
					t.Parallel()
					s := startStub(t, &stub{intercept: func(c net.Conn, op ber.Tag, id int64) bool {
						if op != step {
							return false
						}
						answer(c, id)
						return true
					}})
					o := stubOptions(s)
					if wants[answerName] == "timeout" {
						o.Timeout = 300 * time.Millisecond // else the error, not the clock, ends it
					}
					began := time.Now()
					_, err := login(newLDAP(t, o), "alice", "secret")
					want := ""
					if stepName == "search" {
						want = wants[answerName]
					}
					wantBroken(t, err, want)
					if took := time.Since(began); took > 9*time.Second {
						t.Errorf("took %v", took)
					}
				})
			}
		}
		t.Run("TLS/silence", func(t *testing.T) {
			t.Parallel()
			s := startStub(t, &stub{}) // waits for a request in clear text, and gets a ClientHello
			o := stubOptions(s)
			o.URLs = []string{strings.Replace(s.URL, "ldap:", "ldaps:", 1)}
			o.Timeout = 300 * time.Millisecond
			_, err := login(newLDAP(t, o), "alice", "secret")
			wantBroken(t, err, "TLS")
		})
	})
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// S058, F18: however many silent servers there are, a login ends after 10 s.
func TestLoginEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	silent := func() *stub {
		return startStub(t, &stub{intercept: func(net.Conn, ber.Tag, int64) bool { return true }})
	}
	l := newLDAP(t, stubOptions(silent(), silent(), silent(), silent()))
	began := time.Now()
	_, err := login(l, "alice", "secret")
	wantBroken(t, err, "") // the deadline's own error or the socket's, whichever timer ran first
	if took := time.Since(began); took < 9*time.Second || took > 15*time.Second {
		t.Errorf("took %v, want 10 s", took)
	}
}

// opOf is what the first requests of a connection want as an answer; good enough for a dribble that never ends.
var opOf = map[int64]ber.Tag{1: ldap.ApplicationBindResponse, 2: ldap.ApplicationSearchResultDone}

func reset(c net.Conn) {
	if counted, ok := c.(*counted); ok {
		counted.Conn.(*net.TCPConn).SetLinger(0)
	}
	c.Close()
}

// S058: however many log in at once, at most 32 connections are open, and waiting for one ends with the context.
func TestAtMost32Connections(t *testing.T) {
	var mu sync.Mutex
	open, most := 0, 0
	release := make(chan struct{})
	s := startStub(t, &stub{intercept: func(c net.Conn, op ber.Tag, id int64) bool {
		if op == ldap.ApplicationBindRequest {
			mu.Lock()
			open++
			most = max(most, open)
			mu.Unlock()
			<-release
			mu.Lock()
			open--
			mu.Unlock()
		}
		return false
	}})
	l := newLDAP(t, stubOptions(s))
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if _, err := login(l, "alice", "secret"); err != nil {
				t.Error(err)
			}
		})
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		n := open
		mu.Unlock()
		if n == 32 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d connections", n)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := l.Authenticate(ctx, &auth.Request{Username: "alice", Password: []byte("secret")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("login while all connections are in use: %v", err)
	}
	if n := s.connections(); n != 32 {
		t.Errorf("%d connections at once", n)
	}
	close(release)
	wg.Wait()
	if most != 32 {
		t.Errorf("at most %d connections at once, want 32", most)
	}
}
