package auth_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/rs/zerolog"

	"postern/auth"
)

// S049: the directory says who may still come in, by entry, group and what marks an entry as disabled, and sees no
// password.
func TestLDAPVouch(t *testing.T) {
	group := "cn=vpn,ou=groups,dc=example,dc=net"
	entry := func(attributes ...string) []stubEntry {
		m := map[string][]string{"uid": {"alice"}, "memberOf": {group}}
		for i := 0; i < len(attributes); i += 2 {
			m[attributes[i]] = []string{attributes[i+1]}
		}
		return []stubEntry{{dn: aliceDN, attributes: m}}
	}
	for _, c := range []struct {
		name    string
		entries []stubEntry
		denied  string
	}{
		{"as before", entry(), ""},
		{"gone", []stubEntry{}, "not in the directory"},
		{"two", append(entry(), stubEntry{dn: "uid=alice,ou=x," + aliceDN, attributes: nil}), "more than one"},
		{"out of the group", entry("memberOf", "cn=other,dc=example,dc=net"), "group"},
		{"normal account", entry("userAccountControl", "512"), ""},
		{"disabled", entry("userAccountControl", "514"), "account disabled"},
		{"locked", entry("useraccountcontrol", "528"), "account locked"},
		{"no number", entry("userAccountControl", "x"), ""},
		{"inactivated", entry("nsAccountLock", "TRUE"), "account inactivated"},
		{"active", entry("nsAccountLock", "false"), ""},
		{"locked for good", entry("pwdAccountLockedTime", "000001010000Z"), "account locked"},
		{"was locked", entry("pwdAccountLockedTime", "20200101000000Z"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startStub(t, &stub{entries: c.entries, bind: func(dn, _ string) *ber.Packet {
				if dn != serviceDN {
					t.Errorf("bind as %q", dn)
				}
				return nil
			}})
			o := stubOptions(s)
			o.RequireGroups = []string{group}
			id, err := newLDAP(t, o).Vouch(t.Context(), "Alice")
			if c.denied != "" {
				wantDenied(t, err, c.denied, auth.PublicRefusal)
				return
			}
			if err != nil || id.Name != "alice" || id.By != "ldap" || !slices.Equal(id.Groups, []string{group}) {
				t.Errorf("%+v, %v", id, err)
			}
		})
	}
	o := auth.LDAPOptions{URLs: []string{"ldap://127.0.0.1:1"}, UserBase: "dc=example,dc=net", Timeout: time.Second}
	_, err := newLDAP(t, o).Vouch(t.Context(), "alice")
	wantBroken(t, err, "connect")
	_, err = newLDAP(t, o).Vouch(t.Context(), "al ice")
	wantDenied(t, err, "canonical", auth.PublicRefusal)
}

// The file vouches for its own, and its no is final; another password is another epoch.
func TestFileVouch(t *testing.T) {
	path := writeUsers(t, "alice:"+bcryptOf(t, "first")+"\nbob:"+bcryptOf(t, "first")+"\n")
	f := newFile(t, path)
	v := auth.VouchFirst(f, voucher(func(name string) (*auth.Identity, error) {
		return &auth.Identity{Name: name, By: "next"}, nil
	}))
	for user, by := range map[string]string{"alice": "file", "bob": "file", "carol": "next"} {
		if id, err := v.Vouch(t.Context(), user); err != nil || id.Name != user || id.By != by {
			t.Errorf("%s: %+v, %v", user, id, err)
		}
	}
	_, err := f.Vouch(t.Context(), "carol")
	wantDenied(t, err, "not in the user file", auth.PublicRefusal)
	if !errors.Is(err, auth.ErrUnknownUser) {
		t.Error("the user is not unknown")
	}

	tokens, err := auth.NewTokens(auth.TokenOptions{Secret: auth.NewTokenSecret(), Renewal: time.Hour, Epoch: f.Epoch}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	login := func(s *auth.TokenSession, user, password string) error {
		_, err := tokens.Login(context.Background(), s, f, &auth.Request{Username: user, Password: []byte(password)})
		return err
	}
	var alice, bob auth.TokenSession
	if err := errors.Join(login(&alice, "alice", "first"), login(&bob, "bob", "first"), login(&alice, "alice", alice.Token())); err != nil {
		t.Fatal(err)
	}
	if err := auth.SetPassword(path, "alice", []byte("second")); err != nil {
		t.Fatal(err)
	}
	wantDenied(t, login(&alice, "alice", alice.Token()), "token: Invalid", tokenOver)
	if err := login(&bob, "bob", bob.Token()); err != nil {
		t.Errorf("bob: %v", err)
	}
	if err := auth.DeleteUser(path, "bob"); err != nil {
		t.Fatal(err)
	}
	wantDenied(t, login(&bob, "bob", bob.Token()), "token: Invalid", tokenOver)
	if f.Epoch("carol") != "" || strings.Contains(f.Epoch("alice"), "second") {
		t.Error("epochs")
	}
}

// Who was let in by the file and is not in it any more is told; of others it knows nothing.
func TestFileTellsOfThoseWhoAreGone(t *testing.T) {
	path := writeUsers(t, "alice:"+bcryptOf(t, "a")+"\nbob:"+bcryptOf(t, "b"))
	f := newFile(t, path)
	connected := []*auth.Identity{
		{Name: "alice", By: "file"}, {Name: "bob", By: "token+file"}, {Name: "carol", By: "file+totp"}, {Name: "dora", By: "ldap"},
	}
	gone := func() (names []string) {
		changes, err := f.Changes(t.Context(), connected)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.Now != nil || c.Reason == "" {
				t.Errorf("%+v", c)
			}
			names = append(names, c.Name)
		}
		return names
	}
	if got := gone(); !slices.Equal(got, []string{"carol"}) {
		t.Errorf("gone: %q", got)
	}
	if err := auth.DeleteUser(path, "bob"); err != nil {
		t.Fatal(err)
	}
	if got := gone(); !slices.Equal(got, []string{"bob", "carol"}) {
		t.Errorf("gone: %q", got)
	}
}
