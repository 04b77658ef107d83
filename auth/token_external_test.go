package auth_test

import (
	"context"
	"errors"
	"testing"

	"postern/auth"
)

// A back end that knows of no tokens is asked for passwords only; a good token asks who vouches, any other is over.
func TestByToken(t *testing.T) {
	asked := ""
	by := func(what string) auth.Authenticator {
		return backend(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
			asked = what
			return &auth.Identity{Name: r.Username, By: what}, nil
		})
	}
	login := auth.ByToken(by("voucher"), by("password"))
	for state, want := range map[auth.TokenState]string{
		auth.TokenInitial: "password", auth.TokenAuthenticated: "voucher", auth.TokenInvalid: "", auth.TokenExpired: "",
		auth.TokenExpiredEmptyUser: "", auth.TokenAuthenticatedEmptyUser: "", auth.TokenState(99): "",
	} {
		asked = ""
		id, err := login.Authenticate(t.Context(), &auth.Request{Username: "alice", Token: &auth.TokenReport{State: state}})
		if asked != want || (err == nil) != (want != "") || want == "" && !errors.Is(err, auth.ErrTokenOver) {
			t.Errorf("%v: asked %q, want %q; %+v, %v", state, asked, want, id, err)
		}
	}
	if _, err := login.Authenticate(t.Context(), &auth.Request{Username: "alice"}); err != nil || asked != "password" {
		t.Errorf("without tokens: asked %q, %v", asked, err)
	}
}

// A voucher is asked about the user, or the certificate's where none was named, in canonical form.
func TestVouched(t *testing.T) {
	login := auth.Vouched(voucher(func(name string) (*auth.Identity, error) {
		if name != "alice" {
			return nil, &auth.Denied{Reason: "not there", Public: auth.PublicRefusal}
		}
		return &auth.Identity{Name: name, By: "ldap"}, nil
	}))
	for _, c := range []struct {
		user, cert string
		in         bool
	}{{"alice", "", true}, {"ALICE", "bob", true}, {"", "alice", true}, {"", "", false}, {"bob", "alice", false}, {"a lice", "alice", false}} {
		id, err := login.Authenticate(t.Context(), &auth.Request{Username: c.user, CommonName: c.cert})
		if (err == nil) != c.in || c.in && id.Name != "alice" {
			t.Errorf("%q with the certificate of %q: %+v, %v", c.user, c.cert, id, err)
		}
	}
}

// What has been found out about a user meanwhile is what the next login by token says; another user's is nothing.
func TestTokenSessionKnows(t *testing.T) {
	w := newTokenWorld(t, auth.TokenOptions{})
	var s auth.TokenSession
	s.Know(&auth.Identity{Name: "alice", Groups: []string{"x"}}) // before the first login: nothing
	w.in(&s, "alice", "secret", "alice")
	s.Know(&auth.Identity{Name: "bob", Groups: []string{"admins"}})
	s.Know(&auth.Identity{Name: "alice", Groups: []string{"fewer"}})
	if id, err := w.login(&s, "alice", s.Token(), "alice"); err != nil || len(id.Groups) != 1 || id.Groups[0] != "fewer" {
		t.Errorf("%+v, %v", id, err)
	}
}
