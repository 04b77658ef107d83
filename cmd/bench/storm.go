package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/cmd/lab"
)

// stormed has a session move data and ping, while n others connect at a rate and later all leave at once. What it still
// moves then is told as a share of what it moved before.
func stormed(kind string, n, perSecond int, traffic ...string) func(*bed, options) (figures, error) {
	return func(b *bed, o options) (figures, error) {
		g, err := b.gateway(kind, crowd)
		if err != nil {
			return nil, err
		}
		limit := time.Duration(n/perSecond)*time.Second + 30*time.Second
		load := g.lab.Host("load")
		g.logs++
		data, err := load.Start(fmt.Sprintf("data%d.log", g.logs), g.vpnload(append([]string{"-phases", "-name", "data%d", "-io", "stock", "-duration", "10m",
			"-probe", lab.Lan4}, traffic...)...)...)
		if err != nil {
			return nil, err
		}
		defer data.Kill()
		if err := data.Expect("the first phase begins", 1, 20*time.Second); err != nil {
			return nil, fmt.Errorf("the data: %w: %s", err, data.Output())
		}
		phase := func() { _ = data.Signal(syscall.SIGUSR1) } // its end shows when its report is missing
		if err := b.wait(time.Duration(o.seconds) * time.Second); err != nil {
			return nil, err
		}
		phase() // quiet is over
		others, err := load.Start(fmt.Sprintf("others%d.log", g.logs), g.vpnload("-phases", "-n", strconv.Itoa(n), "-storm", strconv.Itoa(perSecond),
			"-from", sourceList(), "-settle", "0s", "-warm", "0s", "-duration", "10m", "-connect-timeout", "20s")...)
		if err != nil {
			return nil, err
		}
		defer others.Kill()
		if err := others.Expect("everybody is in", 1, limit); err != nil {
			return nil, fmt.Errorf("the storm: %w: %s", err, others.Output())
		}
		phase() // the storm is over
		if err := others.Expect("the first phase begins", 1, 10*time.Second); err != nil {
			return nil, err
		}
		if err := b.wait(time.Second); err != nil {
			return nil, err
		}
		phase() // a rest is over
		leaving := time.Now()
		_ = others.Signal(syscall.SIGTERM)
		if err := others.Wait(30 * time.Second); err != nil {
			return nil, fmt.Errorf("the others do not leave: %w", err)
		}
		if err := b.wait(time.Until(leaving.Add(2 * time.Second))); err != nil {
			return nil, err
		}
		_ = data.Signal(syscall.SIGTERM)
		if err := data.Wait(20 * time.Second); err != nil {
			return nil, fmt.Errorf("the data: %w: %s", err, data.Output())
		}
		crowd, err := reported(others)
		if err != nil {
			return nil, err
		}
		r, err := reported(data)
		if err != nil {
			return nil, err
		}
		if len(r.Phases) != 4 {
			return nil, fmt.Errorf("vpnload reports %d phases, not 4", len(r.Phases))
		}
		moved := func(i int) float64 { return r.Phases[i].Up.Mbits + r.Phases[i].Down.Mbits }
		if moved(0) == 0 {
			return nil, errNothing
		}
		return figures{mbits: moved(0), keptStorm: 100 * moved(1) / moved(0), keptEnd: 100 * moved(3) / moved(0),
			p99Quiet: r.Phases[0].Ping.P99, p99Storm: r.Phases[1].Ping.P99, p99End: r.Phases[3].Ping.P99, rate: crowd.Rate, came: 100 * float64(crowd.Connected) / float64(n)}, nil
	}
}

// wait waits, unless the measurement ends before.
func (b *bed) wait(d time.Duration) error {
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// reported is the report behind the messages of a vpnload.
func reported(p *lab.Process) (r found, err error) {
	_, text, ok := strings.Cut("\n"+p.Output(), "\n{")
	if !ok {
		return r, fmt.Errorf("vpnload made no report: %s", p.Output())
	}
	if err := json.Unmarshal([]byte("{"+text), &r); err != nil {
		return r, fmt.Errorf("vpnload's report: %w", err)
	}
	return r, nil
}
