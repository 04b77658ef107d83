package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// soakTime is how long a soak goes on: what an environment variable says, such as 10m, or the usual time.
func soakTime(t *testing.T, variable string, usual time.Duration) time.Duration {
	s := os.Getenv(variable)
	if s == "" {
		return usual
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 30*time.Second {
		t.Fatalf("%s=%q: want a time of at least 30s, such as 10m", variable, s)
	}
	return d
}

// A soaker is one client of the soak, and what was done to it.
type soaker struct {
	name   string
	stream bool
	vpn    *vpn
	pings  *lab.Process

	disturbed []span // when pings may get lost
	restarts  int
	floats    int
}

type span struct{ from, to time.Time }

// disturb does something to a client's network or process; pings are forgiven from a moment before until a moment after.
func (s *soaker) disturb(grace time.Duration, f func()) {
	from := time.Now().Add(-300 * time.Millisecond)
	f()
	s.disturbed = append(s.disturbed, span{from, time.Now().Add(grace)})
}

const soakInterval = 200 * time.Millisecond

// Twenty stock clients with mixed wraps, transports and ciphers renegotiate every 5 to 15 s, change their addresses and
// restart at random. No session gets stuck, no ping is lost beyond one in two hundred, and the servers grow neither in
// memory nor in goroutines.
func TestE2ESoak(t *testing.T) {
	t.Parallel() // it mostly waits, as TestE2ELoadSoak does
	long := soakTime(t, "SOAK", 2*time.Minute)
	const seed = 11
	chance := rand.New(rand.NewPCG(seed, seed))
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("c%02d", i))
	}
	f := newField(t, names...)
	wrapNames := []string{"none", "tls-auth", "tls-crypt", "tls-crypt-v2"}
	var servers []*soakServer
	var clientWraps [][]string
	for i, wrap := range wrapNames {
		serverWrap, clientWrap := f.wraps(wrap)
		servers = append(servers, f.soakServer(i, serverWrap))
		clientWraps = append(clientWraps, clientWrap)
	}
	ciphers := []string{"AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305", "AES-192-GCM", "AES-256-CBC"}
	var soakers []*soaker
	for i, name := range names {
		server := i % len(servers)
		s := &soaker{name: name, stream: i/len(servers)%5 >= 3} // two of five over TCP
		proto := "udp"
		more := []string{"data-ciphers " + ciphers[chance.IntN(len(ciphers))], fmt.Sprintf("reneg-sec %d", 5+chance.IntN(11)),
			"connect-retry 1 1", "tls-version-max 1." + strconv.Itoa(2+chance.IntN(2))}
		if s.stream {
			proto = "tcp-client"
		} else {
			more = append(more, "explicit-exit-notify 1")
		}
		more = append(more, fmt.Sprintf("remote %v %d %s", f.Host("router").Wan4, 1194+server, proto))
		s.vpn = f.dial(name, append(more, clientWraps[server]...)...)
		soakers = append(soakers, s)
	}
	for _, s := range soakers {
		s.vpn.up(1)
		p, err := s.vpn.host.Start(s.name+"-pings.log", "ping", "-n", "-D", "-i", "0.2", lab.Lan4)
		f.must(err)
		s.pings = p
	}

	began := time.Now()
	var early []soakUse
	for n := 0; time.Since(began) < long; n++ {
		time.Sleep(time.Duration(500+chance.IntN(1000)) * time.Millisecond)
		s := soakers[chance.IntN(len(soakers))]
		if last := len(s.disturbed); last > 0 && time.Since(s.disturbed[last-1].to) < 5*time.Second {
			continue
		}
		switch what := chance.IntN(3); {
		case what == 0: // a restart that the user asks for
			s.restarts++
			s.disturb(2*time.Second, func() {
				before := strings.Count(s.vpn.Output(), completed)
				f.must(s.vpn.Signal(syscall.SIGUSR1))
				f.must(s.vpn.Expect(completed, before+1, 20*time.Second))
			})
		case what == 1 && !s.stream:
			s.floats++
			s.disturb(1500*time.Millisecond, func() { f.must(s.vpn.host.Renumber()) })
		}
		if early == nil && time.Since(began) > long/3 {
			for _, srv := range servers {
				early = append(early, srv.use())
			}
		}
	}
	for _, s := range soakers {
		s.vpn.ping(lab.Lan4, 5, 56) // nobody is stuck
	}
	var lost, sent, restarts, floats int
	for _, s := range soakers {
		f.must(s.pings.Signal(syscall.SIGINT))
		_ = s.pings.Wait(5 * time.Second) // its status tells of lost packets
		l, n := s.count(t)
		if n < int(long/soakInterval)/2 {
			t.Errorf("%s sent %d pings in %v", s.name, n, long)
		}
		if l*200 > n {
			t.Errorf("%s lost %d of %d pings", s.name, l, n)
		}
		lost, sent, restarts, floats = lost+l, sent+n, restarts+s.restarts, floats+s.floats
		if n := strings.Count(s.vpn.Output(), "Incoming Data Channel: Cipher"); n < int(long/(20*time.Second)) {
			t.Errorf("%s changed keys %d times in %v", s.name, n, long)
		}
		for _, bad := range []string{"Authenticate/Decrypt packet error", "(may be a replay)", "TLS Error: TLS handshake failed"} {
			if strings.Contains(s.vpn.Output(), bad) {
				t.Errorf("%s complains: %q", s.name, bad)
			}
		}
	}
	t.Logf("%d of %d pings lost outside of %d restarts and %d changes of address", lost, sent, restarts, floats)
	if restarts == 0 || floats == 0 {
		t.Error("nothing happened to anybody")
	}
	for i, srv := range servers {
		late := srv.use()
		t.Logf("%s: %d kB and %d goroutines after a third, %d kB and %d at the end", wrapNames[i], early[i].rss, early[i].goroutines, late.rss, late.goroutines)
		if late.rss > early[i].rss+early[i].rss/4+8<<10 {
			t.Errorf("%s: grew from %d to %d kB", wrapNames[i], early[i].rss, late.rss)
		}
		// A session or negotiation more or less is under way at either time.
		if late.goroutines > early[i].goroutines+20 {
			t.Errorf("%s: grew from %d to %d goroutines", wrapNames[i], early[i].goroutines, late.goroutines)
		}
		if late.panics != 0 {
			t.Errorf("%s: %d panics", wrapNames[i], late.panics)
		}
	}
}

// A soakServer is one of several gateways on the router.
type soakServer struct {
	*lab.Process
	f      *field
	socket string
}

// soakServer starts gateway i, on ports and networks of its own.
func (f *field) soakServer(i int, wrap []string) *soakServer {
	f.t.Helper()
	s := &soakServer{f: f, socket: filepath.Join(f.Dir, fmt.Sprintf("control%d.sock", i))}
	wan := f.Host("router").Wan4
	conf := f.write(fmt.Sprintf("server%d.conf", i), append([]string{
		fmt.Sprintf("local %v %d udp", wan, 1194+i), fmt.Sprintf("local %v %d tcp-server", wan, 1194+i),
		"dev tun", "topology subnet", fmt.Sprintf("server 10.84.%d.0 255.255.255.0", i), `push "route 172.29.7.0 255.255.255.0"`,
		"ca " + f.pki + "/ca.crt", "cert " + f.pki + "/issued/gateway.crt", "key " + f.pki + "/private/gateway.key", "dh none",
		"keepalive 2 10", "verb 3", "nat yes", "reneg-sec 15", "data-ciphers " + strings.Join(aeadCiphers, ":") + ":AES-256-CBC",
		"control-socket " + s.socket,
	}, wrap...)...)
	p, err := f.Host("router").Start(fmt.Sprintf("server%d.log", i), programs.postern, "serve", "--config", conf)
	f.must(err)
	f.must(p.Expect(" serving ", 1, 20*time.Second))
	s.Process = p
	return s
}

// soakUse is what a server uses.
type soakUse struct {
	rss        int // kB
	goroutines int
	panics     int
}

var rssLine = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB`)

func (s *soakServer) use() (u soakUse) {
	s.f.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Pid()))
	s.f.must(err)
	m := rssLine.FindSubmatch(b)
	if m == nil {
		s.f.t.Fatalf("no VmRSS in %s", b)
	}
	u.rss, _ = strconv.Atoi(string(m[1]))
	var snap struct {
		Goroutines int `json:"goroutines"`
		Panics     int `json:"panics"`
	}
	s.f.must(json.Unmarshal([]byte(s.f.postern("status", "--json", "--socket", s.socket)), &snap))
	if snap.Goroutines == 0 {
		s.f.t.Fatal("postern status --json names no goroutines")
	}
	u.goroutines, u.panics = snap.Goroutines, snap.Panics
	return u
}

var soakReply = regexp.MustCompile(`(?m)^\[(\d+\.\d+)\] .*icmp_seq=(\d+) `)

// count returns how many pings were sent while nothing happened to the client, and how many of those were lost.
func (s *soaker) count(t *testing.T) (lost, sent int) {
	t.Helper()
	type reply struct {
		seq int
		at  time.Time
	}
	var replies []reply
	for _, m := range soakReply.FindAllStringSubmatch(s.pings.Output(), -1) {
		at, err1 := strconv.ParseFloat(m[1], 64)
		seq, err2 := strconv.Atoi(m[2])
		if err1 != nil || err2 != nil {
			t.Fatalf("%s: ping printed %q", s.name, m[0])
		}
		if strings.Contains(m[0], "Unreachable") {
			continue
		}
		replies = append(replies, reply{seq, time.UnixMicro(int64(at * 1e6))})
	}
	slices.SortFunc(replies, func(a, b reply) int { return a.seq - b.seq })
	forgiven := func(at time.Time) bool {
		return slices.ContainsFunc(s.disturbed, func(d span) bool { return at.After(d.from) && at.Before(d.to) })
	}
	for i, r := range replies {
		if !forgiven(r.at) {
			sent++
		}
		if i == 0 {
			continue
		}
		for seq := replies[i-1].seq + 1; seq < r.seq; seq++ {
			// The answers around it tell when it was sent.
			at := replies[i-1].at.Add(r.at.Sub(replies[i-1].at) * time.Duration(seq-replies[i-1].seq) / time.Duration(r.seq-replies[i-1].seq))
			if !forgiven(at) {
				t.Logf("%s lost ping %d at %s", s.name, seq, at.Format("15:04:05.000"))
				lost++
				sent++
			}
		}
	}
	return lost, sent
}
