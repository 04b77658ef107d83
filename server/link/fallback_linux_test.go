package link_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"postern/server/link"
)

// Where the kernel cannot split, or not merge, or neither, the same packets arrive in the same order, and still many per
// system call.
func TestUDPWithoutOffload(t *testing.T) {
	for _, lacks := range []struct{ segment, gro bool }{{true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("without UDP_SEGMENT %v, UDP_GRO %v", lacks.segment, lacks.gro), func(t *testing.T) {
			from := listenUDP(t, loopback4, link.UDPOptions{})
			to := listenUDP(t, loopback4, link.UDPOptions{})
			if lacks.segment {
				link.WithoutSegmentation(from)
			}
			if lacks.gro {
				link.WithoutGRO(t, to)
			}
			const packets = 46
			sent := train(to.LocalAddr(), 1, 1400, packets, 600)
			if err := from.Send([]link.Train{sent}); err != nil {
				t.Fatal(err)
			}
			got, trains := receivePackets(t, to, from.LocalAddr(), packets)
			equalPackets(t, got, cutTrain(sent))
			if trains != packets {
				t.Errorf("%d packets came in %d trains", packets, trains)
			}
			if st := from.Stats(); st.Sends != 1 || st.Dropped != 0 || st.Singly != 0 || len(st.SendErrors) != 0 {
				t.Errorf("sent in %d system calls, %d dropped, %d sent singly, %v", st.Sends, st.Dropped, st.Singly, st.SendErrors)
			}
			if st := to.Stats(); st.Receives > packets/4 {
				t.Errorf("received in %d system calls", st.Receives)
			}
		})
	}
}

// Where the kernel takes no program that selects a socket, packets still arrive, each at one of the lanes, and those of
// one address at the same one.
func TestUDPWithoutSelector(t *testing.T) {
	link.WithoutSelector(t)
	socks, err := link.ListenUDP(loopback4, link.UDPOptions{Lanes: 3})
	if err != nil {
		t.Fatal(err)
	}
	type arrival struct {
		lane int
		from netip.AddrPort
	}
	arrivals := make(chan arrival, 64)
	for lane, s := range socks {
		defer s.Close()
		go func() {
			for {
				trains, err := s.Receive()
				if err != nil {
					return
				}
				for _, tr := range trains {
					for range cutTrain(tr) {
						arrivals <- arrival{lane, tr.Addr}
					}
				}
			}
		}()
	}
	for range 10 {
		from := listenUDP(t, loopback4, link.UDPOptions{Plain: true})
		first := -1
		for id := range byte(6) {
			packet := []byte{9 << 3, 0, 0, id, 0xaa} // data of six peers, whom a selector would spread
			if err := from.Send([]link.Train{{Addr: socks[0].LocalAddr(), Bytes: packet}}); err != nil {
				t.Fatal(err)
			}
			select {
			case a := <-arrivals:
				if first < 0 {
					first = a.lane
				}
				if a.lane != first || a.from != from.LocalAddr() {
					t.Errorf("peer %d of %v arrived at lane %d from %v, others at lane %d", id, from.LocalAddr(), a.lane, a.from, first)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("a packet arrived nowhere")
			}
		}
		from.Close()
	}
}
