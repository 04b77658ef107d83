package server

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/tlsctl/ctltest"
)

// A client logs in with its certificate, gets addresses, and packets go both ways, in both families.
func TestTunnel(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*ctltest.Config)
	}{
		{"P_DATA_V2", func(*ctltest.Config) {}},
		{"P_DATA_V1", oldClient},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.start()
				alice := w.peer("alice", homeAddr, c.change).connect()
				alice.mustReach()
				alice.mustReachFrom(alice.addr6(), lanHost6)
				st := w.find("alice")
				if st.Real != homeAddr || st.Addr4 != alice.addr4() || st.Addr6 != alice.addr6() || st.Cipher != "AES-256-GCM" {
					t.Errorf("status shows %+v", st)
				}
			})
		})
	}
}

// All lines about one session carry one id, from its beginning to its end.
func TestOneSessionIDInTheLog(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.login = passwords
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		alice.renegotiate()
		alice.sock.Move(otherAddr)
		alice.mustReach()
		alice.ctl.Say("EXIT")
		time.Sleep(10 * time.Second)
		ids := map[string]int{}
		for line := range strings.Lines(w.log.String()) {
			ids[strings.Join(regexp.MustCompile(`"session":"[0-9a-f]{8}"`).FindAllString(line, -1), " and ")]++
		}
		for _, want := range []string{"asking for a login", "client connected", "client moved", "client disconnected"} {
			if w.log.count(want) == 0 {
				t.Errorf("no line says %q", want)
			}
		}
		if len(ids) != 1 {
			t.Errorf("session ids in lines: %v, want one:\n%s", ids, w.log)
		}
	})
}
