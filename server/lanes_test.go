package server

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"postern/server/datachan"
	"postern/server/link"
	"postern/tun"
	"postern/tun/tuntest"
)

// A bench is a lane with members and nothing else: no session, no goroutine. Its socket and queue throw away what they
// are given.
type bench struct {
	srv     *Server
	lane    *lane
	uplink  *uplink
	members []*benchMember
	sock    sink
	queue   drain
}

type benchMember struct {
	c      *client
	client *datachan.Key // the client's end
	server *datachan.Key
	inside netip.Addr
	addr   netip.AddrPort
}

// sink is a socket that counts.
type sink struct {
	trains, packets, bytes int
	log                    []link.Train // if keep
	keep                   bool
}

func (s *sink) Receive() ([]link.Train, error) { select {} }
func (s *sink) Close() error                   { return nil }
func (s *sink) Send(trains []link.Train) error {
	for _, t := range trains {
		s.trains++
		s.packets += (len(t.Bytes) + t.Size - 1) / t.Size
		s.bytes += len(t.Bytes)
		if s.keep {
			s.log = append(s.log, link.Train{Addr: t.Addr, Bytes: slices.Clone(t.Bytes), Size: t.Size})
		}
	}
	return nil
}

// drain is a queue that counts.
type drain struct{ writes, bytes int }

func (d *drain) Offload() (tcp, udp bool)    { return true, true }
func (d *drain) Read() ([]tun.Packet, error) { return nil, os.ErrClosed }
func (d *drain) Close() error                { return nil }
func (d *drain) Write(frags [][]byte, _ tun.GSO) error {
	d.writes++
	for _, f := range frags {
		d.bytes += len(f)
	}
	return nil
}

func newBench(t testing.TB, members int) *bench {
	t.Helper()
	w := newWorld(t)
	srv, err := New(w.cfg, Parts{Devices: []tun.Device{tuntest.New(tuntest.Options{})}, Log: zerolog.Nop()})
	must(t, err)
	b := &bench{srv: srv}
	b.lane = newLane(srv, []tun.Queue{&b.queue})
	b.uplink = &uplink{lane: b.lane, sock: &b.sock, door: b, merge: b.lane.coalescers()}
	for i := range members {
		m := &benchMember{inside: plus(w.cfg.Pool4.First, i), addr: netip.AddrPortFrom(homeAddr.Addr(), uint16(40000+i))}
		m.c = &client{srv: srv}
		m.c.path.Store(&path{outside: outside{door: b, addr: m.addr}, sock: &b.sock, home: b.lane.sender})
		srv.table.clients[m.c] = struct{}{}
		secret := func(j int) []byte {
			return slices.Concat(binary.BigEndian.AppendUint64(nil, uint64(2*i+j+1)), make([]byte, 120))
		}
		m.server, err = datachan.NewKey(0, "AES-256-GCM", datachan.PeerID(i), true, secret(0), secret(1), 0)
		must(t, err)
		m.client, err = datachan.NewKey(0, "AES-256-GCM", datachan.PeerID(i), true, secret(1), secret(0), 0)
		must(t, err)
		must(t, m.c.takeKey(m.server, time.Now(), time.Now()))
		mem := &member{name: fmt.Sprint(i), peer: datachan.PeerID(i), addr4: m.inside, mss4: 1400, mss6: 1380}
		if _, ok := srv.table.publish(m.c, mem, nil); !ok {
			t.Fatal("not published")
		}
		b.members = append(b.members, m)
	}
	return b
}

// train seals n packets of a member, payload bytes of TCP data each, as a socket would give them.
func (m *benchMember) train(n, payload int) link.Train {
	return m.trainOf(n, func(i int) []byte { return tcp(m.inside, lanHost, uint32(i*payload), make([]byte, payload)) })
}

// trainOf is train with any packets, all of one size.
func (m *benchMember) trainOf(n int, packet func(i int) []byte) link.Train {
	var s datachan.Scratch
	var b []byte
	size := 0
	for i := range n {
		pkt := packet(i)
		id, _ := m.client.Reserve(1)
		at := len(b)
		b = append(b, make([]byte, len(pkt)+datachan.Room)...)
		size = m.client.Seal(b[at:], pkt, id, &s)
		b = b[:at+size]
	}
	b = append(b, make([]byte, link.Slack)...)
	return link.Train{Addr: m.addr, Bytes: b[: len(b)-link.Slack : len(b)], Size: size}
}

// The way up allocates nothing, for one client's train or many clients' packets.
func TestUplinkAllocatesNothing(t *testing.T) {
	b := newBench(t, 4)
	const runs, perTrain = 50, 20
	var batches [][]link.Train
	for range runs + 2 {
		var batch []link.Train
		for _, m := range b.members {
			batch = append(batch, m.train(perTrain, 1300))
		}
		batches = append(batches, batch)
	}
	next := 0
	if n := testing.AllocsPerRun(runs, func() {
		if err := b.uplink.batch(batches[next]); err != nil {
			t.Error(err)
		}
		next++
	}); n != 0 {
		t.Errorf("%v allocations for a batch of %d packets, want none", n, perTrain*len(b.members))
	}
	if want := next * perTrain * len(b.members) * 1300; b.queue.bytes < want {
		t.Errorf("%d bytes were written, want at least %d: packets died (%v)", b.queue.bytes, want, b.srv.drops.snapshot())
	}
}

// The way down allocates nothing, for superpackets and single packets.
func TestDownlinkAllocatesNothing(t *testing.T) {
	b := newBench(t, 4)
	var originals []tun.Packet
	for _, m := range b.members {
		super, _ := superpacket(lanHost, m.inside, 20, 1300)
		originals = append(originals, super, tun.Packet{Bytes: udp(lanHost, m.inside, make([]byte, 500))})
	}
	packets := make([]tun.Packet, len(originals))
	buffers := make([][]byte, len(originals))
	for i, p := range originals {
		buffers[i] = make([]byte, len(p.Bytes)+64)
	}
	to := make([]*client, len(packets))
	const runs = 50
	if n := testing.AllocsPerRun(runs, func() {
		for i, p := range originals {
			n := copy(buffers[i], p.Bytes)
			packets[i] = tun.Packet{Bytes: buffers[i][:n:len(buffers[i])], GSO: p.GSO}
		}
		b.lane.send(b.srv.table.zones[0], packets, to, nil)
	}); n != 0 {
		t.Errorf("%v allocations for a batch of %d packets, want none", n, 21*len(b.members))
	}
	if want := (runs + 1) * 21 * len(b.members); b.sock.packets != want {
		t.Errorf("%d packets were sent, want %d (%v)", b.sock.packets, want, b.srv.drops.snapshot())
	}
}

// Packets from client to client allocate nothing either, nor do a flood of what must die.
func TestForwardAndFloodAllocateNothing(t *testing.T) {
	b := newBench(t, 3)
	b.srv.clientToClient = true
	m := b.members[0]
	var s datachan.Scratch
	var batches [][]link.Train
	const runs = 50
	for range runs + 2 {
		var batch []link.Train
		for _, dst := range []netip.Addr{b.members[1].inside, b.members[2].inside} {
			id, _ := m.client.Reserve(1)
			pkt := udp(m.inside, dst, make([]byte, 100))
			buf := make([]byte, len(pkt)+datachan.Room+link.Slack)
			n := m.client.Seal(buf, pkt, id, &s)
			batch = append(batch, link.Train{Addr: m.addr, Bytes: buf[:n], Size: n})
		}
		for _, junk := range [][]byte{{9 << 3, 0, 0, 77, 1, 2, 3}, {9<<3 | 5, 0, 0, 0, 1, 2, 3, 4}, {6 << 3, 1, 2, 3}, {9 << 3, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22}, {0}} {
			buf := append(make([]byte, 0, len(junk)+link.Slack), junk...)
			batch = append(batch, link.Train{Addr: thirdAddr, Bytes: buf, Size: len(buf)})
		}
		batches = append(batches, batch)
	}
	next := 0
	if n := testing.AllocsPerRun(runs, func() {
		b.uplink.batch(batches[next])
		next++
	}); n != 0 {
		t.Errorf("%v allocations for a batch, want none", n)
	}
	if want := 2 * next; b.sock.packets != want || b.queue.writes != 0 {
		t.Errorf("%d packets forwarded, %d written to the device; want %d and none", b.sock.packets, b.queue.writes, want)
	}
	if got, want := b.srv.drops.snapshot(), map[string]uint64{"no-client": 2, "no-key": 1, "auth": 1, "malformed": 1}; true {
		for why, n := range want {
			if got[why] != n*uint64(next) {
				t.Errorf("%d counted as %s, want %d", got[why], why, n*uint64(next))
			}
		}
	}
}

// A train is packets of one client, key and size; a shorter one ends it. Trains of several clients leave in order.
func TestTrains(t *testing.T) {
	b := newBench(t, 2)
	b.sock.keep = true
	one, two := b.members[0], b.members[1]
	superOne, segments := superpacket(lanHost, one.inside, 10, 1300)
	superTwo, _ := superpacket(lanHost, two.inside, 70, 500)
	short, _ := superpacket(lanHost, one.inside, 1, 1300) // of the same length as a segment
	packets := []tun.Packet{superOne, {Bytes: short.Bytes}, {Bytes: udp(lanHost, one.inside, nil)}, {Bytes: udp(lanHost, one.inside, nil)}, superTwo, superOne}
	for i := range packets {
		packets[i].Bytes = append(make([]byte, 0, len(packets[i].Bytes)+64), packets[i].Bytes...)
	}
	packets[5].Bytes = append(make([]byte, 0, len(superOne.Bytes)+64), superOne.Bytes...)
	b.lane.send(b.srv.table.zones[0], packets, make([]*client, len(packets)), nil)
	var got []string
	for _, tr := range b.sock.log {
		n := (len(tr.Bytes) + tr.Size - 1) / tr.Size
		got = append(got, fmt.Sprintf("%d: %d x %d", tr.Addr.Port()-40000, n, tr.Size-24))
	}
	full := len(segments[0])
	want := []string{fmt.Sprintf("0: 12 x %d", full), "0: 1 x 28", "1: 64 x 540", "1: 6 x 540", fmt.Sprintf("0: 10 x %d", full)}
	if !slices.Equal(got, want) {
		t.Errorf("trains %q, want %q", got, want)
	}
	last := map[netip.AddrPort]uint64{}
	var s datachan.Scratch
	for _, tr := range b.sock.log {
		m := b.members[tr.Addr.Port()-40000]
		for rest := tr.Bytes; len(rest) > 0; {
			n := min(tr.Size, len(rest))
			pkt := append(make([]byte, 0, n+link.Slack), rest[:n]...)
			m.client.Lock()
			_, id, err := m.client.Open(pkt, &s)
			m.client.Unlock()
			if err != nil || id != last[tr.Addr]+1 {
				t.Fatalf("client %d: packet id %d behind %d: %v", tr.Addr.Port()-40000, id, last[tr.Addr], err)
			}
			last[tr.Addr] = id
			rest = rest[n:]
		}
	}
}

// A batch larger than the arena is sent in pieces, and whole.
func TestArenaFull(t *testing.T) {
	b := newBench(t, 1)
	var packets []tun.Packet
	for range 10 {
		super, _ := superpacket(lanHost, b.members[0].inside, 45, 1300)
		super.Bytes = append(make([]byte, 0, len(super.Bytes)+64), super.Bytes...)
		packets = append(packets, super)
	}
	b.lane.send(b.srv.table.zones[0], packets, make([]*client, len(packets)), nil)
	if want := 450; b.sock.packets != want {
		t.Errorf("%d packets sent, want %d", b.sock.packets, want)
	}
}

func BenchmarkUplink(bm *testing.B) {
	b := newBench(bm, 1)
	const perTrain = 45
	trains := make([]link.Train, 64)
	bm.SetBytes(perTrain * 1340)
	bm.ReportAllocs()
	for n := 0; bm.Loop(); n++ {
		if n%len(trains) == 0 {
			bm.StopTimer()
			for i := range trains {
				trains[i] = b.members[0].train(perTrain, 1300)
			}
			bm.StartTimer()
		}
		if err := b.uplink.batch(trains[n%len(trains):][:1]); err != nil {
			bm.Fatal(err)
		}
	}
}

func BenchmarkDownlink(bm *testing.B) {
	for _, clients := range []int{1, 4} {
		bm.Run(fmt.Sprintf("clients=%d", clients), func(bm *testing.B) {
			b := newBench(bm, clients)
			var originals, packets []tun.Packet
			for _, m := range b.members {
				super, _ := superpacket(lanHost, m.inside, 45, 1300)
				originals = append(originals, super)
				packets = append(packets, tun.Packet{Bytes: make([]byte, 0, len(super.Bytes)+64)})
			}
			to := make([]*client, len(packets))
			bm.SetBytes(int64(clients * 45 * 1340))
			bm.ReportAllocs()
			for bm.Loop() {
				for i, p := range originals {
					packets[i] = tun.Packet{Bytes: append(packets[i].Bytes[:0], p.Bytes...), GSO: p.GSO}
				}
				b.lane.send(b.srv.table.zones[0], packets, to, nil)
			}
		})
	}
}
