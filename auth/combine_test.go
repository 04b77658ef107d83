package auth_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postern/auth"
)

// backend is a scripted back end.
type backend func(ctx context.Context, r *auth.Request) (*auth.Identity, error)

func (b backend) Authenticate(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
	return b(ctx, r)
}

func yes(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
	return &auth.Identity{Name: r.Username, Groups: []string{"g"}, By: "yes"}, nil
}

func no(context.Context, *auth.Request) (*auth.Identity, error) {
	return nil, &auth.Denied{Reason: "no", Public: auth.PublicRefusal}
}

// S040: of three back ends and everything each may do, only yes, yes, yes is a yes.
func TestAllMustSayYes(t *testing.T) {
	answers := map[string]backend{
		"yes":     yes,
		"no":      no,
		"error":   func(context.Context, *auth.Request) (*auth.Identity, error) { return nil, errors.New("broken") },
		"nothing": func(context.Context, *auth.Request) (*auth.Identity, error) { return nil, nil },
		"nobody":  func(context.Context, *auth.Request) (*auth.Identity, error) { return &auth.Identity{}, nil },
		"someone else": func(context.Context, *auth.Request) (*auth.Identity, error) {
			return &auth.Identity{Name: "mallory", By: "else"}, nil
		},
		"yes and error": func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
			return &auth.Identity{Name: r.Username}, errors.New("broken")
		},
		"panic": func(context.Context, *auth.Request) (*auth.Identity, error) { panic("broken") },
		"timeout": func(ctx context.Context, _ *auth.Request) (*auth.Identity, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"late": func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			<-ctx.Done()
			return &auth.Identity{Name: r.Username, By: "late"}, nil
		},
	}
	synctest.Test(t, func(t *testing.T) {
		for a := range answers {
			for b := range answers {
				for c := range answers {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					id, err := auth.All(answers[a], answers[b], answers[c]).Authenticate(ctx, &auth.Request{Username: "alice", Password: []byte("x")})
					cancel()
					same := a == "someone else" && b == a && c == a // agreeing, all of them
					if want := a == "yes" && b == a && c == a || same; (err == nil) != want || (id != nil) != want {
						t.Errorf("%s, %s, %s: %+v, %v", a, b, c, id, err)
					}
				}
			}
		}
	})
	id, err := auth.All(backend(yes), backend(yes)).Authenticate(t.Context(), &auth.Request{Username: "alice", Password: []byte("x")})
	if err != nil || id.By != "yes+yes" || !slices.Equal(id.Groups, []string{"g"}) {
		t.Errorf("two say yes: %+v, %v", id, err)
	}
	at := backend(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
		return &auth.Identity{Name: r.Username, By: "at", Addr4: netip.MustParseAddr("10.8.0.9")}, nil
	})
	if id, err := login(auth.All(at, backend(yes)), "alice", "x"); err != nil || id.Addr4 != netip.MustParseAddr("10.8.0.9") {
		t.Errorf("what the first says of the user is lost: %+v, %v", id, err)
	}
	_, err = login(auth.All(backend(yes), backend(no)), "alice", "x")
	wantDenied(t, err, "no", auth.PublicRefusal)
	_, err = login(auth.All(), "alice", "x")
	wantBroken(t, err, "no back end")
}

// The file is asked for its own names only, and its no is final.
func TestFileFirst(t *testing.T) {
	path := writeUsers(t, "alice:"+bcryptOf(t, "alice-secret"))
	var asked []string
	next := backend(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
		asked = append(asked, r.Username)
		return yes(ctx, r)
	})
	a := auth.FileFirst(newFile(t, path), next)
	if id, err := login(a, "Alice", "alice-secret"); err != nil || id.By != "file" {
		t.Errorf("alice: %+v, %v", id, err)
	}
	_, err := login(a, "alice", "wrong")
	wantDenied(t, err, "wrong password", auth.PublicRefusal)
	_, err = login(a, "bob", "")
	wantDenied(t, err, "empty password", "empty password")
	_, err = login(a, "a lice", "x")
	wantDenied(t, err, "canonical", auth.PublicRefusal)
	if len(asked) != 0 {
		t.Errorf("the next was asked for %v", asked)
	}
	if id, err := login(a, "bob", "x"); err != nil || id.By != "yes" {
		t.Errorf("bob: %+v, %v", id, err)
	}
}

// S043: the certificate of one with the login of another.
func TestMatchCertificate(t *testing.T) {
	for _, c := range []struct {
		login, cert string
		in          bool
	}{
		{"alice", "alice", true},
		{"alice", "Alice", true},
		{"ALICE", "alice", true},
		{"alice", "bob", false},
		{"alice", "alice2", false},
		{"alice2", "alice", false},
		{"alice", "al ice", false},
		{"alice", "alice\x00", false},
	} {
		asked := false
		a := auth.MatchCertificate(backend(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			asked = true
			return yes(ctx, r)
		}))
		_, err := a.Authenticate(t.Context(), &auth.Request{Username: c.login, Password: []byte("x"), CommonName: c.cert})
		if asked != c.in {
			t.Errorf("login %q with certificate %q: back end asked: %v", c.login, c.cert, asked)
		}
		if c.in && err != nil {
			t.Errorf("login %q with certificate %q: %v", c.login, c.cert, err)
		}
		if !c.in {
			wantDenied(t, err, "", "login name does not match the certificate")
		}
	}
	_, err := login(auth.MatchCertificate(backend(yes)), "alice", "x")
	wantDenied(t, err, "no certificate", "login name does not match the certificate")
	// No login name is no name that could match.
	_, err = auth.MatchCertificate(backend(yes)).Authenticate(t.Context(), &auth.Request{Password: []byte("x")})
	wantDenied(t, err, "no user name", auth.PublicRefusal)
}
