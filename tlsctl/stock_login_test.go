package tlsctl_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// logins returns the user names and passwords of all logins of all sessions so far, in order.
func (s *setup) logins() (all []string) {
	for _, l := range s.server.Opened() {
		hellos, passwords := l.Owner.Hellos()
		for i, h := range hellos {
			all = append(all, h.Username+" "+passwords[i])
		}
	}
	return all
}

// awaitLogin waits until somebody has logged in with a password.
func (s *setup) awaitLogin(ctx context.Context, login string) {
	s.t.Helper()
	for !slices.Contains(s.logins(), login) {
		select {
		case <-ctx.Done():
			s.t.Fatalf("logins %q, want %q", s.logins(), login)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A stock client goes on with the token it was pushed, at renegotiations and when it connects again; with the newest
// one; under the name that came with it; and drops it when it is told that the token is over.
func TestStockClientToken(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the openvpn client")
	}
	t.Parallel()
	s := newSetup(t)
	s.cfg.Timing.Renegotiate, s.cfg.Timing.RefusalDelay = time.Second, -1
	s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
		g := ctltest.DefaultGrant
		password := string(h.Password)
		switch {
		case password == "SESS_ID_AT_last":
			return nil, &tlsctl.Denial{Session: true, Public: "token expired"}
		case password == "SESS_ID_AT_renewed":
			g.Token = "SESS_ID_AT_last"
		case h.First:
			g.Token, g.TokenUser = "SESS_ID_AT_first", "alice@example.com"
		case password == "SESS_ID_AT_first":
			g.Token = "SESS_ID_AT_second"
		}
		return &g, nil
	})
	remote := s.serve()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	client := startOpenVPN(t, ctx, s, remote, "auth-retry nointeract\nconnect-retry 1 1", nil)
	client.await("Initialization Sequence Completed")
	s.awaitLogin(ctx, "alice secret")
	s.awaitLogin(ctx, "alice@example.com SESS_ID_AT_first")
	s.awaitLogin(ctx, "alice@example.com SESS_ID_AT_second")
	if err := s.live().RenewToken("SESS_ID_AT_renewed"); err != nil {
		t.Fatal(err)
	}
	s.awaitLogin(ctx, "alice@example.com SESS_ID_AT_renewed")
	time.Sleep(500 * time.Millisecond) // SESS_ID_AT_last is on its way
	client.cmd.Process.Signal(syscall.SIGUSR1)
	s.awaitLogin(ctx, "alice@example.com SESS_ID_AT_last")
	client.await("AUTH_FAILED,SESSION: token expired")
	client.await("Initialization Sequence Completed")
	logins := s.logins()
	if i := slices.Index(logins, "alice@example.com SESS_ID_AT_last"); !slices.Contains(logins[i:], "alice secret") {
		t.Errorf("after the last token: %q", logins[i:])
	}
}

// management is a client's management interface.
type management struct {
	t    *testing.T
	conn net.Conn
	scan *bufio.Scanner
}

// startManaged runs a client that does what the management says.
func startManaged(t *testing.T, ctx context.Context, s *setup, options string) (*stockClient, *management) {
	t.Helper()
	// Sockets have short names only.
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "m")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client := startOpenVPN(t, ctx, s, s.serve(), "management "+path+" unix\nmanagement-client\n"+options, nil)
	listener.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second))
	conn, err := listener.Accept()
	if err != nil {
		t.Fatalf("the client does not come to its management: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	return client, &management{t, conn, bufio.NewScanner(conn)}
}

// await reads up to a line with a prefix and returns the rest of it.
func (m *management) await(prefix string) string {
	m.t.Helper()
	for m.scan.Scan() {
		m.t.Log("management:", m.scan.Text())
		if rest, ok := strings.CutPrefix(m.scan.Text(), prefix); ok {
			return rest
		}
	}
	m.t.Fatalf("management never said %q: %v", prefix, m.scan.Err())
	return ""
}

func (m *management) say(format string, a ...any) { fmt.Fprintf(m.conn, format+"\n", a...) }

// A stock client's user is asked for a code within the session, and again after a wrong one; its handshake timeout is
// extended meanwhile.
func TestStockClientAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the openvpn client")
	}
	t.Parallel()
	s := newSetup(t)
	s.admitting(asking(askCode))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	// Without AUTH_PENDING it waits for seven seconds only. (Nor longer for the acknowledgement of what it asks every
	// five seconds.)
	client, user := startManaged(t, ctx, s, "setenv IV_SSO crtext\nhand-window 7")
	for _, code := range []string{"NjU0MzIx", "MTIzNDU2"} {
		if got := user.await(">INFOMSG:"); got != "CR_TEXT:R,E:Enter the code:" {
			t.Errorf("the user is asked %q", got)
		}
		time.Sleep(6 * time.Second)
		user.say("cr-response %s", code)
	}
	client.await("Initialization Sequence Completed")
	if n := len(s.server.Opened()); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

// A stock client that is told to wait does so for longer than its hand-window.
func TestStockClientWaits(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the openvpn client")
	}
	t.Parallel()
	s := newSetup(t)
	s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
		if _, err := h.Ask(ctx, tlsctl.Question{Timeout: time.Minute}); err != nil {
			t.Error(err)
		}
		select {
		case <-time.After(12 * time.Second):
			return &ctltest.DefaultGrant, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	client := startOpenVPN(t, ctx, s, s.serve(), "hand-window 7", nil)
	client.await("AUTH_PENDING received, extending handshake timeout from 7s to 6") // 65 or 66
	client.await("Initialization Sequence Completed")
	if n := len(s.server.Opened()); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

// A stock client's user answers a dynamic challenge when the client comes again.
func TestStockClientChallenge(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the openvpn client")
	}
	t.Parallel()
	const challenge = "CRV1:R,E:Om01u7Fh4LrGBS7uh0SWmzwabUiGiW6l:YWxpY2U=:Code: see 12:30 mail"
	s := newSetup(t)
	s.admitting(func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
		switch string(h.Password) {
		case "secret":
			return nil, &tlsctl.Denial{Challenge: challenge, Err: errors.New("asked for a code")}
		case "CRV1::Om01u7Fh4LrGBS7uh0SWmzwabUiGiW6l::8675309":
			return &ctltest.DefaultGrant, nil
		}
		return nil, &tlsctl.Denial{Public: "wrong user name or password"}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	client, user := startManaged(t, ctx, s, "management-query-passwords\nauth-user-pass\nauth-retry interact")
	login := func(name, password string) {
		t.Helper()
		if got := user.await(">PASSWORD:Need "); got != "'Auth' username/password" {
			t.Fatalf("management wants %q", got)
		}
		user.say("username Auth %q", name)
		user.say("password Auth %q", password)
	}
	login("alice", "secret")
	if got := user.await(">PASSWORD:Verification Failed: "); got != "'Auth' ['"+challenge+"']" {
		t.Errorf("the user reads %q", got)
	}
	login("alice", "CRV1::Om01u7Fh4LrGBS7uh0SWmzwabUiGiW6l::8675309")
	client.await("Initialization Sequence Completed")
	if got := s.logins(); len(got) != 2 {
		t.Errorf("logins %q", got)
	}
}
