package server

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"postern/server/config"
	"postern/server/datachan"
)

// One more login where ten thousand sessions have one name, as with duplicate-cn, and any number is allowed: the table is
// locked meanwhile, and lanes wait for it with control packets.
func BenchmarkPublishSharedName(b *testing.B) {
	cfg := newWorld(b).cfg
	cfg.MaxClients = 12000
	t := newTable(cfg)
	enter := func(i int) *client {
		c := new(client)
		binary.BigEndian.PutUint64(c.sid[:], uint64(i+1))
		c.rx.last.Store(int64(i * 7919 % 10007))
		c.path.Store(&path{outside: outside{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 40000)}})
		t.enter(c)
		if _, ok := t.publish(c, &member{name: "shared", peer: datachan.PeerID(i)}, nil); !ok {
			b.Fatal("not published")
		}
		return c
	}
	const sessions = 10_000
	for i := range sessions {
		enter(i)
	}
	for b.Loop() {
		t.remove(enter(sessions))
	}
}

// BenchmarkLookup finds one of 10,000 clients for a packet, from all lanes at once: in a map under a lock, as P_DATA_V1 has
// to be, or by peer id; by an inside address that is anywhere, or one in the pool.
func BenchmarkLookup(b *testing.B) {
	const sessions = 10_000
	cfg := newWorld(b).cfg
	cfg.MaxClients = sessions
	cfg.Addr4 = netip.MustParsePrefix("10.8.0.1/16")
	cfg.Pool4 = config.Range{First: netip.MustParseAddr("10.8.0.2"), Last: netip.MustParseAddr("10.8.255.254")}
	t := newTable(cfg)
	outsides, pool, anywhere := make([]outside, sessions), make([]netip.Addr, sessions), make([]netip.Addr, sessions)
	for i := range sessions {
		c := new(client)
		outsides[i] = outside{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 40000)}
		pool[i] = plus(cfg.Pool4.First, i)
		anywhere[i] = netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
		t.byOutside[outsides[i]] = c
		t.byPeer[i].Store(c)
		t.zones[0].add(c, &member{addr4: pool[i]}, nil)
	}
	hosts := make(map[netip.Addr]*client)
	for i, a := range anywhere {
		hosts[a] = t.byPeer[i].Load()
	}
	t.zones[0].far.Store(&farRoutes{hosts: hosts})
	for _, way := range []struct {
		name string
		find func(i int) *client
	}{
		{"of=outside/by=map", func(i int) *client { return t.at(outsides[i]) }},
		{"of=outside/by=array", func(i int) *client { return t.peer(datachan.PeerID(i)) }},
		{"of=inside/by=map", func(i int) *client { return t.zones[0].find(anywhere[i]) }},
		{"of=inside/by=array", func(i int) *client { return t.zones[0].find(pool[i]) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i = (i + 7919) % sessions { // in no order that memory would know
					if way.find(i) == nil {
						b.Error("nobody was found")
					}
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/packet")
			b.ReportMetric(0, "ns/op")
		})
	}
}
