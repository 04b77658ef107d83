package server

import (
	"strings"
	"testing"
	"time"

	"postern/server/config"
	"postern/server/datachan"
	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// lastWord is the last message that a client got, "" if that is not one which ends its session.
func (p *peer) lastWord() string {
	all := p.ctl.Messages()
	if len(all) == 0 || strings.HasPrefix(all[len(all)-1], "PUSH_") {
		return ""
	}
	return all[len(all)-1]
}

// A client whose session ends for a time limit hears which, in the word that has it do what the limit is for. Its keys are
// dead by then (S030).
func TestTimeLimitsAreTold(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*config.Config)
		pings  bool // the client's
		want   string
	}{
		{"ping-restart", func(c *config.Config) { c.PingRestart = time.Minute }, false, "RESTART,[P]:nothing was heard for the ping timeout"},
		{"ping-exit", func(c *config.Config) { c.PingExit = time.Minute }, false, "RESTART,[P]:nothing was heard for the ping timeout"},
		{"session-timeout", func(c *config.Config) { c.SessionTimeout = time.Minute }, true, "RESTART,session-timeout"},
		{"inactive", func(c *config.Config) { c.Inactive = time.Minute }, true, "HALT,inactive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				c.change(w.cfg)
				w.start()
				peers := []*peer{w.peer("udp24", at(1), ctltest.V24.Apply), w.peer("udp26", at(2)), w.peer("udp311", at(3), ctltest.V311.Apply), w.streamPeer("tcp", at(4))}
				for _, p := range peers {
					p.connect()
				}
				for range 65 {
					time.Sleep(time.Second)
					for _, p := range peers {
						if c.pings && len(w.clients()) > 0 {
							p.send(datachan.AppendPing(nil))
						}
					}
				}
				for _, p := range peers {
					if got := p.lastWord(); got != c.want {
						t.Errorf("%s heard %q, want %q", p.name, got, c.want)
					}
				}
				if n := w.log.count("client disconnected", `"reason"`); n != len(peers) || w.srv.table.count() != 0 {
					t.Errorf("%d of %d ended:\n%s", n, len(peers), w.log)
				}
			})
		})
	}
}

// Of two devices with one certificate the newer one goes on, and the older one stops: it would end the newer one's session
// when it came again. A client that begins anew from its address is not told to stop.
func TestDisplacedIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		phone := w.peer("alice", homeAddr).connect()
		laptop := w.peerWith(phone.cert, otherAddr).connect()
		time.Sleep(time.Second)
		if got := phone.lastWord(); got != "HALT,connected from elsewhere" {
			t.Errorf("the older device heard %q", got)
		}
		if got := laptop.lastWord(); got != "" {
			t.Errorf("the newer device heard %q", got)
		}
		laptop.mustReach()

		laptop.use(ctltest.NewClient(laptop.sendRaw, laptop.cfg)) // as after a restart with a fixed port
		sessions := make(map[tlsctl.SessionID]bool)
		laptop.deliver(func(pkt []byte) {
			_, _, sid, _ := tlsctl.PeekSession(pkt)
			sessions[sid] = true
			laptop.ctl.Deliver(pkt)
		})
		laptop.connect()
		time.Sleep(time.Second)
		if len(sessions) != 1 {
			t.Error("who began anew heard something of the old session")
		}
		if got := laptop.lastWord(); got != "" {
			t.Errorf("the new session heard %q", got)
		}
		laptop.mustReach()
	})
}

// A server that ends has each client come back with what it has logged in with, or try the next server, in a word that
// it knows.
func TestServerEndIsTold(t *testing.T) {
	for notify, want := range map[int]map[string]string{
		0: {"v24": "RESTART,[P]:server ends", "v27": "RESTART,[P]:server ends", "v311": "RESTART,[P]:server ends"},
		1: {"v24": "RESTART,[P]:server ends", "v27": "RESTART,[P]:server ends", "v311": "RESTART,[P]:server ends"},
		2: {"v24": "RESTART,[PN]:server ends", "v27": "RESTART,[PN]:server ends", "v311": "RESTART,[N]:server ends"},
	} {
		inBubble(t, func(t *testing.T, w *world) {
			w.cfg.ExitNotify = notify
			w.start()
			peers := []*peer{w.peer("v24", at(1), ctltest.V24.Apply), w.peer("v27", at(2), ctltest.V27.Apply), w.peer("v311", at(3), ctltest.V311.Apply)}
			for _, p := range peers {
				p.connect()
			}
			w.stop()
			for _, p := range peers {
				if got := p.lastWord(); got != want[p.name] {
					t.Errorf("explicit-exit-notify %d: %s heard %q, want %q", notify, p.name, got, want[p.name])
				}
			}
		})
	}
}

// Who finds no room waits a while, not the same for all, and tries the next server of its list; old clients get the text.
func TestNoRoomIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.MaxClients = 1
		w.start()
		w.peer("alice", homeAddr).connect()
		told := make(map[string]bool)
		for i := range 8 {
			text, _ := w.peer("bob", at(i)).refusal()
			if !strings.HasPrefix(text, "AUTH_FAILED,TEMP[backoff ") || !strings.HasSuffix(text, ",advance remote]:server full, try again later") {
				t.Fatalf("bob was told %q", text)
			}
			told[text] = true
		}
		if len(told) < 2 {
			t.Errorf("all are to come again at one time: %v", told)
		}
		if text, _ := w.peer("carol", at(9), ctltest.V24.Apply).refusal(); text != "AUTH_FAILED,server full, try again later" {
			t.Errorf("carol was told %q", text)
		}
	})
}
