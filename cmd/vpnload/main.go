// Command vpnload plays many clients of one server, to measure it: hundreds or thousands of sessions from one process,
// over UDP and TCP, that connect at a given rate, stay, move data, renegotiate, roam and go. It needs no TUN device:
// what travels inside it makes and answers itself. What it moves data with is a peer in the network behind the server:
//
//	vpnload peer -listen 172.29.7.2:5201
//	vpnload -remote 198.18.0.1:1194 -ca ca.crt -ca-key ca.key -n 4 -traffic up -peer 172.29.7.2:5201 -duration 10s
//
// -io says how packets travel between it and the server: "gso", many per system call, as the best of clients could, or
// "stock", one, as the stock client does. It counts what the replay check of a stock client would have dropped. With
// -pid it looks at what the server, on the same machine, uses. docs/sizing.md has examples.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// options are the command line.
type options struct {
	remote, remoteTCP netip.AddrPort
	proto             string
	from              []netip.Addr
	sessions          int
	stormRate         float64
	joining           int
	connectTimeout    time.Duration

	ca, caKey, name, cert, key, list string
	user, password                   string
	tlsAuth, tlsCrypt, tlsCryptV2    string
	digest                           string
	ciphers                          []string
	tlsMax                           uint16

	settle, warm, duration     time.Duration
	ping, silence              time.Duration
	traffic, flow              string
	flows, size, rate, mss     int
	gso                        bool
	peer                       netip.AddrPort
	probe                      netip.Addr
	probes                     int
	probeEvery                 time.Duration
	renegotiate, roam, restart time.Duration
	rebind                     time.Duration
	again                      bool
	pid                        int
	json, strict, quiet        bool
	phases                     bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "peer" {
		fatal(peerMain(os.Args[2:]))
		return
	}
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	fatal(err)
	fatal(run(o))
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "vpnload:", err)
		os.Exit(1)
	}
}

func peerMain(args []string) error {
	f := flag.NewFlagSet("vpnload peer", flag.ContinueOnError)
	listen := f.String("listen", "0.0.0.0:5201", "serve on this address, TCP and UDP")
	if err := f.Parse(args); err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(*listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	return servePeer(at)
}

func parseOptions(args []string) (o options, err error) {
	f := flag.NewFlagSet("vpnload", flag.ContinueOnError)
	address := func(name, usage string, set *netip.AddrPort) {
		f.Func(name, usage, func(s string) (err error) {
			*set, err = netip.ParseAddrPort(s)
			return err
		})
	}
	address("remote", "the server's `address:port`", &o.remote)
	address("remote-tcp", "the same for sessions over TCP; without it -remote", &o.remoteTCP)
	f.StringVar(&o.proto, "proto", "udp", "udp, tcp, or mixed: every second session over TCP")
	from := f.String("from", "", "local addresses to come from, in turn: `a,b,...`")
	f.IntVar(&o.sessions, "n", 1, "sessions")
	f.Float64Var(&o.stormRate, "storm", 0, "connect so many sessions a second; 0: all at once")
	f.IntVar(&o.joining, "joining", 0, "at most so many connect at the same time, whatever -storm says; 0: any number")
	f.DurationVar(&o.connectTimeout, "connect-timeout", 60*time.Second, "how long a session may take to connect")

	f.StringVar(&o.ca, "ca", "", "CA certificate, to issue with -ca-key")
	f.StringVar(&o.caKey, "ca-key", "", "key of the CA: every session gets a certificate of its own")
	f.StringVar(&o.name, "name", "load%d", "common name of issued certificates, %d is the session's number")
	f.StringVar(&o.cert, "cert", "", "one certificate for all sessions (the server needs duplicate-cn)")
	f.StringVar(&o.key, "key", "", "its key")
	f.StringVar(&o.list, "list", "", "`file` with a line for each session: certificate key [user password]")
	f.StringVar(&o.user, "user", "", "user name, %d is the session's number")
	f.StringVar(&o.password, "password", "", "password, likewise")
	f.StringVar(&o.tlsAuth, "tls-auth", "", "`file[:direction]`, direction as the client has it; with several wraps sessions take turns")
	f.StringVar(&o.tlsCrypt, "tls-crypt", "", "static key `file`")
	f.StringVar(&o.tlsCryptV2, "tls-crypt-v2", "", "client key `file`")
	f.StringVar(&o.digest, "auth", "", "digest of tls-auth and CBC ciphers; empty: SHA1")
	ciphers := f.String("ciphers", "AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305", "what a session offers; with several `lists,lists` sessions take turns; \"epoch\" in a list offers the epoch format")
	tlsMax := f.String("tls", "1.3", "highest TLS version, 1.2 or 1.3")

	f.DurationVar(&o.settle, "settle", 500*time.Millisecond, "rest between the last connect and the traffic")
	f.DurationVar(&o.warm, "warm", 500*time.Millisecond, "traffic before the measurement begins")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "of the measurement")
	f.DurationVar(&o.ping, "ping", 0, "keepalive interval; 0: as the server pushes it")
	f.DurationVar(&o.silence, "silence", 2*time.Minute, "a server that says nothing for this long has lost the session; 0: never")
	f.StringVar(&o.traffic, "traffic", "none", "none, up, down, both, or echo (UDP, sent back by the peer)")
	f.StringVar(&o.flow, "flow", "tcp", "tcp or udp")
	f.IntVar(&o.flows, "flows", 0, "so many sessions have traffic; 0: all")
	f.IntVar(&o.size, "size", 1300, "payload of UDP datagrams, at least 24")
	f.IntVar(&o.rate, "rate", 0, "UDP datagrams a second and session, with -io gso in batches 20 ms apart; 0: as many as there can be")
	f.IntVar(&o.mss, "mss", maxMSS, "largest segment of TCP flows, either way")
	ioMode := f.String("io", "gso", "gso, or stock: one datagram per system call")
	address("peer", "`address:port` of vpnload peer, behind the server", &o.peer)
	f.Func("probe", "`address` to ping through the tunnel", func(s string) (err error) {
		o.probe, err = netip.ParseAddr(s)
		return err
	})
	f.IntVar(&o.probes, "probes", 1, "so many sessions ping")
	f.DurationVar(&o.probeEvery, "probe-every", 10*time.Millisecond, "how often each of them does")
	f.DurationVar(&o.renegotiate, "renegotiate", 0, "each session renegotiates about this often; 0: never")
	f.DurationVar(&o.roam, "roam", 0, "each session over UDP changes its port about this often")
	f.DurationVar(&o.restart, "restart", 0, "each session leaves, half of them without a goodbye, and comes again about this often")
	f.DurationVar(&o.rebind, "rebind", 0, "all sessions over UDP change their ports in the same moment, so long after the traffic begins; 0: never")
	f.BoolVar(&o.again, "again", false, "a session that was lost, or did not get in, connects again, until it is in or refused for good, as stock clients do")
	f.IntVar(&o.pid, "pid", 0, "server process to look at")
	f.BoolVar(&o.phases, "phases", false, "report the measurement in phases: SIGUSR1 ends one and begins the next; SIGTERM ends the last. Standard error says when everybody is in, and when the first begins")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.BoolVar(&o.strict, "strict", false, "fail when a session was lost or a packet came late, corrupt or astray")
	f.BoolVar(&o.quiet, "quiet", false, "do not tell how far it is")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	return o, o.check(*from, *ciphers, *tlsMax, *ioMode)
}

// check completes the options and finds what cannot be.
func (o *options) check(from, ciphers, tlsMax, ioMode string) error {
	for a := range strings.SplitSeq(from, ",") {
		if a == "" {
			continue
		}
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return fmt.Errorf("-from: %w", err)
		}
		o.from = append(o.from, addr)
	}
	o.ciphers = strings.Split(ciphers, ",")
	if !o.remoteTCP.IsValid() {
		o.remoteTCP = o.remote
	}
	if o.traffic == "none" {
		o.traffic = ""
	}
	if !o.probe.IsValid() {
		o.probes = 0
	}
	one := func(name, value string, of ...string) error {
		for _, v := range of {
			if v == value {
				return nil
			}
		}
		return fmt.Errorf("%s is %q, not one of %q", name, value, of)
	}
	for _, err := range []error{
		one("-proto", o.proto, "udp", "tcp", "mixed"), one("-traffic", o.traffic, "", "up", "down", "both", "echo"),
		one("-flow", o.flow, "tcp", "udp"), one("-io", ioMode, "gso", "stock"), one("-tls", tlsMax, "1.2", "1.3"),
	} {
		if err != nil {
			return err
		}
	}
	o.gso = ioMode == "gso"
	if o.tlsMax = tls.VersionTLS13; tlsMax == "1.2" {
		o.tlsMax = tls.VersionTLS12
	}
	switch {
	case !o.remote.IsValid() && !o.remoteTCP.IsValid():
		return errors.New("-remote is missing")
	case o.sessions < 1:
		return errors.New("-n is at least 1")
	case o.traffic != "" && !o.peer.IsValid():
		return errors.New("-traffic needs a -peer")
	case o.traffic == "echo" && o.flow != "udp":
		return errors.New("-traffic echo needs -flow udp")
	case o.caKey != "" && o.ca == "", o.cert != "" && o.key == "":
		return errors.New("a certificate and its key come together")
	case o.size > 8<<10:
		return errors.New("-size is at most 8192")
	case o.mss < 536 || o.mss > maxMSS:
		return fmt.Errorf("-mss is 536 to %d", maxMSS)
	case o.probeEvery <= 0:
		return errors.New("-probe-every is more than 0")
	}
	return nil
}

// ackEvery is after how many TCP segments an acknowledgement is sent at the latest: the second, as usual, or about what a
// kernel merges where packets come many at a time.
func (o *options) ackEvery() int {
	if o.gso {
		return 40
	}
	return 2
}

func run(o options) error {
	// A descriptor for each session, and some; two, where there are few.
	need := uint64(o.sessions) + 512
	if o.sessions <= quietSessions {
		need += uint64(o.sessions)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < need {
		want := unix.Rlimit{Cur: need + 3584, Max: max(limit.Max, need+3584)}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
			return fmt.Errorf("%d sessions need %d file descriptors (ulimit -n): %w", o.sessions, need, err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := newCrew(o)
	if !o.quiet && !o.json {
		go c.watch(ctx)
	}
	r, err := c.run(ctx)
	if err != nil {
		return err
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			return err
		}
	} else {
		r.print(os.Stdout)
	}
	if bad := r.violations(); o.strict && len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	if r.Connected == 0 {
		return errors.New("nobody has connected")
	}
	return nil
}
