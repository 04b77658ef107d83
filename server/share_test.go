package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/server/config"
	"postern/server/link"
)

// loopback is a listener that each of its connections is given to f of, in a goroutine.
func loopback(t *testing.T, f func(*net.TCPConn)) config.PortShare {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			go f(c)
		}
	}()
	return config.PortShare{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}
}

// strangers returns both ends of a connection that is not OpenVPN's, told to be so by what the client says first.
func strangers(t *testing.T, first string) (*link.Stream, *net.TCPConn) {
	t.Helper()
	l, err := link.ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"), link.TCPOptions{})
	must(t, err)
	defer l.Close()
	client, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(l.LocalAddr()))
	must(t, err)
	t.Cleanup(func() { client.Close() })
	must(t, client.SetDeadline(time.Now().Add(20*time.Second)))
	st, err := l.Accept()
	must(t, err)
	_, err = client.Write([]byte(first))
	must(t, err)
	foreign, err := st.Foreign()
	must(t, err)
	if !foreign {
		t.Fatalf("%q is taken for OpenVPN", first)
	}
	return st, client
}

// A connection is handed to the service with all that was said, each end of it is passed on, and the service finds out
// whose it is while it lasts.
func TestShareCarriesBothWays(t *testing.T) {
	question, answer := bytes.Repeat([]byte("question "), 100_000), bytes.Repeat([]byte("answer "), 100_000)
	dir := t.TempDir()
	type call struct {
		heard []byte
		from  string
		err   error
	}
	calls := make(chan call, 1)
	cfg := loopback(t, func(c *net.TCPConn) {
		defer c.Close()
		var got call
		got.heard, got.err = io.ReadAll(c) // until the client has no more to say
		file, err := os.ReadFile(filepath.Join(dir, "[AF_INET]"+c.RemoteAddr().String()))
		got.from, got.err = string(file), errors.Join(got.err, err)
		_, err = c.Write(answer)
		got.err = errors.Join(got.err, err)
		calls <- got
	})
	cfg.Dir = dir
	st, client := strangers(t, "G")
	carried := make(chan error, 1)
	go func() { carried <- newSharer(cfg).carry(t.Context(), st) }()
	go func() {
		client.Write(question)
		client.CloseWrite()
	}()
	got, err := io.ReadAll(client)
	must(t, err)
	if !bytes.Equal(got, answer) {
		t.Errorf("the client got %d bytes, want %d", len(got), len(answer))
	}
	must(t, <-carried)
	c := <-calls
	must(t, c.err)
	if want := append([]byte("G"), question...); !bytes.Equal(c.heard, want) {
		t.Errorf("the service heard %d bytes, want %d", len(c.heard), len(want))
	}
	if want := "[AF_INET]" + client.LocalAddr().String(); c.from != want {
		t.Errorf("the service read that it is %q, want %q", c.from, want)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%d files are left", len(left))
	}
}

// The end of the stream, as the server's own end, is the end of both connections.
func TestShareEndsWithStream(t *testing.T) {
	heard := make(chan error, 1)
	cfg := loopback(t, func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		heard <- err
		c.Close()
	})
	st, client := strangers(t, "GET / HTTP/1.1\r\n")
	carried := make(chan error, 1)
	go func() { carried <- newSharer(cfg).carry(t.Context(), st) }()
	st.Close()
	must(t, <-carried)
	<-heard
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the client's connection is still open")
	}
}

// A service that is away is an error, and takes no place.
func TestShareServiceAway(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	s := newSharer(config.PortShare{Host: "127.0.0.1", Port: port})
	st, _ := strangers(t, "GET")
	if err := s.carry(t.Context(), st); err == nil {
		t.Error("no error")
	}
	st.Close()
	if s.open != 0 || len(s.bySource) != 0 {
		t.Errorf("%d connections are still counted", s.open)
	}
}

// One source has some of the places, all of them have more.
func TestShareBounds(t *testing.T) {
	s := newSharer(config.PortShare{})
	source := func(i int) netip.Prefix {
		p, _ := sourceOf(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		return p
	}
	for i := range maxShared {
		if !s.enter(source(i / maxSharedPerSource)) {
			t.Fatalf("connection %d is refused", i+1)
		}
		if i == maxSharedPerSource-1 && s.enter(source(0)) {
			t.Errorf("a source has more than %d", maxSharedPerSource)
		}
	}
	if s.enter(source(200)) {
		t.Errorf("more than %d", maxShared)
	}
	s.leave(source(0))
	if !s.enter(source(200)) {
		t.Error("a place that was left is not free")
	}
}
