package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/link"
)

var balancer = netip.MustParseAddrPort("198.51.100.7:40000")

// balanced is a pipe's end that comes from the balancer.
type balanced struct{ net.Conn }

func (balanced) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(balancer) }

// proxied is a PROXY header.
func proxied(command, family byte, rest ...[]byte) []byte {
	all := bytes.Join(rest, nil)
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(all))), all...)
}

// proxyAddrs is a header's addresses: from a client to us.
func proxyAddrs(from netip.AddrPort, to string) []byte {
	t := netip.MustParseAddrPort(to)
	b := append(from.Addr().AsSlice(), t.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, from.Port()), t.Port())
}

// checksummed is a header with a checksum in it, wrong by off.
func checksummed(off uint32, addrs []byte) []byte {
	h := proxied(0x21, 0x11, addrs, []byte{3, 0, 4, 0, 0, 0, 0}, []byte{0xee, 0, 1, 9})
	sum := crc32.Checksum(h, crc32.MakeTable(crc32.Castagnoli)) + off
	binary.BigEndian.PutUint32(h[len(h)-8:], sum)
	return h
}

// The client's address is the one that the balancer announces; what it says of anything else than a TCP connection, of
// places where nobody can be, or wrongly, is refused.
func TestProxyHeader(t *testing.T) {
	four, six := netip.MustParseAddrPort("203.0.113.9:5000"), netip.MustParseAddrPort("[2001:db8::9]:5000")
	mapped := netip.MustParseAddrPort("[::ffff:203.0.113.9]:5000")
	four4, six6 := proxyAddrs(four, "192.0.2.1:443"), proxyAddrs(six, "[2001:db8::1]:443")
	for _, c := range []struct {
		name   string
		header []byte
		want   netip.AddrPort // zero: refused
	}{
		{"IPv4", proxied(0x21, 0x11, four4), four},
		{"IPv6", proxied(0x21, 0x21, six6), six},
		{"IPv4 in IPv6", proxied(0x21, 0x21, proxyAddrs(mapped, "[2001:db8::1]:443")), four},
		{"TLVs", proxied(0x21, 0x11, four4, []byte{2, 0, 3, 'v', 'p', 'n', 4, 0, 0}), four},
		{"checksum", checksummed(0, four4), four},
		{"the balancer itself", proxied(0x20, 0x00), balancer},
		{"the balancer itself, with addresses", proxied(0x20, 0x11, four4), balancer},
		{"the balancer itself, over a Unix socket", proxied(0x20, 0x31, make([]byte, 216)), balancer},
		{"the balancer itself, over UDP, cut off", proxied(0x20, 0x12, four4[:3]), balancer},
		{"unknown", proxied(0x21, 0x00), balancer},
		{"unknown, with something", proxied(0x21, 0x00, []byte("whatever")), balancer},
		{"wrong checksum", checksummed(1, four4), netip.AddrPort{}},
		{"short checksum", proxied(0x21, 0x11, four4, []byte{3, 0, 1, 0}), netip.AddrPort{}},
		{"TLV too long", proxied(0x21, 0x11, four4, []byte{2, 0, 4, 'v', 'p', 'n'}), netip.AddrPort{}},
		{"TLV cut off", proxied(0x21, 0x11, four4, []byte{2, 0}), netip.AddrPort{}},
		{"addresses cut off", proxied(0x21, 0x11, four4[:11]), netip.AddrPort{}},
		{"UDP", proxied(0x21, 0x12, four4), netip.AddrPort{}},
		{"Unix", proxied(0x21, 0x31, make([]byte, 216)), netip.AddrPort{}},
		{"version 1", []byte("PROXY TCP4 203.0.113.9 192.0.2.1 5000 443\r\n"), netip.AddrPort{}},
		{"version 3", proxied(0x31, 0x11, four4), netip.AddrPort{}},
		{"another command", proxied(0x22, 0x11, four4), netip.AddrPort{}},
		{"too long", proxied(0x21, 0x11, four4, make([]byte, 3000)), netip.AddrPort{}},
		{"from nowhere", proxied(0x21, 0x11, proxyAddrs(netip.MustParseAddrPort("0.0.0.0:5000"), "192.0.2.1:443")), netip.AddrPort{}},
		{"from everybody", proxied(0x21, 0x11, proxyAddrs(netip.MustParseAddrPort("224.0.0.1:5000"), "192.0.2.1:443")), netip.AddrPort{}},
		{"no port", proxied(0x21, 0x11, proxyAddrs(netip.AddrPortFrom(four.Addr(), 0), "192.0.2.1:443")), netip.AddrPort{}},
		{"none", frame(make([]byte, 100)), netip.AddrPort{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, step := range []int{1, 7, len(c.header) + 1000} {
				synctest.Test(t, func(t *testing.T) {
					s, client := balancedPipe()
					go func() {
						for rest := append(bytes.Clone(c.header), frame([]byte("behind"))...); len(rest) > 0; {
							n := min(step, len(rest))
							if _, err := client.Write(rest[:n]); err != nil {
								return
							}
							rest = rest[n:]
						}
						client.Close()
					}()
					err := s.Introduce()
					if !c.want.IsValid() {
						if err == nil {
							t.Errorf("taken, as %v", s.RemoteAddr())
						}
						s.Close()
						return
					}
					if err != nil || s.Balanced() || s.RemoteAddr() != c.want {
						t.Fatalf("introduced as %v, %v, want %v", s.RemoteAddr(), err, c.want)
					}
					trains, err := s.Receive()
					if err != nil || len(trains) != 1 || string(trains[0].Bytes) != "behind" || trains[0].Addr != c.want {
						t.Errorf("behind it: %v, %v", trains, err)
					}
					if err := s.Introduce(); err != nil {
						t.Error(err)
					}
					s.Close()
				})
			}
		})
	}
}

// balancedPipe is a stream from the balancer and its other end.
func balancedPipe() (*link.Stream, net.Conn) {
	client, server := net.Pipe()
	return link.NewStream(balanced{server}, link.TCPOptions{Balancers: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}), client
}

// A header that trickles in does not have longer than a first packet (S014), and a connection from elsewhere is not
// asked for one.
func TestProxyHeaderInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := balancedPipe()
		began := time.Now()
		var trickle sync.WaitGroup
		defer trickle.Wait()
		trickle.Go(func() {
			for _, b := range proxied(0x21, 0x11, proxyAddrs(balancer, "192.0.2.1:443")) {
				if _, err := client.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		if err := s.Introduce(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %v, want the deadline after 5 s", err, time.Since(began))
		}
		s.Close()
	})
	s, client := pipe(link.TCPOptions{Balancers: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	defer client.Close()
	if err := s.Introduce(); err != nil || s.Balanced() {
		t.Errorf("somebody else: %v", err)
	}
	s.Close()
}

// What begins as OpenVPN does is OpenVPN's, in the fewest bytes that tell.
func TestForeignStart(t *testing.T) {
	for _, c := range []struct {
		begin   string
		foreign bool
	}{
		{"\x00\x0e\x38", false}, {"\x00\xff\x38", false}, {"\x00\x2a\x38rest", false},
		{"\x01\x50\x50", false}, {"\x04\xfe\x50", false},
		{"\x00\x0d", true}, {"\x01\x00", true}, {"\x01\x4f", true}, {"\x04\xff", true}, {"\x05", true}, {"\x00\x00", true},
		{"\x00\x0e\x39", true}, {"\x00\x2a\x50", true}, {"\x01\x50\x38", true}, {"\x00\x2a\x08", true},
		{"G", true}, {"GET / HTTP/1.1\r\n", true}, {"\x16\x03\x01\x02\x00", true}, {"SSH-2.0-", true},
	} {
		s, client := pipe(link.TCPOptions{})
		go client.Write([]byte(c.begin))
		foreign, err := s.Foreign()
		if err != nil || foreign != c.foreign {
			t.Errorf("%q: foreign %v, %v, want %v", c.begin, foreign, err, c.foreign)
		}
		s.Close()
		client.Close()
	}
}

// A connection that is given away brings all that was said, and nothing ends it any more but its ends.
func TestStreamDetach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := pipe(link.TCPOptions{})
		go func() {
			client.Write([]byte("G"))
			client.Write([]byte("ET /"))
		}()
		if foreign, err := s.Foreign(); !foreign || err != nil {
			t.Fatal(foreign, err)
		}
		conn, said := s.Detach()
		time.Sleep(time.Minute)
		rest := make([]byte, 4)
		if n, err := conn.Read(rest); err != nil || string(said)+string(rest[:n]) != "GET /" {
			t.Errorf("said %q, then %q, %v", said, rest[:n], err)
		}
		s.Close()
		if _, err := client.Write([]byte("x")); err == nil {
			t.Error("closing the stream did not close the connection")
		}
	})
}

// Whatever a balancer says is taken or refused in as many bytes as it has, and never changes its meaning with what
// follows.
func FuzzProxyHeader(f *testing.F) {
	four, six := proxyAddrs(balancer, "192.0.2.1:443"), proxyAddrs(netip.MustParseAddrPort("[2001:db8::9]:5000"), "[2001:db8::1]:443")
	for _, h := range [][]byte{nil, proxied(0x21, 0x11, four), proxied(0x21, 0x21, six), proxied(0x20, 0), checksummed(0, four), checksummed(1, four)} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		size, source, complete, err := link.ParseProxy(b)
		if err != nil {
			if more, _, _, err2 := link.ParseProxy(append(bytes.Clone(b), "more"...)); err2 == nil {
				t.Fatalf("%x is wrong, and right with more, %d bytes", b, more)
			}
			return
		}
		if !complete {
			return
		}
		if size < 16 || size > len(b) || size > 2048 {
			t.Fatalf("%x has a header of %d bytes", b, size)
		}
		if source.IsValid() && (source.Addr().IsUnspecified() || source.Addr().Is4In6() || source.Port() == 0) {
			t.Fatalf("%x comes from %v", b, source)
		}
		if s, again, ok, err := link.ParseProxy(b[:size]); s != size || again != source || !ok || err != nil {
			t.Fatalf("%x alone is %d, %v, %v, %v", b[:size], s, again, ok, err)
		}
		for n := range size {
			if _, _, ok, err := link.ParseProxy(b[:n]); ok || err != nil {
				t.Fatalf("%x, cut off after %d bytes: %v, %v", b, n, ok, err)
			}
		}
	})
}
