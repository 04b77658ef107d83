package server

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"postern/server/datachan"
	"postern/server/link"
	"postern/tun"
)

var (
	group4 = netip.MustParseAddr("224.0.0.251")
	group6 = netip.MustParseAddr("ff02::fb")
)

// Multicast of the device reaches every client, in both families; a client's reaches the device and, with
// client-to-client, every other client.
func TestGroups(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("client-to-client %v", direct), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.cfg.ClientToClient = direct
				w.start()
				alice, bob := w.peer("alice", homeAddr).connect(), w.streamPeer("bob", otherAddr).connect()
				for _, c := range []struct{ from, alice, group netip.Addr }{{lanHost, alice.addr4(), group4}, {lanHost6, alice.addr6(), group6}} {
					b := udp(c.from, c.group, []byte("to all"))
					w.inject(b)
					expect(t, "the device's to alice", alice.got(), b)
					expect(t, "the device's to bob", bob.got(), b)
					b = udp(c.alice, c.group, []byte("to all others"))
					alice.send(b)
					expect(t, "alice's to the device", w.written(), b)
					expect(t, "alice's to alice", alice.got())
					if direct {
						expect(t, "alice's to bob", bob.got(), b)
					} else {
						expect(t, "alice's to bob", bob.got())
					}
				}
				b := udp(bob.addr4(), group4, []byte("forged"))
				alice.send(b)
				expect(t, "forged", slices.Concat(w.written(), bob.got()))
				super, segments := superpacket(lanHost, group4, 3, 1000)
				w.injectGSO(super)
				expect(t, "a superpacket's to alice", alice.got(), segments...)
				expect(t, "a superpacket's to bob", bob.got(), segments...)
				w.injectGSO(tun.Packet{Bytes: super.Bytes[:30], GSO: super.GSO})
				expect(t, "a broken one's", slices.Concat(alice.got(), bob.got()))
			})
		})
	}
}

// Packets of a flow to a group, which the device would take as one superpacket, reach the other clients as they were sent.
func TestGroupsAreWhole(t *testing.T) {
	b := newBench(t, 2)
	b.srv.clientToClient, b.sock.keep = true, true
	alice, bob := b.members[0], b.members[1]
	packet := func(i int) []byte { return udp(alice.inside, group4, bytes.Repeat([]byte{byte(i)}, 1000)) }
	const n = 3
	must(t, b.uplink.batch([]link.Train{alice.trainOf(n, packet)}))
	var got [][]byte
	var s datachan.Scratch
	for _, train := range b.sock.log {
		for sealed := range slices.Chunk(train.Bytes, train.Size) {
			payload, _, err := bob.client.Open(append(slices.Clone(sealed), make([]byte, link.Slack)...)[:len(sealed)], &s)
			must(t, err)
			got = append(got, bytes.Clone(payload))
		}
	}
	expect(t, "bob", got, packet(0), packet(1), packet(2))
	if want := n * len(packet(0)); b.queue.bytes != want {
		t.Errorf("%d bytes reached the device, want %d", b.queue.bytes, want)
	}
}

// What a client sends to groups is copied only so often a second, for it is multiplied; the others' is not the less, and the
// device gets all of it.
func TestGroupsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.ClientToClient = true
		w.start()
		alice, bob, carol := w.peer("alice", homeAddr).connect(), w.peer("bob", otherAddr).connect(), w.peer("carol", thirdAddr).connect()
		const most = copyRate / 3 // packets of one client, with two others and itself
		flood := func(from *peer, n int) (written int) {
			for range n {
				from.send(udp(from.addr4(), group4, nil))
				written += len(w.written())
			}
			return written
		}
		if got := flood(alice, most+100); got != most+100 {
			t.Errorf("the device got %d packets, want %d", got, most+100)
		}
		if got := len(bob.got()); got != most {
			t.Errorf("bob got %d packets of alice's at once, want %d", got, most)
		}
		carol.got()
		if got := w.srv.drops[dropGroup].Load(); got != 100 {
			t.Errorf("%d counted, want 100", got)
		}
		flood(bob, 10)
		if got := len(carol.got()); got != 10 {
			t.Errorf("carol got %d packets of bob's, want 10", got)
		}
		time.Sleep(time.Second / 2)
		flood(alice, most)
		if got := len(carol.got()); got < most/2-1 || got > most/2+1 {
			t.Errorf("carol got %d packets of alice's half a second later, want %d", got, most/2)
		}
	})
}

// Sessions that are not logged in take nothing from what clients may send to groups, and are not looked at for it.
func TestGroupsBesideStrangers(t *testing.T) {
	b := newBench(t, 9)
	b.srv.clientToClient = true
	for range maxHalfOpen {
		b.srv.table.clients[&client{}] = struct{}{}
	}
	const packets = copyRate / 9
	m := b.members[0]
	must(t, b.uplink.batch([]link.Train{m.trainOf(packets, func(int) []byte { return udp(m.inside, group4, nil) })}))
	if got := b.sock.packets; got != packets*8 {
		t.Errorf("%d copies, want %d", got, packets*8)
	}
	if got := b.srv.table.joined(nil); len(got) != 9 {
		t.Errorf("%d clients are looked at, want 9", len(got))
	}
}

// However many clients send to groups in one batch, the copies are bounded, and what is beyond that dies and is counted.
func TestBatchOfGroupsIsBounded(t *testing.T) {
	b := newBench(t, 9)
	b.srv.clientToClient = true
	var trains []link.Train
	packets := 0
	for _, m := range b.members {
		trains = append(trains, m.trainOf(copyRate/9, func(int) []byte { return udp(m.inside, group4, nil) }))
		packets += copyRate / 9
	}
	must(t, b.uplink.batch(trains))
	if got := b.sock.packets; got != maxCopies {
		t.Errorf("%d copies, want %d", got, maxCopies)
	}
	if got, want := int(b.srv.drops[dropGroup].Load()), packets*8-maxCopies; got != want {
		t.Errorf("%d counted, want %d", got, want)
	}
	if n := cap(b.uplink.forward); n > spareCopies {
		t.Errorf("room for %d copies is kept", n)
	}
}

// What copies for many take is not kept by a stream, of which there may be as many (S009).
func TestStreamsKeepNoCopies(t *testing.T) {
	b := newBench(t, 100)
	b.srv.clientToClient = true
	m := b.members[0]
	u := &uplink{lane: b.lane, sock: &b.sock, door: m, only: m.c}
	must(t, u.batch([]link.Train{m.trainOf(1, func(int) []byte { return udp(m.inside, group4, nil) })}))
	if b.sock.packets != 99 {
		t.Errorf("%d copies, want 99", b.sock.packets)
	}
	if cap(u.forward) > streamCopies || cap(u.clients) > 0 {
		t.Errorf("room for %d copies to %d clients is kept", cap(u.forward), cap(u.clients))
	}
	peer := b.members[1]
	must(t, u.batch([]link.Train{m.trainOf(1, func(int) []byte { return udp(m.inside, peer.inside, nil) })}))
	room := cap(u.forward)
	must(t, u.batch([]link.Train{m.trainOf(1, func(int) []byte { return udp(m.inside, peer.inside, nil) })}))
	if room == 0 || cap(u.forward) != room {
		t.Errorf("room for %d packets to one client, then for %d", room, cap(u.forward))
	}
}
