package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sources gives a host further addresses, for so many clients: from one address, and from one network, only so many
// logins may be under way at a time (S008).
func (f *field) sources(host string, clients int) string {
	f.t.Helper()
	const perAddress, perNetwork = 25, 4
	h := f.Host(host)
	wan := strings.TrimSuffix(h.NS, host) + "wan"
	var from []string
	for i := range (clients + perAddress - 1) / perAddress {
		net, n := i/perNetwork, i%perNetwork
		if n == 0 {
			_, err := h.Run(f.ctx, "ip", "-n", wan, "route", "add", fmt.Sprintf("10.201.%d.0/24", net), "dev", "br0")
			f.must(err)
		}
		a := fmt.Sprintf("10.201.%d.%d", net, n+1)
		_, err := h.Run(f.ctx, "ip", "addr", "add", a+"/32", "dev", "eth0")
		f.must(err)
		from = append(from, a)
	}
	return strings.Join(from, ",")
}

// 500 clients change their ports in the same second, as when a translator restarts: within 15 s the server is heard again
// at 99 of 100 (F40).
func TestE2ERebinding(t *testing.T) {
	t.Parallel() // it mostly waits
	const crowd = 500
	f := newField(t)
	f.addHost("crowd")
	f.loadPeer()
	srv := f.loadSoakServer("keepalive 5 20")
	c := f.soakCrewOn("crowd", "rebind", 17*time.Second, "-proto", "udp", "-n", strconv.Itoa(crowd), "-storm", "150", "-from", f.sources("crowd", crowd),
		"-traffic", "echo", "-rate", "2", "-size", "200", "-rebind", "2500ms", "-again")
	srv.expectClients(time.Minute, crowd)
	c.report(time.Minute)
	if c.Connected != crowd || c.Rebinds != crowd {
		t.Errorf("%d of %d connected, %d changed their ports", c.Connected, crowd, c.Rebinds)
	}
	if c.Rebound.Count < crowd*99/100 {
		t.Errorf("the server was heard again at %d of %d clients within 15 s: %+v", c.Rebound.Count, crowd, c.Rebound)
	}
}
