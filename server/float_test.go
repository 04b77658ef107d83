package server

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"postern/auth"
	"postern/server/datachan"
	"postern/server/link"
)

// at is a place a client roams to: port n of a network.
func at(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("203.0.113.50"), uint16(50000+n))
}

// A client whose address changes is followed with its next packet: data and control packets go there, and come from
// there (S077).
func TestFloat(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		alice.mustReach()
		for i := range 5 {
			alice.sock.Move(at(i))
			alice.mustReach()
			if got := w.find("alice").Real; got != at(i) {
				t.Errorf("alice is at %v, want %v", got, at(i))
			}
			alice.renegotiate() // the control channel has moved, too
			time.Sleep(2 * time.Second)
		}
		alice.ctl.Say("EXIT") // and the server listens there
		time.Sleep(10 * time.Second)
		if got := w.clients(); len(got) != 0 {
			t.Errorf("connected: %v", got)
		}
		if n := len(w.srv.table.byControl) + len(w.srv.table.byOutside) + len(w.srv.table.pending) + len(w.srv.table.byName); n != 0 {
			t.Errorf("%d addresses and names are remembered", n)
		}
	})
}

// A client that keeps changing its address is followed once a second; its packets are taken all the while.
func TestFloatOnceASecond(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		time.Sleep(700 * time.Millisecond) // not in step with the server's clock
		alice.sock.Move(at(1))
		alice.mustReach()
		for i := range 9 {
			time.Sleep(100 * time.Millisecond)
			alice.sock.Move(at(2 + i))
			ask := udp(alice.addr4(), lanHost, nil)
			alice.send(ask)
			expect(t, "from a new address", w.written(), ask)
			if got := w.find("alice").Real; got != at(1) {
				t.Fatalf("alice is at %v %v after she moved to %v", got, time.Duration(i+1)*100*time.Millisecond, at(1))
			}
		}
		time.Sleep(100 * time.Millisecond)
		alice.mustReach()
		if got := w.find("alice").Real; got != at(10) {
			t.Errorf("a second later alice is at %v, want %v", got, at(10))
		}
	})
}

// Nobody but the client moves it: no replay, forgery, late packet or packet of a key that it has left behind (S077,
// S076), and no packet without a peer id.
func TestFloatOnlyForTheNewest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		attacker := w.net.Client(at(1))
		t.Cleanup(func() { attacker.Close() })
		try := func(what string, pkt []byte) {
			t.Helper()
			time.Sleep(2 * time.Second)
			before := w.srv.table.peer(alice.peerID()).rx.last.Load()
			attacker.Send([]link.Train{{Addr: hubAddr, Bytes: pkt, Size: len(pkt)}})
			synctest.Wait()
			if got := w.find("alice").Real; got != homeAddr {
				t.Errorf("%s moved alice to %v", what, got)
			}
			if after := w.srv.table.peer(alice.peerID()).rx.last.Load(); after != before && what != "a late packet" && what != "a packet under the old key" && what != "P_DATA_V1" {
				t.Errorf("%s counted as a sign of life", what)
			}
			alice.mustReach()
		}
		hello := udp(alice.addr4(), lanHost, []byte("hello"))
		late := alice.seal(hello)
		oldKey := alice.seal(hello)
		replay := alice.seal(hello)
		alice.sendRaw(replay)
		try("a replay", replay)
		forged := alice.seal(hello)
		forged[len(forged)-1] ^= 1
		try("a forgery", forged)
		try("a short packet", replay[:10])
		nobody := append([]byte{}, replay...)
		nobody[1], nobody[2], nobody[3] = 0xff, 0xff, 0xff
		try("peer id 0xffffff", nobody)
		nobody[1], nobody[2], nobody[3] = 0, 0, 77
		try("a peer id that nobody has", nobody)
		try("a late packet", late)
		w.written()

		// The attacker holds back the last packet of the old key, and lets it go when alice uses the next one.
		heldBack := alice.seal(hello)
		alice.renegotiate()
		alice.mustReach()
		try("a packet under the old key", heldBack)
		try("a packet under the old key", oldKey)
	})
}

// A client that knows no peer ids stays where it is.
func TestFloatNeedsPeerID(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr, oldClient).connect()
		alice.mustReach()
		alice.sock.Move(at(1))
		alice.send(udp(alice.addr4(), lanHost, nil))
		if got := w.written(); len(got) != 0 {
			t.Errorf("%d packets taken from a stranger's address", len(got))
		}
		if w.drops(dropNoClient) == 0 {
			t.Error("nothing was counted as no client's")
		}
		// A packet with the peer id of nobody is nobody's, even from her address.
		alice.sock.Move(homeAddr)
		b := alice.seal(udp(alice.addr4(), lanHost, nil))
		v2 := append([]byte{datachan.OpDataV2 << 3, 0xff, 0xff, 0xff}, b[1:]...)
		before := w.drops(dropNoClient)
		alice.sendRaw(v2)
		synctest.Wait()
		if got := w.drops(dropNoClient) - before; got != 1 {
			t.Errorf("P_DATA_V2 for peer 0xffffff: %d counted as nobody's, want 1", got)
		}
		alice.mustReach()
	})
}

// A client does not move to where another is, unless that is an older session of its own certificate, which ends.
func TestFloatToAnothersAddress(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.DuplicateCN = true
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		bob.sock.Move(thirdAddr) // and says nothing from there
		alice.sock.Move(otherAddr)
		ask := udp(alice.addr4(), lanHost, nil)
		alice.send(ask)
		expect(t, "from bob's address", w.written(), ask)
		if got := w.find("alice").Real; got != homeAddr {
			t.Errorf("alice is at %v, which is bob's", got)
		}
		bob.mustReach() // which moves him, so that his old address is free
		time.Sleep(time.Second)
		alice.mustReach()

		twin := w.peerWith(alice.cert, homeAddr).connect()
		twin.sock.Move(at(9))
		time.Sleep(2 * time.Second)
		alice.sock.Move(homeAddr)
		alice.mustReach()
		if got := w.clients(); len(got) != 2 {
			t.Errorf("connected: %v, want alice and bob: her older session was at %v", got, homeAddr)
		}
	})
}

// The same address is another client's at another door: the two never meet.
func TestOneAddressTwoDoors(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		bob := w.streamPeer("bob", homeAddr).connect()
		for range 2 {
			alice.mustReach()
			bob.mustReach()
		}
		if got := w.clients(); len(got) != 2 {
			t.Errorf("connected: %v, want both", got)
		}
	})
}

// Two listeners: what one knows of an address means nothing to the other, and no client moves between them.
func TestTwoListeners(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.apart = true
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		alice.turn(hubAddr2)
		alice.sock.Move(at(1))
		ask := udp(alice.addr4(), lanHost, nil)
		alice.send(ask)
		expect(t, "through the other listener", w.written(), ask)
		if got := w.find("alice").Real; got != homeAddr {
			t.Errorf("alice is at %v", got)
		}
		bob := w.peer("bob", homeAddr, oldClient) // as a translator may have it
		bob.turn(hubAddr2)
		bob.connect().mustReach()
		alice.sock.Move(at(2))
		alice.turn(hubAddr)
		alice.mustReach()
		bob.mustReach()
		if got := w.clients(); len(got) != 2 {
			t.Errorf("connected: %v", got)
		}
	})
}

// A kernel that sends a client's packets to another lane's socket is followed there.
func TestChangeOfLane(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.lanes = 2
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		var from []netip.AddrPort
		w.net.Filter(func(f, to netip.AddrPort, pkt []byte) bool {
			if to == homeAddr {
				from = append(from, f)
			}
			return true
		})
		alice.mustReach()
		alice.turn(hubAddr2)
		alice.mustReach()
		if len(from) != 2 || from[0] != hubAddr || from[1] != hubAddr2 {
			t.Errorf("answers came from %v, want from the socket that was asked", from)
		}
		if n := w.log.count("client moved"); n != 0 {
			t.Errorf("logged %d moves", n)
		}
	})
}

// Peer ids rest for a minute after their client has gone, and what comes for them meets nobody (S078).
func TestPeerIDsRest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		id := alice.peerID()
		stale := alice.seal(udp(alice.addr4(), lanHost, nil))
		alice.ctl.Say("EXIT")
		time.Sleep(6 * time.Second)
		freed := time.Now()
		seen := map[datachan.PeerID]bool{id: true}
		for i := 0; time.Since(freed) < peerRest-2*time.Second; i++ {
			p := w.peer("bob", at(i)).connect()
			if p.peerID() == id {
				t.Fatalf("peer id %d is in use again after %v", id, time.Since(freed))
			}
			seen[p.peerID()] = true
			before := w.drops(dropNoClient)
			p.sendRaw(stale)
			synctest.Wait()
			if w.drops(dropNoClient) != before+1 {
				t.Error("a packet of the dead met somebody")
			}
			time.Sleep(3 * time.Second)
		}
		time.Sleep(10 * time.Second)
		if p := w.peer("carol", thirdAddr).connect(); !seen[p.peerID()] {
			t.Errorf("peer id %d is a new one, want one that has rested", p.peerID())
		}
	})
}

// A client that changes its address in the middle of a renegotiation, while its login is asked about, keeps both keys and
// loses nothing: data goes on under the old key from the new place, and the exchange ends there.
func TestFloatDuringRenegotiation(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		slow := false
		w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			if slow {
				time.Sleep(3 * time.Second)
			}
			return &auth.Identity{Name: r.Username}, nil
		})
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		time.Sleep(2 * time.Minute)
		slow = true
		done := make(chan error, 1)
		go func() { done <- alice.ctl.Renegotiate(w.ctx) }()
		time.Sleep(time.Second)
		alice.sock.Move(at(1))
		alice.mustReach()
		if got := w.find("alice").Real; got != at(1) {
			t.Errorf("alice is at %v, want %v", got, at(1))
		}
		must(t, <-done)
		time.Sleep(time.Second)
		if !alice.takes(0) || !alice.takes(1) {
			t.Error("not both keys are taken")
		}
		alice.sendKey = 1
		alice.mustReach()
		if n := w.log.count("client connected"); n != 1 {
			t.Errorf("%d sessions, want one", n)
		}
	})
}
