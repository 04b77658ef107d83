package link

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loopbackUDP is a socket on a free port, for the test's time.
func loopbackUDP(t *testing.T) *UDP {
	t.Helper()
	socks, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), UDPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socks[0].Close() })
	return socks[0]
}

// An interface that cannot split (EIO) gets the packets of the train one by one, and is asked no more.
func TestSenderWithoutOffload(t *testing.T) {
	u := loopbackUDP(t)
	s := &u.moves.(*batch).sender
	s.gso = true

	var sent [][]byte
	refused := 0
	s.call = func(uintptr) bool {
		s.sent, s.errno = 0, 0
		for _, h := range unsafe.Slice(s.first, s.count) {
			if h.Control != nil {
				if s.sent == 0 {
					refused++
					s.errno = unix.EIO
				}
				break
			}
			sent = append(sent, bytes.Clone(unsafe.Slice(h.Iov.Base, int(h.Iov.Len))))
			s.sent++
		}
		return true
	}
	all := make([]byte, 10*100+30)
	for i := range all {
		all[i] = byte(i / 100)
	}
	to := netip.MustParseAddrPort("127.0.0.1:9")
	trains := []Train{{Addr: to, Bytes: []byte("before"), Size: 6}, {Addr: to, Bytes: all, Size: 100}, {Addr: to, Bytes: []byte("after"), Size: 5}}
	for round := range 2 {
		sent = nil
		if err := u.Send(trains); err != nil {
			t.Fatal(err)
		}
		if len(sent) != 13 || string(sent[0]) != "before" || string(sent[12]) != "after" ||
			!bytes.Equal(bytes.Join(sent[1:12], nil), all) || len(sent[1]) != 100 || len(sent[11]) != 30 {
			t.Fatalf("round %d: sent %d packets, not the 13 in order: %q", round, len(sent), sent)
		}
	}
	if refused != 1 {
		t.Errorf("the kernel was asked to split %d times, want 1", refused)
	}
	if st := u.Stats(); st.Singly != 1 || st.PacketsOut != 26 || st.Dropped != 0 || st.SendErrors[unix.EIO] != 1 {
		t.Errorf("counters: %+v", st)
	}
	if s.iovs[0].Base != nil || s.oneIov.Base != nil || s.messages[0].bytes != nil {
		t.Error("Send kept a reference to the caller's bytes")
	}
}

// Whatever sendmmsg answers, each packet is handed over once and in order, or dropped and counted: fewer taken than given,
// an error for a message in the middle, nothing at all, more than there was.
func TestSenderOddAnswers(t *testing.T) {
	type answer struct {
		takes int // messages; what is more than there are is said all the same
		errno unix.Errno
	}
	all := answer{takes: 1000}
	tests := []struct {
		name    string
		answers []answer // the last one over and over
		lost    []int    // of packets 0 to 19
		sends   int
	}{
		{"all", []answer{{20, 0}}, nil, 1},
		{"one at a time", []answer{{1, 0}}, nil, 20},
		{"some, and some more", []answer{{3, 0}, {16, 0}, {1, 0}}, nil, 3},
		{"an error first", []answer{{0, unix.EHOSTUNREACH}, {19, 0}}, []int{0}, 1},
		{"an error in the middle", []answer{{7, 0}, {0, unix.EPERM}, {12, 0}}, []int{7}, 2},
		{"an error at the end", []answer{{19, 0}, {0, unix.ENETDOWN}}, []int{19}, 1},
		{"two errors", []answer{{5, 0}, {0, unix.EPERM}, {0, unix.EPERM}, {13, 0}}, []int{5, 6}, 2},
		{"no room any more", []answer{{17, 0}, {0, unix.EAGAIN}}, []int{17, 18, 19}, 1},
		{"nothing, without a reason", []answer{{15, 0}, {0, 0}}, []int{15, 16, 17, 18, 19}, 1},
		{"more than there was", []answer{all}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := loopbackUDP(t)
			s := &u.moves.(*batch).sender
			s.clogged = true // waiting is for another test
			var got []byte
			calls := 0
			s.call = func(uintptr) bool {
				a := tt.answers[min(calls, len(tt.answers)-1)]
				calls++
				if calls > 100 {
					t.Error("asks and asks")
					return true
				}
				for _, h := range unsafe.Slice(s.first, min(a.takes, s.count)) {
					if a.takes <= s.count {
						got = append(got, *h.Iov.Base)
					}
				}
				s.answered(a.takes, a.errno)
				return true
			}
			var trains []Train
			var want []byte
			for i := range byte(20) {
				trains = append(trains, Train{Addr: netip.MustParseAddrPort("127.0.0.1:9"), Bytes: []byte{i}, Size: 1})
				if !slices.Contains(tt.lost, int(i)) {
					want = append(want, i)
				}
			}
			if err := u.Send(trains); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("sent %v, want %v", got, want)
			}
			st := u.Stats()
			if st.PacketsOut != uint64(len(want)) || st.Dropped != uint64(len(tt.lost)) || st.Sends != uint64(tt.sends) {
				t.Errorf("%d packets sent, %d dropped, in %d system calls; want %d, %d, %d", st.PacketsOut, st.Dropped, st.Sends,
					len(want), len(tt.lost), tt.sends)
			}
		})
	}
}

// Whatever recvmmsg leaves behind, Receive returns the packets that are whole, each with a size that fits it: a train cut
// short or without a byte is dropped and counted, control messages that make no sense are not believed.
func TestReceiverOddAnswers(t *testing.T) {
	u := loopbackUDP(t)
	r := &u.moves.(*batch).receiver
	from := netip.MustParseAddrPort("192.0.2.7:1194")
	type datagram struct {
		n     int
		flags int32
		gro   int32 // segment size; 0: no control message
		short bool  // the control message ends before its value
		size  int   // of the train, 0: none is to come of it
	}
	rounds := [][]datagram{
		{{n: 0}, {n: 100, flags: unix.MSG_TRUNC}}, // nothing for anybody: it goes on receiving
		{{n: 1400, size: 1400}, {n: 3000, gro: 1000, size: 1000}, {n: 2500, gro: 1000, size: 1000}},
		{{n: 700, gro: 1400, size: 700}, {n: 700, gro: 700, size: 700}, {n: 700, gro: -5, size: 700}, {n: 700, gro: 200, short: true, size: 700}},
		{{n: 5, size: 5}, {n: 0}, {n: 9, gro: 4, size: 4}},
	}
	interrupted := false
	var round []datagram
	r.call = func(uintptr) bool {
		if !interrupted {
			interrupted = true
			r.errno = unix.ECONNREFUSED // an ICMP error of somebody's
			return true
		}
		interrupted = false
		round, rounds = rounds[0], rounds[1:]
		r.errno, r.used = 0, len(round)
		for i, d := range round {
			h := &r.headers[i]
			h.n, h.Flags = uint32(d.n), d.flags
			put(&r.names[i], from, unix.AF_INET)
			h.SetControllen(0)
			if d.gro != 0 {
				c := (*unix.Cmsghdr)(unsafe.Pointer(&r.controls[i]))
				c.Level, c.Type = unix.IPPROTO_UDP, unix.UDP_GRO
				c.SetLen(unix.CmsgLen(4))
				*(*int32)(unsafe.Add(unsafe.Pointer(c), unix.CmsgLen(0))) = d.gro
				h.SetControllen(unix.CmsgSpace(4))
				if d.short {
					h.SetControllen(unix.CmsgLen(2))
				}
			}
		}
		return true
	}
	for len(rounds) > 0 {
		trains, err := u.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range round {
			if d.size == 0 {
				continue
			}
			if len(trains) == 0 {
				t.Fatalf("no train for %+v", d)
			}
			if tr := trains[0]; tr.Addr != from || len(tr.Bytes) != d.n || tr.Size != d.size || cap(tr.Bytes) < d.n+Slack {
				t.Errorf("%+v became a train of %d bytes by %d, from %v", d, len(tr.Bytes), tr.Size, tr.Addr)
			}
			trains = trains[1:]
		}
		if len(trains) != 0 {
			t.Errorf("%d trains too many", len(trains))
		}
	}
	if st := u.Stats(); st.Truncated != 1 || st.Empty != 2 || st.ReceiveErrors[unix.ECONNREFUSED] != 4 {
		t.Errorf("counters: %+v", st)
	}
}

// A full send buffer is waited for once, and not again until a packet has left.
func TestSenderWaitsOnce(t *testing.T) {
	u := loopbackUDP(t)
	s := &u.moves.(*batch).sender
	full, waited := true, false
	s.call = func(uintptr) bool {
		if full {
			s.sent, s.errno = 0, unix.EAGAIN
			waited = waited || s.wait
			return true
		}
		s.sent, s.errno = s.count, 0
		return true
	}
	trains := []Train{{Addr: netip.MustParseAddrPort("127.0.0.1:9"), Bytes: make([]byte, 1000), Size: 100}}
	steps := []struct {
		full    bool
		waits   bool
		dropped uint64
	}{{true, true, 10}, {true, false, 20}, {true, false, 30}, {false, false, 30}, {true, true, 40}, {true, false, 50}}
	for i, step := range steps {
		full, waited = step.full, false
		if err := u.Send(trains); err != nil {
			t.Fatal(err)
		}
		if got := u.Stats().Dropped; waited != step.waits || got != step.dropped {
			t.Errorf("step %d: waited %v, dropped %d, want %v and %d", i, waited, got, step.waits, step.dropped)
		}
	}
}

// The table of narrow paths keeps the smallest size refused, and forgets the oldest address rather than grow.
func TestNarrowPaths(t *testing.T) {
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
	var p narrowPaths
	if p.refuses(addr(1), 65535) {
		t.Error("an empty table refuses")
	}
	p.add(addr(1), 1400)
	p.add(addr(1), 1300)
	p.add(addr(1), 1350)
	for size, want := range map[int]bool{1299: false, 1300: true, 1400: true} {
		if got := p.refuses(addr(1), size); got != want {
			t.Errorf("size %d refused: %v, want %v", size, got, want)
		}
	}
	if p.refuses(addr(2), 1400) {
		t.Error("another address is refused")
	}
	for i := range len(p.known) {
		p.add(addr(100+i), 1400)
	}
	if p.refuses(addr(1), 1400) {
		t.Error("the oldest of 17 addresses is still known")
	}
	if !p.refuses(addr(100), 1400) || !p.refuses(addr(100+len(p.known)-1), 1400) {
		t.Error("one of the newest 16 addresses is forgotten")
	}
}

// A socket address survives being written and read in each family's form.
func TestSockaddr(t *testing.T) {
	tests := []struct {
		family int
		addr   string
		want   string // "" where the family cannot say it
	}{
		{unix.AF_INET, "192.0.2.1:1194", "192.0.2.1:1194"},
		{unix.AF_INET, "[::ffff:192.0.2.1]:1194", "192.0.2.1:1194"},
		{unix.AF_INET, "[2001:db8::1]:1194", ""},
		{unix.AF_INET6, "192.0.2.1:65535", "192.0.2.1:65535"},
		{unix.AF_INET6, "[::ffff:192.0.2.1]:1", "192.0.2.1:1"},
		{unix.AF_INET6, "[2001:db8::1]:1194", "[2001:db8::1]:1194"},
		{unix.AF_INET6, "[fe80::1%3]:1194", "[fe80::1%3]:1194"},
		{unix.AF_INET6, "[fe80::1%no-number]:1194", ""},
	}
	for _, tt := range tests {
		sa := sockaddr{Scope_id: 77, Flowinfo: 77} // left by the address before
		n := put(&sa, netip.MustParseAddrPort(tt.addr), tt.family)
		if n == 0 {
			if tt.want != "" {
				t.Errorf("%s in family %d cannot be said", tt.addr, tt.family)
			}
			continue
		}
		if got := take(&sa).String(); got != tt.want {
			t.Errorf("%s in family %d comes back as %s, want %q", tt.addr, tt.family, got, tt.want)
		}
	}
	if n := put(new(sockaddr), netip.AddrPort{}, unix.AF_INET6); n != 0 {
		t.Error("no address at all is put as one")
	}
}

// The sockets get the buffers that were asked for, above the system's limit too where we may.
func TestUDPBuffers(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	socks, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), UDPOptions{SendBuf: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer socks[0].Close()
	err = control(socks[0].conn, func(fd int) error {
		for option, want := range map[int]int{unix.SO_RCVBUF: 2 * defaultSocketBuf, unix.SO_SNDBUF: 2 * 16 << 20} {
			got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
			if err != nil {
				return err
			}
			if got != want { // Linux doubles what it is asked for
				t.Errorf("option %d is %d, want %d", option, got, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
