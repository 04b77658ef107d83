package server

import (
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/link"
)

var balancerAddr = netip.MustParseAddrPort("198.51.100.7:40000")

// proxied is a PROXY header for a client at an IPv4 address.
func proxied(from netip.AddrPort) []byte {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), from.Addr().AsSlice()...)
	b = append(b, 192, 0, 2, 1)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, from.Port()), 443)
}

// balance opens a connection through the balancer.
func (w *world) balance() net.Conn {
	ours, theirs := net.Pipe()
	w.doors <- link.NewStream(addressed{ours, balancerAddr}, link.TCPOptions{Balancers: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}})
	synctest.Wait()
	return theirs
}

// Behind a balancer the bounds of S014 go by the client's address: many clients come through one balancer, one client
// not more often than without it, and a client is known by its own address.
func TestBalancedStreams(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		var open []net.Conn
		silent := func(from netip.AddrPort) net.Conn {
			c := w.balance()
			if _, err := c.Write(proxied(from)); err != nil {
				t.Fatalf("a connection for %v: %v", from, err)
			}
			synctest.Wait()
			open = append(open, c)
			return c
		}
		closed := func(c net.Conn) bool {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := c.Read(make([]byte, 1))
			return err == io.EOF
		}
		for i := range 3 * maxNewStreamsPerSource {
			if closed(silent(netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 5000))) {
				t.Fatalf("client %d was turned away", i)
			}
		}
		one := netip.MustParseAddrPort("192.0.2.77:1")
		for i := range maxNewStreamsPerSource + 1 {
			if got, want := closed(silent(one)), i == maxNewStreamsPerSource; got != want {
				t.Errorf("connection %d of a client: closed %v, want %v", i+1, got, want)
			}
		}
		cert, err := w.ca.Issue("alice", x509.ExtKeyUsageClientAuth, nil)
		must(t, err)
		from := netip.MustParseAddrPort("203.0.113.200:7000")
		p := w.speak(cert, silent(from)).connect()
		if got := w.find("alice").Real; got != from {
			t.Errorf("the client is known as %v, want %v", got, from)
		}
		p.mustReach()
		time.Sleep(6 * time.Second)
		for _, c := range open {
			c.Close()
		}
		p.close()
		synctest.Wait()
		if n := w.srv.streams.fresh + len(w.srv.streams.bySource); n != 0 {
			t.Errorf("%d streams are still counted as new", n)
		}
	})
}

// A balancer that says nothing, or anything else, is closed; a header from anybody else is no header.
func TestUnbalancedStreams(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		for _, said := range []string{"", "\x00\x0e\x38\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x00\x00"} {
			c := w.balance()
			if said != "" {
				c.Write([]byte(said))
			}
			began := time.Now()
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%q: %v", said, err)
			}
			if took, want := time.Since(began), map[bool]time.Duration{true: 5 * time.Second}[said == ""]; took != want {
				t.Errorf("%q: closed after %v, want %v", said, took, want)
			}
		}
		ours, theirs := net.Pipe()
		w.doors <- link.NewStream(addressed{ours, homeAddr}, link.TCPOptions{Balancers: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}})
		theirs.Write(proxied(otherAddr))
		if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("somebody else's header: %v, want the end", err)
		}
	})
}
