package link_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/server/link"
)

// With no descriptor left Accept waits, and goes on when there is one again (F28).
func TestListenerOutOfDescriptors(t *testing.T) {
	l, err := link.ListenTCP(loopback4, link.TCPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Dup(0) // the lowest number that is free
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	restored := make(chan error, 1)
	go func() {
		for deadline := time.Now().Add(10 * time.Second); l.Errors() < 3 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		restored <- unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
	}()
	s, err := l.Accept()
	if err := <-restored; err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	defer s.Close()
	if l.Errors() < 3 {
		t.Errorf("%d errors counted before a descriptor was free, want at least 3", l.Errors())
	}
	if err := s.Send([]link.Train{{Bytes: []byte("welcome")}}); err != nil {
		t.Fatal(err)
	}
	equalPackets(t, readFrames(t, client, 1), [][]byte{[]byte("welcome")})
}

// Clients that connect and reset at once disturb nobody (S015).
func TestListenerSurvivesResets(t *testing.T) {
	l, err := link.ListenTCP(loopback4, link.TCPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const resets = 300
	go func() {
		for range resets {
			conn, err := net.Dial("tcp", l.LocalAddr().String())
			if err != nil {
				continue
			}
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
		conn, err := net.Dial("tcp", l.LocalAddr().String())
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Write(frame([]byte("hello")))
		conn.Read(make([]byte, 1)) // until the test is through
	}()
	watchdog := time.AfterFunc(20*time.Second, func() { l.Close() })
	defer watchdog.Stop()
	for range resets + 1 {
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		trains, err := s.Receive()
		s.Close()
		if err == nil {
			if string(trains[0].Bytes) != "hello" {
				t.Errorf("received %q", trains[0].Bytes)
			}
			return
		}
	}
	t.Error("the one client that stayed was not served")
}

// A client that stops reading costs a bounded queue, and its neighbour notices nothing (S087).
func TestStreamSlowBesideFast(t *testing.T) {
	o := link.TCPOptions{SendBuf: 64 << 10}
	slow, _ := dialTCP(t, loopback4, o)
	fast, client := dialTCP(t, loopback4, o)
	trains := []link.Train{train(netip.AddrPort{}, 1, 1400, 40, 1400)}
	for sends := 0; slow.Stats().Dropped == 0; sends++ {
		if sends == 10_000 {
			t.Fatal("500 MB sent to a client that reads nothing, and none dropped")
		}
		if err := slow.Send(trains); err != nil {
			t.Fatal(err)
		}
		if err := fast.Send(trains); err != nil {
			t.Fatal(err)
		}
		equalPackets(t, readFrames(t, client, 40), cutTrain(trains[0]))
	}
	if err := slow.SendControl([]byte("farewell")); err != nil {
		t.Errorf("control packet to a slow client: %v", err)
	}
	if n := fast.Stats().Dropped; n != 0 {
		t.Errorf("%d packets of the fast client dropped", n)
	}
	slow.Close()
	if _, err := slow.Receive(); err != net.ErrClosed {
		t.Errorf("Receive on the slow stream: %v, want net.ErrClosed", err)
	}
}

// What the kernel has room for goes to it within Send, data and control packets alike: on cores that lanes keep busy a
// writer may get its turn after the queue has run over.
func TestStreamSendsAtOnce(t *testing.T) {
	s, client := dialTCP(t, loopback4, link.TCPOptions{SendBuf: 1 << 20})
	var want [][]byte
	for i := range uint64(10) {
		trains := []link.Train{train(netip.AddrPort{}, i, 1400, 70, 3), train(netip.AddrPort{}, i+100, 60, 1, 60), {}}
		if err := s.Send(trains); err != nil {
			t.Fatal(err)
		}
		if err := s.SendControl([]byte("control")); err != nil {
			t.Fatal(err)
		}
		if link.HasWriter(s) {
			t.Fatal("a writer was started for what the kernel has room for")
		}
		sent := append(append(cutTrain(trains[0]), cutTrain(trains[1])...), []byte("control"))
		equalPackets(t, readFrames(t, client, len(sent)), sent)
		want = append(want, sent...)
	}
	if st := s.Stats(); st.PacketsOut != uint64(len(want)) || st.BytesOut != 10*(69*1400+3+60+7) || st.Dropped != 0 {
		t.Errorf("counters %+v, want %d packets", st, len(want))
	}
}

// Wherever the kernel has no room for more, within a packet, its length or between two, the client gets whole packets in
// the order in which they were sent, and those that were counted.
func TestStreamPartlyTaken(t *testing.T) {
	s, client := dialTCP(t, loopback4, link.TCPOptions{SendBuf: 64 << 10, QueuePackets: 1 << 20, QueueBytes: 1 << 30})
	r := rand.New(rand.NewPCG(1, 2))
	total := 0
	client.SetReadDeadline(time.Now().Add(time.Minute))
	for turn := range 12 {
		size, n := 1000+r.IntN(8000), 50+r.IntN(50)
		if turn%3 == 0 {
			size, n = 1+r.IntN(3), 50_000 // so that there may be no room in the middle of a length
		}
		trains := []link.Train{train(netip.AddrPort{}, r.Uint64(), size, n, 1+r.IntN(size)), train(netip.AddrPort{}, r.Uint64(), 100, 1, 1+r.IntN(100))}
		control := train(netip.AddrPort{}, r.Uint64(), 1200, 1, 1+r.IntN(1200)).Bytes
		if err := errors.Join(s.Send(trains), s.SendControl(control), s.Send(trains)); err != nil {
			t.Fatal(err)
		}
		data := append(cutTrain(trains[0]), cutTrain(trains[1])...)
		want := append(append(slices.Clone(data), control), data...)
		equalPackets(t, readFrames(t, bufio.NewReader(client), len(want)), want)
		total += len(want)
	}
	if st := s.Stats(); st.PacketsOut != uint64(total) || st.Dropped != 0 {
		t.Errorf("counters %+v, want %d packets", st, total)
	}
}

// Who learns from a connection why it broke need not be who ends the stream: it ends with the reason all the same.
func TestStreamResetWhileSending(t *testing.T) {
	s, client := dialTCP(t, loopback4, link.TCPOptions{})
	if err := errors.Join(client.SetLinger(0), client.Close()); err != nil {
		t.Fatal(err)
	}
	packet := []link.Train{train(netip.AddrPort{}, 1, 100, 1, 100)}
	for deadline := time.Now().Add(time.Minute); !link.HasWriter(s); {
		if err := s.Send(packet); err != nil {
			t.Fatalf("Send before anybody saw that the connection is broken: %v", err)
		}
		if time.Now().After(deadline) {
			t.Fatal("the reset does not arrive")
		}
	}
	if _, err := s.Receive(); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("Receive: %v, want %v", err, unix.ECONNRESET)
	}
}

// Several lanes and a session send to one client, which reads now quickly and now not at all: what it gets is whole, each
// sender's in the order in which it was sent, all control packets among it, and what is missing was counted.
func TestStreamSendersAtOnce(t *testing.T) {
	const lanes, batches, perBatch, controls = 3, 300, 20, 300
	s, client := dialTCP(t, loopback4, link.TCPOptions{SendBuf: 32 << 10})
	// A packet is its sender, its number and a tail that both tell.
	packet := func(sender, i int) []byte {
		b := make([]byte, 16+(i*37+sender*101)%1300)
		for k := range b {
			b[k] = byte(sender*31 + i*7 + k)
		}
		binary.BigEndian.PutUint16(b, uint16(sender))
		binary.BigEndian.PutUint16(b[2:], uint16(i))
		return b
	}
	var senders sync.WaitGroup
	for lane := range lanes {
		senders.Go(func() {
			for batch := range batches {
				var trains []link.Train
				for i := range perBatch {
					b := packet(lane, batch*perBatch+i)
					trains = append(trains, link.Train{Bytes: b, Size: len(b)})
				}
				if err := s.Send(trains); err != nil {
					t.Errorf("lane %d: %v", lane, err)
				}
			}
		})
	}
	heard := make(chan struct{}, controls) // a session waits for acknowledgements
	senders.Go(func() {
		for i := range controls {
			if i >= 8 {
				<-heard
			}
			if err := s.SendControl(packet(lanes, i)); err != nil {
				t.Errorf("control packet %d: %v", i, err)
			}
		}
	})
	go func() {
		senders.Wait()
		if err := s.SendControl(packet(lanes+1, 0)); err != nil {
			t.Errorf("the last packet: %v", err)
		}
	}()
	var next [lanes + 1]int
	got := uint64(0)
	client.SetReadDeadline(time.Now().Add(time.Minute))
	for r := bufio.NewReaderSize(client, 4<<10); ; got++ {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			t.Fatalf("after %d packets: %v", got, err)
		}
		b := make([]byte, binary.BigEndian.Uint16(head[:]))
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatalf("within packet %d: %v", got, err)
		}
		if len(b) < 16 {
			t.Fatalf("packet %d is %d bytes long", got, len(b))
		}
		from, i := int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
		if slices.Equal(b, packet(lanes+1, 0)) {
			break
		}
		if from > lanes || !slices.Equal(b, packet(from, i)) {
			t.Fatalf("packet %d was sent by nobody: % x", got, b[:16])
		}
		if i < next[from] || from == lanes && i > next[from] {
			t.Fatalf("sender %d: packet %d where %d was next", from, i, next[from])
		}
		if next[from] = i + 1; from == lanes {
			heard <- struct{}{}
		}
		if got%1000 == 999 {
			time.Sleep(10 * time.Millisecond) // the kernel has no room meanwhile
		}
	}
	if next[lanes] != controls {
		t.Errorf("%d control packets, want %d", next[lanes], controls)
	}
	if st := s.Stats(); st.PacketsOut != got+1 || got+st.Dropped != lanes*batches*perBatch+controls {
		t.Errorf("%d packets arrived, counters %+v", got, st)
	}
}
