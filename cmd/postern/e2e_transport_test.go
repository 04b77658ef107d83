package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/cmd/lab"
)

// A server with several addresses answers from the one that was asked, in both families on one socket. A stock client
// takes answers from nowhere else.
func TestE2EMultihome(t *testing.T) {
	f := newField(t, "alice", "bob", "carol")
	second4, second6 := "198.18.0.200", "fd00:18::200"
	for _, args := range [][]string{{second4 + "/24"}, {second6 + "/64", "nodad"}} {
		_, err := f.Host("router").Run(f.ctx, append([]string{"ip", "addr", "add", "dev", "eth0"}, args...)...)
		f.must(err)
	}
	f.serve("proto udp6", "multihome")
	alice := f.connect("alice", "remote "+second4+" 1194 udp4")
	bob := f.connect("bob", "remote "+second6+" 1194 udp6")
	carol := f.connect("carol") // by the first address
	for _, v := range []*vpn{alice, bob, carol} {
		v.ping(lab.Lan4, 5, 1400)
		v.move(5_000_000)
	}
}

// One process serves UDP and TCP, IPv4 and IPv6, from one pool, and clients of all of them reach each other.
func TestE2EManyListeners(t *testing.T) {
	f := newField(t, "alice", "bob", "carol", "dave")
	f.serve("client-to-client", "local 0.0.0.0 1194 udp", "local :: 1195 udp6", "bind ipv6only", "local * 443 tcp4-server", "local :: 444 tcp6-server")
	r := f.Host("router")
	clients := []*vpn{
		f.dial("alice", fmt.Sprintf("remote %v 1194 udp4", r.Wan4)),
		f.dial("bob", fmt.Sprintf("remote %v 1195 udp6", r.Wan6)),
		f.dial("carol", fmt.Sprintf("remote %v 443 tcp4-client", r.Wan4)),
		f.dial("dave", fmt.Sprintf("remote %v 444 tcp6-client", r.Wan6)),
	}
	inside := make(map[string]bool)
	for _, v := range clients {
		v.up(1)
		out, err := v.host.Run(f.ctx, "ip", "-4", "-o", "addr", "show", "dev", "tun0")
		f.must(err)
		fields := strings.Fields(out)
		inside[strings.Split(fields[3], "/")[0]] = true
		v.ping(lab.Lan4, 3, 1300)
	}
	if len(inside) != len(clients) {
		t.Fatalf("%d clients have the addresses %v", len(clients), inside)
	}
	for _, v := range clients {
		for a := range inside {
			v.ping(a, 2, 56)
		}
	}
}

// With passtos the outer packets of an answer have the class of the packet inside; the others do not.
func TestE2EPassTOS(t *testing.T) {
	f := newField(t, "alice")
	f.serve("passtos")
	v := f.connect("alice")
	capture := func(class string) *lab.Process {
		p, err := v.host.Start("tcpdump-"+class+".log", "tcpdump", "-n", "-l", "-i", "eth0", "-c", "3", "udp src port 1194 and ip[1] = "+class)
		f.must(err)
		f.must(p.Expect("listening on eth0", 1, 10*time.Second))
		return p
	}
	for _, class := range []string{"0xb8", "0"} {
		p := capture(class)
		out, err := v.host.Run(f.ctx, "ping", "-n", "-c", "3", "-i", "0.05", "-Q", class, lab.Lan4)
		if err != nil {
			t.Fatal(out)
		}
		f.must(p.Wait(10 * time.Second))
	}
}
