package tlsctl_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// What a session costs at most: 16 KiB before its first TLS byte, 64 KiB until it is in, 128 KiB when it idles (S009).
func TestSessionMemory(t *testing.T) {
	const sessions = 100
	for _, test := range []struct {
		name  string
		limit uint64
		lost  func(p *tlsctl.Packet) bool // of the client's packets
		in    bool
	}{
		{"no TLS byte", 16 << 10, func(p *tlsctl.Packet) bool { return p.Opcode == tlsctl.OpControl }, false},
		{"in TLS", 64 << 10, func(p *tlsctl.Packet) bool { return p.Opcode == tlsctl.OpControl && p.ID > 2 }, false},
		{"idle", 128 << 10, func(p *tlsctl.Packet) bool { return false }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSetup(t)
			s.cfg.Timing.FirstByte, s.cfg.Timing.Progress = time.Minute, time.Minute
			var opened, established atomic.Int64
			server, err := ctltest.NewServer(&s.cfg, func() *ctltest.Owner { opened.Add(1); return new(ctltest.Owner) })
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close(errTestOver)
			before := memoryInUse()
			for i := range sessions {
				var c atomic.Pointer[ctltest.Client] // nil once the client has gone: the server keeps nothing of it
				from := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("192.0.%d.%d", i>>8, i&255)), 1194)
				client := ctltest.NewClient(func(b []byte) {
					p, err := tlsctl.ParsePacket(b)
					if err == nil && !test.lost(&p) {
						server.Deliver(from, b, func(b []byte) {
							if to := c.Load(); to != nil {
								go to.Deliver(append([]byte(nil), b...))
							}
						})
					}
				}, s.client)
				c.Store(client)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				if test.in {
					if err := client.Connect(ctx); err != nil {
						t.Fatal(err)
					}
					established.Add(1)
				} else {
					done := make(chan struct{})
					go func() { defer close(done); client.Connect(ctx) }()
					for opened.Load() <= int64(i) {
						runtime.Gosched()
					}
					time.Sleep(5 * time.Millisecond) // for TLS to come as far as it can
					cancel()
					<-done
				}
				cancel()
				client.Close()
				c.Store(nil)
			}
			after := memoryInUse()
			if after < before {
				after = before
			}
			each := (after - before) / sessions
			t.Logf("%d bytes each", each)
			if each > test.limit {
				t.Errorf("a session costs %d bytes, more than %d", each, test.limit)
			}
			runtime.KeepAlive(server)
		})
	}
}

// memoryInUse is heap and stacks after a collection.
func memoryInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
