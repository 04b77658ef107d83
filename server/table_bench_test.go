package server

import (
	"encoding/binary"
	"net/netip"
	"testing"

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
