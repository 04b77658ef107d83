package server

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"

	"postern/auth"
	"postern/server/link"
)

// doorway is a listener for streams.
type doorway struct {
	streams chan *link.Stream
	once    sync.Once
	closed  chan struct{}
	mu      sync.Mutex
}

func (d *doorway) done() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed == nil {
		d.closed = make(chan struct{})
	}
	return d.closed
}

func (d *doorway) Accept() (*link.Stream, error) {
	select {
	case s := <-d.streams:
		return s, nil
	case <-d.done():
		return nil, net.ErrClosed
	}
}

func (d *doorway) Close() error {
	d.once.Do(func() { close(d.done()) })
	return nil
}

// addressed is a pipe's end that says where it comes from.
type addressed struct {
	net.Conn
	from netip.AddrPort
}

func (a addressed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(a.from) }

// logBook holds log lines.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

// count is how many lines contain all the texts.
func (l *logBook) count(texts ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
line:
	for _, s := range l.lines {
		for _, want := range texts {
			if !strings.Contains(s, want) {
				continue line
			}
		}
		n++
	}
	return n
}

// loginFunc is an authenticator.
type loginFunc func(ctx context.Context, r *auth.Request) (*auth.Identity, error)

func (f loginFunc) Authenticate(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
	return f(ctx, r)
}

// passwords is an authenticator that knows one password for everybody.
var passwords = loginFunc(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	if string(r.Password) != "secret" {
		return nil, &auth.Denied{Reason: "wrong password", Public: auth.PublicRefusal}
	}
	return &auth.Identity{Name: r.Username}, nil
})
