package server

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"postern/server/link"
	"postern/tun"
	"postern/tun/tuntest"
)

// The bounds of what a lane does for one client before another's packet has its turn. At the second for a gigabyte that
// encryption and system calls take on a slow core they are 0.13 and 1.1 ms.
const (
	fairDown = 2 * 64 << 10  // a batch of the TUN device: what it may hold, and a superpacket that began within it
	fairUp   = 16 * 65 << 10 // a batch of a socket: its buffers, all full
)

// Whatever one client's download has waiting, of it no more than a batch leaves before a packet for another that was read
// with it, and between any two reads of the device.
func TestDownlinkServesInTurn(t *testing.T) {
	b := newBench(t, 2)
	b.sock.keep = true
	dev := tuntest.New(tuntest.Options{TCP: true, UDP: true})
	queues, err := dev.Queues(1)
	must(t, err)
	heavy, light := b.members[0], b.members[1]
	const backlog, at = 60, 20 // superpackets in all; the other's packet is behind so many
	for i := range backlog {
		super, _ := superpacket(lanHost, heavy.inside, 45, 1300)
		dev.Inject(0, super)
		if i == at {
			dev.Inject(0, tun.Packet{Bytes: udp(lanHost, light.inside, []byte("a word"))})
		}
	}
	reads, served := 0, false
	for left := backlog + 1; left > 0; reads++ {
		packets, err := queues[0].Read()
		must(t, err)
		left -= len(packets)
		b.sock.log, b.sock.bytes = nil, 0
		b.lane.send(b.srv.table.zones[0], packets, make([]*client, len(packets)), nil)
		if b.sock.bytes > fairDown+fairDown/16 { // headers
			t.Errorf("read %d: %d bytes left before the device was looked at again", reads, b.sock.bytes)
		}
		for _, tr := range b.sock.log {
			served = served || tr.Addr == light.addr
		}
		if behind := reads; !served && behind*fairDown/2 > (at+2)*60<<10 {
			t.Fatalf("after %d reads the other's packet has not left", reads)
		}
	}
	if !served {
		t.Error("the other's packet never left")
	}
}

// Of an upload that fills every buffer of the socket, the packet of another client behind it waits for that batch and no
// longer, also when it is one that the coalescer keeps for more to come.
func TestUplinkServesInTurn(t *testing.T) {
	b := newBench(t, 2)
	heavy, light := b.members[0], b.members[1]
	var batch []link.Train
	bytes := 0
	for range 15 {
		tr := heavy.train(45, 1300)
		batch = append(batch, tr)
		bytes += len(tr.Bytes)
	}
	batch = append(batch, light.train(1, 100))
	if bytes > fairUp {
		t.Fatalf("a batch of %d bytes is none that a socket gives", bytes)
	}
	must(t, b.uplink.batch(batch))
	if b.queue.bytes < bytes*9/10 {
		t.Fatalf("of a batch of %d bytes %d were written", bytes, b.queue.bytes)
	}
	if got := light.c.rx.inside.Load(); got == 0 {
		t.Error("the other's packet was not taken")
	}
	if n := len(b.uplink.forward); n != 0 {
		t.Errorf("%d packets wait beyond the batch", n)
	}
	for _, c := range b.uplink.merge {
		before := b.queue.writes
		must(t, c.Flush())
		if b.queue.writes != before {
			t.Error("the coalescer kept a packet beyond the batch")
		}
	}
}

// However many copies of packets for groups wait, others have the lane's sender between some of them and some more.
func TestCopiesLeaveInTurns(t *testing.T) {
	b := newBench(t, 10)
	packet := udp(b.members[0].inside, group4, nil)
	var list []forwarded
	for i := range 10 * passAtOnce {
		list = append(list, forwarded{b.members[i%10].c, packet})
	}
	if n := b.lane.sender.pass(list); n != passAtOnce || b.sock.packets != n {
		t.Errorf("%d copies went at once, %d left", n, b.sock.packets)
	}
	passAll(list[passAtOnce:])
	if got := b.sock.packets; got != len(list) {
		t.Errorf("%d copies left in all, want %d", got, len(list))
	}
}

// A client that is over its rate loses its own packets, at the tail and counted, and nothing of it waits: the other's
// leave with the same batch, all of them.
func TestLimitedClientDelaysNobody(t *testing.T) {
	b := newBench(t, 2)
	b.sock.keep = true
	heavy, light := b.members[0], b.members[1]
	m := *heavy.c.member.Load()
	m.limited = true
	heavy.c.member.Store(&m)
	heavy.c.down.policy.Store(1e6) // 50 KB at once, of 270
	var packets []tun.Packet
	for range 20 {
		super, _ := superpacket(lanHost, heavy.inside, 10, 1300)
		super.Bytes = append(make([]byte, 0, len(super.Bytes)+64), super.Bytes...)
		packets = append(packets, super, tun.Packet{Bytes: append(make([]byte, 0, 200), udp(lanHost, light.inside, []byte("a word"))...)})
	}
	b.lane.send(b.srv.table.zones[0], packets, make([]*client, len(packets)), nil)
	sent := map[netip.AddrPort]int{}
	for _, tr := range b.sock.log {
		sent[tr.Addr] += (len(tr.Bytes) + tr.Size - 1) / tr.Size
	}
	dropped := int(b.srv.drops[dropLimit].Load())
	if sent[light.addr] != 20 || sent[heavy.addr] == 0 || sent[heavy.addr]+dropped != 200 || dropped < 100 {
		t.Errorf("%d packets of the other left, %d of the limited one, %d were dropped; want 20, some, and the rest of 200", sent[light.addr],
			sent[heavy.addr], dropped)
	}
}

// A client on a stream who reads nothing has its queue, and beyond that its own packets are dropped and counted; Send
// waits for it in no case, so that the others of its lane leave with the same batch.
func TestStalledStreamDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 2)
		b.sock.keep = true
		heavy, light := b.members[0], b.members[1]
		ours, theirs := net.Pipe()
		st := link.NewStream(ours, link.TCPOptions{})
		heavy.c.path.Store(&path{outside: outside{door: st}, sock: st, home: b.lane.sender})
		for range 10 {
			super, _ := superpacket(lanHost, heavy.inside, 45, 1300)
			super.Bytes = append(make([]byte, 0, len(super.Bytes)+64), super.Bytes...)
			word := append(make([]byte, 0, 200), udp(lanHost, light.inside, []byte("a word"))...)
			packets := []tun.Packet{super, {Bytes: word}}
			b.lane.send(b.srv.table.zones[0], packets, make([]*client, 2), nil) // a wait would be a deadlock here: nobody reads
		}
		if got := b.sock.packets; got != 10 {
			t.Errorf("%d packets of the other left, want 10", got)
		}
		stats := st.Stats()
		if stats.PacketsOut+stats.Dropped != 450 || stats.Dropped == 0 || stats.PacketsOut > 2*64 {
			t.Errorf("%d packets queued, %d dropped, want 450 in all and two queues at most", stats.PacketsOut, stats.Dropped)
		}
		theirs.Close()
		st.Close()
	})
}
