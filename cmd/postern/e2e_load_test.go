package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/cmd/lab"
)

// vpnload is built once for the tests that want it.
func (f *field) vpnload() string {
	f.t.Helper()
	bin := filepath.Join(programs.dir, "vpnload")
	programs.loadOnce.Do(func() {
		cmd := exec.Command("go", "build", "-o", bin, "postern/cmd/vpnload")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			programs.loadErr = fmt.Errorf("build vpnload: %w: %s", err, out)
		}
	})
	f.must(programs.loadErr)
	return bin
}

// loadPeer starts vpnload's peer on the lan.
func (f *field) loadPeer() {
	f.t.Helper()
	p, err := f.Host("lan").Start("peer.log", f.vpnload(), "peer", "-listen", lab.Lan4+":5201")
	f.must(err)
	f.must(p.Expect("peer serves", 1, 10*time.Second))
}

// loaded is what the tests look at of vpnload's report.
type loaded struct {
	Connected int `json:"connected"`
	Left      int `json:"connected_at_the_end"`
	Up, Down  struct{ Bytes, Packets, Sent uint64 }
	Ping      struct {
		Count    uint64
		P50, P99 float64
	} `json:"ping_ms"`
	Echo       struct{ Count uint64 }  `json:"echo_ms"`
	EchoesSent uint64                  `json:"echoes_sent"`
	Server     struct{ Cores float64 } `json:"server"`
	Roams      uint64
	Restarts   uint64
	Renewals   uint64 `json:"renegotiations"`
	Returns    uint64
	Rebinds    uint64
	Rebound    struct {
		Count         uint64
		P50, P99, Max float64
	} `json:"rebound_ms"`
	Errors map[string]int // of attempts to connect
	Lost   map[string]int
	Late   uint64 `json:"late_for_stock_replay_window"`
}

// load runs vpnload on a host to its end; it must find nothing wrong.
func (f *field) load(host string, args ...string) (r loaded) {
	f.t.Helper()
	args = append([]string{f.vpnload(), "-json", "-strict", "-remote", f.Host("router").Wan4.String() + ":1194",
		"-ca", f.pki + "/ca.crt", "-ca-key", f.pki + "/private/ca.key", "-peer", lab.Lan4 + ":5201"}, args...)
	out, err := f.Host(host).Run(f.ctx, args...)
	f.must(err)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		f.t.Fatalf("vpnload printed %s: %v", out, err)
	}
	f.t.Log(out)
	return r
}

// The load generator connects over both transports and moves TCP and UDP both ways, in both patterns, and a stock client
// would not have dropped a packet of it. What renegotiates, roams and restarts meanwhile loses nothing either.
func TestE2ELoad(t *testing.T) {
	f := newField(t, "load")
	f.serve("local 0.0.0.0 1194 udp", "local 0.0.0.0 1194 tcp-server")
	f.loadPeer()
	for _, io := range []string{"gso", "stock"} {
		for _, flow := range []string{"tcp", "udp"} {
			r := f.load("load", "-n", "4", "-proto", "mixed", "-io", io, "-flow", flow, "-traffic", "both", "-rate", "2000", "-duration", "2s",
				"-probe", lab.Lan4)
			if r.Connected != 4 || r.Left != 4 || r.Up.Bytes < 1_000_000 || r.Down.Bytes < 1_000_000 || r.Ping.Count == 0 {
				t.Errorf("%s %s: %+v", io, flow, r)
			}
		}
	}
	lanes := f.postern("status", "--lanes", "--socket", filepath.Join(f.Dir, "control.sock"))
	t.Log(lanes)
	for _, want := range []string{"from 0.0.0.0:1194", "to tun0", "from tun0", "to 0.0.0.0:1194"} {
		if !regexp.MustCompile(regexp.QuoteMeta(want) + ` +[1-9]\d{3,} `).MatchString(lanes) {
			t.Errorf("postern status --lanes shows no traffic %s:\n%s", want, lanes)
		}
	}
	r := f.load("load", "-n", "12", "-proto", "mixed", "-ciphers", "AES-256-GCM,AES-128-GCM,CHACHA20-POLY1305,AES-256-GCM:epoch",
		"-flow", "udp", "-traffic", "echo", "-rate", "100", "-size", "700", "-duration", "8s", "-renegotiate", "4s", "-roam", "3s", "-restart", "6s")
	if r.Left != 12 || r.Roams == 0 || r.Restarts == 0 || r.Renewals == 0 || r.Down.Bytes == 0 {
		t.Error(fmt.Sprintf("life: %+v", r))
	}
}

// Hundreds of clients that come and go over both transports leave nothing behind: goroutines, descriptors and memory are
// what they were (S117).
func TestE2EChurn(t *testing.T) {
	f := newField(t, "load")
	socket := filepath.Join(f.Dir, "pprof.sock")
	conf := f.serverConf("local 0.0.0.0 1194 udp", "local 0.0.0.0 1194 tcp-server", "max-clients 2000", "verb 1")
	srv, err := f.Host("router").Start("server.log", programs.postern, "serve", "--config", conf, "--pprof", "unix:"+socket)
	f.must(err)
	f.must(lab.Until(20*time.Second, func() error {
		_, err := os.Stat(filepath.Join(f.Dir, "control.sock"))
		return err
	}))
	profiles := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	type held struct{ goroutines, descriptors, heap int }
	look := func() (h held) {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", srv.Pid()))
		f.must(err)
		h.descriptors = len(fds)
		for _, q := range []struct {
			what, pattern string
			to            *int
		}{{"goroutine?debug=1", `goroutine profile: total (\d+)`, &h.goroutines}, {"heap?debug=1&gc=1", `# HeapAlloc = (\d+)`, &h.heap}} {
			answer, err := profiles.Get("http://postern/debug/pprof/" + q.what)
			f.must(err)
			b, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			f.must(err)
			m := regexp.MustCompile(q.pattern).FindSubmatch(b)
			if m == nil {
				t.Fatalf("%s: %.200s", q.what, b)
			}
			*q.to, err = strconv.Atoi(string(m[1]))
			f.must(err)
		}
		return h
	}
	var before held
	for round := range 4 {
		if r := f.load("load", "-n", "150", "-storm", "60", "-proto", "mixed", "-duration", "500ms"); r.Connected != 150 || r.Left != 150 {
			t.Fatalf("round %d: %+v", round, r)
		}
		if round == 0 {
			f.must(lab.Until(20*time.Second, func() error { return nobodyIn(f) }))
			before = look() // with all that the first clients had to bring about
		}
	}
	f.must(lab.Until(30*time.Second, func() error {
		if err := nobodyIn(f); err != nil {
			return err
		}
		after := look()
		if after.goroutines > before.goroutines+10 || after.descriptors > before.descriptors+4 || after.heap > before.heap+10<<20 {
			return fmt.Errorf("before %+v, after %+v", before, after)
		}
		t.Logf("before %+v, after %+v", before, after)
		return nil
	}))
}

func nobodyIn(f *field) error {
	out := f.postern("status", "--socket", filepath.Join(f.Dir, "control.sock"))
	if !strings.Contains(out, "\n0 connected, 0 logging in") {
		return fmt.Errorf("somebody is in: %s", out)
	}
	return nil
}

// The load generator comes with every wrap, with certificates and logins from a list, and with CBC and the epoch format,
// through renegotiations.
func TestE2ELoadKinds(t *testing.T) {
	f := newField(t, "load")
	f.loadPeer()
	users := filepath.Join(f.Dir, "users")
	var list []string
	for _, name := range []string{"ann", "ben"} {
		f.postern("pki", "client", "--dir", f.pki, name)
		f.posternInput(name+"-secret\n", "user", "add", "--file", users, name)
		list = append(list, fmt.Sprintf("%[1]s/issued/%[2]s.crt %[1]s/private/%[2]s.key %[2]s %[2]s-secret", f.pki, name))
	}
	people := f.write("people", list...)
	for _, wrap := range []string{"none", "tls-auth", "tls-crypt", "tls-crypt-v2"} {
		t.Run(wrap, func(t *testing.T) {
			f.t = t
			lines, client := f.wraps(wrap)
			srv := f.serve(append(lines, "auth-users-file "+users, "auth SHA256", "data-ciphers AES-256-GCM:AES-256-CBC",
				"local 0.0.0.0 1194 udp", "local 0.0.0.0 1194 tcp-server")...)
			args := []string{"-n", "2", "-list", people, "-auth", "SHA256", "-ciphers", "AES-256-CBC,AES-256-GCM:epoch", "-flow", "udp", "-traffic", "echo",
				"-rate", "50", "-duration", "2s", "-renegotiate", "1s"}
			for _, line := range client { // "tls-auth FILE 1"
				words := strings.Fields(line)
				args = append(args, "-"+words[0], strings.Join(words[1:], ":"))
			}
			for _, proto := range []string{"udp", "tcp"} {
				r := f.load("load", append(args, "-proto", proto, "-tls", map[string]string{"udp": "1.3", "tcp": "1.2"}[proto])...)
				if r.Connected != 2 || r.Left != 2 || r.Down.Packets < 100 || r.Renewals == 0 {
					t.Errorf("%s: %+v", proto, r)
				}
			}
			f.must(srv.Stop())
		})
	}
	f.t = t
}
