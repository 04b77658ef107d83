package server

import (
	"testing"

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
