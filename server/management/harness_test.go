package management_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"postern/server/management"
)

// fakeOwner is a server with one client, 0, whose newest negotiation is 1. It records what it was told to do.
type fakeOwner struct {
	mu     sync.Mutex
	told   []string // guarded by mu: calls, as text
	counts []management.ByteCount
	load   management.Load // guarded by mu
	verb   int
	mute   int

	status func(version int) []byte // nil: of one client
	after  func(call string)        // what calls bring about; nil: nothing
}

func newFakeOwner() *fakeOwner { return &fakeOwner{verb: 4} }

func (o *fakeOwner) record(words ...string) {
	call := strings.Join(words, " ")
	o.mu.Lock()
	o.told = append(o.told, call)
	after := o.after
	o.mu.Unlock()
	if after != nil {
		after(call)
	}
}

// calls returns what was recorded since it was last asked.
func (o *fakeOwner) calls() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	told := o.told
	o.told = nil
	return told
}

func (o *fakeOwner) setCounts(c ...management.ByteCount) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts = c
}

var errUnknown = errors.New("nobody waits for that")

func known(client management.ClientID, key management.KeyID) error {
	if client != 0 || key != 1 {
		return errUnknown
	}
	return nil
}

func (o *fakeOwner) Status(version int) []byte {
	if o.status == nil {
		return []byte("OpenVPN CLIENT LIST\nEND\n")
	}
	return o.status(version)
}

func (o *fakeOwner) Load() management.Load {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.load
}

func (o *fakeOwner) ByteCounts() []management.ByteCount {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.counts)
}

func (o *fakeOwner) Kill(cn string) int {
	o.record("kill", cn)
	if cn != "client1" {
		return 0
	}
	return 1
}

func (o *fakeOwner) KillAddress(network string, from netip.AddrPort) int {
	o.record("killaddress", network, from.String())
	if from != netip.MustParseAddrPort("203.0.113.2:51271") {
		return 0
	}
	return 1
}

func (o *fakeOwner) ClientKill(client management.ClientID, message string) error {
	if client != 0 {
		return errUnknown
	}
	o.record("clientkill", message)
	return nil
}

func (o *fakeOwner) PushUpdate(client management.ClientID, options string) error {
	if client != 0 {
		return errUnknown
	}
	o.record("push", options)
	return nil
}

func (o *fakeOwner) PushUpdateAll(options string) (int, error) {
	o.record("pushall", options)
	return 1, nil
}

func (o *fakeOwner) ClientAuth(client management.ClientID, key management.KeyID, lines []string) error {
	if err := known(client, key); err != nil {
		return err
	}
	o.record("auth", strings.Join(lines, "|"))
	return nil
}

// ClientDeny never finds anybody to deny, as the recorded sessions' server.
func (o *fakeOwner) ClientDeny(_ management.ClientID, _ management.KeyID, reason, clientReason string) error {
	o.record("deny", reason, clientReason)
	return errUnknown
}

func (o *fakeOwner) ClientPending(client management.ClientID, key management.KeyID, extra string, timeout time.Duration) error {
	if err := known(client, key); err != nil {
		return err
	}
	o.record("pending", extra, timeout.String())
	return nil
}

func (o *fakeOwner) Signal(name string) error {
	o.record("signal", name)
	return nil
}

func (o *fakeOwner) Verb() int           { return o.verb }
func (o *fakeOwner) SetVerb(n int) error { o.verb = n; return nil }
func (o *fakeOwner) Mute() int           { return o.mute }
func (o *fakeOwner) SetMute(n int) error { o.mute = n; return nil }

func quiet() zerolog.Logger { return zerolog.Nop() }

func lines(list ...string) string { return strings.Join(list, "\r\n") + "\r\n" }

func env(list ...[2]string) management.Env {
	return func(yield func(string, string) bool) {
		for _, v := range list {
			if !yield(v[0], v[1]) {
				return
			}
		}
	}
}

// tool is a client of an Interface, inside a bubble. It reads all the time, or not at all.
type tool struct {
	t    *testing.T
	nc   net.Conn
	done chan error // what ServeConn returned

	mu    sync.Mutex
	got   bytes.Buffer
	ended bool
	told  bool // that it ended
}

// connect makes a tool that reads.
func connect(ctx context.Context, t *testing.T, i *management.Interface, a management.Access) *tool {
	t.Helper()
	c := connectDeaf(ctx, t, i, a)
	go c.read()
	return c
}

// connectDeaf makes a tool that reads nothing until read runs.
func connectDeaf(ctx context.Context, t *testing.T, i *management.Interface, a management.Access) *tool {
	t.Helper()
	ours, theirs := net.Pipe()
	c := &tool{t: t, nc: ours, done: make(chan error, 1)}
	go func() { c.done <- i.ServeConn(ctx, theirs, a) }()
	return c
}

func (c *tool) read() {
	b := make([]byte, 4096)
	for {
		n, err := c.nc.Read(b)
		c.mu.Lock()
		c.got.Write(b[:n])
		c.ended = err != nil
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// heard waits until nothing happens any more and returns what has come since it was last asked.
func (c *tool) heard() string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.got.String()
	c.got.Reset()
	if c.ended && !c.told {
		c.told = true
		s += "<EOF>"
	}
	return s
}

// send writes text as it is.
func (c *tool) send(text string) {
	c.t.Helper()
	if _, err := c.nc.Write([]byte(text)); err != nil {
		c.t.Errorf("send %.40q: %v", text, err)
	}
}

// ask sends one line and returns what came.
func (c *tool) ask(line string) string {
	c.t.Helper()
	c.send(line + "\n")
	return c.heard()
}

// leave closes the tool's end and waits for the Interface's.
func (c *tool) leave() error {
	c.nc.Close()
	return <-c.done
}

// wants compares what came with what should have.
func (c *tool) wants(what, got, want string) {
	c.t.Helper()
	if got != want {
		c.t.Errorf("%s: got\n%q\nwant\n%q", what, got, want)
	}
}

const greeting = ">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n"

// inBubble runs f with an Interface and a tool that has been greeted.
func inBubble(t *testing.T, o management.Options, f func(t *testing.T, i *management.Interface, owner *fakeOwner, c *tool)) {
	synctest.Test(t, func(t *testing.T) {
		owner := newFakeOwner()
		i := management.New(o, owner, quiet())
		c := connect(t.Context(), t, i, management.Access{})
		c.wants("greeting", c.heard(), greeting)
		f(t, i, owner, c)
		if err := c.leave(); err != nil {
			t.Errorf("the connection ended with %v", err)
		}
	})
}
