package auth

import (
	"context"
	"errors"
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
