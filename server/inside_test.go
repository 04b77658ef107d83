package server

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/datachan"
	"postern/tun"
	"postern/tun/tuntest"
)

// A packet goes on only if its source is the client's own (S082).
func TestSourceMustBeTheClients(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		for _, src := range []netip.Addr{
			bob.addr4(), netip.MustParseAddr("10.8.0.1"), netip.MustParseAddr("10.8.0.200"), lanHost, netip.MustParseAddr("0.0.0.0"),
			netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("255.255.255.255"),
		} {
			alice.send(udp(src, lanHost, []byte("forged")))
			if got := w.written(); len(got) != 0 {
				t.Errorf("a packet from %v went on", src)
			}
		}
		for _, src := range []netip.Addr{
			bob.addr6(), netip.MustParseAddr("fd00:8::1"), lanHost6, netip.MustParseAddr("::"), netip.MustParseAddr("::1"),
			netip.MustParseAddr("ff02::1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("::ffff:10.8.0.2"),
		} {
			alice.send(udp(src, lanHost6, []byte("forged")))
			if got := w.written(); len(got) != 0 {
				t.Errorf("a packet from %v went on", src)
			}
		}
		if got := w.drops(dropSource) + w.drops(dropLinkLocal); got != 16 {
			t.Errorf("%d counted, want 16", got)
		}
		if got := w.drops(dropLinkLocal); got != 1 {
			t.Errorf("%d counted as link-local, want 1: every client says such things", got)
		}
		whole := udp(alice.addr4(), lanHost, make([]byte, 100))
		for _, b := range [][]byte{{}, {0x45}, whole[:19], whole[:60], bytes.Repeat([]byte{0xff}, 60)} {
			alice.send(b)
			if got := w.written(); len(got) != 0 {
				t.Errorf("a mangled packet of %d bytes went on", len(b))
			}
		}
		alice.mustReach()
		if got := w.clients(); len(got) != 2 {
			t.Errorf("connected: %v", got)
		}
	})
}

// A network behind a client (iroute) is reached through it and may send through it; nothing else may.
func TestNetworkBehindClient(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "alice"), []byte("iroute 192.168.50.0 255.255.255.0\niroute-ipv6 fd00:50::/64\n"), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "bob"), []byte("iroute 192.168.50.128 255.255.255.128\n"), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "carol"), []byte("iroute 0.0.0.0 0.0.0.0\n"), 0o600))
		w.cfg.ClientConfigDir = dir
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		behind := netip.MustParseAddr("192.168.50.130")
		alice.mustReachFrom(behind, lanHost)
		alice.mustReachFrom(netip.MustParseAddr("fd00:50::7"), lanHost6)
		alice.mustReach()
		alice.send(udp(netip.MustParseAddr("192.168.51.1"), lanHost, nil))
		if got := w.written(); len(got) != 0 {
			t.Error("a packet from a network that is not behind alice went on")
		}

		bob := w.peer("bob", otherAddr).connect() // his network is the more precise one
		bob.mustReachFrom(behind, lanHost)
		alice.mustReachFrom(netip.MustParseAddr("192.168.50.5"), lanHost)
		alice.send(udp(behind, lanHost, nil))
		if got := w.written(); len(got) != 0 {
			t.Error("alice sends from what is behind bob")
		}

		carol := w.peer("carol", thirdAddr).connect() // everything else, but not what can be nobody's, nor others' own
		carol.mustReachFrom(netip.MustParseAddr("8.8.8.8"), lanHost)
		for _, src := range []string{"0.0.0.0", "224.0.0.5", "127.0.0.1", "169.254.7.7", alice.option("ifconfig"), "192.168.50.1"} {
			carol.send(udp(netip.MustParseAddr(src), lanHost, nil))
			if got := w.written(); len(got) != 0 {
				t.Errorf("carol sends from %s", src)
			}
		}

		bob.ctl.Say("EXIT")
		time.Sleep(10 * time.Second)
		alice.mustReachFrom(behind, lanHost)
	})
}

// Between clients: through the kernel, which has a firewall, unless client-to-client says otherwise (S084).
func TestClientToClient(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(map[bool]string{false: "off", true: "on"}[direct], func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.cfg.ClientToClient = direct
				w.start()
				alice := w.peer("alice", homeAddr).connect()
				bob := w.streamPeer("bob", otherAddr).connect()
				for _, c := range []struct{ src, dst netip.Addr }{{alice.addr4(), bob.addr4()}, {alice.addr6(), bob.addr6()}} {
					b := udp(c.src, c.dst, []byte("hello bob"))
					alice.send(b)
					if direct {
						expect(t, "to the device", w.written())
						expect(t, "to bob", bob.got(), b)
					} else {
						expect(t, "to the device", w.written(), b)
						expect(t, "to bob", bob.got())
						w.inject(b) // the kernel has let it through
						expect(t, "to bob", bob.got(), b)
					}
				}
				alice.mustReach() // others are reached as ever
				bob.send(udp(alice.addr4(), bob.addr4(), []byte("forged")))
				expect(t, "forged", append(w.written(), bob.got()...))
				// Nobody's address is the kernel's business in either case.
				b := udp(alice.addr4(), netip.MustParseAddr("10.8.0.200"), nil)
				alice.send(b)
				expect(t, "to nobody", w.written(), b)
			})
		})
	}
}

// TCP's segment size is lowered to what fits, in both directions, and between two clients to what fits both.
func TestSegmentSize(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.ClientToClient = true
		w.cfg.MSSFix.Max, w.cfg.MSSFix.Mode = 1492, 1
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		bob := w.streamPeer("bob", otherAddr).connect()
		for _, c := range []struct {
			p      *peer
			four   bool
			behind netip.Addr
			mss    uint16
			want   uint16
		}{
			{alice, true, lanHost, 1460, 1400}, {alice, true, lanHost, 1200, 1200}, {alice, false, lanHost6, 1440, 1380},
			{bob, true, lanHost, 1460, 1386}, {bob, false, lanHost6, 1440, 1366},
		} {
			inside := c.p.addr4()
			if !c.four {
				inside = c.p.addr6()
			}
			c.p.send(syn(inside, c.behind, c.mss))
			expect(t, c.p.name+" asks", w.written(), syn(inside, c.behind, c.want))
			w.inject(syn(c.behind, inside, c.mss))
			expect(t, c.p.name+" is asked", c.p.got(), syn(c.behind, inside, c.want))
		}
		alice.send(syn(alice.addr4(), bob.addr4(), 1460))
		expect(t, "alice asks bob", bob.got(), syn(alice.addr4(), bob.addr4(), 1386))
		bob.send(syn(bob.addr4(), alice.addr4(), 1460))
		expect(t, "bob asks alice", alice.got(), syn(bob.addr4(), alice.addr4(), 1386))
	})
}

// superpacket is n TCP segments of size bytes that the kernel left whole, and the segments.
func superpacket(src, dst netip.Addr, n, size int) (p tun.Packet, segments [][]byte) {
	payload := make([]byte, n*size)
	for i := range payload {
		payload[i] = byte(i / size * 7)
	}
	whole := tcp(src, dst, 1000, payload)
	l4 := 20
	p.GSO = tun.GSO{Type: tun.GSOTCPv4, NeedsCsum: true, HdrLen: 40, Size: uint16(size), CsumStart: 20, CsumOffset: 16}
	if src.Is6() {
		l4 = 40
		p.GSO.Type, p.GSO.HdrLen, p.GSO.CsumStart = tun.GSOTCPv6, 60, 40
	}
	// The checksum field of a superpacket holds the sum of the pseudo header alone.
	pseudo := append(append([]byte{}, src.AsSlice()...), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(whole)-l4))
	pseudo = binary.BigEndian.AppendUint32(pseudo, 6)
	binary.BigEndian.PutUint16(whole[l4+16:], ^checksum(pseudo))
	p.Bytes = whole
	cut := tun.Packet{Bytes: append(make([]byte, 0, len(whole)+64), whole...), GSO: p.GSO}
	for i := range cut.Segments() {
		b, err := cut.Segment(i)
		if err != nil {
			panic(err)
		}
		segments = append(segments, bytes.Clone(b))
	}
	return p, segments
}

// Superpackets for several clients, each with a key of its own, arrive cut, whole and in the order of their ids, in
// trains of equal packets.
func TestSuperpackets(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.device = tuntest.Options{TCP: true, UDP: true}
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		carol := w.streamPeer("carol", thirdAddr).connect()
		var sizes []int
		w.net.Filter(func(from, to netip.AddrPort, pkt []byte) bool {
			if to == homeAddr {
				sizes = append(sizes, len(pkt))
			}
			return true
		})
		want := map[*peer][][]byte{}
		for round := range 3 {
			for _, p := range []*peer{alice, bob, carol} {
				for _, pair := range [][2]netip.Addr{{lanHost, p.addr4()}, {lanHost6, p.addr6()}} {
					super, segments := superpacket(pair[0], pair[1], 12+round, 1300)
					if !w.dev.Inject(0, super) {
						t.Fatal("closed")
					}
					want[p] = append(want[p], segments...)
				}
				small := udp(lanHost, p.addr4(), []byte("small"))
				w.dev.Inject(0, tun.Packet{Bytes: small})
				want[p] = append(want[p], small)
			}
		}
		synctest.Wait()
		for _, p := range []*peer{alice, bob} {
			p.mu.Lock()
			order := slices.Clone(p.order)
			p.mu.Unlock()
			if !slices.IsSorted(order) {
				t.Errorf("%s: ids came in the order %v", p.name, order)
			}
			expect(t, p.name, p.got(), want[p]...)
		}
		// A stream takes as much as its queue holds, in order, and loses the rest.
		got := carol.got()
		for i, b := range got {
			if !slices.ContainsFunc(want[carol], func(w []byte) bool { return bytes.Equal(w, b) }) {
				t.Errorf("carol: packet %d was never sent", i)
			}
		}
		if len(got) == 0 {
			t.Error("carol got nothing")
		}
		if n := len(sizes); n != len(want[alice]) {
			t.Errorf("%d datagrams for alice, want %d", n, len(want[alice]))
		}
	})
}

// Uplink trains become superpackets again on a device that takes them.
func TestUplinkMerges(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.device = tuntest.Options{TCP: true}
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		_, segments := superpacket(alice.addr4(), lanHost, 20, 1200)
		for _, b := range segments {
			alice.sendRaw(alice.seal(b))
		}
		synctest.Wait()
		if n := len(w.dev.Written()); n >= len(segments)/2 {
			t.Errorf("%d writes for %d segments", n, len(segments))
		}
		expect(t, "merged and cut", w.written(), segments...)
	})
}

// Addresses that nobody has go nowhere.
func TestNoRoute(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		for _, dst := range []string{"10.8.0.77", "10.8.0.255", "255.255.255.255", "192.0.2.77"} {
			w.inject(udp(lanHost, netip.MustParseAddr(dst), nil))
		}
		w.inject(udp(lanHost6, netip.MustParseAddr("fd00:8::77"), nil))
		w.inject([]byte{0x45, 0})
		expect(t, "to alice", alice.got())
		if got := w.drops(dropNoRoute); got != 5 || w.drops(dropInner) != 1 {
			t.Errorf("%d and %d counted, want 5 and 1", got, w.drops(dropInner))
		}
		alice.mustReach()
	})
}

// Messages between the ends of the tunnel are never forwarded.
func TestMessagesStayOutside(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		magic := datachan.AppendExit(nil)
		for _, b := range [][]byte{datachan.AppendPing(nil), append(magic[:16:16], 0), append(magic[:16:16], 99)} {
			alice.send(b)
		}
		expect(t, "to the device", w.written())
		if got := w.drops(dropInner); got != 0 {
			t.Errorf("%d counted as mangled", got)
		}
		alice.mustReach()
	})
}
