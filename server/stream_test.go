package server

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"postern/auth"
	"postern/server/link"
	"postern/tlsctl"
)

// A client over TCP: packets both ways, a renegotiation, and its end with the connection.
func TestStream(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.streamPeer("alice", homeAddr).connect()
		alice.mustReach()
		alice.mustReachFrom(alice.addr6(), lanHost6)
		time.Sleep(10 * time.Second)
		alice.exchange()
		alice.mustReach()
		alice.sendKey = 1
		alice.mustReach()
		if st := w.find("alice"); !st.Stream || st.Real != homeAddr {
			t.Errorf("status shows %+v", st)
		}
		alice.conn.Close()
		time.Sleep(time.Second)
		synctest.Wait()
		if w.srv.table.count() != 0 || w.log.count("client disconnected", "connection") != 1 {
			t.Errorf("%d sessions; log:\n%s", w.srv.table.count(), w.log)
		}
		if n := len(w.srv.streams.open) + w.srv.streams.fresh; n != 0 {
			t.Errorf("%d streams are remembered", n)
		}
	})
}

// Over TCP packets may be as long as the device's, however long these are.
func TestStreamLongPackets(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.MTU = 60000
		w.start()
		alice := w.streamPeer("alice", homeAddr).connect()
		long := udp(alice.addr4(), lanHost, make([]byte, w.cfg.MTU-28))
		alice.send(long)
		time.Sleep(time.Second)
		expect(t, "up", w.written(), long)
		back := udp(lanHost, alice.addr4(), make([]byte, w.cfg.MTU-28))
		w.inject(back)
		expect(t, "down", alice.got(), back)
	})
}

// A client that was refused is told so over TCP too, and what is left of it goes with its connection.
func TestStreamRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.login = passwords
		w.start()
		alice := w.streamPeer("alice", homeAddr, withLogin("alice", "wrong"))
		text, after := alice.refusal()
		if want := "AUTH_FAILED," + auth.PublicRefusal; text != want || after < 1700*time.Millisecond || after > 2300*time.Millisecond {
			t.Errorf("%q after %v, want %q after 2 s", text, after, want)
		}
		alice.conn.Close()
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if n := w.srv.table.count() + w.srv.half.total; n != 0 {
			t.Errorf("%d sessions are left when the connection is closed", n)
		}
		if w.log.count("login ended", "wrong password") != 1 {
			t.Errorf("the log does not say why:\n%s", w.log)
		}
	})
}

// On a stream nothing is damaged by accident: a packet that does not open, or comes twice, ends it.
func TestStreamBroken(t *testing.T) {
	for name, spoil := range map[string]func(p *peer, good []byte) []byte{
		"forged": func(_ *peer, good []byte) []byte { good[len(good)-1] ^= 1; return good },
		"replayed": func(p *peer, good []byte) []byte {
			p.sendRaw(good)
			return good
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.start()
				alice := w.streamPeer("alice", homeAddr).connect()
				bob := w.streamPeer("bob", otherAddr).connect()
				alice.sendRaw(spoil(alice, alice.seal(udp(alice.addr4(), lanHost, nil))))
				time.Sleep(2 * time.Second)
				if got := w.clients(); len(got) != 1 || got[0] != "bob" {
					t.Errorf("connected: %v, want bob alone", got)
				}
				if _, err := alice.conn.Read(make([]byte, 1)); err == nil {
					t.Error("the connection stays open")
				}
				bob.mustReach()
			})
		})
	}
}

// A stranger's packets on somebody's stream, a client's packets on another's way in, and peer ids of the other
// transport get nobody anywhere (S078).
func TestStreamIsOneClients(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.streamPeer("alice", homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		before := w.drops(dropStranger)
		reset := tlsctl.Packet{Opcode: tlsctl.OpHardResetClientV2, Session: tlsctl.SessionID{1, 2, 3}}
		alice.sendRaw(reset.AppendTo(nil))
		synctest.Wait()
		if got := w.drops(dropStranger) - before; got != 1 || w.srv.table.count() != 2 {
			t.Errorf("a reset on alice's stream: %d counted, %d sessions; want 1 and 2", got, w.srv.table.count())
		}
		// Alice's good packet out of a socket: her peer id is not for sockets.
		good := alice.seal(udp(alice.addr4(), lanHost, nil))
		before = w.drops(dropNoClient)
		bob.sendRaw(good)
		expect(t, "alice's packet from bob's socket", w.written())
		if got := w.drops(dropNoClient) - before; got != 1 {
			t.Errorf("%d counted as nobody's, want 1", got)
		}
		alice.mustReach()
		bob.mustReach()
		// Bob's packet on alice's stream ends that: it is not hers.
		alice.sendRaw(bob.seal(udp(bob.addr4(), lanHost, nil)))
		expect(t, "bob's packet on alice's stream", w.written())
		time.Sleep(2 * time.Second)
		if got := w.clients(); len(got) != 1 || got[0] != "bob" {
			t.Errorf("connected: %v, want bob alone", got)
		}
	})
}

// Connections that do not begin as they should are closed, and leave nothing (S014): silent ones in 5 s, those that say
// anything but a reset at once. A source has 16 at a time.
func TestStreamStrangers(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		dial := func(n int) net.Conn {
			ours, theirs := net.Pipe()
			w.doors <- link.NewStream(addressed{ours, netip.AddrPortFrom(homeAddr.Addr(), uint16(n))}, link.TCPOptions{})
			synctest.Wait()
			return theirs
		}
		closed := func(c net.Conn) time.Duration {
			t.Helper()
			began := time.Now()
			c.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := c.Read(make([]byte, 10)); err != io.EOF {
				t.Errorf("read: %v, want the end", err)
			}
			return time.Since(began)
		}
		for _, b := range [][]byte{{0, 0}, {0xff, 0xff}, {0, 1, 0}, []byte("\x00\x0eGET / HTTP/1.1\r\n")} {
			c := dial(1)
			go c.Write(b)
			if after := closed(c); after != 0 {
				t.Errorf("a stream that begins with %q is closed after %v", b, after)
			}
			c.Close()
		}
		var silent []net.Conn
		for i := range maxNewStreamsPerSource {
			silent = append(silent, dial(100+i))
		}
		if after := closed(dial(99)); after != 0 {
			t.Errorf("one more than a source may have is closed after %v", after)
		}
		if after := closed(silent[0]); after != 5*time.Second {
			t.Errorf("a silent one is closed after %v, want 5 s", after)
		}
		synctest.Wait()
		if n := w.srv.streams.fresh + len(w.srv.streams.open) + len(w.srv.streams.bySource) + w.srv.table.count(); n != 0 {
			t.Errorf("%d things are remembered", n)
		}
		for _, c := range silent {
			c.Close()
		}
	})
}

// A client that takes nothing loses packets, and holds up nobody (S087).
func TestSlowStream(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		slow := w.streamPeer("slow", homeAddr).connect()
		fast := w.streamPeer("fast", otherAddr).connect()
		stop := make(chan struct{})
		slow.deliverData(func() { <-stop })
		for range 500 {
			w.inject(udp(lanHost, slow.addr4(), make([]byte, 1000)))
		}
		began := time.Now()
		fast.mustReach()
		if took := time.Since(began); took != 0 {
			t.Errorf("a fast client's packets took %v", took)
		}
		close(stop)
		if n := len(slow.got()); n < 60 || n > 70 {
			t.Errorf("the slow one got %d packets of 500, want about the 64 that its queue holds", n)
		}
		slow.mustReach()
	})
}
