package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// FileFirst asks the user file for the names it holds, and next for every other.
func FileFirst(file *File, next Authenticator) Authenticator { return fileFirst{file, next} }

type fileFirst struct {
	file *File
	next Authenticator
}

func (f fileFirst) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	name, err := credentials(r)
	if err != nil {
		return nil, err
	}
	if f.file.Holds(name) {
		return f.file.Authenticate(ctx, r)
	}
	return f.next.Authenticate(ctx, r)
}

// All says yes when every one of the back ends does, and about the same user (security S040). They are asked in
// order until one does not. Whatever is not a clear yes in time is a no: an error, a panic, an empty identity, an
// answer after the deadline. No back end at all is an error too.
func All(backends ...Authenticator) Authenticator { return all(slices.Clone(backends)) }

type all []Authenticator

func (a all) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	if len(a) == 0 {
		return nil, errors.New("no back end to ask")
	}
	var who *Identity
	for i, backend := range a {
		id, err := ask(ctx, backend, r)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first := *id
			who, first.Groups = &first, slices.Clone(id.Groups)
			continue
		}
		if id.Name != who.Name {
			return nil, fmt.Errorf("back ends disagree: %s says %q, %s says %q", who.By, who.Name, id.By, id.Name)
		}
		who.Groups = append(who.Groups, id.Groups...)
		slices.Sort(who.Groups)
		who.Groups = slices.Compact(who.Groups)
		who.By = strings.Join([]string{who.By, id.By}, "+")
	}
	return who, nil
}

// ask turns everything but a yes in time into an error.
func ask(ctx context.Context, backend Authenticator, r *Request) (id *Identity, err error) {
	defer func() {
		if p := recover(); p != nil {
			id, err = nil, fmt.Errorf("back end panicked: %v", p)
		}
	}()
	id, err = backend.Authenticate(ctx, r)
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, fmt.Errorf("back end answered late: %w", ctx.Err())
	case id == nil || id.Name == "":
		return nil, errors.New("back end named no user")
	}
	return id, nil
}
