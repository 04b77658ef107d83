package linktest

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"postern/server/link"
)

var (
	serverAddr = netip.MustParseAddrPort("192.0.2.1:1194")
	clientAddr = netip.MustParseAddrPort("198.51.100.7:40000")
	otherAddr  = netip.MustParseAddrPort("[2001:db8::7]:40000")
)

func receive(t *testing.T, s *Socket) []link.Train {
	t.Helper()
	trains, err := s.Receive()
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range trains {
		if cap(tr.Bytes) < len(tr.Bytes)+link.Slack {
			t.Errorf("train of %d bytes has capacity %d", len(tr.Bytes), cap(tr.Bytes))
		}
	}
	return trains
}

func TestTrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(serverAddr)
		server, client, other := n.Server(), n.Client(clientAddr), n.Client(otherAddr)
		mapped := netip.AddrPortFrom(netip.AddrFrom16(serverAddr.Addr().As16()), serverAddr.Port())
		client.Send([]link.Train{{Addr: mapped, Bytes: []byte("aaabbbc"), Size: 3}, {Addr: serverAddr, Bytes: []byte("ddd")}})
		other.Send([]link.Train{{Addr: serverAddr, Bytes: []byte("ee"), Size: 2}})
		want := []link.Train{
			{Addr: clientAddr, Bytes: []byte("aaabbbc"), Size: 3},
			{Addr: clientAddr, Bytes: []byte("ddd"), Size: 3},
			{Addr: otherAddr, Bytes: []byte("ee"), Size: 2},
		}
		got := receive(t, server)
		if len(got) != len(want) {
			t.Fatalf("got %d trains, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i].Addr != want[i].Addr || got[i].Size != want[i].Size || string(got[i].Bytes) != string(want[i].Bytes) {
				t.Errorf("train %d: %v %q by %d, want %v %q by %d", i, got[i].Addr, got[i].Bytes, got[i].Size,
					want[i].Addr, want[i].Bytes, want[i].Size)
			}
		}

		go func() {
			synctest.Wait() // until the server waits
			other.Send([]link.Train{{Addr: serverAddr, Bytes: []byte("f")}})
		}()
		receive(t, server)
		if string(got[0].Bytes) == "aaabbbc" {
			t.Error("a train outlives the next Receive")
		}
	})
}

func TestMoveAndFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(serverAddr)
		client := n.Client(clientAddr)
		moved := netip.MustParseAddrPort("198.51.100.7:50000")
		client.Move(moved)
		client.Send([]link.Train{{Addr: serverAddr, Bytes: []byte("here")}})
		if got := receive(t, n.Server()); got[0].Addr != moved {
			t.Errorf("from %v after the move, want %v", got[0].Addr, moved)
		}
		n.Filter(func(from, to netip.AddrPort, packet []byte) bool {
			if from != serverAddr || to != moved {
				t.Errorf("asked about a packet from %v to %v", from, to)
			}
			return packet[0] != 'x'
		})
		n.Server().Send([]link.Train{
			{Addr: moved, Bytes: []byte("1x2"), Size: 1},
		})
		if got := receive(t, client); string(got[0].Bytes) != "12" {
			t.Errorf("through the filter came %q, want 12", got[0].Bytes)
		}
		n.Filter(nil)
		n.Server().Send([]link.Train{{Addr: clientAddr, Bytes: []byte("to where it was")}, {Addr: moved, Bytes: []byte("y")}})
		if got := receive(t, client); string(got[0].Bytes) != "y" {
			t.Errorf("got %q, want y", got[0].Bytes)
		}
	})
}

func TestQueueAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(serverAddr)
		client := n.Client(clientAddr)
		client.Send([]link.Train{{Addr: serverAddr, Bytes: make([]byte, queueLen+5), Size: 1}})
		if got := n.Server().Dropped(); got != 5 {
			t.Errorf("%d packets dropped, want 5", got)
		}
		received := 0
		for received < queueLen {
			for _, tr := range receive(t, n.Server()) {
				received += len(tr.Bytes)
			}
		}
		ended := make(chan error)
		go func() {
			_, err := n.Server().Receive()
			ended <- err
		}()
		synctest.Wait()
		n.Server().Close()
		n.Server().Close()
		if err := <-ended; err != net.ErrClosed {
			t.Errorf("Receive: %v, want net.ErrClosed", err)
		}
		if _, err := n.Server().Receive(); err != net.ErrClosed {
			t.Errorf("Receive again: %v, want net.ErrClosed", err)
		}
		if err := n.Server().Send(nil); err != net.ErrClosed {
			t.Errorf("Send: %v, want net.ErrClosed", err)
		}
		if err := client.Send([]link.Train{{Addr: serverAddr, Bytes: []byte("into the void")}}); err != nil {
			t.Error(err)
		}
		n.Client(serverAddr) // free again
	})
}
