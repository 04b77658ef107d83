package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// A server with several addresses answers from the one that was asked, in both families on one socket. A stock client
// takes answers from nowhere else.
func TestE2EMultihome(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// A TCP port is shared with another service: a stock client connects, and whoever speaks anything else reaches the
// service, both at a time.
func TestE2EPortShare(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	p, err := f.Host("router").Start("service.log", programs.depot, "serve", "127.0.0.1:5002")
	f.must(err)
	f.must(p.Expect("depot serves", 1, 10*time.Second))
	f.serve("proto tcp-server", "port 443", "port-share 127.0.0.1 5002")
	at := fmt.Sprintf("%v", f.Host("router").Wan4)
	v := f.connect("alice", "remote "+at+" 443 tcp-client")
	for _, way := range []string{"get", "put"} {
		out, err := v.host.Run(f.ctx, programs.depot, way, at+":443", "20000000")
		f.must(err)
		t.Log(strings.TrimSpace(out))
	}
	v.move(5_000_000)
}

// Behind a balancer the server knows a client by its own address.
func TestE2EBalancer(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice", "balancer")
	srv := f.serve("proto tcp-server", fmt.Sprintf("proxy-protocol-from %v", f.Host("balancer").Wan4))
	b := f.Host("balancer")
	var front net.Listener
	f.must(b.Do(func() (err error) {
		front, err = net.Listen("tcp4", fmt.Sprintf("%v:443", b.Wan4))
		return err
	}))
	defer front.Close()
	back := fmt.Sprintf("%v:1194", f.Host("router").Wan4)
	go balance(b, front, back)
	v := f.connect("alice", fmt.Sprintf("remote %v 443 tcp-client", b.Wan4))
	v.ping(lab.Lan4, 5, 1300)
	v.move(5_000_000)
	f.must(srv.Expect(fmt.Sprintf("addr=%v:", v.host.Wan4), 1, time.Second))
}

// balance passes connections on, as the least of balancers does, announced by the PROXY protocol.
func balance(b *lab.Host, front net.Listener, back string) {
	for {
		client, err := front.Accept()
		if err != nil {
			return
		}
		var server net.Conn
		if err := b.Do(func() (err error) { server, err = net.Dial("tcp4", back); return err }); err != nil {
			client.Close()
			continue
		}
		from, to := client.RemoteAddr().(*net.TCPAddr).AddrPort(), client.LocalAddr().(*net.TCPAddr).AddrPort()
		h := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), from.Addr().Unmap().AsSlice()...)
		h = append(h, to.Addr().Unmap().AsSlice()...)
		h = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(h, from.Port()), to.Port())
		pass := func(to, from net.Conn) {
			io.Copy(to, from)
			to.Close()
			from.Close()
		}
		go func() {
			server.Write(h)
			pass(server, client)
		}()
		go pass(client, server)
	}
}

// Sockets that systemd has opened are served on: UDP and TCP, with a client on each, and one that the configuration does
// not know ends the start with its name.
func TestE2ESocketActivation(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice", "bob")
	r := f.Host("router")
	var files []*os.File
	f.must(r.Do(func() error {
		u, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 1194})
		if err != nil {
			return err
		}
		defer u.Close()
		l, err := net.ListenTCP("tcp6", &net.TCPAddr{Port: 443})
		if err != nil {
			return err
		}
		defer l.Close()
		for _, s := range []interface{ File() (*os.File, error) }{u, l} {
			file, err := s.File()
			if err != nil {
				return err
			}
			files = append(files, file)
		}
		return nil
	}))
	start := func(conf string) *lab.Process {
		p, err := r.StartWith("server.log", files, "sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=vpn-udp:vpn-tcp exec "$0" serve --config "$1"`, programs.postern, conf)
		f.must(err)
		return p
	}
	p := start(f.serverConf("local 0.0.0.0 1194 udp"))
	f.must(p.Expect(`socket "vpn-tcp" of the unit, tcp [::]:443, is on no line of the configuration: add `+"`local :: 443 tcp6-server`", 1, 20*time.Second))
	f.must(ended(p.Wait(10 * time.Second)))

	p = start(f.serverConf("local 0.0.0.0 1194 udp", "local :: 443 tcp6-server", "bind ipv6only"))
	f.must(p.Expect(" serving ", 1, 20*time.Second))
	for _, v := range []*vpn{f.connect("alice"), f.connect("bob", fmt.Sprintf("remote %v 443 tcp6-client", r.Wan6))} {
		v.ping(lab.Lan4, 5, 1300)
		v.move(5_000_000)
	}
	f.must(p.Signal(syscall.SIGTERM))
	f.must(p.Wait(10 * time.Second))
	for _, file := range files {
		file.Close()
	}
}

// A client over TCP that stops reading in the middle of a download holds up nobody, and goes on when it wakes up (S087).
func TestE2ESlowReader(t *testing.T) {
	f := newField(t, "slow", "fast")
	f.serve("proto tcp-server")
	remote := fmt.Sprintf("remote %v 1194 tcp-client", f.Host("router").Wan4)
	slow, fast := f.connect("slow", remote), f.connect("fast", remote)
	download, err := slow.host.Start("download.log", programs.depot, "get", lab.Lan4+":5001", "30000000", "10000000")
	f.must(err)
	f.must(lab.Until(10*time.Second, func() error {
		out, err := slow.host.Run(f.ctx, "cat", "/sys/class/net/tun0/statistics/rx_bytes")
		if n, _ := strconv.Atoi(strings.TrimSpace(out)); err == nil && n < 1_000_000 {
			err = fmt.Errorf("%d bytes have come", n)
		}
		return err
	}))
	f.must(slow.Signal(syscall.SIGSTOP))
	fast.move(20_000_000)
	fast.ping(lab.Lan4, 20, 1000)
	f.must(slow.Signal(syscall.SIGCONT))
	f.must(download.Wait(time.Minute))
	slow.ping(lab.Lan4, 3, 56)
}
