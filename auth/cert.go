package auth

import (
	"context"
	"fmt"
)

// MatchCertificate asks next only when the login name is the name in the certificate, both in canonical form
// (security S043). A login without a certificate is denied.
func MatchCertificate(next Authenticator) Authenticator { return matchCertificate{next} }

// NamedByCertificate asks next about the name in the certificate, whatever name was typed. A login without a certificate
// is denied.
func NamedByCertificate(next Authenticator) Authenticator { return namedByCertificate{next} }

type namedByCertificate struct{ next Authenticator }

func (n namedByCertificate) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	if r.CommonName == "" {
		return nil, &Denied{Reason: "no certificate that names the user", Public: publicOtherLogin}
	}
	inner := *r
	inner.Username = r.CommonName
	return n.next.Authenticate(ctx, &inner)
}

type matchCertificate struct{ next Authenticator }

func (m matchCertificate) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	login, err := credentials(r)
	if err != nil {
		return nil, err
	}
	if r.CommonName == "" {
		return nil, &Denied{Reason: "no certificate to compare the login name with", Public: publicOtherLogin}
	}
	owner, err := CanonicalName(r.CommonName)
	if err != nil {
		return nil, &Denied{Reason: fmt.Sprintf("name in the certificate: %v", err), Public: publicOtherLogin}
	}
	if login != owner {
		return nil, &Denied{
			Reason: fmt.Sprintf("login name %q with the certificate of %q", login, owner),
			Public: publicOtherLogin,
		}
	}
	return m.next.Authenticate(ctx, r)
}
