package server

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"postern/server/config"
	"postern/server/link"
)

// sized is a UDP packet of n bytes in all that must not be cut.
func sized(src, dst netip.Addr, n int) []byte {
	head := 28
	if src.Is6() {
		head = 48
	}
	return udp(src, dst, make([]byte, n-head))
}

// mayBeCut takes the don't-fragment flag from an IPv4 packet.
func mayBeCut(b []byte) []byte {
	b = bytes.Clone(b)
	b[6] = 0
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], checksum(b[:20]))
	return b
}

// told wants one error that says mtu, and returns from whom to whom.
func told(t *testing.T, what string, packets [][]byte, mtu int) (from, to netip.Addr) {
	t.Helper()
	if len(packets) != 1 {
		t.Errorf("%s: %d packets, want one error", what, len(packets))
		return from, to
	}
	e := packets[0]
	var got int
	if e[0]>>4 == 4 && e[9] == 1 && e[20] == 3 && e[21] == 4 {
		got, from, to = int(binary.BigEndian.Uint16(e[26:])), netip.AddrFrom4([4]byte(e[12:])), netip.AddrFrom4([4]byte(e[16:]))
	} else if e[0]>>4 == 6 && e[6] == 58 && e[40] == 2 {
		got, from, to = int(binary.BigEndian.Uint32(e[44:])), netip.AddrFrom16([16]byte(e[8:])), netip.AddrFrom16([16]byte(e[24:]))
	}
	if got != mtu {
		t.Errorf("%s: MTU %d was told, want %d: %x", what, got, mtu, e)
	}
	return from, to
}

// Where the kernel knows that a path is narrow, who sends more is told how much fits, ten times a second (S087); what may
// be cut, and what IPv6 may rely on, passes. A path that has become wide again takes all.
func TestNarrowPath(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var mtu atomic.Int64
		mtu.Store(1300)
		w.pathMTU = func(netip.AddrPort, link.Local) (int, error) { return int(mtu.Load()), nil }
		w.start()
		p := w.peer("alice", homeAddr).connect()
		time.Sleep(2 * time.Second)
		const room = 1300 - 20 - 8 - 24
		for _, c := range []struct {
			name string
			pkt  []byte
			mtu  int // that the sender is told; 0: it passes
		}{
			{"fits", sized(lanHost, p.addr4(), room), 0},
			{"one byte more", sized(lanHost, p.addr4(), room+1), room},
			{"may be cut", mayBeCut(sized(lanHost, p.addr4(), 1500)), 0},
			{"IPv6, what always passes", sized(lanHost6, p.addr6(), 1280), 0},
			{"IPv6", sized(lanHost6, p.addr6(), 1281), 1280},
		} {
			w.inject(c.pkt)
			if c.mtu == 0 {
				expect(t, c.name, p.got(), c.pkt)
				expect(t, c.name, w.written())
				continue
			}
			expect(t, c.name, p.got())
			from, to := told(t, c.name, w.written(), c.mtu)
			if c.pkt[0]>>4 == 4 && (from != p.addr4() || to != lanHost) || c.pkt[0]>>4 == 6 && (from != p.addr6() || to != lanHost6) {
				t.Errorf("%s: told %v, from %v", c.name, to, from)
			}
		}
		big, _ := superpacket(lanHost, p.addr4(), 5, 1386)
		w.injectGSO(big)
		expect(t, "superpacket", p.got())
		told(t, "superpacket", w.written(), room)
		w.inject(syn(lanHost, p.addr4(), 1460))
		expect(t, "segment size", p.got(), syn(lanHost, p.addr4(), 1460)) // mssfix is off here

		time.Sleep(time.Second)
		for range 25 {
			w.inject(sized(lanHost, p.addr4(), 1500))
		}
		if n := len(w.written()); n != 10 {
			t.Errorf("%d errors in a second, want 10", n)
		}
		if n := w.drops(dropTooBig); n != 28 {
			t.Errorf("%d packets are counted as too big, want 28", n)
		}
		mtu.Store(1500)
		time.Sleep(pathCheck * time.Second)
		b := sized(lanHost, p.addr4(), 1500)
		w.inject(b)
		expect(t, "wide again", p.got(), b)
		p.mustReach()
		if got := w.find("alice").PathMTU; got != 1500 {
			t.Errorf("the path MTU is shown as %d", got)
		}
	})
}

// Who sends too much into an IPv6 network behind a client that has no IPv6 address itself is told, too.
func TestNarrowPathToNetworkBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.pathMTU = func(netip.AddrPort, link.Local) (int, error) { return 1300, nil }
		w.cfg.Addr6, w.cfg.Pool6 = netip.Prefix{}, config.Range{}
		w.cfg.ClientConfigDir = t.TempDir()
		must(t, os.WriteFile(filepath.Join(w.cfg.ClientConfigDir, "alice"), []byte("iroute-ipv6 fd00:50::/64\n"), 0o600))
		w.start()
		p := w.peer("alice", homeAddr).connect()
		time.Sleep(2 * time.Second)
		behind := netip.MustParseAddr("fd00:50::7")
		w.inject(sized(lanHost6, behind, 1400))
		expect(t, "to alice", p.got())
		if from, to := told(t, "IPv6", w.written(), 1280); from != behind || to != lanHost6 {
			t.Errorf("told %v, from %v", to, from)
		}
		p.mustReachFrom(behind, lanHost6)
	})
}

// TCP connections that begin on a narrow path have segments that fit it, and on a wide one those of mssfix.
func TestNarrowPathSegments(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var mtu atomic.Int64
		mtu.Store(1200)
		w.pathMTU = func(netip.AddrPort, link.Local) (int, error) { return int(mtu.Load()), nil }
		w.cfg.MSSFix.Max = 1450
		w.start()
		p := w.peer("alice", homeAddr).connect()
		for _, c := range []struct{ mtu, mss4, mss6 int64 }{{1200, 1108, 1088}, {1500, 1386, 1366}, {1200, 1108, 1088}} {
			mtu.Store(c.mtu)
			time.Sleep((pathCheck + 1) * time.Second)
			w.inject(syn(lanHost, p.addr4(), 1460))
			expect(t, "IPv4", p.got(), syn(lanHost, p.addr4(), uint16(c.mss4)))
			w.inject(syn(lanHost6, p.addr6(), 1440))
			expect(t, "IPv6", p.got(), syn(lanHost6, p.addr6(), uint16(c.mss6)))
		}
	})
}

// Packets that are too large for a path keep no ping from its client, which hears nothing else.
func TestPingsBesideTooLargePackets(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.Ping = 10 * time.Second
		w.pathMTU = func(netip.AddrPort, link.Local) (int, error) { return 1300, nil }
		w.start()
		p := w.peer("alice", homeAddr).connect()
		time.Sleep(2 * time.Second)
		p.pinged()
		for range 60 {
			w.inject(sized(lanHost, p.addr4(), 1500))
			time.Sleep(time.Second)
		}
		if n := w.drops(dropTooBig); n != 60 {
			t.Errorf("%d packets were too large, want 60: this shows nothing", n)
		}
		if n := p.pinged(); n < 5 {
			t.Errorf("%d pings in a minute, want one every 10 s", n)
		}
	})
}

// An ordinary path takes all, since the kernel fragments; with mtu-disc yes it does not, and who sends more than fits is
// told. Over TCP nothing is too large, and nobody asks.
func TestOrdinaryPath(t *testing.T) {
	for _, disc := range []string{"", "maybe", "yes"} {
		t.Run("mtu-disc "+disc, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				var asked []netip.AddrPort
				w.pathMTU = func(to netip.AddrPort, _ link.Local) (int, error) { asked = append(asked, to); return 1500, nil }
				w.cfg.MTUDisc = disc
				w.start()
				alice, bob := w.peer("alice", homeAddr).connect(), w.streamPeer("bob", otherAddr).connect()
				time.Sleep(2 * time.Second)
				b := sized(lanHost, alice.addr4(), 1449)
				w.inject(b)
				if disc == "yes" {
					expect(t, "too large", alice.got())
					told(t, "too large", w.written(), 1448)
				} else {
					expect(t, "large", alice.got(), b)
				}
				b = sized(lanHost, bob.addr4(), 1500)
				w.inject(b)
				expect(t, "over TCP", bob.got(), b)
				for _, a := range asked {
					if a != homeAddr {
						t.Errorf("asked about %v", a)
					}
				}
				if n := len(asked); n != 1 {
					t.Errorf("asked %d times in two seconds, want once", n)
				}
			})
		})
	}
}

// Between clients it is the sending client that is told.
func TestNarrowPathBetweenClients(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.ClientToClient = true
		w.pathMTU = func(to netip.AddrPort, _ link.Local) (int, error) {
			if to == homeAddr {
				return 1300, nil
			}
			return 1500, nil
		}
		w.start()
		alice, bob := w.peer("alice", homeAddr).connect(), w.peer("bob", otherAddr).connect()
		time.Sleep(2 * time.Second)
		bob.send(sized(bob.addr4(), alice.addr4(), 1400))
		expect(t, "to alice", alice.got())
		if from, to := told(t, "bob", bob.got(), 1248); from != alice.addr4() || to != bob.addr4() {
			t.Errorf("%v is told by %v", to, from)
		}
		expect(t, "to the device", w.written())
		b := sized(alice.addr4(), bob.addr4(), 1400)
		alice.send(b)
		expect(t, "to bob", bob.got(), b)
	})
}

// With block-ipv6 IPv6 of clients ends in an error, ten times a second (S087), and IPv4 goes on.
func TestBlockIPv6(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.BlockIPv6 = true
		w.start()
		p := w.peer("alice", homeAddr).connect()
		pkt := udp(p.addr6(), lanHost6, []byte("hello"))
		p.send(pkt)
		expect(t, "to the device", w.written())
		got := p.got()
		if len(got) != 1 || got[0][6] != 58 || got[0][40] != 1 || got[0][41] != 0 || !bytes.HasSuffix(got[0], pkt) {
			t.Fatalf("the client got %x, want one error about its packet", got)
		}
		if from := netip.AddrFrom16([16]byte(got[0][8:])); from != w.cfg.Addr6.Addr() {
			t.Errorf("it comes from %v", from)
		}
		time.Sleep(time.Second)
		for range 25 {
			p.send(pkt)
		}
		p.send(udp(netip.MustParseAddr("fe80::7"), netip.MustParseAddr("ff02::2"), nil))
		if n := len(p.got()); n != 10 {
			t.Errorf("%d errors in a second, want 10", n)
		}
		b := udp(p.addr4(), lanHost, []byte("hello"))
		p.send(b)
		expect(t, "IPv4", w.written(), b)
	})
}
