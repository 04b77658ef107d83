package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
	"postern/server/datachan"
	"postern/tlsctl/ctltest"
)

// A hundred clients with traffic; a reload brings a new server certificate, a new revocation list, one more route and
// another client file. No ping is lost, the revoked client is out, the next renegotiation shows the new certificate, and
// who connects anew has the route and the file's options. A client that behaves as 2.7 does has the route at once.
func TestE2EReloadUnderLoad(t *testing.T) {
	f := newField(t, "alice", "bob", "mallory", "load", "newer")
	f.postern("pki", "crl", "--dir", f.pki)
	f.postern("pki", "server", "--dir", f.pki, "gateway2")
	ccd := filepath.Join(f.Dir, "ccd")
	f.must(os.Mkdir(ccd, 0o755))
	f.must(os.WriteFile(filepath.Join(ccd, "bob"), []byte("push \"route 192.168.71.0 255.255.255.0\"\n"), 0o644))
	conf := f.serverConf("crl-verify "+f.pki+"/crl.pem", "client-config-dir "+ccd, "max-clients 200")
	srv := f.serveConf(conf)
	f.loadPeer()
	alice := f.connect("alice", "reneg-sec 10")
	bob := f.connect("bob")
	mallory := f.connect("mallory")
	newer := f.connectPeer("newer", ctltest.V27)
	const others = 97
	crowd, err := f.Host("load").Start("crowd.log", f.vpnload(), "-json", "-strict", "-remote", f.Host("router").Wan4.String()+":1194",
		"-ca", f.pki+"/ca.crt", "-ca-key", f.pki+"/private/ca.key", "-peer", lab.Lan4+":5201", "-n", fmt.Sprint(others), "-storm", "50",
		"-flow", "udp", "-traffic", "echo", "-rate", "5", "-size", "300", "-probe", lab.Lan4, "-probes", fmt.Sprint(others), "-probe-every", "200ms",
		"-duration", "20s")
	f.must(err)
	connected := func() int { return strings.Count(srv.Output(), "client connected") }
	f.must(lab.Until(60*time.Second, func() error {
		if n := connected(); n < others+4 {
			return fmt.Errorf("%d clients are connected", n)
		}
		return nil
	}))
	type result struct {
		lab.Pings
		err error
	}
	pings := make(chan result, 2)
	for _, v := range []*vpn{alice, bob} {
		go func() {
			p, err := v.host.Ping(f.ctx, lab.Lan4, 1000, 56, 10*time.Millisecond)
			pings <- result{p, err}
		}()
	}
	before := bob.pushed()
	f.must(lab.Until(10*time.Second, func() error { // traffic of the crowd goes on
		out := f.postern("status", "--json", "--socket", filepath.Join(f.Dir, "control.sock"))
		var s struct {
			Clients []struct {
				Name     string
				Received uint64
			}
		}
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			return lab.Hopeless(err)
		}
		for _, c := range s.Clients {
			if strings.HasPrefix(c.Name, "load") && c.Received < 4000 {
				return fmt.Errorf("a client has sent %d bytes", c.Received)
			}
		}
		return nil
	}))

	f.must(os.WriteFile(conf, []byte(strings.NewReplacer("issued/gateway.crt", "issued/gateway2.crt", "private/gateway.key", "private/gateway2.key").Replace(f.read(conf))+
		"push \"route 192.168.70.0 255.255.255.0\"\n"), 0o600))
	f.must(os.WriteFile(filepath.Join(ccd, "bob"), []byte("push \"route 192.168.72.0 255.255.255.0\"\n"), 0o644))
	f.postern("pki", "revoke", "--dir", f.pki, "mallory")
	f.must(srv.Signal(syscall.SIGHUP))
	f.must(srv.Expect(" reloaded", 1, 10*time.Second))
	f.must(mallory.Expect("AUTH_FAILED,certificate revoked", 1, 20*time.Second))
	f.must(alice.Expect("VERIFY OK: depth=0, CN=gateway2", 1, 30*time.Second))
	if m, err := newer.AwaitMessage(f.ctx, "PUSH_UPDATE,"); err != nil || !strings.Contains(m, "route 192.168.70.0 255.255.255.0") {
		t.Errorf("a client of 2.7 heard %q, %v: want the new route", m, err)
	}
	if n := strings.Count(alice.Output(), completed); n != 1 {
		t.Errorf("alice connected %d times, want once", n)
	}

	for range 2 {
		r := <-pings
		f.must(r.err)
		if r.Lost() > 0 {
			t.Errorf("%d of %d pings of a stock client are lost: %v", r.Lost(), r.Sent, r.Missing)
		}
	}
	f.must(crowd.Wait(60 * time.Second)) // strict: a lost session is a failure
	var report struct {
		Connected int                    `json:"connected"`
		Left      int                    `json:"connected_at_the_end"`
		Sent      uint64                 `json:"pings_sent"`
		Ping      struct{ Count uint64 } `json:"ping_ms"`
	}
	f.must(json.Unmarshal([]byte(crowd.Output()), &report))
	if report.Connected != others || report.Left != others || report.Sent < others*50 || report.Ping.Count != report.Sent {
		t.Errorf("the crowd: %+v", report)
	}
	t.Logf("%d pings of %d clients, and 2000 of two stock clients", report.Sent, others)

	if n := strings.Count(bob.Output(), completed); n != 1 {
		t.Errorf("bob connected %d times, want once", n)
	}
	bob.stop()
	bob = f.connect("bob")
	after := bob.pushed()
	for _, want := range []string{"route 192.168.70.0 255.255.255.0", "route 192.168.72.0 255.255.255.0"} {
		if slices.Contains(before, want) || !slices.Contains(after, want) {
			t.Errorf("bob was pushed %q, and after the reload %q: want %q new", before, after, want)
		}
	}
	if slices.Contains(after, "route 192.168.71.0 255.255.255.0") {
		t.Errorf("the old client file still counts: %q", after)
	}
}

// connectPeer connects a scripted client of a version from a host, with the certificate of its name.
func (f *field) connectPeer(host string, p *ctltest.Profile) *ctltest.Client {
	f.t.Helper()
	cert, err := tls.LoadX509KeyPair(filepath.Join(f.pki, "issued", host+".crt"), filepath.Join(f.pki, "private", host+".key"))
	f.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(f.read(filepath.Join(f.pki, "ca.crt"))))
	var conn net.Conn
	f.must(f.Host(host).Do(func() (err error) {
		conn, err = net.Dial("udp", fmt.Sprintf("%v:1194", f.Host("router").Wan4))
		return err
	}))
	cfg := ctltest.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, ServerName: "gateway", InsecureSkipVerify: true}}
	p.Apply(&cfg)
	cfg.CryptV2 = false // the server has no wrap
	c := ctltest.NewClient(func(pkt []byte) { conn.Write(pkt) }, cfg)
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			if _, data := datachan.ParseHeader(b[:n]); !data {
				c.Deliver(slices.Clone(b[:n]))
			}
		}
	}()
	f.t.Cleanup(func() {
		c.Close()
		conn.Close()
		<-read
	})
	ctx, cancel := context.WithTimeout(f.ctx, 30*time.Second)
	defer cancel()
	f.must(c.Connect(ctx))
	return c
}
