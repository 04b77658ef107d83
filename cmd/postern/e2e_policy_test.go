package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/auth/slapdtest"
	"postern/cmd/lab"
)

const metadataAddr = "169.254.169.254"

// policyConf is a configuration of three pools with a device each, and what more says.
func (f *field) policyConf(more ...string) string {
	f.t.Helper()
	lines := []string{
		"dev-type tun", "proto udp", "keepalive 10 60", "topology subnet",
		"ca " + f.pki + "/ca.crt", "cert " + f.pki + "/issued/gateway.crt", "key " + f.pki + "/private/gateway.key", "dh none",
		"verb 4", "nat yes", "control-socket " + filepath.Join(f.Dir, "control.sock"),
	}
	for i, name := range []string{"staff", "guests", "lab"} {
		lines = append(lines, "pool "+name, fmt.Sprintf("network 10.8%d.0.0/24 fd00:8%d::/64", i, i), "dev tun-"+name,
			"route 172.29.7.0/24 fd00:29::/64", "route 10.80.0.0/14 fd00:80::/28", "route "+metadataAddr, "end")
	}
	return f.write("server.conf", append(lines, more...)...)
}

// An attempt is a connect that a policy allows or refuses.
type attempt struct {
	kind string // ping, tcp, udp
	to   string
	port string
}

func (a attempt) String() string { return strings.TrimSpace(a.kind + " " + a.to + " " + a.port) }

// try reports whether an attempt gets an answer.
func (v *vpn) try(a attempt) bool {
	ctx, cancel := context.WithTimeout(v.f.ctx, 3*time.Second)
	defer cancel()
	var err error
	switch a.kind {
	case "ping":
		_, err = v.host.Run(ctx, "ping", "-c1", "-W1", a.to)
	default:
		_, err = v.host.Run(ctx, programs.depot, "try", a.kind, "["+a.to+"]:"+a.port)
	}
	return err == nil
}

// matrix tries every attempt, at once, and wants just those of allowed answered.
func (v *vpn) matrix(step string, all []attempt, allowed ...string) {
	v.f.t.Helper()
	got := make([]bool, len(all))
	var wg sync.WaitGroup
	for i, a := range all {
		wg.Go(func() { got[i] = v.try(a) })
	}
	wg.Wait()
	open := make(map[string]bool)
	for _, a := range allowed {
		open[a] = true
	}
	for i, a := range all {
		if got[i] != open[a.String()] {
			v.f.t.Errorf("%s: %s: %v: answered %v, want %v", step, v.host.Name, a, got[i], open[a.String()])
		}
		delete(open, a.String())
	}
	for a := range open {
		v.f.t.Errorf("%s: %q is among nobody's attempts", step, a)
	}
}

// echo has a host answer TCP and UDP at a port, on all its addresses.
func (f *field) echo(host, port string) {
	f.t.Helper()
	p, err := f.Host(host).Start("echo-"+host+port+".log", programs.depot, "echo", ":"+port)
	f.must(err)
	f.must(p.Expect("echo serves", 1, 10*time.Second))
}

// policyField is a field with echoes everywhere, and the metadata service behind the gateway.
func policyField(t *testing.T, clients ...string) *field {
	f := newField(t, clients...)
	for _, h := range append([]string{"lan", "router"}, clients...) {
		for _, port := range []string{"7001", "7002"} {
			f.echo(h, port)
		}
	}
	for _, step := range [][]string{{"lan", "addr", "add", metadataAddr + "/32", "dev", "lo"}, {"router", "route", "add", metadataAddr, "via", lab.Lan4}} {
		_, err := f.Host(step[0]).Run(f.ctx, append([]string{"ip"}, step[1:]...)...)
		f.must(err)
	}
	return f
}

// attempts are tcp, udp and icmp to a host behind the gateway, to the gateway inside and outside, to the metadata
// service, and to other clients, in both families.
func attempts(gateway4, gateway6 string, clients ...string) (all []attempt) {
	to := append([]string{lab.Lan4, lab.Lan6, gateway4, gateway6, lab.RouterLan4, metadataAddr}, clients...)
	for _, a := range to {
		all = append(all, attempt{"ping", a, ""})
		for _, kind := range []string{"tcp", "udp"} {
			all = append(all, attempt{kind, a, "7001"}, attempt{kind, a, "7002"})
		}
	}
	return all
}

// Three pools with a device each: what each policy allows gets an answer, and nothing else does. A reload that changes
// rules and moves a client between policies of one pool changes that under its connection, without a lost ping to what
// stays allowed (F01, F02, F03, F06, S084).
func TestE2EPolicyMatrix(t *testing.T) {
	f := policyField(t, "alice", "bob", "carol")
	policies := []string{
		"policy staff", "match user alice", "pool staff",
		"allow tcp 172.29.7.0/24 7001", "allow udp fd00:29::/64", "allow icmp 172.29.7.0/24", "allow policy lab", "allow tcp gateway 7002", "end",
		"policy guests", "match user bob", "pool guests", "deny udp 172.29.7.2", "allow any", "end",
	}
	labPolicy := []string{"policy lab", "match any", "pool lab", "end"}
	conf := f.policyConf(append(policies, labPolicy...)...)
	srv := f.serveConf(conf)
	alice, bob, carol := f.connect("alice"), f.connect("bob"), f.connect("carol")
	for i, v := range []*vpn{alice, bob, carol} {
		for _, want := range []string{fmt.Sprintf("ifconfig 10.8%d.0.2 255.255.255.0", i), "route 172.29.7.0 255.255.255.0"} {
			if !strings.Contains(v.Output(), want) {
				t.Errorf("%s was not told %q", v.host.Name, want)
			}
		}
	}
	const alice4, bob4, carol4, carol6 = "10.80.0.2", "10.81.0.2", "10.82.0.2", "fd00:82::1000"
	own := func(i int) (string, string) { return fmt.Sprintf("10.8%d.0.1", i), fmt.Sprintf("fd00:8%d::1", i) }
	pings := func(i int) []string {
		a, b := own(i)
		return []string{"ping " + a, "ping " + b}
	}
	g4, g6 := own(0)
	ofAlice := attempts(g4, g6, bob4, carol4, carol6)
	reachCarol := []string{"ping " + carol4, "tcp " + carol4 + " 7001", "tcp " + carol4 + " 7002", "udp " + carol4 + " 7001", "udp " + carol4 + " 7002",
		"ping " + carol6, "tcp " + carol6 + " 7001", "tcp " + carol6 + " 7002", "udp " + carol6 + " 7001", "udp " + carol6 + " 7002"}
	alice.matrix("staff", ofAlice, append(append(pings(0), reachCarol...),
		"tcp 172.29.7.2 7001", "udp fd00:29::2 7001", "udp fd00:29::2 7002", "ping 172.29.7.2",
		"tcp "+g4+" 7002", "tcp "+g6+" 7002", "tcp 172.29.7.1 7002")...)
	g4, g6 = own(1)
	bob.matrix("guests", attempts(g4, g6, alice4, carol4, carol6), append(pings(1),
		"tcp 172.29.7.2 7001", "tcp 172.29.7.2 7002", "ping 172.29.7.2",
		"tcp fd00:29::2 7001", "tcp fd00:29::2 7002", "udp fd00:29::2 7001", "udp fd00:29::2 7002", "ping fd00:29::2")...)
	g4, g6 = own(2)
	carol.matrix("lab", attempts(g4, g6, alice4, bob4), pings(2)...)

	// Alice loses everything but pings of the lan, and wins a port of the gateway.
	during := make(chan lab.Pings, 1)
	go func() {
		p, err := alice.host.Ping(f.ctx, lab.Lan4, 100, 56, 20*time.Millisecond)
		if err != nil {
			t.Error(err)
		}
		during <- p
	}()
	f.policyConf(append([]string{"policy less", "match user alice", "pool staff", "allow icmp 172.29.7.0/24", "allow tcp gateway 7001", "end"},
		append(policies, labPolicy...)...)...)
	f.must(srv.Signal(syscall.SIGHUP))
	f.must(srv.Expect(" reloaded", 1, 10*time.Second))
	f.must(srv.Expect("policy changed", 1, 10*time.Second))
	g4, g6 = own(0)
	alice.matrix("less", ofAlice, append(pings(0), "ping 172.29.7.2", "tcp "+g4+" 7001", "tcp "+g6+" 7001", "tcp 172.29.7.1 7001")...)
	if p := <-during; p.Lost() > 0 {
		t.Errorf("%d of %d pings to what stays allowed were lost", p.Lost(), p.Sent)
	}
	if n := strings.Count(alice.Output(), completed); n != 1 {
		t.Errorf("alice connected %d times", n)
	}

	// Nothing is left of any of it after SIGKILL and a new start.
	f.must(srv.Signal(syscall.SIGKILL))
	<-srv.Done()
	f.must(lab.Until(5*time.Second, func() error { return f.leftovers("ip", "-o", "link", "show", "type", "tun") }))
	again := f.serveConf(f.policyConf(append(policies, labPolicy...)...))
	out, err := f.Host("router").Run(f.ctx, "nft", "list", "table", "inet", "postern_tun-staff")
	f.must(err)
	if strings.Contains(out, "10.80.0.2") || strings.Contains(out, "policy_less") {
		t.Errorf("a killed server's rules are still there:\n%s", out)
	}
	out, err = f.Host("router").Run(f.ctx, "nft", "list", "tables")
	f.must(err)
	if n := strings.Count(out, "postern"); n != 1 {
		t.Errorf("%d tables after the new start:\n%s", n, out)
	}
	f.must(again.Signal(syscall.SIGTERM))
	f.must(again.Wait(10 * time.Second))
	f.must(f.leftovers("nft", "list", "tables"))
	f.must(f.leftovers("ip", "-o", "link", "show", "type", "tun"))
}

// leftovers is an error when a command on the gateway's host still finds a table or a device of a server's.
func (f *field) leftovers(command ...string) error {
	out, err := f.Host("router").Run(f.ctx, command...)
	if err == nil && (strings.Contains(out, "postern") || strings.Contains(out, "tun-")) {
		err = fmt.Errorf("left behind: %s", out)
	}
	return err
}

// A user whom the directory moves to another group while connected is under the other policy within the time between two
// looks: the same connection, the other matrix, and no ping is lost to what stays allowed (F03, L22).
func TestE2EPolicyFollowsDirectory(t *testing.T) {
	f := policyField(t, "alice", "bob")
	d, ldap := f.directory("ldaps")
	srv := f.serveConf(f.policyConf(append(ldap, "ldap-refresh 2",
		"policy bob", "match user bob", "pool guests", "allow any", "end",
		"policy admins", "match ldap-group "+slapdtest.AdminsGroup, "pool staff",
		"allow icmp 172.29.7.0/24", "allow icmp fd00:29::/64", "allow udp 172.29.7.0/24 7002", "allow tcp gateway 7001", "end",
		"policy users", "match ldap-group "+slapdtest.UsersGroup, "pool staff",
		"allow tcp 172.29.7.0/24 7001", "allow udp fd00:29::/64", "allow icmp 172.29.7.0/24", "allow icmp fd00:29::/64", "allow policy bob", "allow tcp gateway 7002", "end",
		"policy rest", "match any", "pool lab", "end")...))
	alice := f.connect("alice", f.credentials("alice-login", "alice", "alice-secret"))
	f.connect("bob", f.credentials("bob-login", "bob", "bob-secret"))
	const g4, g6, bob4, bob6 = "10.80.0.1", "fd00:80::1", "10.81.0.2", "fd00:81::1000"
	all := attempts(g4, g6, bob4, bob6)
	always := []string{"ping " + g4, "ping " + g6, "ping " + lab.Lan4, "ping " + lab.Lan6}
	alice.matrix("users", all, append([]string{"tcp 172.29.7.2 7001", "udp fd00:29::2 7001", "udp fd00:29::2 7002",
		"ping " + bob4, "tcp " + bob4 + " 7001", "tcp " + bob4 + " 7002", "udp " + bob4 + " 7001", "udp " + bob4 + " 7002",
		"ping " + bob6, "tcp " + bob6 + " 7001", "tcp " + bob6 + " 7002", "udp " + bob6 + " 7001", "udp " + bob6 + " 7002",
		"tcp " + g4 + " 7002", "tcp " + g6 + " 7002", "tcp 172.29.7.1 7002"}, always...)...)

	var during sync.WaitGroup
	for _, to := range []string{lab.Lan4, lab.Lan6} {
		during.Go(func() {
			p, err := alice.host.Ping(f.ctx, to, 700, 56, 20*time.Millisecond) // longer than all that is waited for below
			if err != nil {
				t.Error(err)
			}
			if p.Lost() > 0 {
				t.Errorf("%d of %d pings to %s were lost", p.Lost(), p.Sent, to)
			}
		})
	}
	entry := "uid=alice," + slapdtest.UserBase
	f.must(d.Modify(fmt.Sprintf("dn: %s\nchangetype: modify\ndelete: member\nmember: %s\n\ndn: %s\nchangetype: modify\nadd: uniqueMember\nuniqueMember: %s\n",
		slapdtest.UsersGroup, entry, slapdtest.AdminsGroup, entry)))
	f.must(srv.Expect("policy changed", 1, 10*time.Second))
	alice.matrix("admins", all, append([]string{"udp 172.29.7.2 7002", "tcp " + g4 + " 7001", "tcp " + g6 + " 7001", "tcp 172.29.7.1 7001"}, always...)...)
	during.Wait()
	if n := strings.Count(alice.Output(), completed); n != 1 {
		t.Errorf("alice connected %d times", n)
	}
}

// A policy's limits hold within 5 % in each direction, by the bytes of packets inside the tunnel, when twice as much is
// offered.
func TestE2EPolicyLimit(t *testing.T) {
	f := newField(t, "alice")
	const down, up = 20e6, 10e6
	f.serveConf(f.policyConf("policy staff", "match any", "pool staff", "allow udp 172.29.7.0/24", "limit down 20mbit up 10mbit", "end"))
	alice := f.connect("alice")
	var near, far *net.UDPConn
	f.must(f.Host("lan").Do(func() (err error) {
		far, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(lab.Lan4), Port: 7003})
		return err
	}))
	defer far.Close()
	f.must(alice.host.Do(func() (err error) {
		near, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.ParseIP(lab.Lan4), Port: 7003})
		return err
	}))
	defer near.Close()
	_, err := near.Write([]byte("hello"))
	f.must(err)
	f.must(far.SetReadDeadline(time.Now().Add(10 * time.Second)))
	_, back, err := far.ReadFromUDPAddrPort(make([]byte, 100)) // where the gateway's address translation leads to alice
	f.must(err)
	f.must(far.SetReadDeadline(time.Time{}))

	flows := []struct {
		name    string
		limit   float64
		send    func([]byte) (int, error)
		receive *net.UDPConn
		got     atomic.Int64
	}{
		{name: "down", limit: down, send: func(b []byte) (int, error) { return far.WriteToUDPAddrPort(b, back) }, receive: near},
		{name: "up", limit: up, send: near.Write, receive: far},
	}
	const payload, headers = 1200, 28
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	for i := range flows {
		flow := &flows[i]
		f.must(flow.receive.SetReadBuffer(4 << 20))
		go func() { // until its socket is closed
			b := make([]byte, 2*payload)
			for {
				n, err := flow.receive.Read(b)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					flow.got.Add(int64(n + headers))
				}
			}
		}()
		go func() {
			b := make([]byte, payload)
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			began, sent := time.Now(), 0.0
			for ctx.Err() == nil {
				for due := time.Since(began).Seconds() * 2 * flow.limit / 8; sent < due; sent += payload + headers {
					_, _ = flow.send(b) // what the host cannot take is as good as dropped
				}
				<-tick.C
			}
		}()
	}
	for i := range flows {
		f.must(lab.Until(10*time.Second, func() error { // what may come at once is through
			if n := flows[i].got.Load(); float64(n) < flows[i].limit/8 {
				return fmt.Errorf("%s: %d bytes have come", flows[i].name, n)
			}
			return nil
		}))
	}
	const long = 8 * time.Second
	before := [2]int64{flows[0].got.Load(), flows[1].got.Load()}
	began := time.Now()
	time.Sleep(long)
	after := [2]int64{flows[0].got.Load(), flows[1].got.Load()}
	took := time.Since(began).Seconds()
	for i := range flows {
		rate := float64(after[i]-before[i]) * 8 / took
		t.Logf("%s: %.2f Mbit/s of %.0f", flows[i].name, rate/1e6, flows[i].limit/1e6)
		if rate < flows[i].limit*0.95 || rate > flows[i].limit*1.05 {
			t.Errorf("%s: %.2f Mbit/s, want %.0f within 5 %%", flows[i].name, rate/1e6, flows[i].limit/1e6)
		}
	}
}
