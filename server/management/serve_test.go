package management_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"postern/server/management"
)

// Real sockets: as many tools as there are places, more wait; who connects is known and judged; all ends with ctx.
func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	var audited []string // by one connection at a time
	i := management.New(management.Options{MaxClients: 2, Audit: func(who, command string, done bool) {
		audited = append(audited, fmt.Sprintf("%s: %s %v", who, command, done))
	}}, newFakeOwner(), zerolog.New(zerolog.SyncWriter(&log)))
	me, other := uint32(os.Getuid()), uint32(os.Getuid())+1
	myGroup, otherGroup := uint32(os.Getgid()), uint32(os.Getgid())+1
	served := make(chan error, 8)
	listen := func(name string, a management.Access) string {
		path := filepath.Join(t.TempDir(), name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { served <- i.Serve(ctx, l, a) }()
		return path
	}
	mine := listen("mine", management.Access{UID: &me, GID: &myGroup})
	others := []string{listen("user", management.Access{UID: &other}), listen("group", management.Access{GID: &otherGroup})}
	dial := func(path string) net.Conn {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return nc
	}
	expect := func(nc net.Conn, want string) {
		t.Helper()
		b := make([]byte, len(want))
		if n, err := readFull(nc, b); err != nil || string(b) != want {
			t.Fatalf("got %q, %v, want %q", b[:n], err, want)
		}
	}
	for _, path := range others {
		nc := dial(path)
		if n, err := nc.Read(make([]byte, 1)); err == nil || n != 0 {
			t.Errorf("%s lets another in", filepath.Base(path))
		}
		nc.Close()
	}
	first, second, third := dial(mine), dial(mine), dial(mine)
	expect(first, greeting)
	expect(second, greeting)
	if err := third.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := third.Read(make([]byte, 1)); err == nil {
		t.Fatalf("a third tool got %d bytes", n)
	}
	if err := third.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Write([]byte("exit\n")); err != nil {
		t.Fatal(err)
	}
	expect(third, greeting)
	if _, err := third.Write([]byte("kill client1\npid\n")); err != nil {
		t.Fatal(err)
	}
	expect(third, fmt.Sprintf("SUCCESS: common name 'client1' found, 1 client(s) killed\r\nSUCCESS: pid=%d\r\n", os.Getpid()))
	cancel()
	for range 3 {
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	if n, err := second.Read(make([]byte, 1)); err == nil || n != 0 {
		t.Errorf("a tool outlived the server")
	}
	if _, err := os.Stat(mine); err == nil {
		t.Error("the socket was left behind")
	}
	if want := []string{fmt.Sprintf("uid=%d gid=%d pid=%d: kill client1 true", me, myGroup, os.Getpid())}; !slices.Equal(audited, want) {
		t.Errorf("the audit was told %q, want %q", audited, want)
	}
	// S098: every change is audited with who made it; what only asks is not.
	audit := fmt.Sprintf(`"level":"info","part":"management","connection":5,"peer":"uid=%d gid=%d pid=%d","command":"kill client1","done":true`, me, myGroup, os.Getpid())
	if !strings.Contains(log.String(), audit) {
		t.Errorf("the log has no %s:\n%s", audit, log.String())
	}
}

func readFull(nc net.Conn, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = nc.Read(b[n:])
		n += m
	}
	return n, err
}

// S096: TCP is for loopback, with a password; an access that checks users is for unix sockets.
func TestServeRefuses(t *testing.T) {
	uid := uint32(0)
	for name, tt := range map[string]struct {
		addr   string
		access management.Access
		ok     bool
	}{
		"no password":       {"127.0.0.1:0", management.Access{}, false},
		"everywhere":        {"0.0.0.0:0", management.Access{Password: []byte("x")}, false},
		"users over TCP":    {"127.0.0.1:0", management.Access{Password: []byte("x"), UID: &uid}, false},
		"an empty password": {"127.0.0.1:0", management.Access{Password: []byte{}, Insecure: true}, false},
		"loopback":          {"127.0.0.1:0", management.Access{Password: []byte("x")}, true},
		"loopback, IPv6":    {"[::1]:0", management.Access{Password: []byte("x")}, true},
		"insecure":          {"0.0.0.0:0", management.Access{Insecure: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err = management.New(management.Options{}, newFakeOwner(), quiet()).Serve(ctx, l, tt.access)
			if (err == nil) != tt.ok {
				t.Errorf("Serve: %v", err)
			}
			if _, err := l.Accept(); err == nil {
				t.Error("the listener was left open")
			}
		})
	}
}

// Dial serves a tool that listens, and returns when it has gone.
func TestDial(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "tool"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	i := management.New(management.Options{}, newFakeOwner(), quiet())
	ended := make(chan error, 1)
	go func() { ended <- i.Dial(t.Context(), "unix", l.Addr().String(), management.Access{}) }()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(greeting))
	if _, err := readFull(nc, b); err != nil || string(b) != greeting {
		t.Errorf("got %q, %v", b, err)
	}
	nc.Close()
	if err := <-ended; err != nil {
		t.Errorf("Dial: %v", err)
	}
	if err := i.Dial(t.Context(), "unix", "/nonexistent/socket", management.Access{}); err == nil {
		t.Error("a tool that is not there was no error")
	}
}
