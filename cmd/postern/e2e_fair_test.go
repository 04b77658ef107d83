package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"postern/cmd/lab"
)

// One client's bulk does not delay another's pings by more than 2 ms at the 99th percentile, while the core keeps up:
// neither over UDP nor when the bulk's client is on a stream. Pings beside the tunnel, at the same time and between the
// same hosts, say what the machine adds; where it is so busy that they are late themselves, the round is played again.
func TestE2EFair(t *testing.T) {
	f := newField(t, "bulk", "ping")
	f.serve("local 0.0.0.0 1194 udp", "local 0.0.0.0 1194 tcp-server")
	f.loadPeer()
	const (
		seconds = 4
		allowed = 2 * time.Millisecond
	)
	// pings are two series at the same time: through the tunnel, by a client of vpnload, and beside it.
	pings := func() (tunnel, beside time.Duration) {
		outside := make(chan lab.Pings, 1)
		go func() {
			p, _ := f.Host("ping").Ping(f.ctx, f.Host("router").Wan4.String(), seconds*100, 56, 10*time.Millisecond) // its answers count
			outside <- p
		}()
		r := f.load("ping", "-name", "ping", "-n", "1", "-probe", lab.Lan4, "-probe-every", "10ms", "-duration", fmt.Sprint(seconds, "s"))
		if r.Ping.Count < seconds*25 { // a busy machine makes fewer of them
			f.t.Errorf("%d pings came back", r.Ping.Count)
		}
		return time.Duration(r.Ping.P99 * float64(time.Millisecond)), percentile((<-outside).RTTs, 99)
	}
	for _, proto := range []string{"udp", "tcp"} {
		t.Run(proto, func(t *testing.T) {
			f.t = t
			const rounds = 5
			for round := 1; ; round++ {
				calm, calmBeside := pings()
				bulk, err := f.Host("bulk").Start("bulk.log", f.vpnload(), "-json", "-remote", f.Host("router").Wan4.String()+":1194", "-ca", f.pki+"/ca.crt",
					"-ca-key", f.pki+"/private/ca.key", "-peer", lab.Lan4+":5201", "-name", "bulk", "-n", "1", "-proto", proto, "-io", "stock", "-flow", "udp",
					"-traffic", "both", "-rate", "5000", "-size", "1300", "-duration", strconv.Itoa(seconds+4)+"s")
				f.must(err)
				time.Sleep(time.Second) // until it is under way
				busy, busyBeside := pings()
				f.must(bulk.Wait(time.Minute))
				var r loaded
				f.must(json.Unmarshal([]byte(bulk.Output()), &r))
				t.Logf("round %d: p99 %v through the tunnel and %v beside it, %v and %v beside %d MB up and %d MB down", round, calm, calmBeside,
					busy, busyBeside, r.Up.Bytes>>20, r.Down.Bytes>>20)
				if min(r.Up.Packets, r.Down.Packets) < 5000*(seconds+4)/2 {
					t.Errorf("the bulk was none: %+v", r)
				}
				machine := max(busyBeside-calmBeside, 0) // what it adds to everybody's
				if busy <= calm+allowed+2*machine {      // a ping goes through the machine twice as often as one beside the tunnel
					return
				}
				if round == rounds {
					t.Fatalf("the bulk delays pings by %v, those beside the tunnel by %v", busy-calm, machine)
				}
			}
		})
	}
	f.t = t
}
