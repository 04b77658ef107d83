package auth_test

import (
	"slices"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"postern/auth"
)

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
