package auth

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"
)

// The steps of a login, in their order, as they are called in errors and by `postern ldap test`.
const (
	stepResolve  = "resolve"
	stepConnect  = "connect"
	stepStartTLS = "StartTLS"
	stepTLS      = "TLS"
	stepService  = "bind as the service account"
	stepSearch   = "search for the user"
	stepEntry    = "entry"
	stepGroups   = "groups"
	stepState    = "account state"
	stepBind     = "bind as the user"
	stepWhoAmI   = "ask who was bound"
	stepServer   = "server" // one that failed; the next is asked
)

// A stepError is what went wrong, and where.
type stepError struct {
	step string
	err  error
}

func inStep(step string, err error) error { return &stepError{step, err} }

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// An LDAPStep is one thing that a traced login has done, and it went well.
type LDAPStep struct {
	Server string // URL
	Step   string
	Detail string
}

type traceKey struct{}

// withTrace has the steps that are done under the context told to tell.
func withTrace(ctx context.Context, tell func(step, detail string)) context.Context {
	return context.WithValue(ctx, traceKey{}, tell)
}

func tracing(ctx context.Context) bool { return ctx.Value(traceKey{}) != nil }

func trace(ctx context.Context, step, format string, args ...any) {
	if tell, ok := ctx.Value(traceKey{}).(func(step, detail string)); ok {
		tell(step, fmt.Sprintf(format, args...))
	}
}

// traceTLS tells of the certificates that a server has shown.
func traceTLS(ctx context.Context, name string, state tls.ConnectionState) {
	trace(ctx, stepTLS, "%s, %s; the certificate is good for %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite), name)
	chain := state.PeerCertificates
	if len(state.VerifiedChains) > 0 {
		chain = state.VerifiedChains[0]
	}
	for i, cert := range chain {
		trace(ctx, stepTLS, "%d: %s, until %s", i, cert.Subject, cert.NotAfter.Format(time.DateOnly))
	}
}
