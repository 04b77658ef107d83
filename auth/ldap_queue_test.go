package auth_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"

	"postern/auth"
)

// F21: a login that waits for a connection is told so while there is time left to ask the directory, not when the login's
// own time is over.
func TestLoginQueueEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	t.Parallel()
	s := startStub(t, &stub{intercept: func(net.Conn, ber.Tag, int64) bool { return true }}) // it never answers
	o := stubOptions(s)
	o.Timeout = time.Minute
	l := newLDAP(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	held := make(chan struct{}, 32)
	for range cap(held) {
		go func() {
			l.Authenticate(ctx, &auth.Request{Username: "alice", Password: []byte("secret")})
			held <- struct{}{}
		}()
	}
	for deadline := time.Now().Add(20 * time.Second); s.connections() < cap(held); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d connections", s.connections())
		}
	}
	_, err := login(l, "alice", "secret")
	wantBroken(t, err, "wait for one of 32 directory connections")
	if len(held) > 0 {
		t.Error("it waited until the others were over")
	}
	cancel()
	for range cap(held) {
		<-held
	}
}

// F21: a server that had less time than a step may take, since the login's was over, has not failed: the next login asks it.
func TestHurriedLoginBlamesNobody(t *testing.T) {
	s := startStub(t, &stub{})
	l := newLDAP(t, stubOptions(s))
	ended := 0
	for i := range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Microsecond)
		if _, err := l.Authenticate(ctx, &auth.Request{Username: "alice", Password: []byte("secret")}); err != nil {
			ended++
			if denied := new(auth.Denied); errors.As(err, &denied) {
				t.Fatalf("a login out of time was denied: %v", err)
			}
		}
		cancel()
		if _, err := login(l, "alice", "secret"); err != nil {
			t.Fatalf("the login behind one that had %d µs: %v", i*5, err)
		}
	}
	if ended == 0 {
		t.Error("no login ran out of time")
	}
}
