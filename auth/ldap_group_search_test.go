package auth_test

import (
	"context"
	"slices"
	"testing"

	"postern/auth"
	"postern/auth/slapdtest"
)

// Groups that a filter finds are as good as required ones; members are named by their DN, or by what it begins with
// (as memberUid does; the test server has no schema with that).
func TestGroupSearch(t *testing.T) {
	s := startSlapd(t, slapdtest.Options{NoMemberOf: true})
	if err := s.Modify("dn: cn=posix,ou=groups," + slapdtest.BaseDN + "\nchangetype: add\nobjectClass: groupOfNames\ncn: posix\n" +
		"o: staff\nmember: cn=nobody\ndescription: carol\n"); err != nil {
		t.Fatal(err)
	}
	groups := "ou=groups," + slapdtest.BaseDN
	for _, c := range []struct {
		name     string
		searches []auth.GroupSearch
		in       []string
	}{
		{"by DN", []auth.GroupSearch{{Base: groups, Filter: "(|(cn=vpn-users)(cn=none))", Attribute: "member"}}, []string{"alice"}},
		{"by DN, another attribute", []auth.GroupSearch{{Base: groups, Filter: "cn=vpn-admins", Attribute: "uniqueMember"}}, []string{"bob"}},
		{"by name", []auth.GroupSearch{{Base: groups, Filter: "(o=staff)", Attribute: "description", ByName: true}}, []string{"carol"}},
		{"any of several", []auth.GroupSearch{
			{Base: groups, Filter: "(cn=vpn-users)", Attribute: "member"},
			{Base: groups, Filter: "(o=staff)", Attribute: "description", ByName: true}}, []string{"alice", "carol"}},
		{"none", []auth.GroupSearch{{Base: groups, Filter: "(cn=none)", Attribute: "member"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := slapdOptions(s)
			o.RequireGroups, o.GroupSearches, o.DirectOnly = nil, c.searches, true
			l := newLDAP(t, o)
			for _, name := range []string{"alice", "bob", "carol"} {
				id, err := login(l, name, name+"-secret")
				if !slices.Contains(c.in, name) {
					wantDenied(t, err, "in no required group", auth.PublicRefusal)
					continue
				}
				if err != nil || len(id.Groups) != 1 {
					t.Errorf("%s: %v, %v", name, id, err)
				}
			}
		})
	}
	for _, bad := range []auth.GroupSearch{
		{Base: "", Filter: "(cn=a)", Attribute: "member"}, {Base: groups, Filter: "(cn=a", Attribute: "member"},
		{Base: groups, Filter: "(cn=a)", Attribute: "member)(uid=*"}, {Base: groups, Filter: "(cn=a)"},
	} {
		o := slapdOptions(s)
		o.GroupSearches = []auth.GroupSearch{bad}
		if _, err := auth.NewLDAP(o, nopLog); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// With UseCN it is the certificate's owner who logs in, and without a certificate nobody.
func TestNamedByCertificate(t *testing.T) {
	var asked string
	a := auth.NamedByCertificate(authenticatorFunc(func(r *auth.Request) (*auth.Identity, error) {
		asked = r.Username
		return &auth.Identity{Name: r.Username}, nil
	}))
	r := &auth.Request{Username: "bob", CommonName: "alice", Password: []byte("x")}
	if id, err := a.Authenticate(t.Context(), r); err != nil || id.Name != "alice" || asked != "alice" || r.Username != "bob" {
		t.Errorf("%v, %v; asked about %q", id, err, asked)
	}
	_, err := a.Authenticate(t.Context(), &auth.Request{Username: "bob", Password: []byte("x")})
	wantDenied(t, err, "no certificate", "login name does not match the certificate")
}

type authenticatorFunc func(r *auth.Request) (*auth.Identity, error)

func (f authenticatorFunc) Authenticate(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	return f(r)
}
