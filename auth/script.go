package auth

import (
	"context"
	"errors"
	"fmt"
)

// Scripted says yes when the request's Script does, about the name that was sent.
func Scripted() Authenticator { return scripted{} }

type scripted struct{}

func (scripted) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	name, err := credentials(r)
	if err != nil {
		return nil, err
	}
	if r.Script == nil {
		return nil, errors.New("there is no script to ask")
	}
	if err := r.Script(ctx, r); err != nil {
		return nil, err
	}
	return &Identity{Name: name, By: "script"}, nil
}

// ScriptedCertificate is Scripted for clients that send neither name nor password: it says yes about the name in the
// certificate.
func ScriptedCertificate() Authenticator { return scriptedCertificate{} }

type scriptedCertificate struct{}

func (scriptedCertificate) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	name, err := CanonicalName(r.CommonName)
	switch {
	case err != nil:
		return nil, &Denied{Reason: fmt.Sprintf("name in the certificate: %v", err), Public: PublicRefusal}
	case r.Username != "" || len(r.Password) > 0:
		return nil, &Denied{Reason: "a login where none is wanted", Public: PublicRefusal}
	case r.Script == nil:
		return nil, errors.New("there is no script to ask")
	}
	if err := r.Script(ctx, r); err != nil {
		return nil, err
	}
	return &Identity{Name: name, By: "script"}, nil
}

// Nameless asks without about clients that send neither name nor password, and next about all others.
func Nameless(without, next Authenticator) Authenticator { return nameless{without, next} }

type nameless struct{ without, next Authenticator }

func (n nameless) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	if r.Username == "" && len(r.Password) == 0 && r.State == "" {
		return n.without.Authenticate(ctx, r)
	}
	return n.next.Authenticate(ctx, r)
}
