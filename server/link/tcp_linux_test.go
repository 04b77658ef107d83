package link_test

import (
	"net"
	"net/netip"
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
