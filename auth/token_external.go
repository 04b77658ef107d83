package auth

import (
	"context"
)

// ByToken is for back ends that know of no tokens, where these let nobody in by themselves (TokenOptions.External): a
// good token asks vouched, any other is denied, and a password asks next.
func ByToken(vouched, next Authenticator) Authenticator { return byToken{vouched, next} }

type byToken struct{ vouched, next Authenticator }

func (b byToken) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	switch {
	case r.Token == nil || r.Token.State == TokenInitial:
		return b.next.Authenticate(ctx, r)
	case r.Token.State == TokenAuthenticated:
		return b.vouched.Authenticate(ctx, r)
	}
	return nil, overDenied(r.Token.State)
}

func overDenied(s TokenState) *Denied {
	return &Denied{Reason: "token: " + s.String(), Public: publicTokenOver, Err: ErrTokenOver}
}

// Vouched lets in whom v vouches for, whatever the password is.
func Vouched(v Voucher) Authenticator { return vouched{v} }

type vouched struct{ v Voucher }

func (a vouched) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	name, err := tokenName(r.Username, r)
	if err != nil {
		return nil, &Denied{Reason: err.Error(), Public: PublicRefusal}
	}
	return a.v.Vouch(ctx, name)
}
