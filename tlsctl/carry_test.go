package tlsctl_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// Only packets that name both ends of the session count (S022): with another's id an acknowledgement does nothing.
func TestForeignSessionIDs(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		var server tlsctl.SessionID
		var last tlsctl.PacketID
		s.down.Drop(func(pkt []byte) bool {
			if p, err := tlsctl.ParsePacket(pkt); err == nil {
				server = p.Session
				last = max(last, p.ID)
			}
			return false
		})
		c := s.connect(ctx)
		defer s.done(c)
		time.Sleep(time.Second)
		s.up.Drop(func([]byte) bool { return true })
		s.live().Tell("INFO,x")
		synctest.Wait()
		// sent is how many packets come in the next ten seconds, in which the message is repeated unless it was
		// acknowledged by ack.
		sent := func(ack tlsctl.Packet) int {
			ack.Opcode, ack.Acks = tlsctl.OpAck, []tlsctl.PacketID{last}
			s.live().Deliver(ack.AppendTo(nil))
			before, _ := s.down.Count()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			after, _ := s.down.Count()
			return after - before
		}
		foreign := tlsctl.SessionID{1, 2, 3, 4, 5, 6, 7, 8}
		for _, test := range []struct {
			name string
			ack  tlsctl.Packet
			want bool
		}{
			{"another client's", tlsctl.Packet{Session: foreign, Remote: server}, true},
			{"to another server", tlsctl.Packet{Session: c.ID(), Remote: foreign}, true},
			{"unknown key id", tlsctl.Packet{KeyID: 3, Session: c.ID(), Remote: server}, true},
			{"right", tlsctl.Packet{Session: c.ID(), Remote: server}, false},
		} {
			if n := sent(test.ack); n > 0 != test.want {
				t.Errorf("%s: %d packets were sent", test.name, n)
			}
		}
	})
}

// Resets of a session's own client are duplicates, and are acknowledged; what else is no packet of a client is not.
func TestOpcodesInSession(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		c := s.connect(ctx)
		defer s.done(c)
		time.Sleep(time.Second)
		for op := range tlsctl.Opcode(32) {
			for key := range tlsctl.KeyID(8) {
				if op == tlsctl.OpSoftReset && key == 1 {
					continue // its turn
				}
				for id := range tlsctl.PacketID(2) {
					p := tlsctl.Packet{Opcode: op, KeyID: key, Session: c.ID(), ID: id}
					before, _ := s.down.Count()
					s.live().Deliver(p.AppendTo(nil))
					time.Sleep(20 * time.Millisecond)
					synctest.Wait()
					after, _ := s.down.Count()
					want := 0
					switch {
					case key != 0:
					case op == tlsctl.OpControl, id == 0 && (op == tlsctl.OpHardResetClientV2):
						want = 1
					}
					if after-before != want {
						t.Errorf("opcode %d, key id %d, message %d: %d answers, want %d", op, key, id, after-before, want)
					}
				}
			}
		}
		if got, want := s.live().Owner.Events(), []string{"admit 0", "install 0", "confirm 0", "established"}; !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}

// A client that acknowledges once gets in although that acknowledgement, and the cookie with it, was lost (6.6).
func TestLostThirdPacket(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		wrapCases()[2].set(t, s)
		s.client.AckOnce = true
		n := 0
		s.up.Drop(func([]byte) bool {
			n++
			return n == 2 || n == 3
		})
		c := s.connect(ctx)
		defer s.done(c)
		time.Sleep(time.Second)
		checkKeys(t, c, s.live().Owner, 0)
	})
}

// To an address that is not proved a session answers each packet with one, and repeats nothing by itself (S004).
func TestUnprovenAddress(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		wrapCases()[4].set(t, s)
		var heard atomic.Int64
		s.up.Drop(func([]byte) bool {
			heard.Add(1)
			return heard.Load() > 3
		})
		s.down.Drop(func([]byte) bool { return true })
		c := s.dial()
		defer s.done(c)
		go c.Connect(ctx)
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if sent, _ := s.down.Count(); sent != 3 {
			t.Errorf("%d packets were sent for 3", sent)
		}
		if err := s.live().Wait(); err != tlsctl.ErrHandshakeTimeout && err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

// Nor does TLS begin there before our reset is acknowledged, whatever the client sends.
func TestNoTLSToUnprovenAddress(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s := newSetup(t)
		wrapCases()[4].set(t, s)
		server, err := ctltest.NewServer(&s.cfg, s.newOwner)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close(errTestOver)
		sent := 0
		say := func(p tlsctl.Packet) {
			p.Session = tlsctl.SessionID{1}
			server.Deliver(address, s.client.Wrap.Seal(nil, &p), func([]byte) { sent++ })
			time.Sleep(time.Second)
			synctest.Wait()
		}
		say(tlsctl.Packet{Opcode: tlsctl.OpHardResetClientV3})
		say(tlsctl.Packet{Opcode: tlsctl.OpControl, ID: 1, Payload: []byte{0x16, 3, 1, 0, 1, 0xff}}) // TLS would answer with an alert
		if sent != 2 {
			t.Errorf("%d packets were sent for 2", sent)
		}
		if got := server.Opened()[0].Owner.Events(); len(got) != 0 {
			t.Errorf("events %q", got)
		}
	})
}

// A burst is dropped on datagrams, where it comes again, and ends a stream, where it would not.
func TestInboxIsBounded(t *testing.T) {
	for _, stream := range []bool{false, true} {
		inBubble(t, func(t *testing.T, ctx context.Context) {
			s := newSetup(t)
			s.client.Stream = stream
			c := s.connect(ctx)
			defer s.done(c)
			time.Sleep(time.Second)
			p := tlsctl.Packet{Opcode: tlsctl.OpAck, Session: c.ID()}
			b := p.AppendTo(nil)
			for range 10000 {
				s.live().Deliver(b)
			}
			synctest.Wait()
			if left, _ := s.live().Owner.Left(); (left != nil) != stream {
				t.Errorf("stream %v: left with %v", stream, left)
			}
			if !stream {
				time.Sleep(2 * time.Second)
				if err := c.Renegotiate(ctx); err != nil {
					t.Errorf("after the burst: %v", err)
				}
			}
		})
	}
}
