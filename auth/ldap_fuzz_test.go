package auth

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// S053: for every template that is accepted and every name, the filter parses, and the name is in values only: the
// tree has the shape that it has for a harmless name.
func FuzzFilter(f *testing.F) {
	for _, template := range []string{
		"(uid=%u)", "(&(objectClass=person)(uid=%u))", "(|(uid=%u)(mail=%u@example.net))", "(uid=*%u*)", "(uid:caseExactMatch:=%u)",
		"(!(uid=%u))", "(uid>=%u)", "(%u=x)", "(uid=%u", `(uid=\%u)`, "(%u)", "%u", "(uid=%u)(uid=%u)", "(uid=%%u)",
	} {
		for _, name := range []string{"alice", "*", ")(uid=*", `\`, "\x00", "ü", "%u"} {
			f.Add(template, name)
		}
	}
	f.Fuzz(func(t *testing.T, template, name string) {
		filter, err := parseUserFilter(template)
		if err != nil || name == "" {
			return
		}
		got, err := ldap.CompileFilter(filter.For(name))
		if err != nil {
			t.Fatalf("%q for %q does not parse: %v", template, name, err)
		}
		want, err := ldap.CompileFilter(filter.For("alice"))
		if err != nil {
			t.Fatalf("%q for alice does not parse: %v", template, err)
		}
		if a, b := shape(got), shape(want); a != b {
			t.Fatalf("%q for %q has shape %s, for alice %s", template, name, a, b)
		}
	})
}

// shape writes down all of a filter but its values.
func shape(p *ber.Packet) string {
	var b strings.Builder
	b.WriteByte('a' + byte(p.Tag))
	switch p.Tag {
	case ldap.FilterAnd, ldap.FilterOr, ldap.FilterNot:
		for _, child := range p.Children {
			b.WriteString("(" + shape(child) + ")")
		}
	case ldap.FilterPresent:
		b.WriteString(p.Data.String())
	case ldap.FilterExtensibleMatch:
		for _, part := range p.Children {
			b.WriteByte('0' + byte(part.Tag))
			if part.Tag != ldap.MatchingRuleAssertionMatchValue {
				b.WriteString(part.Data.String())
			}
		}
	case ldap.FilterSubstrings:
		b.WriteString(p.Children[0].Data.String())
		for _, piece := range p.Children[1].Children {
			b.WriteByte('0' + byte(piece.Tag))
		}
	default:
		b.WriteString(p.Children[0].Data.String())
	}
	return b.String()
}

// S057: whatever a directory answers, a login ends, without a panic and without a goroutine left; and nothing but
// success of the bind is a yes.
func FuzzAnswer(f *testing.F) {
	message := func(op ber.Tag, children ...*ber.Packet) []byte {
		p := ber.NewSequence("")
		p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, 1, ""))
		body := ber.Encode(ber.ClassApplication, ber.TypeConstructed, op, nil, "")
		for _, c := range children {
			body.AppendChild(c)
		}
		p.AppendChild(body)
		return p.Bytes()
	}
	octets := func(s string) *ber.Packet {
		return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
	}
	code := func(n int64) *ber.Packet {
		return ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, n, "")
	}
	attribute := ber.NewSequence("")
	attribute.AppendChild(octets("memberOf"))
	values := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
	values.AppendChild(octets("cn=vpn,dc=example"))
	attribute.AppendChild(values)
	attributes := ber.NewSequence("")
	attributes.AppendChild(attribute)
	entry := message(opSearchEntry, octets("uid=alice,dc=example"), attributes)
	done := message(opSearchDone, code(0), octets(""), octets(""))
	bound := message(opBindResponse, code(0), octets(""), octets(""))

	f.Add(append(entry, done...), bound)
	f.Add(append(append([]byte{}, entry...), append(entry, done...)...), bound)
	f.Add(done, bound)
	f.Add(message(opSearchDone, code(4), octets(""), octets("")), bound)
	f.Add(append(message(opSearchReference, octets("ldap://x")), done...), bound)
	f.Add(append(entry, done...), message(opBindResponse, code(49), octets(""), octets("data 533")))
	f.Add([]byte{0x30, 0x80}, []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{}, []byte{})

	f.Fuzz(func(t *testing.T, found, judged []byte) {
		search := fuzzConn(t, found)
		entry, err := search.findUser(t.Context(), "dc=example", "(uid=alice)", nil)
		if err == nil {
			if entry.DN == "" {
				t.Fatal("an entry without a name")
			}
			p := &person{entry: entry}
			if p.groups, err = new(groupRules).of(t.Context(), new(server), search, entry); err == nil {
				accountState(entry, time.Now())
				_, err = (&LDAP{o: LDAPOptions{Addr4: "a", Addr6: "a", Routes: "a"}}).identity("alice", p)
			}
		}
		if err != nil && entry == nil {
			entry = &ldap.Entry{DN: "uid=alice,dc=example"}
		}
		bind := fuzzConn(t, judged)
		if err := bind.step(opBindResponse); err != nil {
			t.Fatal(err)
		}
		result, err := bind.ldap.SimpleBind(ldap.NewSimpleBindRequest(entry.DN, "secret", nil))
		if result == nil {
			result = &ldap.SimpleBindResult{}
		}
		if judgeBind(entry.DN, result.Controls, err) == nil && err != nil {
			t.Fatalf("login in spite of %v", err)
		}
	})
}

// S059: the normal form of a name is its own normal form, and means what the name does.
func FuzzNormalDN(f *testing.F) {
	for _, s := range []string{"cn=a,dc=b", `CN=A\,b + uid=\23x ,DC=\c3\a4`, "cn=#0401ff", `cn=\ff`, "2.5.4.3=x", `cn=\ a\ `} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		dn, err := NormalDN(s)
		if err != nil || strings.Contains(dn, "=#") || !utf8.ValidString(s) {
			return
		}
		again, err := NormalDN(dn)
		if err != nil || again != dn {
			t.Fatalf("%q became %q, and that %q, %v", s, dn, again, err)
		}
	})
}

// L15: what an entry's attributes say is an address or a network that a client can be told, or an error: no zone, which is
// free text, and no IPv4 in the clothes of IPv6.
func FuzzAttributes(f *testing.F) {
	for _, s := range []string{"10.8.0.7", "-1062731775", "fd00::7/64", "fe80::1%eth0", "fe80::1%a,b", "::ffff:10.0.0.1", "10.0.0.0/8 0.0.0.0 1",
		"::ffff:10.0.0.0/104", "fd00::/48", " ", "10.0.0.0/33"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := parseAddr4(s); err == nil && !a.Is4() {
			t.Errorf("%q is taken for the IPv4 address %v", s, a)
		}
		if a, err := parseAddr6(s); err == nil && (!a.Is6() || a.Is4In6() || a.Zone() != "") {
			t.Errorf("%q is taken for the IPv6 address %v", s, a)
		}
		r, err := parseRoute(s)
		if err != nil {
			return
		}
		if !r.IsValid() || r != r.Masked() || r.Addr().Is4In6() {
			t.Errorf("%q is taken for the network %v", s, r)
		}
		if again, err := parseRoute(r.String()); err != nil || again != r {
			t.Errorf("%q became %v, and that %v, %v", s, r, again, err)
		}
	})
}

// A directory's URL is an error, or names a scheme, a host and a port, and is in clear text for this machine alone.
func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"ldap://127.0.0.1", "ldaps://ldap.example.org:1636", "ldap://[::1]:389/", "ldaps://u@h", "ldaps://h/dc=x?cn", "ldap://10.0.0.1", "ldaps://:0", "ldaps://h:65536"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, starttls bool) {
		e, err := parseEndpoint(s, &LDAPOptions{StartTLS: starttls}, new(trust))
		if err != nil {
			return
		}
		if n, err := strconv.Atoi(e.port); err != nil || n < 1 || n > 65535 || e.host == "" {
			t.Errorf("%q is at %q, port %q", s, e.host, e.port)
		}
		if ip := net.ParseIP(e.host); e.tls == nil && e.host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			t.Errorf("%q is asked in clear text", s)
		}
	})
}

// S053: for every search of groups that is accepted and every member, the member is in a value only.
func FuzzGroupSearch(f *testing.F) {
	for _, filter := range []string{"(objectClass=group)", "cn=vpn*", "(|(cn=a)(cn=b))", "(cn=a)(cn=b)", "(cn=a", "cn=a)(|(cn=*", ")"} {
		f.Add(filter, "member", "uid=alice,dc=example")
		f.Add(filter, "a)(b", `)(cn=*\`)
	}
	f.Fuzz(func(t *testing.T, filter, attribute, member string) {
		s, err := parseGroupSearch(GroupSearch{Base: "dc=example", Filter: filter, Attribute: attribute})
		if err != nil || member == "" {
			return
		}
		got, err := ldap.CompileFilter(s.of(member))
		if err != nil {
			t.Fatalf("%q by %q for %q does not parse: %v", filter, attribute, member, err)
		}
		want, err := ldap.CompileFilter(s.of("alice"))
		if err != nil {
			t.Fatalf("%q by %q for alice does not parse: %v", filter, attribute, err)
		}
		if a, b := shape(got), shape(want); a != b {
			t.Fatalf("%q by %q for %q is %s, want %s", filter, attribute, member, a, b)
		}
	})
}

// S053: whatever the name, a bind template in the form of a DN yields a DN of the same shape with that name as its value.
func FuzzBindTemplate(f *testing.F) {
	tmpl, err := parseBindTemplate("uid=%u,ou=people,dc=example")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"alice", "a,ou=x", "a+cn=b", "#ff", " a ", `\`, `"`, "=", "ä", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := CanonicalName(raw)
		if err != nil {
			return
		}
		as, err := tmpl.For(name)
		if err != nil {
			t.Fatal(err)
		}
		dn, err := parseDN(as)
		if err != nil {
			t.Fatalf("%q became %q: %v", name, as, err)
		}
		if len(dn.RDNs) != 3 || len(dn.RDNs[0].Attributes) != 1 || dn.RDNs[0].Attributes[0].Value != name {
			t.Fatalf("%q became %q", name, as)
		}
	})
}

// fuzzConn is a connection to a directory that answers its first request with answer and hangs up.
func fuzzConn(t *testing.T, answer []byte) *directoryConn {
	here, there := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer there.Close()
		if _, err := there.Read(make([]byte, 4096)); err != nil {
			return
		}
		there.Write(answer)
	}()
	c := &directoryConn{
		wire:    here,
		answers: &answerConn{Conn: here},
		timeout: 10 * time.Second,
		stop:    context.AfterFunc(t.Context(), func() { here.Close() }),
	}
	c.ldap = ldap.NewConn(c.answers, false)
	c.ldap.Start()
	t.Cleanup(func() {
		c.close()
		<-ended
	})
	return c
}

func TestCheckMessage(t *testing.T) {
	for _, c := range []struct {
		name string
		msg  []byte
		op   uint
		bad  bool
	}{
		{"bind response", []byte{0x30, 12, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0}, opBindResponse, false},
		{"long length", []byte{0x30, 0x81, 12, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0}, opBindResponse, false},
		{"with controls", []byte{0x30, 14, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0, 0xa0, 0}, opBindResponse, false},
		{"with something else", []byte{0x30, 14, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0, 0xa1, 0}, 0, true},
		{"two controls", []byte{0x30, 16, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0, 0xa0, 0, 0xa0, 0}, 0, true},
		{"id 0", []byte{0x30, 12, 2, 1, 0, 0x61, 7, 10, 1, 0, 4, 0, 4, 0}, 0, true},
		{"id of 5 bytes", []byte{0x30, 16, 2, 5, 1, 1, 1, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0}, 0, true},
		{"id no integer", []byte{0x30, 12, 4, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0}, 0, true},
		{"operation of another class", []byte{0x30, 12, 2, 1, 1, 0xa1, 7, 10, 1, 0, 4, 0, 4, 0}, 0, true},
		{"child longer than the operation", []byte{0x30, 12, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 1}, 0, true},
		{"long tag", []byte{0x30, 12, 2, 1, 1, 0x61, 7, 0x1f, 1, 0, 4, 0, 4, 0}, 0, true},
		{"indefinite length within", []byte{0x30, 9, 2, 1, 1, 0x61, 4, 0x30, 0x80, 0, 0}, 0, true},
	} {
		op, err := checkMessage(c.msg)
		if (err != nil) != c.bad || op != c.op {
			t.Errorf("%s: operation %d, %v", c.name, op, err)
		}
	}
}

// A failed server is tried again after a pause that grows, and first in turn only when it is well or long forgotten.
func TestCandidates(t *testing.T) {
	servers := []*server{{endpoint: &endpoint{url: "a"}}, {endpoint: &endpoint{url: "b"}}}
	order := func() string {
		t.Helper()
		list, err := candidates(servers)
		if (err == nil) != (len(list) > 0) {
			t.Errorf("%d servers and error %v", len(list), err)
		}
		s := ""
		for _, c := range list {
			s += c.url
		}
		return s
	}
	ago := func(s *server, failures int, d time.Duration) {
		s.failures, s.failed, s.cause = failures, time.Now().Add(-d), errors.New("refused")
	}
	if got := order(); got != "ab" {
		t.Errorf("both well: %q", got)
	}
	ago(servers[0], 1, 10*time.Second)
	if got := order(); got != "ba" {
		t.Errorf("a failed 10 s ago: %q", got)
	}
	ago(servers[0], 1, 31*time.Second)
	if got := order(); got != "ab" {
		t.Errorf("a failed 31 s ago: %q", got)
	}
	ago(servers[0], 9, time.Second)
	if got := order(); got != "b" {
		t.Errorf("a failed often: %q", got)
	}
	ago(servers[1], 9, time.Second)
	if got := order(); got != "" {
		t.Errorf("both failed often: %q", got)
	}
	ago(servers[1], 1000, 6*time.Second)
	if got := order(); got != "b" {
		t.Errorf("b had its pause: %q", got)
	}
	// Those that began before the failure are part of it.
	servers[1].broke(errors.New("again"), servers[1].failed.Add(-time.Second))
	if servers[1].failures != 1000 {
		t.Error("one outage counted twice")
	}
	servers[1].worked()
	if got := order(); got != "b" {
		t.Errorf("b answered: %q", got)
	}
}
