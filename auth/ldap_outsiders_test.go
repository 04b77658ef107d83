package auth_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/auth"
	"postern/auth/slapdtest"
)

// A membership is a way to be in a required group: who is in it that way, who is not, and how the first leaves and comes
// back. Everybody's password is the name and "-secret".
type membership struct {
	options     auth.LDAPOptions
	in, out     string
	leave, back func()
}

// ways are all that make somebody a member, at real directories and at a double of Active Directory.
func ways(t *testing.T) map[string]membership {
	s := startSlapd(t, slapdtest.Options{NoMemberOf: true}) // with it, the entry's memberOf would answer for the groups
	overlay := startSlapd(t, slapdtest.Options{})
	at := func(s *slapdtest.Server, group, in, dn, attribute, value, instead string) membership {
		o := slapdOptions(s)
		o.RequireGroups = []string{group}
		change := func(value string) func() {
			return func() {
				t.Helper()
				if err := s.Modify(fmt.Sprintf("dn: %s\nchangetype: modify\nreplace: %s\n%s: %s\n", dn, attribute, attribute, value)); err != nil {
					t.Fatal(err)
				}
			}
		}
		return membership{o, in, "carol", change(instead), change(value)}
	}
	person := func(name string) string { return "uid=" + name + "," + slapdtest.UserBase }

	primary, chain := startAD(t), startAD(t)
	primary.put("CN=carol,"+adUsers, adUser("carol", map[string][]string{"primaryGroupID": {"514"}}))
	chain.put("CN=carol,"+adUsers, adUser("carol", nil))
	usn := 1000
	group := func(member string) func() {
		return func() {
			usn++
			chain.put(adStaff, map[string][]string{"objectClass": {"group"}, "member": {member}, "whenChanged": {"20990101000000.0Z"}, "uSNChanged": {fmt.Sprint(usn)}})
		}
	}
	of := func(id string) func() {
		return func() {
			primary.put("CN=alice,"+adUsers, adUser("alice", map[string][]string{"primaryGroupID": {id}}))
		}
	}
	return map[string]membership{
		"direct":                       at(s, slapdtest.UsersGroup, "alice", slapdtest.UsersGroup, "member", person("alice"), person("erin")),
		"direct, memberOf":             at(overlay, slapdtest.UsersGroup, "alice", slapdtest.UsersGroup, "member", person("alice"), person("erin")),
		"uniqueMember":                 at(s, slapdtest.AdminsGroup, "bob", slapdtest.AdminsGroup, "uniqueMember", person("bob"), person("erin")),
		"nested, in a circle":          at(s, slapdtest.Division, "heidi", slapdtest.Department, "member", slapdtest.Team, person("erin")),
		"nested, in a circle, overlay": at(overlay, slapdtest.Division, "heidi", slapdtest.Department, "member", slapdtest.Team, person("erin")),
		"memberUid":                    at(s, slapdtest.UnixGroup, "ivan", slapdtest.UnixGroup, "memberUid", "ivan", "erin"),
		"Active Directory's primary group": {
			adOptions(primary, adAll), "alice", "carol", of("514"), of("513"),
		},
		"Active Directory's matching rule": {
			adOptions(chain, adVPN), "alice", "carol", group("CN=Nobody," + adUsers), group(adSales),
		},
	}
}

// L11 to L13, L24: whatever makes somebody a member, members come in by every path and others by none: with a password,
// with a password and a code, with a token got before, with a certificate alone; nor as one who is connected.
func TestOutsidersRefused(t *testing.T) {
	for name, w := range ways(t) {
		t.Run(name, func(t *testing.T) {
			r, err := auth.NewRealms([]auth.LDAPOptions{w.options}, nopLog)
			if err != nil {
				t.Fatal(err)
			}
			outside := func(t *testing.T, err error) {
				t.Helper()
				wantDenied(t, err, "in no required group", auth.PublicRefusal)
			}
			t.Run("password", func(t *testing.T) {
				if _, err := login(r, w.in, w.in+"-secret"); err != nil {
					t.Errorf("%s: %v", w.in, err)
				}
				_, err := login(r, w.out, w.out+"-secret")
				outside(t, err)
			})
			t.Run("password and code", func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "totp")
				codes := make(map[string]auth.TOTPSecret)
				for _, name := range []string{w.in, w.out} {
					if codes[name], err = auth.AddTOTP(file, name); err != nil {
						t.Fatal(err)
					}
				}
				used, err := os.Create(filepath.Join(t.TempDir(), "used"))
				if err != nil {
					t.Fatal(err)
				}
				defer used.Close()
				factor, err := auth.NewTOTP(auth.TOTPOptions{File: file, Used: used}, nopLog)
				if err != nil {
					t.Fatal(err)
				}
				a := factor.Require(r)
				if _, err := login(a, w.in, w.in+"-secret"+codes[w.in].Code(time.Now())); err != nil {
					t.Errorf("%s: %v", w.in, err)
				}
				_, err = login(a, w.out, w.out+"-secret"+codes[w.out].Code(time.Now()))
				outside(t, err)
			})
			t.Run("certificate alone", func(t *testing.T) {
				a := auth.CertificateAlone(r)
				if id, err := a.Authenticate(t.Context(), &auth.Request{CommonName: w.in}); err != nil || id.Name != w.in {
					t.Errorf("%s: %+v, %v", w.in, id, err)
				}
				_, err := a.Authenticate(t.Context(), &auth.Request{CommonName: w.out})
				outside(t, err)
			})
			t.Run("token", func(t *testing.T) {
				for _, external := range []bool{false, true} {
					tokens, err := auth.NewTokens(auth.TokenOptions{Secret: auth.NewTokenSecret(), Renewal: time.Hour, Voucher: r, External: external}, nopLog)
					if err != nil {
						t.Fatal(err)
					}
					ask := func(session *auth.TokenSession, password string) error {
						_, err := tokens.Login(t.Context(), session, auth.ByToken(auth.Vouched(r), r), &auth.Request{Username: w.in, Password: []byte(password), CertKey: []byte("key")})
						return err
					}
					session := new(auth.TokenSession)
					if err := ask(session, w.in+"-secret"); err != nil {
						t.Fatal(err)
					}
					token := session.Token()
					if err := ask(new(auth.TokenSession), token); err != nil {
						t.Errorf("as long as %s is in the group: %v", w.in, err)
					}
					w.leave()
					outside(t, ask(new(auth.TokenSession), token))
					w.back()
				}
			})
			t.Run("connected", func(t *testing.T) {
				id, err := login(r, w.in, w.in+"-secret")
				if err != nil {
					t.Fatal(err)
				}
				look := func() []auth.Change {
					t.Helper()
					changes, err := r.Changes(t.Context(), []*auth.Identity{id})
					if err != nil {
						t.Fatal(err)
					}
					return slices.DeleteFunc(changes, func(c auth.Change) bool { return c.Now != nil })
				}
				if got := look(); len(got) != 0 {
					t.Errorf("as long as %s is in the group: %+v", w.in, got)
				}
				w.leave()
				if got := look(); len(got) != 1 || got[0].Name != w.in {
					t.Errorf("left: %+v", got)
				}
				w.back()
			})
		})
	}
}

// Where a directory is Active Directory, its own rule finds members of members: nobody's groups are walked through.
func TestMatchingRuleAsked(t *testing.T) {
	s := startAD(t)
	if _, err := login(newLDAP(t, adOptions(s, adVPN)), "alice", "secret"); err != nil {
		t.Fatal(err)
	}
	byRule := func(f *ber.Packet) bool {
		return f.Tag == ldap.FilterOr && slices.ContainsFunc(f.Children, func(c *ber.Packet) bool { return c.Tag == ldap.FilterExtensibleMatch })
	}
	asked := slices.DeleteFunc(s.requests(ldap.ApplicationSearchRequest), func(r stubRequest) bool { return !sameDN(r.dn, adVPN) })
	if len(asked) != 1 || !byRule(asked[0].filter) {
		t.Errorf("the group was asked %d times, want once, by the rule", len(asked))
	}
}

// A certificate alone of somebody in the group, whose account is not in order, lets nobody in (L16).
func TestSlapdCertificateOfLocked(t *testing.T) {
	r, err := auth.NewRealms([]auth.LDAPOptions{slapdOptions(startSlapd(t, slapdtest.Options{}))}, nopLog)
	if err != nil {
		t.Fatal(err)
	}
	_, err = auth.CertificateAlone(r).Authenticate(t.Context(), &auth.Request{CommonName: "frank"})
	wantDenied(t, err, "account locked", auth.PublicRefusal)
}
