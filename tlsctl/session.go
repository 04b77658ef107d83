package tlsctl

import (
	"context"
	"errors"
)

// Why a session ended, where the server may care. Besides these Run returns a *Denial for a refused client, the cause
// of its context, the reason given to End, or what went wrong.
var (
	// ErrExit: the client said that it leaves.
	ErrExit = errors.New("client left")
	// ErrHandshakeTimeout: the client was not authorised in time, or its last key is over and no new one was agreed on.
	ErrHandshakeTimeout = errors.New("handshake timed out")
	// ErrShutdown: Shutdown was called.
	ErrShutdown = errors.New("server shuts down")
	// ErrLimit: the client sent more than any honest one does.
	ErrLimit = errors.New("control channel limit exceeded")
)

// A Session is one client's control channel, from its proved address to its goodbye.
type Session struct{ o *Opening }

// New prepares a session and starts nothing.
func New(cfg *Config, owner Owner, o *Opening) *Session { return &Session{o: o} }

// Run runs the session until it ends and says why.
func (s *Session) Run(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }

// Deliver hands the session one control packet from the client. It copies pkt, never blocks and may be called from
// any goroutine. When the session is behind, pkt is dropped: the client will send it again.
func (s *Session) Deliver(pkt []byte) {}

// Renegotiate begins a renegotiation, unless one is under way.
func (s *Session) Renegotiate() {}

// Tell sends a message to an established client.
func (s *Session) Tell(m Message) {}

// Shutdown sends a last message (none if empty), waits up to Timing.Farewell for its acknowledgement and ends the
// session with ErrShutdown.
func (s *Session) Shutdown(m Message) {}

// End ends the session at once; Run returns reason.
func (s *Session) End(reason error) {}

// Deny ends the session with AUTH_FAILED; Run returns d once the client can have heard it.
func (s *Session) Deny(d *Denial) {}

// Name is a short id for log lines.
func (s *Session) Name() string { return "" }

// Client is the client's session id.
func (s *Session) Client() SessionID { return s.o.Client }

// Panics is how many panics sessions have survived since the program started.
func Panics() uint64 { return 0 }
