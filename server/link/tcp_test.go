package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/link"
)

func frame(packets ...[]byte) []byte {
	var b []byte
	for _, p := range packets {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
		b = append(b, p...)
	}
	return b
}

// readFrames reads n packets from the client's end of a stream.
func readFrames(t testing.TB, r io.Reader, n int) [][]byte {
	t.Helper()
	var packets [][]byte
	for range n {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			t.Fatalf("after %d of %d packets: %v", len(packets), n, err)
		}
		p := make([]byte, binary.BigEndian.Uint16(head[:]))
		if _, err := io.ReadFull(r, p); err != nil {
			t.Fatalf("in packet %d: %v", len(packets), err)
		}
		packets = append(packets, p)
	}
	return packets
}

// dialTCP returns both ends of a stream over loopback.
func dialTCP(t testing.TB, addr netip.AddrPort, o link.TCPOptions) (*link.Stream, *net.TCPConn) {
	t.Helper()
	l, err := link.ListenTCP(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := net.TCPAddrFromAddrPort(l.LocalAddr())
	if to.IP.IsUnspecified() {
		to.IP = net.IPv4(127, 0, 0, 1)
	}
	client, err := net.DialTCP("tcp", nil, to)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); s.Close() })
	return s, client
}

func TestTCP(t *testing.T) {
	for _, addr := range []netip.AddrPort{loopback4, loopback6, any6} {
		t.Run(addr.Addr().String(), func(t *testing.T) {
			s, client := dialTCP(t, addr, link.TCPOptions{})
			local := client.LocalAddr().(*net.TCPAddr).AddrPort()
			from := netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
			if s.RemoteAddr() != from {
				t.Errorf("remote address %v, want %v", s.RemoteAddr(), from)
			}
			up := train(from, 1, 1400, 40, 17)
			if _, err := client.Write(frame(cutTrain(up)...)); err != nil {
				t.Fatal(err)
			}
			got, _ := receivePackets(t, s, from, 40)
			equalPackets(t, got, cutTrain(up))

			down := []link.Train{train(from, 2, 1300, 30, 1300), train(from, 3, 9000, 3, 1)}
			if err := s.Send(down); err != nil {
				t.Fatal(err)
			}
			if err := s.SendControl([]byte("control")); err != nil {
				t.Fatal(err)
			}
			want := append(append(cutTrain(down[0]), cutTrain(down[1])...), []byte("control"))
			equalPackets(t, readFrames(t, client, len(want)), want)
			if st := s.Stats(); st.PacketsIn != 40 || st.PacketsOut != uint64(len(want)) || st.Dropped != 0 {
				t.Errorf("counters: %+v", st)
			}
		})
	}
}

// The first packet may be 2,048 long, later ones as long as SetLimit says; longer ones and empty ones end the stream
// without a word (S014).
func TestStreamLimit(t *testing.T) {
	for _, tt := range []struct {
		limit, size int
		ok          bool
	}{{0, 2048, true}, {0, 2049, false}, {0, 0, false}, {65535, 65535, true}, {100000, 65535, true}, {1000, 1001, false}} {
		s, client := dialTCP(t, loopback4, link.TCPOptions{})
		if tt.limit > 0 {
			s.SetLimit(tt.limit)
		}
		packets := [][]byte{[]byte("first"), make([]byte, tt.size), []byte("last")}
		go client.Write(frame(packets...))
		var got [][]byte
		var failed error
		for len(got) < len(packets) && failed == nil {
			var trains []link.Train
			if trains, failed = s.Receive(); failed == nil {
				for _, tr := range trains {
					got = append(got, bytes.Clone(tr.Bytes))
				}
			}
		}
		if tt.ok {
			equalPackets(t, got, packets)
			continue
		}
		equalPackets(t, got, packets[:1])
		if _, err := s.Receive(); err == nil || err.Error() != failed.Error() {
			t.Errorf("limit %d, packet of %d: first %v, then %v", tt.limit, tt.size, failed, err)
		}
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("limit %d, packet of %d: the client read %d bytes, %v", tt.limit, tt.size, n, err)
		}
		if err := s.Send([]link.Train{{Bytes: []byte("late")}}); err != net.ErrClosed {
			t.Errorf("Send on an ended stream: %v, want net.ErrClosed", err)
		}
	}
}

// Frames of one byte do not make the stream keep a train for each byte it reads.
func TestStreamTinyFrames(t *testing.T) {
	s, client := dialTCP(t, loopback4, link.TCPOptions{})
	sent := bytes.Repeat([]byte{0, 1, 0xaa}, 10_000)
	if _, err := client.Write(sent); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 10_000; {
		trains, err := s.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if len(trains) > 256 {
			t.Fatalf("%d trains at once, want at most 256", len(trains))
		}
		n += len(trains)
	}
}

// pipe is a stream over a pipe: nothing is buffered between its ends, and it works in a bubble.
func pipe(o link.TCPOptions) (*link.Stream, net.Conn) {
	client, server := net.Pipe()
	return link.NewStream(server, o), client
}

// A client that sends no complete packet for 5 s is gone, however many bytes trickle in (S014). One that did may
// be silent for as long as it likes.
func TestStreamFirstPacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s, client := pipe(link.TCPOptions{})
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for _, b := range frame(make([]byte, 100)) {
				if _, err := client.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		if _, err := s.Receive(); err == nil || time.Since(start) != 5*time.Second {
			t.Errorf("trickling client ended after %v with %v, want 5s and an error", time.Since(start), err)
		}

	})
	synctest.Test(t, func(t *testing.T) {
		s, client := pipe(link.TCPOptions{})
		go func() {
			time.Sleep(4 * time.Second)
			client.Write(frame([]byte("hello")))
			time.Sleep(time.Hour)
			client.Write(frame([]byte("again")))
			client.Close()
		}()
		for _, want := range []string{"hello", "again"} {
			trains, err := s.Receive()
			if err != nil || len(trains) != 1 || string(trains[0].Bytes) != want {
				t.Fatalf("got %v, %v, want %q", trains, err, want)
			}
		}
		if _, err := s.Receive(); err != io.EOF {
			t.Errorf("client left: %v, want EOF", err)
		}
	})
}

// A client that reads nothing does not make Send wait: 64 packets and no more than 256 KiB wait for it, the rest is
// dropped. Control packets have room of their own. After 60 s it is given up (S087).
func TestStreamSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s, client := pipe(link.TCPOptions{})
		defer func() { client.Close() }()
		packet := make([]byte, 1000)
		send := func(size, n int) {
			t.Helper()
			for range n {
				if err := s.Send([]link.Train{{Bytes: make([]byte, size), Size: size}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		send(1000, 1)
		synctest.Wait() // the writer has that one in hand
		send(1000, 100)
		if got := s.Stats().Dropped; got != 100-64 {
			t.Errorf("of 100 packets %d were dropped, want 36", got)
		}
		for i := range 64 {
			if err := s.SendControl(packet); err != nil {
				t.Fatalf("control packet %d beside a full data queue: %v", i, err)
			}
		}
		if err := s.SendControl(packet); err == nil || err == net.ErrClosed {
			t.Errorf("control packet 65: %v, want an error of its own", err)
		}
		if time.Since(start) != 0 {
			t.Errorf("Send has waited for %v", time.Since(start))
		}
		if _, err := s.Receive(); err == nil {
			t.Error("the client never sent a packet, and Receive returned one")
		}

		client.Close()
		start = time.Now()
		s, client = pipe(link.TCPOptions{})
		go client.Write(frame([]byte("hello")))
		if _, err := s.Receive(); err != nil {
			t.Fatal(err)
		}
		send(1000, 1)
		synctest.Wait()
		send(60_000, 10)
		if got := s.Stats().Dropped; got != 10-4 {
			t.Errorf("of 10 packets of 60,000 bytes %d were dropped, want 6", got)
		}
		_, err := s.Receive()
		if err == nil || err == net.ErrClosed || time.Since(start) != time.Minute {
			t.Errorf("a client that takes nothing ended after %v with %v, want 1m0s and an error", time.Since(start), err)
		}
	})
}

// A client that takes a little from time to time is not given up.
func TestStreamDrippingReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := pipe(link.TCPOptions{})
		sent := train(netip.AddrPort{}, 1, 300, 1, 300)
		go func() {
			client.Write(frame([]byte("hello")))
			s.Send([]link.Train{sent})
		}()
		if _, err := s.Receive(); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for len(got) < 302 {
			time.Sleep(50 * time.Second)
			b := make([]byte, 20)
			n, err := client.Read(b)
			if err != nil {
				t.Fatalf("after %d bytes: %v", len(got), err)
			}
			got = append(got, b[:n]...)
		}
		if !bytes.Equal(got, frame(sent.Bytes)) {
			t.Error("the client read something else")
		}
		s.Close()
	})
}

// What is queued before Close still reaches a client that reads, and keeps the stream no longer than a second where
// it does not. Receive returns only when the writer is gone; a bubble ends only when every goroutine is.
func TestStreamClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, reads := range []bool{true, false} {
			s, client := pipe(link.TCPOptions{})
			if err := s.SendControl([]byte("AUTH_FAILED")); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() {
				_, err := s.Receive()
				ended <- err
			}()
			synctest.Wait()
			start := time.Now()
			s.Close()
			s.Close()
			if time.Since(start) != 0 {
				t.Error("Close has waited")
			}
			if err := s.SendControl([]byte("late")); err != net.ErrClosed {
				t.Errorf("SendControl after Close: %v, want net.ErrClosed", err)
			}
			if err := s.Send([]link.Train{{Bytes: []byte("late")}}); err != net.ErrClosed {
				t.Errorf("Send after Close: %v, want net.ErrClosed", err)
			}
			if reads {
				equalPackets(t, readFrames(t, client, 1), [][]byte{[]byte("AUTH_FAILED")})
				if n, err := client.Read(make([]byte, 10)); err != io.EOF {
					t.Errorf("behind the last packet: %d bytes, %v, want EOF", n, err)
				}
			}
			if err := <-ended; err != net.ErrClosed {
				t.Errorf("Receive: %v, want net.ErrClosed", err)
			}
			want := time.Second
			if reads {
				want = 0
			}
			if took := time.Since(start); took != want {
				t.Errorf("client reads: %v, took %v, want %v", reads, took, want)
			}
			if _, err := s.Receive(); err != net.ErrClosed {
				t.Errorf("Receive again: %v, want net.ErrClosed", err)
			}
		}

		// Nothing queued, nothing started: closed on the spot.
		s, client := pipe(link.TCPOptions{})
		s.Close()
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("client of a closed stream: %v, want EOF", err)
		}
		if _, err := s.Receive(); err != net.ErrClosed {
			t.Errorf("Receive on a closed stream: %v, want net.ErrClosed", err)
		}
	})
}

// The writer goes when there is nothing to write, and another comes when there is.
func TestStreamWriterComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := pipe(link.TCPOptions{})
		for i := range byte(20) {
			if err := s.Send([]link.Train{{Bytes: []byte{i, i}, Size: 1}}); err != nil {
				t.Fatal(err)
			}
			equalPackets(t, readFrames(t, client, 2), [][]byte{{i}, {i}})
			time.Sleep(time.Duration(i) * 100 * time.Millisecond) // shorter and longer than a writer stays
		}
		time.Sleep(2 * time.Second)
		client.Close()
		// Nobody closes s: if a writer were left the bubble would not end.
	})
}

// failingListener is a listener of a system in trouble.
type failingListener struct {
	net.Listener
	failures int
	at       []time.Time
	then     chan net.Conn
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.at = append(l.at, time.Now())
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	conn, ok := <-l.then
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l *failingListener) Close() error { close(l.then); return nil }

// Accept lives through errors, waiting 5 ms, then twice as long each time up to 1 s, and its wait ends with Close
// (S015, F28).
func TestListenerBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := &failingListener{failures: 11, then: make(chan net.Conn, 1)}
		l := link.NewListener(fl, link.TCPOptions{})
		client, server := net.Pipe()
		fl.then <- server
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		client.Close()
		want := []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000}
		for i := range want {
			if got := fl.at[i+1].Sub(fl.at[i]); got != want[i]*time.Millisecond {
				t.Errorf("wait %d: %v, want %dms", i, got, want[i])
			}
		}
		if l.Errors() != 11 {
			t.Errorf("%d errors counted, want 11", l.Errors())
		}

		fl.failures = 1000
		ended := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			ended <- err
		}()
		time.Sleep(10*time.Second + 500*time.Microsecond)
		start := time.Now()
		l.Close()
		l.Close()
		if err := <-ended; err != net.ErrClosed || time.Since(start) != 0 {
			t.Errorf("Close during a wait: %v after %v, want net.ErrClosed at once", err, time.Since(start))
		}
	})
}

func TestListenerClose(t *testing.T) {
	l, err := link.ListenTCP(loopback4, link.TCPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := link.ListenTCP(l.LocalAddr(), link.TCPOptions{}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listener: %v, want EADDRINUSE", err)
	}
	ended := make(chan error)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	l.Close()
	if err := <-ended; err != net.ErrClosed {
		t.Errorf("Accept: %v, want net.ErrClosed", err)
	}
}

// A busy stream runs without the garbage collector, both ways.
func TestStreamAllocs(t *testing.T) {
	s, client := dialTCP(t, loopback4, link.TCPOptions{})
	echoed := make([]byte, 20*(1200+2))
	trains := []link.Train{train(netip.AddrPort{}, 1, 1200, 20, 1200)}
	turn := func() {
		if err := s.Send(trains); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, echoed); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write(echoed); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 20; {
			got, err := s.Receive()
			if err != nil {
				t.Fatal(err)
			}
			n += len(got)
		}
	}
	for range 50 {
		turn() // buffers grow
	}
	if allocs := testing.AllocsPerRun(200, turn); allocs != 0 {
		t.Errorf("Send and Receive allocate %v times", allocs)
	}
}

// BenchmarkStreamSend is a train of 44 packets on its way from Send to the client, and only then the next.
func BenchmarkStreamSend(b *testing.B) {
	s, client := dialTCP(b, loopback4, link.TCPOptions{})
	trains := []link.Train{train(netip.AddrPort{}, 1, 1400, 44, 1400)}
	taken := make([]byte, 44*(1400+2))
	for b.Loop() {
		if err := s.Send(trains); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(client, taken); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(s.Stats().PacketsOut)/b.Elapsed().Seconds(), "packets/s")
}

// BenchmarkStreamReceive is a Receive from a client that writes as fast as it can.
func BenchmarkStreamReceive(b *testing.B) {
	s, client := dialTCP(b, loopback4, link.TCPOptions{})
	go func() {
		all := frame(cutTrain(train(netip.AddrPort{}, 1, 1400, 44, 1400))...)
		for {
			if _, err := client.Write(all); err != nil {
				return
			}
		}
	}()
	for b.Loop() {
		if _, err := s.Receive(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(s.Stats().PacketsIn)/b.Elapsed().Seconds(), "packets/s")
}
