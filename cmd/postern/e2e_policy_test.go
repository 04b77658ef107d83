package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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
	again := f.serveConf(f.policyConf(append(policies, labPolicy...)...))
	out, err := f.Host("router").Run(f.ctx, "nft", "list", "table", "inet", "postern_tun-staff")
	f.must(err)
	if strings.Contains(out, "10.80.0.2") || strings.Contains(out, "policy_less") {
		t.Errorf("a killed server's rules are still there:\n%s", out)
	}
	f.must(again.Signal(syscall.SIGTERM))
	f.must(again.Wait(10 * time.Second))
	if out, err := f.Host("router").Run(f.ctx, "nft", "list", "tables"); err != nil || strings.Contains(out, "postern") {
		t.Errorf("tables after the end: %v %s", err, out)
	}
	for _, dev := range []string{"tun-staff", "tun-guests", "tun-lab"} {
		if _, err := os.Stat("/sys/class/net/" + dev); err == nil {
			t.Errorf("device %s outlives the server", dev)
		}
	}
}
