package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postern/cmd/lab"
)

// tapped makes a client's configuration one for frames.
func tapped(f *field, name string, more ...string) *vpn {
	f.t.Helper()
	return f.dial(name, append([]string{"dev tap"}, more...)...)
}

// A tap server with a network of its own: clients reach the server and, as configured, each other, over UDP and TCP, and by
// broadcast.
func TestE2ETapServer(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice", "bob")
	srv := f.serve("dev tap", "client-to-client", "local * 1194 udp", "local * 443 tcp-server", "lladdr 02:00:5e:10:00:01")
	alice := tapped(f, "alice")
	alice.up(1)
	bob := tapped(f, "bob", "remote "+f.Host("router").Wan4.String()+" 443 tcp-client")
	for _, v := range []*vpn{alice, bob} {
		v.up(1)
		v.ping("10.83.0.1", 5, 1400)
		f.must(lab.Until(20*time.Second, func() error { // the client's kernel first looks whether others have its address
			p, err := v.host.Ping(f.ctx, "fd00:83::1", 1, 1200, 50*time.Millisecond)
			if err == nil && p.Lost() > 0 {
				err = errors.New("no answer over IPv6")
			}
			return err
		}))
		v.ping(lab.Lan4, 3, 56) // routed and translated by the server's host
		v.move(5_000_000)
	}
	alice.ping("10.83.0.3", 5, 1300)
	bob.ping("10.83.0.2", 5, 1300)
	out, err := alice.host.Run(f.ctx, "ip", "neigh", "show", "10.83.0.1")
	f.must(err)
	if !strings.Contains(out, "02:00:5e:10:00:01") {
		t.Errorf("the server's hardware address is %q", out)
	}
	_, err = bob.host.Run(f.ctx, "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_broadcasts=0")
	f.must(err)
	out, _ = alice.host.Run(f.ctx, "ping", "-b", "-n", "-c", "2", "-W", "2", "10.83.0.255") // it counts answers of several as faults
	if !strings.Contains(out, "from 10.83.0.3") {
		t.Errorf("bob does not hear broadcasts: %s", out)
	}
	alice.stop()
	f.must(srv.Expect("client disconnected", 1, 10*time.Second))
}

// A bridged tap server: clients are part of the network behind, get addresses of it, and are asked for by ARP there.
func TestE2ETapBridge(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice", "bob")
	r := f.Host("router")
	for _, args := range []string{"link add br0 type bridge", "addr flush dev lan0", "link set lan0 master br0",
		"addr add " + lab.RouterLan4 + "/24 dev br0", "link set br0 up", "tuntap add dev tap0 mode tap", "link set tap0 master br0"} {
		_, err := r.Run(f.ctx, append([]string{"ip"}, strings.Fields(args)...)...)
		f.must(err)
	}
	conf := f.write("bridge.conf", "dev tap0", "proto udp", "keepalive 10 60", "verb 4",
		"server-bridge "+lab.RouterLan4+" 255.255.255.0 172.29.7.50 172.29.7.60",
		"ca "+f.pki+"/ca.crt", "cert "+f.pki+"/issued/gateway.crt", "key "+f.pki+"/private/gateway.key",
		"control-socket "+f.Dir+"/control.sock")
	f.serveConf(conf)
	alice := tapped(f, "alice")
	alice.up(1)
	bob := tapped(f, "bob")
	for _, v := range []*vpn{alice, bob} {
		v.up(1)
		v.ping(lab.Lan4, 5, 1400)
		v.ping(lab.RouterLan4, 5, 56)
		v.move(5_000_000)
	}
	p, err := f.Host("lan").Ping(f.ctx, "172.29.7.50", 5, 56, 50*time.Millisecond)
	f.must(err)
	if p.Lost() > 0 {
		t.Errorf("%d of %d pings from the network behind to a client lost", p.Lost(), p.Sent)
	}
	if out := f.postern("status", "--json", "--socket", f.Dir+"/control.sock"); !strings.Contains(out, "hardware_addresses") {
		t.Errorf("status does not name hardware addresses: %s", out)
	}
}

// A client of the other kind is told what is wrong, at a tun server and at a tap server.
func TestE2ETapMismatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ server, client, told string }{
		{"dev tun", "dev tap", "this server takes tun clients only: write dev tun in the profile"},
		{"dev tap", "dev tun", "this server takes tap clients only: write dev tap in the profile"},
	} {
		t.Run(c.server, func(t *testing.T) {
			t.Parallel()
			f := newField(t, "alice")
			f.serve(c.server)
			v := f.dial("alice", c.client)
			f.must(v.Expect("AUTH_FAILED,"+c.told, 1, 20*time.Second))
			f.must(ended(v.Wait(10 * time.Second)))
		})
	}
}
