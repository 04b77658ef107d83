package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// The portable path, one packet a system call, works like the batched one.
func TestE2EPlainPath(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	f.serve("tun-offload no")
	v := f.connect("alice")
	v.ping(lab.Lan4, 5, 1400)
	v.ping(lab.Lan6, 5, 1200)
	v.move(20_000_000)
}

// IPv6 outside, over UDP and TCP; an IPv6 socket takes IPv4 clients too.
func TestE2EOuterIPv6(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"udp", "tcp"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			f := newField(t, "alice", "bob")
			f.serve("proto " + map[string]string{"udp": "udp6", "tcp": "tcp6-server"}[proto])
			r := f.Host("router")
			client := map[string]string{"udp": "udp", "tcp": "tcp-client"}[proto]
			alice := f.connect("alice", fmt.Sprintf("remote %v 1194 %s", r.Wan6, strings.Replace(strings.Replace(client, "udp", "udp6", 1), "tcp-", "tcp6-", 1)))
			bob := f.connect("bob", fmt.Sprintf("remote %v 1194 %s", r.Wan4, client))
			for _, v := range []*vpn{alice, bob} {
				v.ping(lab.Lan4, 5, 1400)
				v.move(10_000_000)
			}
		})
	}
}

// Files for single clients: a fixed address, a route, a network behind the client, a locked-out one. Files of a client
// that connects are read when it does.
func TestE2EClientFiles(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice", "bob")
	ccd := filepath.Join(f.Dir, "ccd")
	f.must(os.Mkdir(ccd, 0o755))
	f.must(os.WriteFile(filepath.Join(ccd, "alice"), []byte("ifconfig-push 10.83.0.99 255.255.255.0\npush \"route 203.0.113.0 255.255.255.0\"\niroute 192.168.66.0 255.255.255.0\n"), 0o644))
	f.must(os.WriteFile(filepath.Join(ccd, "bob"), []byte("disable\n"), 0o644))
	f.serve("client-config-dir "+ccd, "route 192.168.66.0 255.255.255.0")
	v := f.connect("alice")
	for _, want := range []string{"ifconfig 10.83.0.99 255.255.255.0", "route 203.0.113.0 255.255.255.0"} {
		if !strings.Contains(v.Output(), want) {
			t.Errorf("the client was not told %q", want)
		}
	}
	// The network behind alice is reached from the gateway, through the kernel's route and alice's session.
	_, err := v.host.Run(f.ctx, "ip", "addr", "add", "192.168.66.1/32", "dev", "lo")
	f.must(err)
	p, err := f.Host("router").Ping(f.ctx, "192.168.66.1", 3, 56, 50*time.Millisecond)
	f.must(err)
	if p.Lost() > 0 {
		t.Errorf("%d of %d pings into the network behind the client lost", p.Lost(), p.Sent)
	}
	b := f.dial("bob")
	f.must(b.Expect("AUTH_FAILED", 1, 20*time.Second))
	f.must(ended(b.Wait(10 * time.Second)))
	f.must(os.Remove(filepath.Join(ccd, "bob")))
	f.connect("bob").ping(lab.Lan4, 3, 56)
}

// Clients reach each other only when they are let, also by multicast.
func TestE2EClientToClient(t *testing.T) {
	t.Parallel()
	for _, open := range []bool{false, true} {
		t.Run(fmt.Sprint(open), func(t *testing.T) {
			t.Parallel()
			f := newField(t, "alice", "bob")
			var more []string
			if open {
				more = append(more, "client-to-client")
			}
			f.serve(more...)
			alice, bob := f.connect("alice"), f.connect("bob")
			p, err := alice.host.Ping(f.ctx, "10.83.0.3", 5, 56, 50*time.Millisecond)
			f.must(err)
			if open && p.Lost() > 0 || !open && p.Received > 0 {
				t.Errorf("client-to-client %v: %d of %d pings answered", open, p.Received, p.Sent)
			}
			// Multicast of the gateway reaches clients in any case.
			_, err = bob.host.Run(f.ctx, "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_broadcasts=0")
			f.must(err)
			for from, want := range map[*lab.Host]bool{f.Host("router"): true, alice.host: open} {
				out, _ := from.Run(f.ctx, "ping", "-n", "-c", "2", "-W", "2", "-I", "tun0", "224.0.0.1") // several answers are faults to it
				if got := strings.Contains(out, "from 10.83.0.3"); got != want {
					t.Errorf("client-to-client %v: bob hears %s: %v, want %v: %s", open, from.NS, got, want, out)
				}
			}
		})
	}
}

// Without privileges the server serves, reloads, and cleans up at its end (S105).
func TestE2EUnprivileged(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	srv := f.serve("user nobody", "group nogroup", "ifconfig-pool-persist "+filepath.Join(f.Dir, "ipp.txt"), "status "+filepath.Join(f.Dir, "status.txt")+" 1")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", srv.Pid()))
	f.must(err)
	if !strings.Contains(string(status), "Uid:\t65534\t65534\t65534\t65534") {
		t.Errorf("the server does not run as nobody:\n%s", grep(string(status), "Uid"))
	}
	v := f.connect("alice")
	v.ping(lab.Lan4, 3, 56)
	f.must(lab.Until(10*time.Second, func() error {
		b, err := os.ReadFile(filepath.Join(f.Dir, "status.txt"))
		if err == nil && !strings.Contains(string(b), "alice,") {
			err = fmt.Errorf("status file:\n%s", b)
		}
		return err
	}))
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
	if out, err := f.Host("router").Run(f.ctx, "nft", "list", "tables"); err != nil || strings.Contains(out, "postern") {
		t.Errorf("tables after the end: %v %s", err, out)
	}
	if out, err := f.Host("router").Run(f.ctx, "ip", "link", "show", "dev", "tun0"); err == nil {
		t.Errorf("the device is still there: %s", out)
	}
}

// SIGHUP takes a new configuration over without dropping anyone; a broken one changes nothing (F03).
func TestE2EReload(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice", "bob")
	conf := f.serverConf()
	srv := f.serveConf(conf)
	alice := f.connect("alice")
	text, err := os.ReadFile(conf)
	f.must(err)
	f.must(os.WriteFile(conf, append(text, "no-such-directive\n"...), 0o600))
	f.must(srv.Signal(syscall.SIGHUP))
	f.must(srv.Expect("reload failed", 1, 10*time.Second))
	f.must(os.WriteFile(conf, append(text, "push \"route 203.0.113.0 255.255.255.0\"\nport 1195\n"...), 0o600))
	f.must(srv.Signal(syscall.SIGHUP))
	f.must(srv.Expect(" reloaded", 1, 10*time.Second))
	f.must(srv.Expect(`directives=["local, port or proto"]`, 1, time.Second))
	alice.ping(lab.Lan4, 3, 56)
	bob := f.connect("bob")
	if !strings.Contains(bob.Output(), "route 203.0.113.0 255.255.255.0") {
		t.Error("bob was not told the new route")
	}
	if n := strings.Count(alice.Output(), completed); n != 1 {
		t.Errorf("alice connected %d times", n)
	}
}

// A broken configuration is told with file, line and directive before anything is opened.
func TestE2EBrokenConfig(t *testing.T) {
	t.Parallel()
	f := newField(t)
	conf := f.serverConf("cipher-suite-of-dreams yes")
	out, err := f.Host("router").Run(f.ctx, programs.postern, "serve", "--config", conf)
	if err == nil || !strings.Contains(out, "server.conf:") || !strings.Contains(out, "cipher-suite-of-dreams") {
		t.Errorf("got %v:\n%s", err, out)
	}
	if out, err := f.Host("router").Run(f.ctx, "ip", "link", "show", "dev", "tun0"); err == nil {
		t.Errorf("a device was opened: %s", out)
	}
}

// A port that is taken ends the start with a message that says so, and leaves nothing half done behind (F37).
func TestE2EPortInUse(t *testing.T) {
	t.Parallel()
	f := newField(t)
	f.serve()
	router := f.Host("router")
	state := func() string {
		links, err := router.Run(f.ctx, "ip", "-o", "addr")
		f.must(err)
		tables, err := router.Run(f.ctx, "nft", "list", "tables")
		f.must(err)
		return links + tables
	}
	before := state()
	conf := f.write("second.conf", "dev tun", "topology subnet", "server 10.99.0.0 255.255.255.0", "nat yes", "proto udp",
		"ca "+f.pki+"/ca.crt", "cert "+f.pki+"/issued/gateway.crt", "key "+f.pki+"/private/gateway.key", "dh none",
		"control-socket "+filepath.Join(f.Dir, "second.sock"))
	out, err := router.Run(f.ctx, programs.postern, "serve", "--config", conf)
	if err == nil || !strings.Contains(out, "1194") || !strings.Contains(out, "in use") {
		t.Errorf("a second server on the same port: %v, %s", err, out)
	}
	if after := state(); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
	if _, err := os.Lstat(filepath.Join(f.Dir, "second.sock")); err == nil {
		t.Error("its control socket is left")
	}
}
