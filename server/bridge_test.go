package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"postern/tlsctl/ctltest"
)

// ether is an Ethernet frame.
func ether(dst, src mac, kind uint16, payload []byte) []byte {
	b := append(append([]byte{}, dst[:]...), src[:]...)
	return append(binary.BigEndian.AppendUint16(b, kind), payload...)
}

var (
	everybody  = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	lanStation = mac{2, 0, 0, 0, 0, 0x77}
	arpRequest = make([]byte, 28)
)

// stationOf is the hardware address of a client's n-th station.
func stationOf(client, n byte) mac { return mac{2, 0, 0, 0, client, n} }

func tapClient(c *ctltest.Config) { c.Options = "V4,dev-type tap,key-method 2,tls-client" }

// A tap server is a switch: it learns where addresses are, floods what is for groups, and lets clients reach each other
// as configured.
func TestBridge(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("client-to-client %v", direct), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.cfg.Tap, w.cfg.ClientToClient, w.cfg.MaxMACs = true, direct, 256
				w.start()
				alice, bob := w.peer("alice", homeAddr, tapClient).connect(), w.streamPeer("bob", otherAddr, tapClient).connect()
				a, b := stationOf(1, 1), stationOf(2, 1)
				step := func(what string, device, toAlice, toBob [][]byte) {
					t.Helper()
					expect(t, what+": to the device", w.written(), device...)
					expect(t, what+": to alice", alice.got(), toAlice...)
					expect(t, what+": to bob", bob.got(), toBob...)
				}
				one := func(f []byte) [][]byte { return [][]byte{f} }
				only := func(when bool, f []byte) [][]byte {
					if when {
						return one(f)
					}
					return nil
				}
				f := ether(a, lanStation, 0x0800, []byte("to alice"))
				w.inject(f)
				step("an address that nobody had yet", nil, nil, nil)
				arp := ether(everybody, a, 0x0806, arpRequest)
				alice.send(arp)
				step("alice asks all", one(arp), nil, only(direct, arp))
				w.inject(f)
				step("to alice", nil, one(f), nil)
				arp = ether(everybody, lanStation, 0x0806, arpRequest)
				w.inject(arp)
				step("the device asks all", nil, one(arp), one(arp))
				multicast := ether(mac{0x33, 0x33, 0, 0, 0, 1}, lanStation, 0x86dd, make([]byte, 40))
				w.inject(multicast)
				step("multicast", nil, one(multicast), one(multicast))
				f = ether(lanStation, b, 0x0800, []byte("from bob"))
				bob.send(f)
				step("bob to the device", one(f), nil, nil)
				f = ether(b, a, 0x0800, []byte("alice to bob"))
				alice.send(f)
				step("alice to bob", only(!direct, f), nil, only(direct, f))
				f = ether(a, lanStation, 0x8100, append([]byte{0, 7, 0x08, 0}, "tagged"...))
				w.inject(f)
				step("a tag is not looked at", nil, one(f), nil)

				// The station moves behind bob, where it was heard last.
				f = ether(lanStation, a, 0x0800, []byte("moved"))
				bob.send(f)
				step("moved", one(f), nil, nil)
				f = ether(a, lanStation, 0x0800, []byte("to where it is"))
				w.inject(f)
				step("after the move", nil, nil, one(f))
				if got := w.find("bob").MACs; !slices.Equal(got, []string{"02:00:00:00:01:01", "02:00:00:00:02:01"}) {
					t.Errorf("behind bob: %v", got)
				}

				for what, bad := range map[string][]byte{
					"from a group":  ether(lanStation, everybody, 0x0800, nil),
					"from nobody":   ether(lanStation, mac{}, 0x0800, nil),
					"too short":     ether(lanStation, a, 0x0800, nil)[:13],
					"tag cut off":   ether(lanStation, a, 0x8100, []byte{0, 1}),
					"no frame ever": {1},
				} {
					alice.send(bad)
					step(what, nil, nil, nil)
				}
				bob.close()
				time.Sleep(2 * time.Second)
				w.inject(f)
				step("bob has gone", nil, nil, nil)
				if n := len(w.srv.bridge.byMAC) + len(w.srv.bridge.byClient); n != 1 { // that alice was there
					t.Errorf("%d things are remembered", n)
				}
			})
		})
	}
}

// TCP in frames gets a segment size that fits, behind a tag too.
func TestBridgeSegmentSize(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.Tap, w.cfg.MaxMACs, w.cfg.MSSFix.Max = true, 256, 1450
		w.start()
		p := w.peer("alice", homeAddr, tapClient).connect()
		a := stationOf(1, 1)
		tagged := func(f []byte) []byte { return slices.Concat(f[:12], []byte{0x81, 0, 0, 7}, f[12:]) }
		up := func(mss uint16) []byte { return ether(lanStation, a, 0x0800, syn(p.addr4(), lanHost, mss)) }
		down := func(mss uint16) []byte { return ether(a, lanStation, 0x86dd, syn(lanHost6, p.addr6(), mss)) }
		p.send(up(1460))
		expect(t, "up", w.written(), up(1450-24-14-40))
		p.send(tagged(up(1460)))
		expect(t, "up, tagged", w.written(), tagged(up(1450-24-18-40)))
		w.inject(down(1440))
		expect(t, "down", p.got(), down(1450-24-14-60))
	})
}

// A client has only so many addresses, and the one that was silent for longest makes room; stale-routes-check forgets
// silent ones (S087).
func TestBridgeForgets(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.Tap, w.cfg.MaxMACs, w.cfg.StaleMAC = true, 3, 5*time.Minute
		w.start()
		p := w.peer("alice", homeAddr, tapClient).connect()
		hear := func(n byte) {
			p.send(ether(lanStation, stationOf(1, n), 0x0800, nil))
			time.Sleep(1100 * time.Millisecond)
		}
		for _, n := range []byte{1, 2, 3, 1, 4} {
			hear(n)
		}
		want := []string{"02:00:00:00:01:01", "02:00:00:00:01:03", "02:00:00:00:01:04"}
		if got := w.find("alice").MACs; !slices.Equal(got, want) {
			t.Errorf("behind alice: %v, want %v", got, want)
		}
		for range 6 {
			time.Sleep(time.Minute)
			hear(4)
		}
		if got := w.find("alice").MACs; !slices.Equal(got, want[2:]) {
			t.Errorf("behind alice, later: %v, want %v", got, want[2:])
		}
	})
}

// Who carries IP packets has no business with a tap server, and is told so.
func TestBridgeRefusesTunClients(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.Tap, w.cfg.MaxMACs = true, 256
		w.start()
		p := w.peer("alice", homeAddr, func(c *ctltest.Config) { c.Options = "V4,dev-type tun,key-method 2,tls-client" })
		err := p.ctl.Connect(t.Context())
		if refused, ok := err.(*ctltest.Refused); !ok || refused.Text != "AUTH_FAILED,this server takes tap clients only: write dev tap in the profile" {
			t.Errorf("got %v", err)
		}
	})
}

// Whatever is in a frame, it is read within it, and its segment size changes in the TCP header only.
func FuzzFrame(f *testing.F) {
	src, dst := netip.MustParseAddr("10.8.0.2"), netip.MustParseAddr("10.8.0.3")
	f.Add(ether(everybody, lanStation, 0x0800, syn(src, dst, 1460)))
	f.Add(ether(everybody, lanStation, 0x8100, append([]byte{0, 1, 8, 0}, syn(src, dst, 1460)...)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseFrame(b)
		if ok != (len(b) >= 14 && (len(b) >= 18 || b[12] != 0x81 || b[13] != 0)) {
			t.Fatalf("%x: ok is %v", b, ok)
		}
		before := bytes.Clone(b)
		clampFrame(b, &member{mss4: 1300, mss6: 1280})
		if ok && !bytes.Equal(b[:h.payload], before[:h.payload]) || !ok && !bytes.Equal(b, before) {
			t.Fatalf("%x became %x", before, b)
		}
	})
}
