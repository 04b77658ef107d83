package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
	"postern/tlsctl"
)

// Keys change every 5 s for a minute, begun by either side, under 100 pings a second and a TCP download: nearly no ping
// is lost.
func TestE2ERenegotiation(t *testing.T) {
	for _, side := range []string{"server", "client"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			f := newField(t, "alice")
			serverSec, clientSec := "reneg-sec 5", "reneg-sec 0"
			if side == "client" {
				serverSec, clientSec = "reneg-sec 0", "reneg-sec 5"
			}
			srv := f.serve(serverSec)
			remote := fmt.Sprintf("remote %v 1194 udp", f.Host("router").Wan4)
			v := f.connect("alice", remote, clientSec, "explicit-exit-notify 1")
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			download := make(chan error, 1)
			go func() {
				// A minute at 500 kB/s: a download that fills the client's socket while it waits for a core loses
				// pings by itself.
				_, err := v.host.Run(ctx, programs.depot, "get", lab.Lan4+":5001", "30000000", "500000")
				download <- err
			}()
			p, err := v.host.Ping(ctx, lab.Lan4, 6000, 56, 10*time.Millisecond)
			f.must(err)
			f.must(<-download)
			t.Logf("%d of %d pings lost, p99 %v", p.Lost(), p.Sent, percentile(p.RTTs, 99))
			if p.Lost() > 2 {
				t.Errorf("%d pings of %d lost: %v", p.Lost(), p.Sent, p.Missing)
			}
			if n := strings.Count(v.Output(), "Incoming Data Channel: Cipher"); n < 10 {
				t.Errorf("the client changed keys %d times in a minute, want at least 10", n)
			}
			v.stop()
			f.must(srv.Expect("client disconnected", 1, 15*time.Second))
			if n := strings.Count(srv.Output(), "client connected"); n != 1 {
				t.Errorf("%d sessions, want one that lives through all renegotiations", n)
			}
		})
	}
}

// A client whose address changes goes on within a second.
func TestE2EFloat(t *testing.T) {
	f := newField(t, "alice")
	srv := f.serve()
	v := f.connect("alice")
	v.ping(lab.Lan4, 3, 56)
	type result struct {
		lab.Pings
		err error
	}
	done := make(chan result, 1)
	go func() {
		p, err := v.host.Ping(f.ctx, lab.Lan4, 100, 56, 50*time.Millisecond)
		done <- result{p, err}
	}()
	f.must(lab.Until(5*time.Second, func() error { // some pings have gone through
		if n := v.rxBytes(); n < 1000 {
			return fmt.Errorf("%d bytes so far", n)
		}
		return nil
	}))
	f.must(v.host.Renumber())
	r := <-done
	f.must(r.err)
	if r.Lost() > 20 {
		t.Errorf("%d pings of %d lost around the change: more than a second", r.Lost(), r.Sent)
	}
	t.Logf("%d of %d pings lost", r.Lost(), r.Sent)
	f.must(srv.Expect("client moved", 1, time.Second))
	v.ping(lab.Lan4, 3, 56)
	if n := strings.Count(v.Output(), completed); n != 1 {
		t.Errorf("the client connected %d times", n)
	}
}

// rxBytes is what the client's TUN device received.
func (v *vpn) rxBytes() int {
	out, err := v.host.Run(v.f.ctx, "cat", "/sys/class/net/tun0/statistics/rx_bytes")
	if err != nil {
		// /sys shows the namespace of whoever mounted it: ask ip instead.
		return 0
	}
	var n int
	fmt.Sscan(out, &n)
	return n
}

// A client that is killed is gone after the ping timeout.
func TestE2EClientKilled(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	srv := f.serve("keepalive 1 3")
	v := f.connect("alice")
	v.Kill()
	f.must(srv.Expect("nothing heard for the ping timeout", 1, 20*time.Second))
}

// A server that ends tells its clients; one that is killed and started again gets them back by themselves with the
// same addresses (F01, F02, S113, S115).
func TestE2EServerRestarts(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice", "bob")
	conf := f.serverConf("keepalive 1 4", "ifconfig-pool-persist "+filepath.Join(f.Dir, "ipp.txt"))
	srv := f.serveConf(conf)
	bob, alice := f.connect("bob"), f.connect("alice")
	address := func(v *vpn, n int) string {
		v.up(n)
		found := regexp.MustCompile(`ifconfig (10\.83\.0\.\d+)`).FindAllStringSubmatch(v.Output(), -1)
		if len(found) < n {
			t.Fatalf("%d addresses in the client's log, want %d", len(found), n)
		}
		return found[n-1][1]
	}
	bobs, alices := address(bob, 1), address(alice, 1)
	if bobs == alices {
		t.Fatalf("both have %s", bobs)
	}

	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(5 * time.Second)) // exit 0 within 5 s (F02)
	for _, v := range []*vpn{bob, alice} {
		f.must(v.Expect("server-pushed-connection-reset", 1, 5*time.Second))
	}
	srv = f.serveConf(conf)
	for _, c := range []struct {
		v    *vpn
		want string
	}{{alice, alices}, {bob, bobs}} {
		if got := address(c.v, 2); got != c.want {
			t.Errorf("after the restart %s, before %s", got, c.want)
		}
	}

	// Addresses are written within a second or two of a change; nothing changes here.
	srv.Kill()
	f.serveConf(conf)
	for _, c := range []struct {
		v    *vpn
		want string
	}{{alice, alices}, {bob, bobs}} {
		if got := address(c.v, 3); got != c.want {
			t.Errorf("after the kill %s, before %s", got, c.want)
		}
		c.v.ping(lab.Lan4, 3, 56)
	}
}

// easyrsa runs Debian's easy-rsa.
func (f *field) easyrsa(args ...string) {
	f.t.Helper()
	cmd := exec.Command("/usr/share/easy-rsa/easyrsa", args...)
	cmd.Dir = f.Dir
	cmd.Env = append(os.Environ(), "EASYRSA_BATCH=1", "EASYRSA_PKI="+f.pki)
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("easyrsa %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// An easy-rsa tree is adopted as it is: clients of easy-rsa's and of ours come in, and a revocation by ours ends the
// live session and shuts the door (S068).
func TestE2EEasyRSA(t *testing.T) {
	t.Parallel()
	f := newField(t)
	f.must(os.RemoveAll(f.pki))
	f.easyrsa("init-pki")
	f.easyrsa("build-ca", "nopass")
	f.easyrsa("build-server-full", "gateway", "nopass")
	f.easyrsa("build-client-full", "alice", "nopass")
	f.easyrsa("gen-crl")
	f.postern("pki", "client", "--dir", f.pki, "bob")
	f.addHost("alice")
	f.addHost("bob")
	f.serve("crl-verify " + f.pki + "/crl.pem")
	// What a client has, it keeps: revoking moves the tree's own files away, easy-rsa's way.
	for _, name := range []string{"alice", "bob"} {
		for _, file := range []string{"issued/" + name + ".crt", "private/" + name + ".key"} {
			b, err := os.ReadFile(filepath.Join(f.pki, file))
			f.must(err)
			f.must(os.WriteFile(filepath.Join(f.Dir, filepath.Base(file)), b, 0o600))
		}
	}
	own := func(name string) []string {
		return []string{"cert " + name + ".crt", "key " + name + ".key", fmt.Sprintf("remote %v 1194 udp", f.Host("router").Wan4)}
	}
	alice, bob := f.connect("alice", own("alice")...), f.connect("bob", own("bob")...)
	for _, name := range []string{"alice", "bob", "gateway"} {
		if out, err := exec.Command("openssl", "verify", "-CAfile", f.pki+"/ca.crt", f.pki+"/issued/"+name+".crt").CombinedOutput(); err != nil {
			t.Errorf("openssl verify %s: %s", name, out)
		}
	}
	f.postern("pki", "revoke", "--dir", f.pki, "alice")
	f.must(alice.Expect("AUTH_FAILED,certificate revoked", 1, 30*time.Second))
	f.must(ended(alice.Wait(10 * time.Second)))
	again := f.dial("alice", own("alice")...)
	f.must(again.Expect("AUTH_FAILED,certificate revoked", 1, 20*time.Second))
	f.must(ended(again.Wait(10 * time.Second)))
	bob.ping(lab.Lan4, 3, 56)
	f.easyrsa("build-client-full", "carol", "nopass") // easy-rsa goes on working on the tree
	f.easyrsa("revoke", "bob")
	f.easyrsa("gen-crl")
	f.must(bob.Expect("AUTH_FAILED,certificate revoked", 1, 30*time.Second))
}

// 10,000 random and 10,000 mutated datagrams: no answer, no session, no flood in the log, and the connected client
// notices nothing (S005, S076).
func TestE2EJunk(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	f.addHost("stranger")
	serverWrap, clientWrap := f.wraps("tls-crypt")
	srv := f.serve(serverWrap...)
	v := f.connect("alice", append(clientWrap, fmt.Sprintf("remote %v 1194 udp", f.Host("router").Wan4))...)
	text, err := os.ReadFile(filepath.Join(f.Dir, "tls-crypt.key"))
	f.must(err)
	raw, err := tlsctl.ParseStaticKey(text)
	f.must(err)
	key, err := tlsctl.NewCryptKey(raw)
	f.must(err)
	reset := tlsctl.NewClientWrap(tlsctl.Wrapping{Crypt: key}, time.Now()).Seal(nil, &tlsctl.Packet{Opcode: tlsctl.OpHardResetClientV2, Session: tlsctl.SessionID{1, 2, 3, 4, 5, 6, 7, 8}})
	logged := len(srv.Output())
	var conn net.Conn
	f.must(f.Host("stranger").Do(func() (err error) {
		conn, err = net.Dial("udp", fmt.Sprintf("%v:1194", f.Host("router").Wan4))
		return err
	}))
	defer conn.Close()
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, seed))
	for range 10_000 {
		b := make([]byte, rng.IntN(1500))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		_, err := conn.Write(b)
		f.must(err)
		m := append([]byte(nil), reset...)
		for range 1 + rng.IntN(4) {
			bit := rng.IntN(len(m) * 8)
			m[bit/8] ^= 1 << (bit % 8)
		}
		if rng.IntN(4) == 0 {
			m = m[:rng.IntN(len(m))]
		}
		if string(m) == string(reset) {
			continue // two flips of one bit
		}
		_, err = conn.Write(m)
		f.must(err)
	}
	f.must(conn.SetReadDeadline(time.Now().Add(time.Second)))
	if n, err := conn.Read(make([]byte, 2048)); err == nil {
		t.Errorf("an answer of %d bytes", n)
	}
	v.ping(lab.Lan4, 5, 56)
	if out := f.postern("status", "--socket", filepath.Join(f.Dir, "control.sock")); !strings.Contains(out, "1 connected, 0 logging in") {
		t.Errorf("status after the junk:\n%s", out)
	}
	if n := len(srv.Output()) - logged; n > 2000 {
		t.Errorf("the junk wrote %d bytes to the log", n)
	}
	// The same stranger with an unharmed reset does get an answer: the test looks at the right port.
	_, err = conn.Write(reset)
	f.must(err)
	f.must(conn.SetReadDeadline(time.Now().Add(5 * time.Second)))
	if _, err := conn.Read(make([]byte, 2048)); err != nil {
		t.Errorf("a good reset got no answer: %v", err)
	}
}
