package auth

import (
	"bytes"
	"context"
	"errors"
	"time"
)

// Methods is a set of ways to ask a user for more than a password.
type Methods uint8

const (
	ByReturn  Methods = 1 << iota // dynamic challenge, CRV1: the client comes again with the answer
	ByText                        // CR_TEXT: the question and the answer travel within the session
	ByWebPage                     // WEB_AUTH, OPEN_URL: the user is sent to Challenge.URL
	ByWaiting                     // the user is asked elsewhere, by something of which the client need not know
)

// A Challenge is the error of an Authenticator that needs something of the user. One with a text tells nothing about
// whether what was shown so far is right; any other may, as it prolongs the login.
type Challenge struct {
	State    string        // Request.State of the answer: unguessable, without ':', good once
	Username string        // Request.Username of the answer
	Text     string        // for the user to read; "" without URL means that the client is only to wait
	Echo     bool          // the answer may be seen while it is typed
	URL      string        // where the user is to go, for ByWebPage
	Flags    []string      // how the page of a WEB_AUTH is to be shown: "hidden", "external", ...
	Within   time.Duration // how long State is good
}

func (c *Challenge) Error() string { return "the user is to be asked: " + c.Text }

// Answers takes passwords apart that carry the answer to a challenge, so that nobody further in takes one for
// a password: of SCRV1 next sees the password and Request.Response, of CRV1 Request.State and Request.Response. What
// begins like one of them and is none is denied.
//
// A Response that nobody further in looks at is nobody's loss: a client may well ask for a code that this server does
// not want.
func Answers(next Authenticator) Authenticator { return answers{next} }

type answers struct{ next Authenticator }

func (a answers) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	if r.State != "" {
		return a.next.Authenticate(ctx, r)
	}
	inner := *r
	var err error
	switch {
	case bytes.HasPrefix(r.Password, staticPrefix):
		inner.Password, inner.Response, err = ParseStatic(r.Password)
	case bytes.HasPrefix(r.Password, dynamicPrefix):
		inner.Password = nil
		inner.State, inner.Response, err = ParseReply(r.Password)
	default:
		return a.next.Authenticate(ctx, r)
	}
	defer clear(inner.Password)
	defer clear(inner.Response)
	if err != nil {
		return nil, &Denied{Reason: err.Error(), Public: PublicRefusal}
	}
	return a.next.Authenticate(ctx, &inner)
}

// errNoGuess is inside the *Denied for answers that were right and come too late or twice: whoever gives them knows
// the secret, so they count for no Throttle.
var errNoGuess = errors.New("right, but not any more")
