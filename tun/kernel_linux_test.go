package tun_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/tun"
)

// The kernel, forwarding from one device to another, makes the same packets of what the Coalescer writes as of the
// packets themselves, and what it hands over as superpackets is, cut, the same too.
func TestKernelForwards(t *testing.T) {
	ns := newNamespace(t, "forward")
	ns.sysctl("net.ipv4.ip_forward", "1")
	ns.sysctl("net.ipv6.conf.all.forwarding", "1")
	var batches [][][]byte
	for seed := range uint64(20) {
		batches = append(batches, stream(rand.New(rand.NewPCG(seed, 11)), 150))
	}
	want, _ := forward(t, ns, true, true, batches)
	if len(want) < 20*140 {
		t.Fatalf("the kernel forwarded only %d packets", len(want))
	}
	for _, plain := range [][2]bool{{false, true}, {true, false}, {false, false}} {
		t.Run(fmt.Sprintf("plain in %v, out %v", plain[0], plain[1]), func(t *testing.T) {
			got, lent := forward(t, ns, plain[0], plain[1], batches)
			if err := sameOrder(canonical(want), canonical(got)); err != nil {
				t.Error(err)
			}
			if whole := lent < len(got); whole != (plain == [2]bool{false, false}) {
				t.Errorf("%d packets in %d", len(got), lent)
			}
		})
	}
}

// forward sends batches through the kernel from a device to another, and returns the packets that come out and in how
// many packets and superpackets they came.
func forward(t *testing.T, ns *namespace, plainIn, plainOut bool, batches [][][]byte) (out [][]byte, lent int) {
	t.Helper()
	in, inQ := ns.open(tun.Options{Name: "in0", Plain: plainIn}, 1, "10.8.0.1/24", "fd00::1/64")
	defer in.Close()
	to, outQ := ns.open(tun.Options{Name: "out0", Plain: plainOut}, 1)
	defer to.Close()
	ns.must(func() error {
		_, err := tun.AddRoutes("out0", []tun.Route{
			{Net: netip.MustParsePrefix("192.0.2.0/24")}, {Net: netip.MustParsePrefix("2001:db8::/32")},
		})
		return err
	})
	// A marker behind each batch says that all of it has come.
	marker := packet{src: "10.8.0.3", dst: "192.0.2.10", udp: true, sport: 1, dport: 2, ttl: 9, payload: []byte{1}}
	from := map[netip.Addr]bool{netip.MustParseAddr(tcp4.src): true, netip.MustParseAddr(tcp6.src): true}
	marked, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			pkts, err := outQ[0].Read()
			if err != nil {
				failed <- err
				return
			}
			for i := range pkts {
				switch src, _ := tun.Source(pkts[i].Bytes); {
				case src == netip.MustParseAddr(marker.src):
					marked <- struct{}{}
				case from[src]: // the rest is the kernel's own, router solicitations and the like
					segs, err := cutAll(&pkts[i])
					if err != nil {
						failed <- err
						return
					}
					out = append(out, segs...)
					lent++
				}
			}
		}
	}()
	c := tun.NewCoalescer(inQ[0])
	for _, batch := range batches {
		for _, p := range batch {
			c.Add(slices.Clone(p))
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := inQ[0].Write([][]byte{marker.build()}, tun.GSO{}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-marked:
		case err := <-failed:
			t.Fatalf("read: %v", err)
		case <-time.After(20 * time.Second):
			t.Fatal("the marker did not come through")
		}
	}
	if n := c.Stats().Dropped; n != 0 {
		t.Fatalf("%d packets dropped", n)
	}
	return out, lent
}

// pair is two namespaces, each with a device; what goes into one device comes out of the other.
type pair struct {
	a, b   *namespace
	damage int // one packet in so many has a bit flipped

	queuesA, queuesB []tun.Queue

	mu    sync.Mutex
	stats tun.CoalescerStats
	super int // superpackets read
	udp   int // of them of UDP
}

// newPair opens devices with two queues each and moves packets between them: read, cut, copied as a tunnel would, merged
// and written.
func newPair(t *testing.T, o tun.Options, damage int) *pair {
	t.Helper()
	p := &pair{a: newNamespace(t, "a"), b: newNamespace(t, "b"), damage: damage}
	da, qa := p.a.open(o, 2, "10.9.0.1/24", "fd99::1/64")
	db, qb := p.b.open(o, 2, "10.9.0.2/24", "fd99::2/64")
	p.queuesA, p.queuesB = qa, qb
	var wg sync.WaitGroup
	for i := range qa {
		wg.Go(func() { p.move(t, qa[i], qb[i]) })
		wg.Go(func() { p.move(t, qb[i], qa[i]) })
	}
	t.Cleanup(func() {
		da.Close()
		db.Close()
		wg.Wait()
	})
	return p
}

func (p *pair) move(t *testing.T, from, to tun.Queue) {
	c := tun.NewCoalescer(to)
	arena := make([]byte, 0, 1<<20)
	for n := 1; ; {
		pkts, err := from.Read()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			t.Errorf("read: %v", err)
			return
		}
		arena = arena[:0]
		super, udp := 0, 0
		before := c.Stats()
		for i := range pkts {
			if pkts[i].Segments() > 1 {
				super++
				if pkts[i].GSO.Type == tun.GSOUDPL4 {
					udp++
				}
			}
			for j := range pkts[i].Segments() {
				seg, err := pkts[i].Segment(j)
				if err != nil {
					t.Errorf("segment: %v", err)
					continue
				}
				if !tun.Valid(seg) {
					t.Errorf("not valid: % x", seg)
				}
				at := len(arena)
				arena = append(arena, seg...)
				seg = arena[at:]
				if p.damage > 0 && len(seg) > 200 {
					if n++; n%p.damage == 0 {
						seg[len(seg)-50] ^= 4
					}
				}
				c.Add(seg)
			}
		}
		if err := c.Flush(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("flush: %v", err)
		}
		s := c.Stats()
		p.mu.Lock()
		p.super += super
		p.udp += udp
		p.stats.Packets += s.Packets - before.Packets
		p.stats.Writes += s.Writes - before.Writes
		p.stats.Corrupt += s.Corrupt - before.Corrupt
		p.stats.Dropped += s.Dropped - before.Dropped
		p.mu.Unlock()
	}
}

// TCP both ways over IPv4 and IPv6 delivers what was sent, even where packets are damaged on the way: the receiver must
// see the damage to ask again, so merging may not hide it.
func TestTransferTCP(t *testing.T) {
	for _, damage := range []int{0, 997} {
		eachWay(t, func(t *testing.T, plain bool) {
			p := newPair(t, tun.Options{Plain: plain}, damage)
			var wg sync.WaitGroup
			for i, host := range []string{"10.9.0.1", "fd99::1", "10.9.0.1"} {
				wg.Go(func() {
					if err := p.transfer(host, uint64(i), 6<<20); err != nil {
						t.Errorf("%s: %v", host, err)
					}
				})
			}
			wg.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			if plain {
				return
			}
			if p.super == 0 || p.stats.Writes > p.stats.Packets/2 {
				t.Errorf("%d superpackets read, %d packets in %d writes", p.super, p.stats.Packets, p.stats.Writes)
			}
			if damaged := p.stats.Corrupt > 0; damaged != (damage > 0) {
				t.Errorf("%d packets found damaged", p.stats.Corrupt)
			}
		})
	}
}

// transfer sends size random bytes from b to a listener in a and back, and compares their sums.
func (p *pair) transfer(host string, seed uint64, size int) error {
	var l net.Listener
	err := p.a.do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		served <- func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			_, err = io.Copy(c, io.LimitReader(c, int64(size)))
			return err
		}()
	}()
	var c net.Conn
	err = p.b.do(func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), 20*time.Second)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	sent, got := sha256.New(), sha256.New()
	wrote := make(chan error, 1)
	go func() {
		var key [32]byte
		binary.LittleEndian.PutUint64(key[:], seed)
		_, err := io.CopyN(io.MultiWriter(c, sent), rand.NewChaCha8(key), int64(size))
		wrote <- err
	}()
	n, err := io.CopyN(got, c, int64(size))
	if err := errors.Join(err, <-wrote, <-served); err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

// Datagrams sent with UDP_SEGMENT arrive each by itself, the last one shorter.
func TestTransferUDP(t *testing.T) {
	run := func(t *testing.T, o tun.Options, wantSuper bool) {
		p := newPair(t, o, 0)
		for _, host := range []string{"10.9.0.1", "fd99::1"} {
			if err := p.datagrams(host); err != nil {
				t.Errorf("%s: %v", host, err)
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if got := p.super > 0; got != wantSuper {
			t.Errorf("%d superpackets read", p.super)
		}
		if got := p.stats.Packets > p.stats.Writes+30; got != wantSuper {
			t.Errorf("%d packets in %d writes", p.stats.Packets, p.stats.Writes)
		}
	}
	t.Run("offload", func(t *testing.T) { run(t, tun.Options{}, true) })
	t.Run("no UDP", func(t *testing.T) { run(t, tun.Options{NoUDP: true}, false) })
	t.Run("plain", func(t *testing.T) { run(t, tun.Options{Plain: true}, false) })
}

// datagrams sends a train of datagrams, and once more where the machine has lost some.
func (p *pair) datagrams(host string) error {
	err := p.train(host)
	for again := 0; again < 3 && errors.Is(err, os.ErrDeadlineExceeded); again++ {
		err = p.train(host)
	}
	return err
}

func (p *pair) train(host string) error {
	const size, count = 1000, 40
	var in net.PacketConn
	err := p.a.do(func() (err error) {
		in, err = net.ListenPacket("udp", net.JoinHostPort(host, "0"))
		return err
	})
	if err != nil {
		return err
	}
	defer in.Close()
	var out net.Conn
	err = p.b.do(func() (err error) {
		out, err = net.Dial("udp", in.LocalAddr().String())
		return err
	})
	if err != nil {
		return err
	}
	defer out.Close()
	raw, err := out.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	var opt error
	err = raw.Control(func(fd uintptr) { opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
	if err := errors.Join(err, opt); err != nil {
		return fmt.Errorf("UDP_SEGMENT: %w", err)
	}
	all := counting(size*count - 300)
	if _, err := out.Write(all); err != nil {
		return err
	}
	in.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 2000)
	for i, want := range slices.Collect(slices.Chunk(all, size)) {
		n, _, err := in.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("datagram %d: %w", i, err)
		}
		if !bytes.Equal(buf[:n], want) {
			return fmt.Errorf("datagram %d of %d bytes is not what was sent", i, n)
		}
	}
	return nil
}
