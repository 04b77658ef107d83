package auth

import (
	"context"
	"errors"
	"net/netip"
)

// A Request is one login to be judged.
type Request struct {
	Username   string // as the client sent it, control bytes replaced; "" when none was sent
	Password   []byte // overwritten by the caller when Authenticate has returned
	CommonName string // of the verified certificate; "" without one
	CertKey    []byte // SHA-256 of that certificate's public key (RawSubjectPublicKeyInfo); nil without one
	Source     netip.AddrPort

	Can      Methods // how the user can be asked for more; none means that a Challenge would be in vain
	State    string  // of the Challenge that Response answers; "" at first
	Response []byte  // what the user answered, nil for nothing; overwritten by the caller like Password

	Token *TokenReport // what Tokens know of the login; nil without tokens

	// Script asks the administrator's own script about this login; nil where there is none. It knows more of the client
	// than is in here. Its errors are an Authenticator's.
	Script func(ctx context.Context, r *Request) error
}

// An Identity is who a login turned out to be.
type Identity struct {
	Name   string   // canonical user name
	Groups []string // of all groups, with those that they are in: DNs in the form of NormalDN, sorted
	By     string   // the back end that said yes: "ldap", "file"

	// What the directory has an attribute for.
	Addr4, Addr6 netip.Addr     // fixed addresses; zero without
	Pool         string         // "" without
	Routes       []netip.Prefix // for this user
}

// An Authenticator judges logins. Any goroutine. It returns by the deadline of ctx.
//
// The error is a *Denied when the answer is a definite no, a *Challenge when the user is to be asked for more, and
// anything else when the back end could not be asked (the client is then told to try again later).
type Authenticator interface {
	Authenticate(ctx context.Context, r *Request) (*Identity, error)
}

// ErrUnknownUser is inside the *Denied of a back end that does not hold the name at all.
var ErrUnknownUser = errors.New("unknown user")

// Denied is a definite no. Reason is for the server's log and may say everything but the password; Public is what
// the client may read, and is the same for every reason that would tell a guesser something.
type Denied struct {
	Reason string
	Public string
	Err    error // ErrUnknownUser, nil, or what this package tells its own refusals apart by
}

func (d *Denied) Error() string { return d.Reason }
func (d *Denied) Unwrap() error { return d.Err }

// PublicRefusal is the Public text for unknown user, wrong password, locked, disabled and not in a group alike
// (security S045).
const PublicRefusal = "wrong user name or password, or not allowed to connect"
