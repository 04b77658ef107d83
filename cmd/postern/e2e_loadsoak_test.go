package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/cmd/lab"
	"postern/server"
)

// replayComplaint is what a stock client says of each packet that its replay check drops: it was seen, or is behind the
// window.
const replayComplaint = "bad packet ID (may be a replay)"

// Hundreds of sessions of the load generator over both transports renegotiate, roam, leave and come again, some move bulk
// in both patterns, and two stock clients move TCP in bursts, down above all. No session is lost, no packet reaches a
// client behind its replay window, what was sent arrives but for what roams and restarts explain, and the server grows
// neither in memory nor in goroutines (S117). At the end packets are put out of order on purpose: both kinds of client
// notice.
func TestE2ELoadSoak(t *testing.T) {
	t.Parallel() // it mostly waits, as TestE2ESoak does
	long := soakTime(t, "LOADSOAK", 3*time.Minute)
	f := newField(t, "alice", "bob", "carol")
	f.addHost("load")
	f.loadPeer()
	srv := f.loadSoakServer("keepalive 10 60")

	crews := []*soakCrew{
		f.soakCrew("crowd", long, "-n", "240", "-storm", "40", "-traffic", "echo", "-rate", "2", "-size", "600",
			"-ciphers", "AES-256-GCM,AES-128-GCM,CHACHA20-POLY1305,AES-192-GCM,AES-256-GCM:epoch,AES-256-CBC",
			"-renegotiate", "60s", "-roam", "45s", "-restart", "90s"),
		f.soakCrew("gso", long, "-n", "2", "-traffic", "both", "-rate", "1000", "-io", "gso", "-renegotiate", "20s", "-roam", "30s"),
		f.soakCrew("stock", long, "-n", "2", "-traffic", "both", "-rate", "300", "-io", "stock", "-renegotiate", "20s", "-roam", "30s"),
	}
	clients := []*vpn{
		f.dial("alice", "reneg-sec 25", "data-ciphers AES-256-GCM", fmt.Sprintf("remote %v 1194 udp", f.Host("router").Wan4)),
		f.dial("bob", "reneg-sec 40", "data-ciphers CHACHA20-POLY1305", fmt.Sprintf("remote %v 1194 udp", f.Host("router").Wan4)),
	}
	for _, v := range clients {
		v.up(1)
	}
	const everybody = 240 + 2 + 2 + 2
	srv.expectClients(time.Minute, everybody)

	ended := make(chan struct{})
	bursts := make([]int, len(clients))
	var wg sync.WaitGroup
	for i, v := range clients {
		wg.Go(func() {
			var err error
			if bursts[i], err = v.bursts(ended); err != nil {
				t.Errorf("%s: %v", v.host.Name, err)
			}
		})
	}
	uses := srv.watch(long)
	drops, full := srv.drops() // before everybody leaves, with packets on their way
	for _, c := range crews {
		c.report(time.Minute + long/40) // the watch ends before them
	}
	close(ended)
	wg.Wait()

	for i, v := range clients {
		v.ping(lab.Lan4, 5, 1300)
		out := v.Output()
		if n := strings.Count(out, replayComplaint); n != 0 {
			t.Errorf("%s: %d packets dropped by its replay check", v.host.Name, n)
		}
		if strings.Contains(out, "Authenticate/Decrypt packet error") {
			t.Errorf("%s could not decrypt a packet", v.host.Name)
		}
		changes := strings.Count(out, "Incoming Data Channel: Cipher")
		if n := strings.Count(out, completed); n != 1 || changes < int(long/time.Minute) || bursts[i] < int(long/(20*time.Second)) {
			t.Errorf("%s connected %d times, changed keys %d times, moved %d bursts in %v", v.host.Name, n, changes, bursts[i], long)
		}
		t.Logf("%s: %d bursts, %d keys", v.host.Name, bursts[i], changes)
	}
	for why, n := range drops {
		switch why {
		case "link-local": // chatter of clients' kernels
		case "no-route", "not-up", "no-client", "no-key", "stranger": // on its way to or from who has just left or come
			if most := 100 + 10*crews[0].loaded.Restarts; n > most {
				t.Errorf("dropped %d times: %s, at %d restarts", n, why, crews[0].loaded.Restarts)
			}
		default:
			t.Errorf("dropped %d times: %s", n, why)
		}
	}
	crews[0].balance(crews[0].loaded.EchoesSent, crews[0].loaded.Echo.Count, full, 2)
	for i, c := range crews[1:] {
		rate := []uint64{1000, 300}[i]
		c.balance(c.loaded.Up.Sent, c.loaded.Up.Packets, full, rate)
		c.balance(c.loaded.Down.Sent, c.loaded.Down.Packets, full, rate)
		if c.loaded.Up.Packets == 0 || c.loaded.Down.Packets == 0 {
			t.Errorf("%s moved nothing", c.name)
		}
	}
	if l := &crews[0].loaded; l.Restarts == 0 || l.Roams == 0 || l.Renewals == 0 || l.Left < 235 {
		t.Errorf("the crowd's life: %+v", l)
	}
	flat(t, uses)
	f.disorder()
}

// loadSoakServer starts the gateway of the soak, for hundreds of clients.
func (f *field) loadSoakServer(more ...string) *soakServer {
	f.t.Helper()
	s := &soakServer{f: f, socket: filepath.Join(f.Dir, "control.sock")}
	conf := f.write("server.conf", append([]string{"local 0.0.0.0 1194 udp", "local 0.0.0.0 1194 tcp-server", "dev tun", "topology subnet",
		"server 10.85.0.0 255.255.0.0", `push "route 172.29.7.0 255.255.255.0"`, "nat yes", "dh none",
		"ca " + f.pki + "/ca.crt", "cert " + f.pki + "/issued/gateway.crt", "key " + f.pki + "/private/gateway.key",
		"data-ciphers " + strings.Join(aeadCiphers, ":") + ":AES-256-CBC", "reneg-sec 120", "verb 2",
		"control-socket " + s.socket}, more...)...)
	s.Process = f.serveConf(conf)
	return s
}

func (s *soakServer) snapshot() (snap server.Snapshot) {
	s.f.t.Helper()
	s.f.must(json.Unmarshal([]byte(s.f.postern("status", "--json", "--socket", s.socket)), &snap))
	return snap
}

func (s *soakServer) expectClients(limit time.Duration, n int) {
	s.f.t.Helper()
	s.f.must(lab.Until(limit, func() error {
		if have := len(s.snapshot().Clients); have != n {
			time.Sleep(limit / 200) // a snapshot of thousands is work
			return fmt.Errorf("%d clients, want %d", have, n)
		}
		return nil
	}))
}

// watch looks at what the server uses, from when it has warmed up until the crews are about to end.
func (s *soakServer) watch(long time.Duration) (uses []soakUse) {
	s.f.t.Helper()
	every := max(long/90, time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < long-2*every; <-tick.C {
		if time.Since(begun) > long/6 {
			uses = append(uses, s.use())
		}
	}
	return uses
}

// flat compares what a server used in the last quarter with the first.
func flat(t *testing.T, uses []soakUse) {
	t.Helper()
	quarter := len(uses) / 4
	if quarter == 0 {
		t.Fatalf("the server was looked at %d times", len(uses))
	}
	middle := func(uses []soakUse, of func(soakUse) int) int {
		var all []int
		for _, u := range uses {
			all = append(all, of(u))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	first, last := uses[:quarter], uses[len(uses)-quarter:]
	for _, what := range []struct {
		name string
		of   func(soakUse) int
		room int // beyond a tenth
	}{
		{"kB resident", func(u soakUse) int { return u.rss }, 4 << 10},
		{"goroutines", func(u soakUse) int { return u.goroutines }, 10}, // negotiations and stragglers
	} {
		was, is := middle(first, what.of), middle(last, what.of)
		t.Logf("%s: %d in the first quarter, %d in the last, of %d looks", what.name, was, is, len(uses))
		if is > was+was/10+what.room {
			t.Errorf("%s grew from %d to %d", what.name, was, is)
		}
	}
	if n := uses[len(uses)-1].panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

// drops counts the packets that the server has dropped, by reason, and those that found no room in a queue, the kernel's or
// a stream's, which is where a machine that stalls loses them.
func (s *soakServer) drops() (drops map[string]uint64, full uint64) {
	t := s.f.t
	t.Helper()
	var lanes server.LaneReport
	s.f.must(json.Unmarshal([]byte(s.f.postern("status", "--lanes", "--json", "--socket", s.socket)), &lanes))
	t.Logf("the server dropped: %v", lanes.Drops)
	for _, c := range s.snapshot().Clients {
		full += c.Unsent
	}
	var moved uint64
	for _, l := range lanes.Lanes {
		for _, sock := range l.Sockets {
			moved += sock.PacketsIn + sock.PacketsOut
			full += sock.Overrun + sock.Unsent
			if sock.Truncated != 0 {
				t.Errorf("lane %d: %d datagrams truncated", l.Lane, sock.Truncated)
			}
		}
		for _, q := range l.Queues {
			moved += q.PacketsIn + q.PacketsOut
			full += q.Dropped
		}
	}
	full += s.f.txDropped("router", "tun0")
	t.Logf("%d packets through sockets and queues, %d found no room", moved, full)
	if full*100 > moved {
		t.Errorf("%d of %d packets found no room in a queue", full, moved)
	}
	return lanes.Drops, full
}

// txDropped is how many packets a host's device has dropped on their way out.
func (f *field) txDropped(host, device string) uint64 {
	f.t.Helper()
	out, err := f.Host(host).Run(f.ctx, "ip", "-json", "-statistics", "link", "show", device)
	f.must(err)
	var links []struct {
		Stats struct {
			TX struct{ Dropped uint64 }
		} `json:"stats64"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) != 1 {
		f.t.Fatalf("ip printed %s: %v", out, err)
	}
	return links[0].Stats.TX.Dropped
}

// A soakCrew is one load generator of the soak.
type soakCrew struct {
	*lab.Process
	f    *field
	name string
	long time.Duration
	loaded
}

// soakCrew starts one that measures for so long.
func (f *field) soakCrew(name string, long time.Duration, args ...string) *soakCrew {
	f.t.Helper()
	return f.soakCrewOn("load", name, long, args...)
}

func (f *field) soakCrewOn(host, name string, long time.Duration, args ...string) *soakCrew {
	f.t.Helper()
	c := &soakCrew{f: f, name: name, long: long}
	p, err := f.Host(host).Start(name+".log", append([]string{f.vpnload(), "-json", "-strict", "-name", name + "%d", "-proto", "mixed",
		"-remote", f.Host("router").Wan4.String() + ":1194", "-ca", f.pki + "/ca.crt", "-ca-key", f.pki + "/private/ca.key",
		"-flow", "udp", "-peer", lab.Lan4 + ":5201", "-duration", long.String()}, args...)...)
	f.must(err)
	c.Process = p
	return c
}

// report waits for a crew to end, with nothing wrong, and reads what it tells.
func (c *soakCrew) report(limit time.Duration) {
	t := c.f.t
	t.Helper()
	err := c.Wait(limit)
	t.Logf("%s: %s", c.name, c.Output())
	if err != nil {
		t.Errorf("%s: %v", c.name, err)
	}
	if err := json.NewDecoder(strings.NewReader(c.Output())).Decode(&c.loaded); err != nil {
		t.Errorf("%s printed no report: %v", c.name, err)
	}
}

// balance compares what was sent with what arrived. What is on its way to somebody who roams or leaves is lost: on a machine
// that stalls, as much as a session gets in a second. So is what found no room in a queue, whosoever it was; one in fifty is left
// to queues between namespaces, whose losses the kernel counts for all of them together. What is on its way when the
// measurement begins or ends is counted at one end.
func (c *soakCrew) balance(sent, arrived, full, rate uint64) {
	t := c.f.t
	t.Helper()
	lost := int64(sent) - int64(arrived)
	t.Logf("%s: %d of %d packets lost, %d roams, %d restarts", c.name, lost, sent, c.Roams, c.Restarts)
	if most := int64(100 + rate*(c.Roams+c.Restarts) + full + sent/50); lost > most {
		t.Errorf("%s: %d of %d packets lost, more than %d roams, %d restarts and %d without room explain", c.name, lost, sent, c.Roams, c.Restarts, full)
	}
}

// bursts downloads and uploads as fast as it goes, with pauses, until the end.
func (v *vpn) bursts(ended <-chan struct{}) (n int, err error) {
	for ; ; n++ {
		for _, c := range []struct{ way, bytes string }{{"get", "12000000"}, {"put", "3000000"}} {
			ctx, cancel := context.WithTimeout(v.f.ctx, time.Minute)
			_, err := v.host.Run(ctx, programs.depot, c.way, lab.Lan4+":5001", c.bytes)
			cancel()
			if err != nil {
				return n, err
			}
		}
		select {
		case <-ended:
			return n, nil
		case <-time.After(3 * time.Second):
		}
	}
}

// disorder puts a network in the way that lets packets overtake others, and wants a stock client and the load generator
// to notice: else that they noticed nothing before would say nothing.
func (f *field) disorder() {
	t := f.t
	t.Helper()
	r, remote := badNetwork(f, lab.Impairment{})
	v := f.connect("carol", remote, "explicit-exit-notify 1")
	swapped := lab.Impairment{Reorder: 0.02}

	const rate = 6000 // a second: 180 overtake the one that is 30 ms late
	c := &soakCrew{f: f, name: "disorder"}
	p, err := f.Host("load").Start("disorder.log", f.vpnload(), "-json", "-remote", netip.AddrPortFrom(f.Host("relay").Wan4, 1194).String(),
		"-ca", f.pki+"/ca.crt", "-ca-key", f.pki+"/private/ca.key", "-name", "disorder%d", "-flow", "udp", "-peer", lab.Lan4+":5201",
		"-traffic", "down", "-io", "stock", "-rate", strconv.Itoa(rate), "-size", "200", "-warm", "2s", "-duration", "3s")
	f.must(err)
	c.Process = p
	sink, err := f.Host("lan").Start("iperf3.log", "iperf3", "-s", "-p", "5202", "-1", "--forceflush")
	f.must(err)
	f.must(sink.Expect("Server listening", 1, 10*time.Second))
	down, err := v.host.Start("iperf3-client.log", "iperf3", "-c", lab.Lan4, "-p", "5202", "-u", "-R", "-l", "200", "-b", strconv.Itoa(rate*200*8), "-t", "5", "--forceflush")
	f.must(err)
	f.must(down.Expect("connected to", 1, 10*time.Second))
	r.Impair(swapped)
	c.report(time.Minute)
	f.must(down.Wait(20 * time.Second))
	late := strings.Count(v.Output(), replayComplaint)
	t.Logf("out of order on purpose: the stock client dropped %d packets, the load generator would have dropped %d", late, c.loaded.Late)
	if late == 0 {
		t.Error("the stock client says nothing of packets that come late")
	}
	if c.loaded.Late == 0 {
		t.Error("the load generator does not count packets that come late")
	}
}
