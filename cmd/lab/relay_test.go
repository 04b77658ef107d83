package lab_test

import (
	"net"
	"testing"
	"time"

	"postern/cmd/lab"
)

// A relay does to packets what it is told, about as often as it is told, and each client gets its own answers.
func TestRelay(t *testing.T) {
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	server, front := listen(), listen()
	go func() {
		var b [100]byte
		for {
			n, from, err := server.ReadFromUDPAddrPort(b[:])
			if err != nil {
				return
			}
			server.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	r := lab.NewRelay(front, func() (*net.UDPConn, error) { return net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr)) }, lab.Impairment{})
	defer r.Close()
	clients := []*net.UDPConn{listen(), listen()}
	// echo sends a packet and returns how many times it came back, waiting for the last copy only when it is to be sure.
	echo := func(c *net.UDPConn, what string, patience time.Duration) (copies int) {
		t.Helper()
		if _, err := c.WriteTo([]byte(what), front.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		for {
			c.SetReadDeadline(time.Now().Add(patience))
			var b [100]byte
			n, err := c.Read(b[:])
			if err != nil {
				return copies
			}
			if string(b[:n]) != what {
				t.Fatalf("got %q, want %q", b[:n], what)
			}
			if copies++; copies == 4 {
				return copies
			}
		}
	}
	for i, c := range clients {
		if n := echo(c, string(rune('a'+i)), 500*time.Millisecond); n != 1 {
			t.Errorf("without impairment a packet came back %d times", n)
		}
	}
	r.Impair(lab.Impairment{Duplicate: 1})
	if n := echo(clients[0], "twice", 2*time.Second); n != 4 {
		t.Errorf("doubled both ways a packet came back %d times", n)
	}
	r.Impair(lab.Impairment{Delay: 100 * time.Millisecond})
	began := time.Now()
	if n := echo(clients[0], "late", 500*time.Millisecond); n != 1 || time.Since(began) < 200*time.Millisecond {
		t.Errorf("delayed both ways a packet came back %d times after %v", n, time.Since(began))
	}
	r.Impair(lab.Impairment{Loss: 0.3})
	_, before := r.Counts()
	const sent = 200
	answered := 0
	for range sent {
		answered += echo(clients[0], "lossy", 10*time.Millisecond)
	}
	_, lost := r.Counts()
	if lost -= before; answered < sent*3/10 || answered > sent*7/10 || lost < sent*3/10 {
		t.Errorf("%d of %d packets were answered and %d lost, want about half answered, three in ten lost each way", answered, sent, lost)
	}
}
