package auth_test

import (
	"context"
	"errors"
	"testing"

	"postern/auth"
)

// Passwords with an answer in them come apart; no back end ever sees one whole (security S051).
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		in              string
		password, state string
		response        string
		answered        bool
		denied          bool
	}{
		{in: "secret", password: "secret"},
		{in: "SCRV1", password: "SCRV1"},
		{in: "CRV1", password: "CRV1"},
		{in: "SCRV1:YmFy:MTIz", password: "bar", response: "123", answered: true},
		{in: "SCRV1:YmFy:", password: "bar", answered: true},
		{in: "SCRV1::MTIz", password: "", response: "123", answered: true},
		{in: "CRV1::state::123", state: "state", response: "123", answered: true},
		{in: "SCRV1:", denied: true},
		{in: "SCRV1:YmFy", denied: true},
		{in: "SCRV1:YmFy:MTIz:", denied: true},
		{in: "CRV1:R,E:s:Y3Ix:t", denied: true},
		{in: "CRV1::state", denied: true},
	} {
		var saw *auth.Request
		a := auth.Answers(backend(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			copied := *r
			copied.Password = append([]byte(nil), r.Password...)
			copied.Response = append([]byte(nil), r.Response...)
			if (r.Response != nil) != c.answered {
				t.Errorf("%q: response %q", c.in, r.Response)
			}
			saw = &copied
			return yes(ctx, r)
		}))
		_, err := login(a, "alice", c.in)
		if c.denied {
			wantDenied(t, err, "challenge", auth.PublicRefusal)
			if saw != nil {
				t.Errorf("%q reached the back end", c.in)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if string(saw.Password) != c.password || saw.State != c.state || string(saw.Response) != c.response || saw.Username != "alice" {
			t.Errorf("%q: the back end saw password %q, state %q, response %q", c.in, saw.Password, saw.State, saw.Response)
		}
	}
}

// S047: the parts are wiped when the answer is there.
func TestAnswersWiped(t *testing.T) {
	var password, response []byte
	a := auth.Answers(backend(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
		password, response = r.Password, r.Response
		return yes(ctx, r)
	}))
	if _, err := login(a, "alice", "SCRV1:YmFy:MTIz"); err != nil {
		t.Fatal(err)
	}
	if string(password) != "\x00\x00\x00" || string(response) != "\x00\x00\x00" {
		t.Errorf("left %q and %q", password, response)
	}
}

// S051: a password that is empty once it is taken out of an answer reaches no directory that would take it for an
// anonymous bind; and nor does an answer that nobody has asked for.
func TestAnswersEmptyPassword(t *testing.T) {
	asked := false
	directory := backend(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
		asked = true
		return yes(ctx, r)
	})
	path := writeUsers(t, "alice:"+bcryptOf(t, "secret"))
	a := auth.Answers(auth.FileFirst(newFile(t, path), directory))
	for _, password := range []string{"SCRV1::", "SCRV1::MTIz", "CRV1::state::", "CRV1::state::123", "CRV1::state::secret"} {
		for _, user := range []string{"alice", "bob"} {
			_, err := login(a, user, password)
			var denied *auth.Denied
			if !errors.As(err, &denied) {
				t.Errorf("%s with %q: %v", user, password, err)
			}
		}
	}
	if asked {
		t.Error("the directory was asked")
	}
}
