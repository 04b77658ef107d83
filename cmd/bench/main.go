// Command bench measures Postern beside OpenVPN, in one run, in network namespaces of its own: server CPU seconds per
// gigabyte moved and Mbit/s, TCP by iperf3 through the tunnel with the stock client. Rounds alternate between the two
// servers; medians are printed, and their ratio, which is the verdict: single figures depend on the machine.
//
//	go run ./cmd/bench [-rounds N] [-seconds S]      as root; needs openvpn and iperf3
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/cmd/lab"
)

func main() {
	rounds := flag.Int("rounds", 3, "rounds of each server and direction")
	seconds := flag.Int("seconds", 5, "of each measurement")
	flag.Parse()
	if err := bench(*rounds, *seconds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A subject is a server under measurement, each in a lab of its own so that they share nothing but the machine.
type subject struct {
	name   string
	lab    *lab.Lab
	server *lab.Process
	client *lab.Host
	runs   map[string][]run // by direction
}

// A run is one measurement.
type run struct{ mbits, cpuPerGB float64 }

func bench(rounds, seconds int) error {
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "bin", "postern")
	build := exec.Command("go", "build", "-o", bin, "postern/cmd/postern")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	pki := filepath.Join(dir, "pki")
	for _, args := range [][]string{{"init"}, {"server", "gateway"}, {"client", "laptop"}} {
		if out, err := exec.Command(bin, append([]string{"pki", args[0], "--dir", pki}, args[1:]...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("pki %s: %w: %s", args[0], err, out)
		}
	}
	var subjects []*subject
	defer func() {
		for _, s := range subjects {
			s.lab.Close()
		}
	}()
	for _, name := range []string{"openvpn", "postern"} {
		s, err := start(name, filepath.Join(dir, name), bin, pki)
		if s != nil {
			subjects = append(subjects, s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for round := range rounds {
		for _, way := range []string{"up", "down"} {
			for _, s := range subjects {
				r, err := s.measure(way, seconds)
				if err != nil {
					return fmt.Errorf("%s %s: %w", s.name, way, err)
				}
				s.runs[way] = append(s.runs[way], r)
				fmt.Fprintf(os.Stderr, "round %d %-8s %-4s %6.0f Mbit/s %5.2f s/GB\n", round+1, s.name, way, r.mbits, r.cpuPerGB)
			}
		}
	}
	report(subjects, seconds)
	return nil
}

// start builds a lab, a server of one kind in it and a connected stock client.
func start(name, dir, bin, pki string) (*subject, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := lab.New(dir)
	if err != nil {
		return nil, err
	}
	s := &subject{name: name, lab: l, runs: make(map[string][]run)}
	if s.client, err = l.AddHost("laptop"); err != nil {
		return s, err
	}
	router := l.Host("router")
	conf := []string{"dev tun", "topology subnet", "proto udp", "server 10.84.0.0 255.255.255.0", `push "route 172.29.7.0 255.255.255.0"`,
		"ca " + pki + "/ca.crt", "cert " + pki + "/issued/gateway.crt", "key " + pki + "/private/gateway.key", "dh none",
		"keepalive 10 60", "verb 3", "data-ciphers AES-256-GCM"}
	args := []string{"openvpn"}
	if name == "postern" {
		conf = append(conf, "control-socket "+dir+"/control.sock")
		args = []string{bin, "serve"}
	}
	file := filepath.Join(dir, "server.conf")
	if err := os.WriteFile(file, []byte(strings.Join(conf, "\n")+"\n"), 0o600); err != nil {
		return s, err
	}
	ctx := context.Background()
	if _, err := router.Run(ctx, "sysctl", "-qw", "net.ipv4.ip_forward=1"); err != nil {
		return s, err
	}
	if _, err := l.Host("lan").Run(ctx, "ip", "route", "add", "default", "via", lab.RouterLan4); err != nil {
		return s, err
	}
	if s.server, err = router.Start("server.log", append(args, "--config", file)...); err != nil {
		return s, err
	}
	client, err := s.client.Start("client.log", "openvpn", "--client", "--dev", "tun", "--nobind", "--verb", "3", "--connect-retry", "1", "1",
		"--remote", router.Wan4.String(), "1194", "udp", "--ca", pki+"/ca.crt", "--cert", pki+"/issued/laptop.crt", "--key", pki+"/private/laptop.key", "--remote-cert-tls", "server")
	if err != nil {
		return s, err
	}
	if err := client.Expect("Initialization Sequence Completed", 1, 30*time.Second); err != nil {
		return s, fmt.Errorf("%w\n%s\n%s", err, client.Output(), s.server.Output())
	}
	sink, err := l.Host("lan").Start("iperf.log", "iperf3", "-s", "--forceflush")
	if err != nil {
		return s, err
	}
	return s, sink.Expect("Server listening", 1, 10*time.Second)
}

// measure moves data one way and returns rate and the server's CPU time for it.
func (s *subject) measure(way string, seconds int) (run, error) {
	args := []string{"iperf3", "-c", lab.Lan4, "-t", strconv.Itoa(seconds), "-J"}
	if way == "down" {
		args = append(args, "-R")
	}
	before, err := cpuSeconds(s.server.Pid())
	if err != nil {
		return run{}, err
	}
	out, err := s.client.Run(context.Background(), args...)
	if err != nil {
		return run{}, err
	}
	after, err := cpuSeconds(s.server.Pid())
	if err != nil {
		return run{}, err
	}
	var result struct {
		End struct {
			Received struct {
				Bytes float64 `json:"bytes"`
				Rate  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return run{}, fmt.Errorf("iperf3's answer: %w", err)
	}
	if result.End.Received.Bytes == 0 {
		return run{}, errors.New("iperf3 moved nothing")
	}
	return run{result.End.Received.Rate / 1e6, (after - before) / (result.End.Received.Bytes / 1e9)}, nil
}

// cpuSeconds is the user and system time of a process so far.
func cpuSeconds(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Fields behind the name, which is in parentheses and may hold anything: state is the first, utime the 12th.
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	const ticks = 100 // a second: USER_HZ of every Linux Go runs on
	user, err := strconv.ParseFloat(f[11], 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseFloat(f[12], 64)
	return (user + system) / ticks, err
}

func median(runs []run, of func(run) float64) float64 {
	v := make([]float64, len(runs))
	for i, r := range runs {
		v[i] = of(r)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func report(subjects []*subject, seconds int) {
	version, _ := exec.Command("openvpn", "--version").Output()
	first, _, _ := strings.Cut(string(version), "\n")
	fmt.Printf("One stock client, TCP through the tunnel, AES-256-GCM over UDP; %d s a run, medians of %d rounds.\n%s; %s; %d CPUs.\n\n",
		seconds, len(subjects[0].runs["up"]), first, runtime.Version(), runtime.NumCPU())
	fmt.Printf("| way | server | Mbit/s | s/GB | rate ratio | CPU ratio |\n|---|---|---|---|---|---|\n")
	rate, cpu := func(r run) float64 { return r.mbits }, func(r run) float64 { return r.cpuPerGB }
	for _, way := range []string{"up", "down"} {
		base := subjects[0].runs[way]
		for _, s := range subjects {
			fmt.Printf("| %s | %s | %.0f | %.2f | %.2f | %.2f |\n", way, s.name, median(s.runs[way], rate), median(s.runs[way], cpu),
				median(s.runs[way], rate)/median(base, rate), median(s.runs[way], cpu)/median(base, cpu))
		}
	}
}
