package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/cmd/lab"
)

// figures is what one measurement found, by column.
type figures map[column]float64

// A column is something that is measured.
type column string

const (
	mbits     column = "Mbit/s"
	perGB     column = "s/GB"
	kpps      column = "kpps"
	perPacket column = "us/packet"
	handshake column = "CPU ms/handshake"
	rate      column = "handshakes/s"
	kilobytes column = "KB/session"
	cores     column = "cores idle"
	p50       column = "p50 ms"
	p99       column = "p99 ms"
	lost      column = "% lost"

	burstCores column = "cores, server"
	came       column = "% came in"
	keptStorm  column = "% kept, storm"
	keptEnd    column = "% kept, teardown"
	p99Quiet   column = "p99 ms, quiet"
	p99Storm   column = "p99 ms, storm"
	p99End     column = "p99 ms, teardown"

	oneConnect  column = "us/connect, alone"
	sustained   column = "connects/s"
	p50Connect  column = "p50 ms to be in"
	p99Connect  column = "p99 ms to be in"
	filterCores column = "cores, filter"
)

func (f figures) line(columns []column) string {
	var parts []string
	for _, c := range columns {
		parts = append(parts, fmt.Sprintf("%s %s", shown(f[c]), c))
	}
	return strings.Join(parts, ", ")
}

// shown is a figure with as many places as it deserves.
func shown(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// stock moves TCP between n stations and the lan by iperf3, through whatever client the stations have.
func stock(kind, way string, n int, merge bool) func(*bed, options) (figures, error) {
	return func(b *bed, o options) (figures, error) {
		g, err := b.gateway(kind, few)
		if err != nil {
			return nil, err
		}
		if merge {
			if err := g.merge(true); err != nil {
				return nil, err
			}
			defer g.merge(false)
		}
		before, err := cpuSeconds(g.server.Pid())
		if err != nil {
			return nil, err
		}
		defer b.watch.begin(g)()
		var wg sync.WaitGroup
		bytes, rates, errs := make([]float64, n), make([]float64, n), make([]error, n)
		for i := range n {
			wg.Go(func() { bytes[i], rates[i], errs[i] = g.iperf(i, way, o.seconds) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return nil, err
			}
		}
		after, err := cpuSeconds(g.server.Pid())
		if err != nil {
			return nil, err
		}
		return figures{mbits: total(rates) / 1e6, perGB: (after - before) / (total(bytes) / 1e9)}, nil
	}
}

func total(v []float64) (sum float64) {
	for _, x := range v {
		sum += x
	}
	return sum
}

func (g *gateway) iperf(i int, way string, seconds int) (bytes, rate float64, err error) {
	args := []string{"iperf3", "-c", lab.Lan4, "-p", iperfPort(i), "-t", strconv.Itoa(seconds), "-J"}
	switch way {
	case "down":
		args = append(args, "-R")
	case "both":
		args = append(args, "--bidir")
	}
	out, err := g.run(station(i), args...)
	if err != nil {
		return 0, 0, err
	}
	type end struct {
		Bytes float64 `json:"bytes"`
		Rate  float64 `json:"bits_per_second"`
	}
	var result struct {
		End struct {
			Received end `json:"sum_received"`
			Reverse  end `json:"sum_received_bidir_reverse"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return 0, 0, fmt.Errorf("iperf3's answer: %w", err)
	}
	if result.End.Received.Bytes == 0 {
		return 0, 0, errNothing
	}
	return result.End.Received.Bytes + result.End.Reverse.Bytes, result.End.Received.Rate + result.End.Reverse.Rate, nil
}

// found is what the bench looks at of vpnload's report.
type found struct {
	Connected int
	Rate      float64 `json:"connects_per_second"`
	Up, Down  struct {
		Mbits   float64
		Bytes   float64
		Packets float64
		PPS     float64 `json:"packets_per_second"`
	}
	Ping   times  `json:"ping_ms"`
	Sent   uint64 `json:"pings_sent"`
	Silent uint64 `json:"flows_uncounted"`
	Errors map[string]int
	Late   uint64 `json:"late_for_stock_replay_window"`
	Phases []struct {
		Up, Down struct{ Mbits float64 }
		Ping     times `json:"ping_ms"`
	}
	Server struct {
		Handshake float64 `json:"handshake_cpu_ms"`
		CPU       float64 `json:"cpu_seconds"`
		Cores     float64 `json:"cores"`
		PerGB     float64 `json:"cpu_seconds_per_gb"`
		KB        float64 `json:"kb_per_session"`
	}
}

type times struct {
	Count    uint64
	P50, P99 float64
}

// vpnload is its command line against a gateway.
func (g *gateway) vpnload(args ...string) []string {
	return append([]string{g.b.vpnload, "-json", "-remote", g.lab.Host("router").Wan4.String() + ":1194", "-pid", strconv.Itoa(g.server.Pid()),
		"-ca", g.b.pki + "/ca.crt", "-ca-key", g.b.pki + "/private/ca.key", "-peer", lab.Lan4 + ":5201", "-ciphers", "AES-256-GCM"}, args...)
}

// load runs vpnload against a gateway.
func (g *gateway) load(args ...string) (r found, err error) {
	args = g.vpnload(args...)
	out, err := g.run("load", args...)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return r, fmt.Errorf("vpnload's report: %w", err)
	}
	return r, nil
}

// A flow is traffic between sessions of vpnload and the lan.
type flow struct {
	io       string // gso, stock
	flow     string // tcp, udp
	way      string
	sessions int
	size     int  // of datagrams
	rate     int  // of them a second; 0: as many as there can be
	stream   bool // the tunnel's packets go over TCP
}

// generated moves TCP or UDP between sessions of vpnload and the lan.
func generated(kind string, fit outfit, w flow) func(*bed, options) (figures, error) {
	return func(b *bed, o options) (figures, error) {
		g, err := b.gateway(kind, fit)
		if err != nil {
			return nil, err
		}
		proto := "udp"
		if w.stream {
			proto = "tcp"
		}
		defer b.watch.begin(g)()
		// One size of TCP segments, whatever the server does to them.
		r, err := g.load("-n", strconv.Itoa(w.sessions), "-io", w.io, "-flow", w.flow, "-traffic", w.way, "-size", strconv.Itoa(max(w.size, 64)),
			"-rate", strconv.Itoa(w.rate), "-proto", proto, "-mss", "1340", "-duration", fmt.Sprintf("%ds", o.seconds), "-settle", "200ms")
		if err != nil {
			return nil, err
		}
		if r.Up.Bytes+r.Down.Bytes == 0 {
			return nil, errNothing
		}
		if r.Silent > 0 {
			return nil, errors.New("the peer does not tell how much arrived")
		}
		f := figures{mbits: r.Up.Mbits + r.Down.Mbits, perGB: r.Server.PerGB, kpps: (r.Up.PPS + r.Down.PPS) / 1e3}
		if packets := r.Up.Packets + r.Down.Packets; packets > 0 {
			f[perPacket] = r.Server.CPU * 1e6 / packets
		}
		return f, nil
	}
}

// greeted connects n sessions from many sources, 32 of them at a time, each as soon as another is in.
func greeted(kind string, n int) func(*bed, options) (figures, error) {
	return func(b *bed, o options) (figures, error) {
		g, err := b.gateway(kind, crowd)
		if err != nil {
			return nil, err
		}
		if b.watch != nil {
			n *= 5 // enough to look at
		}
		defer b.watch.begin(g)()
		r, err := g.load("-n", strconv.Itoa(n), "-joining", "32", "-from", sourceList(), "-duration", "100ms", "-settle", "100ms", "-warm", "0s")
		if err != nil {
			return nil, err
		}
		if r.Connected < n {
			return nil, fmt.Errorf("%d of %d connected: %v", r.Connected, n, r.Errors)
		}
		return figures{handshake: r.Server.Handshake, rate: r.Rate, burstCores: r.Server.Handshake * r.Rate / 1e3}, nil
	}
}

// idle has n sessions connected that only send keepalives.
func idle(kind string, n int, proto string) func(*bed, options) (figures, error) {
	return func(b *bed, o options) (figures, error) {
		fit := crowd
		if kind == openvpn && proto == "tcp" {
			fit = stream
		}
		g, err := b.gateway(kind, fit)
		if err != nil {
			return nil, err
		}
		if b.watch != nil {
			return nil, b.watch.idle(g, n, proto)
		}
		if err := g.again(); err != nil {
			return nil, err
		}
		settle, duration := "10s", "20s" // two rounds of keepalives
		if o.quick {
			settle, duration = "2s", "3s"
		}
		r, err := g.load("-n", strconv.Itoa(n), "-from", sourceList(), "-storm", "100", "-settle", settle, "-duration", duration, "-proto", proto,
			"-connect-timeout", "120s")
		if err != nil {
			return nil, err
		}
		if r.Connected < n {
			return nil, fmt.Errorf("%d of %d connected: %v", r.Connected, n, r.Errors)
		}
		return figures{kilobytes: r.Server.KB, cores: r.Server.Cores}, nil
	}
}

// pinged measures round trips from a station to the lan, while another may load the tunnel with TCP.
func pinged(kind string, loaded string) func(*bed, options) (figures, error) {
	return func(b *bed, o options) (figures, error) {
		g, err := b.gateway(kind, few)
		if err != nil {
			return nil, err
		}
		var wg sync.WaitGroup
		var failed error
		if loaded == "steady" {
			wg.Go(func() {
				_, failed = g.load("-n", "1", "-io", "stock", "-flow", "udp", "-traffic", "both", "-rate", "8000", "-duration", fmt.Sprintf("%ds", o.seconds+2))
			})
			time.Sleep(time.Second)
		} else if loaded != "" {
			wg.Go(func() { _, _, failed = g.iperf(1, loaded, o.seconds+2) })
			time.Sleep(time.Second) // until it is at full speed
		}
		p, err := g.lab.Host(station(0)).Ping(b.ctx, lab.Lan4, o.seconds*100, 56, 10*time.Millisecond)
		wg.Wait()
		if err != nil || failed != nil {
			return nil, fmt.Errorf("ping: %v, load: %v", err, failed)
		}
		if p.Received == 0 {
			return nil, errNothing
		}
		slices.Sort(p.RTTs)
		at := func(q float64) float64 { return float64(p.RTTs[min(int(q*float64(len(p.RTTs))), len(p.RTTs)-1)]) / 1e6 }
		return figures{p50: at(0.5), p99: at(0.99), lost: float64(p.Lost()) * 100 / float64(p.Sent)}, nil
	}
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
