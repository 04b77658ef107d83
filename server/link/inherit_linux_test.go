package link_test

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"postern/server/link"
)

// inherited passes the descriptor of a socket on.
func inherited(t *testing.T, sock interface{ File() (*os.File, error) }) (*link.Inherited, error) {
	t.Helper()
	f, err := sock.File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(f.Fd()))
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	return link.Inherit(fd)
}

// A socket that was opened elsewhere serves as one of our own: with its address, with all lanes, and also when the one
// who opened it has closed it.
func TestInheritedUDP(t *testing.T) {
	opened, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Fatal(err)
	}
	in, err := inherited(t, opened)
	if err != nil {
		t.Fatal(err)
	}
	opened.Close()
	if in.Network != "udp" || in.Addr.Addr() != netip.IPv6Loopback() || in.V6Only {
		t.Errorf("inherited %s %v, V6Only %v", in.Network, in.Addr, in.V6Only)
	}
	socks, err := link.ListenUDP(in.Addr, link.UDPOptions{Lanes: 3, Inherited: in})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	if len(socks) != 3 {
		t.Errorf("%d lanes, want 3", len(socks))
	}
	from := listenUDP(t, loopback6, link.UDPOptions{})
	for lane, s := range socks {
		defer s.Close()
		if s.LocalAddr() != in.Addr {
			t.Errorf("lane %d is on %v, want %v", lane, s.LocalAddr(), in.Addr)
		}
		packet := []byte{9 << 3, 0, 0, byte(lane), 1}
		if err := from.Send([]link.Train{{Addr: in.Addr, Bytes: packet}}); err != nil {
			t.Fatal(err)
		}
		got, _ := receivePackets(t, s, from.LocalAddr(), 1)
		equalPackets(t, got, [][]byte{packet})
	}
}

// A listening socket that was opened elsewhere accepts clients.
func TestInheritedTCP(t *testing.T) {
	opened, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	in, err := inherited(t, opened)
	if err != nil {
		t.Fatal(err)
	}
	opened.Close()
	l, err := link.ListenTCP(in.Addr, link.TCPOptions{Inherited: in})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	in.Close()
	if in.Network != "tcp" || l.LocalAddr() != in.Addr {
		t.Errorf("inherited %s %v, listening on %v", in.Network, in.Addr, l.LocalAddr())
	}
	client, err := net.Dial("tcp4", in.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	client.Write(frame([]byte("hello")))
	if trains, err := s.Receive(); err != nil || string(trains[0].Bytes) != "hello" {
		t.Errorf("got %v, %v", trains, err)
	}
}

// What is no socket to serve on is refused.
func TestInheritedOther(t *testing.T) {
	client, server := dialTCP(t, loopback4, link.TCPOptions{})
	defer client.Close()
	unixListener, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/sock", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unixListener.Close()
	for what, sock := range map[string]interface{ File() (*os.File, error) }{"a connection": server, "a Unix socket": unixListener} {
		if in, err := inherited(t, sock); err == nil {
			t.Errorf("%s is taken as %s %v", what, in.Network, in.Addr)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fd, err := unix.Dup(int(r.Fd()))
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := link.Inherit(fd); err == nil {
		t.Error("a pipe is taken")
	}
}
