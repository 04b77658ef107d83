package tun_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"postern/tun"
)

// What a kernel lacks is done without, step by step, and TCP and UDP pass all the same: no superpackets of UDP (before
// Linux 6.2), none of TCP with CWR, or nothing but plain packets. At each step nothing is asked of the kernel that it
// does not have.
func TestOpenOnOlderKernels(t *testing.T) {
	const uso, ecn = unix.TUN_F_USO4 | unix.TUN_F_USO6, unix.TUN_F_TSO_ECN
	for _, tt := range []struct {
		name     string
		lacks    int
		tcp, udp bool
	}{
		{"everything", 0, true, true},
		{"no UDP", uso, true, false},
		{"no UDP, no ECN", uso | ecn, true, false},
		{"no IPv6 UDP", unix.TUN_F_USO6, true, false},
		{"no IPv6 TCP", uso | unix.TUN_F_TSO6, false, false},
		{"no checksums", uso | unix.TUN_F_CSUM, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tun.WithoutFeatures(t, tt.lacks)
			p := newPair(t, tun.Options{}, 0)
			for _, q := range append(p.queuesA, p.queuesB...) {
				var tcp, udp bool
				if o, ok := q.(tun.Offloader); ok {
					tcp, udp = o.Offload()
				}
				if tcp != tt.tcp || udp != tt.udp {
					t.Errorf("superpackets of TCP %v, of UDP %v, want %v and %v", tcp, udp, tt.tcp, tt.udp)
				}
			}
			for i, host := range []string{"10.9.0.1", "fd99::1"} {
				if err := p.transfer(host, uint64(i), 2<<20); err != nil {
					t.Errorf("TCP with %s: %v", host, err)
				}
				if err := p.datagrams(host); err != nil {
					t.Errorf("UDP with %s: %v", host, err)
				}
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if got := p.super > p.udp; got != tt.tcp {
				t.Errorf("%d superpackets of TCP were read", p.super-p.udp)
			}
			if p.udp > 0 && !tt.udp {
				t.Errorf("%d superpackets of UDP from a kernel without them", p.udp)
			}
			if got := p.stats.Writes < p.stats.Packets/2; got != tt.tcp {
				t.Errorf("%d packets in %d writes", p.stats.Packets, p.stats.Writes)
			}
			if p.stats.Dropped != 0 {
				t.Errorf("the kernel took %d packets less than it was given", p.stats.Dropped)
			}
		})
	}
}
