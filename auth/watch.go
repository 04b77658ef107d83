package auth

import "context"

// A Watcher tells what has become of users who are connected. Any goroutine.
type Watcher interface {
	// Changes re-reads the users that the identities stand for, one each, and returns those of whom anything is
	// different now. It returns by the deadline of ctx. An error means that of those without a Change it cannot be known
	// at present: that is no reason to end anybody's session (security S062).
	Changes(ctx context.Context, connected []*Identity) ([]Change, error)
}

// A Change is what has become of one user.
type Change struct {
	Name   string
	Now    *Identity // nil: the user may not be connected any more
	Reason string    // why not, for the log
}
