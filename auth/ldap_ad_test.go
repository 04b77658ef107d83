package auth_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/auth"
)

const (
	adBase  = "DC=corp,DC=example"
	adUsers = "CN=Users," + adBase
	adSales = "CN=Sales,OU=Groups," + adBase
	adStaff = "CN=Staff,OU=Groups," + adBase
	adVPN   = "CN=VPN Users,OU=Groups," + adBase
	adAll   = "CN=Domain Users," + adUsers
)

func sid(n uint32) string {
	b := []byte{1, 5, 0, 0, 0, 0, 0, 5}
	for _, part := range []uint32{21, 111, 222, 333, n} {
		b = binary.LittleEndian.AppendUint32(b, part)
	}
	return string(b)
}

// adUser is what an entry of Active Directory says of a user in good standing, changed.
func adUser(name string, change map[string][]string) map[string][]string {
	a := map[string][]string{
		"objectClass": {"top", "person", "user"}, "sAMAccountName": {name}, "userPrincipalName": {name + "@corp.example"},
		"userAccountControl": {"512"}, "accountExpires": {"9223372036854775807"}, "objectSid": {sid(1100)}, "primaryGroupID": {"513"},
		"uSNChanged": {"100"},
	}
	for k, v := range change {
		a[k] = v
	}
	return a
}

// startAD starts an Active Directory with alice in Sales, Sales in Staff, Staff in VPN Users, and that in Sales again.
func startAD(t *testing.T) *stub {
	s := &stub{whoami: func(as string) *ber.Packet {
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(as), "cn="), ",")
		name, _, _ = strings.Cut(name, "@")
		return extended(0, `u:CORP\`+name)
	}}
	s.tree = []stubEntry{}
	s.put("", map[string][]string{"supportedCapabilities": {"1.2.840.113556.1.4.800", "1.2.840.113556.1.4.1670"}})
	s.put(adBase, map[string][]string{"objectClass": {"domain"}})
	s.put("CN=alice,"+adUsers, adUser("alice", map[string][]string{"memberOf": {adSales}}))
	s.put("CN=bob,"+adUsers, adUser("bob", nil))
	group := func(dn, rid string, members ...string) {
		n, _ := strconv.Atoi(rid)
		s.put(dn, map[string][]string{"objectClass": {"group"}, "member": members, "objectSid": {sid(uint32(n))}, "whenChanged": {"20990101000000.0Z"}, "uSNChanged": {"7"}})
	}
	group(adSales, "1201", "CN=alice,"+adUsers, adVPN)
	group(adStaff, "1202", adSales)
	group(adVPN, "1203", adStaff)
	group(adAll, "513")
	return startStub(t, s)
}

func adOptions(s *stub, groups ...string) auth.LDAPOptions {
	return auth.LDAPOptions{
		URLs: []string{s.URL}, BindDN: "CN=Postern," + adUsers, BindPassword: "service-secret", UserBase: adBase,
		UserFilter: "(&(objectClass=user)(sAMAccountName=%u))", RequireGroups: groups,
	}
}

// L12, L13: direct, nested by the directory's own rule, in a cycle, by the primary group and through it; and none of it
// for somebody outside.
func TestActiveDirectoryGroups(t *testing.T) {
	for _, c := range []struct {
		user, group string
		direct      bool // members of members do not count
		in          bool
	}{
		{"alice", adSales, false, true},
		{"alice", adSales, true, true},
		{"alice", adStaff, false, true},
		{"alice", adVPN, false, true},
		{"alice", adVPN, true, false},
		{"alice", adAll, false, true}, // primary
		{"alice", adAll, true, true},
		{"bob", adVPN, false, false},
		{"bob", adSales, false, false},
		{"bob", adAll, false, true},
		{"bob", "CN=VPN Users,OU=Other," + adBase, false, false},
	} {
		s := startAD(t)
		o := adOptions(s, c.group)
		o.DirectOnly = c.direct
		_, err := login(newLDAP(t, o), c.user, "secret")
		if c.in && err != nil {
			t.Errorf("%s in %s, direct %v: %v", c.user, c.group, c.direct, err)
		}
		if !c.in {
			wantDenied(t, err, "in no required group", auth.PublicRefusal)
			if n := len(s.requests(ldap.ApplicationBindRequest)); n != 1 {
				t.Errorf("the password of %s was tried", c.user)
			}
		}
	}
	t.Run("a group within the primary group's group", func(t *testing.T) {
		s := startAD(t)
		s.put(adVPN, map[string][]string{"objectClass": {"group"}, "member": {adAll}})
		if _, err := login(newLDAP(t, adOptions(s, adVPN)), "bob", "secret"); err != nil {
			t.Error(err)
		}
	})
	t.Run("all groups", func(t *testing.T) {
		s := startAD(t)
		o := adOptions(s, adVPN)
		o.AllGroups = true
		id, err := login(newLDAP(t, o), "alice", "secret")
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			"cn=domain users,cn=users,dc=corp,dc=example", "cn=sales,ou=groups,dc=corp,dc=example",
			"cn=staff,ou=groups,dc=corp,dc=example", "cn=vpn users,ou=groups,dc=corp,dc=example",
		}
		if !slices.Equal(id.Groups, want) {
			t.Errorf("alice is in %q, want %q", id.Groups, want)
		}
	})
}

// S060: what the entry says of the account is heeded before the password is tried. A lock that passes ends no session
// that is there.
func TestActiveDirectoryState(t *testing.T) {
	filetime := func(at time.Time) string { return fmt.Sprint(at.UnixNano()/100 + 116444736000000000) }
	for _, c := range []struct {
		name, reason string
		vouched      bool
		change       map[string][]string
	}{
		{"good", "", true, nil},
		{"never expires", "", true, map[string][]string{"accountExpires": {"0"}}},
		{"expires later", "", true, map[string][]string{"accountExpires": {filetime(time.Now().Add(time.Hour))}}},
		{"disabled", "account disabled", false, map[string][]string{"userAccountControl": {"514"}}},
		{"expired", "account expired", false, map[string][]string{"accountExpires": {filetime(time.Now().Add(-time.Hour))}}},
		{"locked for a while", "account locked", true, map[string][]string{"msDS-User-Account-Control-Computed": {"16"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startAD(t)
			s.put("CN=alice,"+adUsers, adUser("alice", c.change))
			l := newLDAP(t, adOptions(s, adVPN))
			_, err := login(l, "alice", "secret")
			if c.reason == "" && err != nil {
				t.Error(err)
			}
			if c.reason != "" {
				wantDenied(t, err, c.reason, auth.PublicRefusal)
				if n := len(s.requests(ldap.ApplicationBindRequest)); n != 1 {
					t.Errorf("%d binds, want the service account's", n)
				}
				_, err = l.Authorize(t.Context(), "alice")
				wantDenied(t, err, c.reason, auth.PublicRefusal)
			}
			_, err = l.Vouch(t.Context(), "alice")
			if c.vouched != (err == nil) {
				t.Errorf("vouched for: %v", err)
			}
		})
	}
}

// L15: addresses, pool and routes come with the identity; nonsense in them lets nobody in with other ones.
func TestAttributes(t *testing.T) {
	s := startAD(t)
	set := func(change map[string][]string) (*auth.Identity, error) {
		s.put("CN=alice,"+adUsers, adUser("alice", change))
		o := adOptions(s)
		o.Addr4, o.Addr6, o.Pool, o.Routes = "msRADIUSFramedIPAddress", "vpnAddr6", "vpnPool", "msRADIUSFramedRoute"
		return login(newLDAP(t, o), "alice", "secret")
	}
	id, err := set(map[string][]string{
		"msRADIUSFramedIPAddress": {"-1062731519"}, "vpnAddr6": {"fd00::7/64"}, "vpnPool": {"staff"},
		"msRADIUSFramedRoute": {"10.1.0.0/16 10.8.0.1 1", "192.0.2.9"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := auth.Identity{Name: "alice", By: "ldap", Addr4: netip.MustParseAddr("192.168.1.1"), Addr6: netip.MustParseAddr("fd00::7"), Pool: "staff",
		Routes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("192.0.2.9/32")}}
	if fmt.Sprint(*id) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", *id, want)
	}
	for _, bad := range []map[string][]string{
		{"msRADIUSFramedIPAddress": {"alice"}}, {"msRADIUSFramedIPAddress": {"99999999999"}}, {"msRADIUSFramedIPAddress": {"fd00::1"}},
		{"vpnAddr6": {"10.0.0.1"}}, {"msRADIUSFramedRoute": {"everything"}}, {"msRADIUSFramedRoute": {""}},
	} {
		_, err := set(bad)
		wantDenied(t, err, "attribute ", auth.PublicRefusal)
	}
}

// L02: users bind by a principal name or a DN made of the login, with and without a service account.
func TestDirectBind(t *testing.T) {
	for _, service := range []bool{true, false} {
		t.Run(fmt.Sprint("service account ", service), func(t *testing.T) {
			s := startAD(t)
			s.bind = func(dn, password string) *ber.Packet {
				if password != "secret" && password != "service-secret" {
					return bindResult(49, "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 52e, v3839")
				}
				return nil
			}
			o := adOptions(s, adVPN)
			o.BindAs = "%u@corp.example"
			if !service {
				o.BindDN, o.BindPassword = "", ""
			}
			l := newLDAP(t, o)
			id, err := login(l, "alice", "secret")
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(id.Groups, "cn=vpn users,ou=groups,dc=corp,dc=example") {
				t.Errorf("groups %q", id.Groups)
			}
			binds := s.requests(ldap.ApplicationBindRequest)
			if last := binds[len(binds)-1]; last.dn != "alice@corp.example" || last.password != "secret" {
				t.Errorf("bound as %q", last.dn)
			}
			_, err = login(l, "bob", "secret")
			wantDenied(t, err, "in no required group", auth.PublicRefusal)
			_, err = login(l, "alice", "wrong")
			wantDenied(t, err, "wrong password", auth.PublicRefusal)
			before := len(s.requests(ldap.ApplicationBindRequest))
			for _, name := range []string{`CORP\alice`, "alice@evil.example", "uid=alice", "a/b"} {
				_, err := login(l, name, "secret")
				wantDenied(t, err, "", auth.PublicRefusal)
			}
			if after := len(s.requests(ldap.ApplicationBindRequest)); after != before {
				t.Errorf("%d binds with names that do not fit", after-before)
			}
			if _, err := l.Vouch(t.Context(), "alice"); service != (err == nil) {
				t.Errorf("vouching: %v", err)
			}
		})
	}
	t.Run("somebody else", func(t *testing.T) {
		s := startAD(t)
		s.whoami = func(string) *ber.Packet { return extended(0, `u:CORP\bob`) }
		o := adOptions(s)
		o.BindAs = "%u@corp.example"
		_, err := login(newLDAP(t, o), "alice", "secret")
		wantDenied(t, err, "the directory says it is", auth.PublicRefusal)
	})
	t.Run("who is not told", func(t *testing.T) {
		s := startAD(t)
		s.whoami = func(string) *ber.Packet { return extended(ldap.LDAPResultProtocolError, "") }
		o := adOptions(s)
		o.BindAs = "%u@corp.example"
		_, err := login(newLDAP(t, o), "alice", "secret")
		wantBroken(t, err, "does not say whom")
		o.BindAs = "CN=%u," + adUsers
		if _, err := login(newLDAP(t, o), "alice", "secret"); err != nil {
			t.Errorf("as a DN: %v", err)
		}
	})
	for _, bad := range []string{"alice", "alice@corp.example", "%u=x,dc=y", "uid=%u,people", "two words %u"} {
		o := auth.LDAPOptions{URLs: []string{"ldaps://h"}, UserBase: "dc=x", BindAs: bad}
		if _, err := auth.NewLDAP(o, nopLog); err == nil || !strings.Contains(err.Error(), "bind template") {
			t.Errorf("template %q: %v", bad, err)
		}
	}
}

// Live re-reading: what has changed is found, and as long as nothing has, each user costs one small search and all
// groups one.
func TestChanges(t *testing.T) {
	s := startAD(t)
	s.put("CN=carol,"+adUsers, adUser("carol", map[string][]string{"memberOf": {adVPN}}))
	l := newLDAP(t, adOptions(s, adVPN))
	var connected []*auth.Identity
	for _, name := range []string{"alice", "carol"} {
		id, err := login(l, name, "secret")
		if err != nil {
			t.Fatal(err)
		}
		connected = append(connected, id)
	}
	look := func() []auth.Change {
		t.Helper()
		changes, err := l.Changes(context.Background(), connected)
		if err != nil {
			t.Fatal(err)
		}
		return changes
	}
	if got := look(); len(got) != 0 {
		t.Fatalf("at first %+v", got)
	}
	before := len(s.requests(ldap.ApplicationSearchRequest))
	for range 5 {
		if got := look(); len(got) != 0 {
			t.Fatalf("nothing has changed, and %+v", got)
		}
	}
	if n := len(s.requests(ldap.ApplicationSearchRequest)) - before; n != 5*3 {
		t.Errorf("%d searches in 5 looks at 2 users, want 15", n)
	}
	only := func(name, reason string) {
		t.Helper()
		got := look()
		if len(got) != 1 || got[0].Name != name || got[0].Now != nil || !strings.Contains(got[0].Reason, reason) {
			t.Errorf("got %+v, want %s: %s", got, name, reason)
		}
	}
	// Staff is no member any more: alice loses what she had through it. Only the group's own mark tells.
	vpn := map[string][]string{"objectClass": {"group"}, "member": {}, "whenChanged": {"20990101000000.0Z"}, "uSNChanged": {"8"}}
	s.put(adVPN, vpn)
	only("alice", "in no required group")
	vpn["member"], vpn["uSNChanged"] = []string{adStaff}, []string{"9"}
	s.put(adVPN, vpn)
	if got := look(); len(got) != 0 {
		t.Errorf("back again: %+v", got)
	}
	s.put("CN=alice,"+adUsers, adUser("alice", map[string][]string{"memberOf": {adSales}, "userAccountControl": {"514"}}))
	only("alice", "account disabled")
	s.put("CN=alice,"+adUsers, nil)
	only("alice", "not in the directory")
	s.put("CN=alice,OU=Moved,"+adBase, adUser("alice", map[string][]string{"memberOf": {adVPN}}))
	if got := look(); len(got) != 1 || got[0].Now == nil {
		t.Errorf("moved elsewhere, and into the group itself: %+v", got)
	}
	s.put("CN=alice,OU=Moved,"+adBase, adUser("alice", map[string][]string{"memberOf": {adVPN, adStaff}}))
	if got := look(); len(got) != 1 || got[0].Now == nil || len(got[0].Now.Groups) != 2 {
		t.Errorf("in another group: %+v", got)
	}
	s.listener.Close()
	s.mu.Lock()
	for _, c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	if got, err := l.Changes(t.Context(), connected); err == nil || len(got) != 0 {
		t.Errorf("directory away: %+v, %v", got, err)
	}
}

// A user whose entry cannot be understood keeps nobody else from being looked at, and is left alone.
func TestChangesDespiteOddEntry(t *testing.T) {
	s := startAD(t)
	l := newLDAP(t, adOptions(s, adVPN, adAll))
	var connected []*auth.Identity
	for _, name := range []string{"alice", "bob"} {
		id, err := login(l, name, "secret")
		if err != nil {
			t.Fatal(err)
		}
		connected = append(connected, id)
	}
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprintf("CN=%d,%s", i, adBase)
	}
	s.put("CN=alice,"+adUsers, adUser("alice", map[string][]string{"memberOf": many}))
	s.put("CN=bob,"+adUsers, nil)
	changes, err := l.Changes(t.Context(), connected)
	if len(changes) != 1 || changes[0].Name != "bob" || changes[0].Now != nil {
		t.Errorf("changes %+v, want bob's end", changes)
	}
	if err == nil || !strings.Contains(err.Error(), "alice: ") {
		t.Errorf("error %v, want one about alice", err)
	}
}

// L22: each directory has the names of its realm, and one of them every other.
func TestRealms(t *testing.T) {
	corp, other := startAD(t), startStub(t, &stub{})
	plain := stubOptions(other)
	ad := adOptions(corp, adVPN)
	ad.Realm = "Corp.example"
	r, err := auth.NewRealms([]auth.LDAPOptions{plain, ad}, nopLog)
	if err != nil {
		t.Fatal(err)
	}
	id, err := login(r, "Alice@CORP.example", "secret")
	if err != nil || id.Name != "alice@corp.example" {
		t.Errorf("%+v, %v", id, err)
	}
	if id, err = login(r, "alice", "secret"); err != nil || id.Name != "alice" || len(other.userBinds()) != 1 {
		t.Errorf("without a realm: %+v, %v", id, err)
	}
	if _, err = login(r, "alice@elsewhere", "secret"); err != nil || len(other.userBinds()) != 2 {
		t.Errorf("with one that nobody has: %v", err)
	}
	_, err = login(r, "bob@corp.example", "secret")
	wantDenied(t, err, "in no required group", auth.PublicRefusal)
	_, err = login(r, "@corp.example", "secret")
	wantDenied(t, err, "", auth.PublicRefusal)
	alice := &auth.Identity{Name: "alice@corp.example", Groups: []string{"cn=vpn users,ou=groups,dc=corp,dc=example"}}
	corp.put(adVPN, map[string][]string{"objectClass": {"group"}})
	changes, err := r.Changes(t.Context(), []*auth.Identity{alice, {Name: "alice"}})
	if err != nil || len(changes) != 1 || changes[0].Name != alice.Name {
		t.Errorf("changes %+v, %v", changes, err)
	}
	if _, err := auth.NewRealms([]auth.LDAPOptions{plain, plain}, nopLog); err == nil {
		t.Error("two directories without a realm")
	}
	only, err := auth.NewRealms([]auth.LDAPOptions{ad}, nopLog)
	if err != nil {
		t.Fatal(err)
	}
	_, err = login(only, "alice", "secret")
	wantDenied(t, err, "realm", auth.PublicRefusal)
	if !errors.Is(err, auth.ErrUnknownUser) {
		t.Error("a name of no realm is not an unknown user")
	}
}

// L24: who comes with a certificate alone is let in by the directory only.
func TestCertificateAlone(t *testing.T) {
	s := startAD(t)
	r, err := auth.NewRealms([]auth.LDAPOptions{adOptions(s, adVPN)}, nopLog)
	if err != nil {
		t.Fatal(err)
	}
	a := auth.CertificateAlone(r)
	id, err := a.Authenticate(t.Context(), &auth.Request{CommonName: "Alice"})
	if err != nil || id.Name != "alice" || len(id.Groups) == 0 {
		t.Errorf("%+v, %v", id, err)
	}
	for name, reason := range map[string]string{"bob": "in no required group", "": "no certificate", "zoe": "not in the directory", "*": "not in the directory"} {
		_, err := a.Authenticate(t.Context(), &auth.Request{CommonName: name})
		wantDenied(t, err, reason, auth.PublicRefusal)
	}
	for _, b := range s.requests(ldap.ApplicationBindRequest) {
		if b.password != "service-secret" {
			t.Errorf("bound as %q", b.dn)
		}
	}
}
