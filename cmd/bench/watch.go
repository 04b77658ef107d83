package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postern/cmd/lab"
)

// A watch has a server profiled while a measurement keeps it busy. Profiles cost: the figures of such a measurement are
// not counted.
type watch struct {
	seconds int     // of the profile
	cpu     []stack // from Go's profile
	kernel  []stack // from perf, which sees into system calls; none without it
	blind   string  // why perf saw nothing
	err     error

	sessions     float64 // idle ones, whose memory was looked at
	before, with memory
}

// busy is how much CPU a server uses before it counts as busy.
const busy = 0.2

// begin waits for the server to be busy and profiles it then. The function it returns waits for the end of that.
func (w *watch) begin(g *gateway) (end func()) {
	if w == nil {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(g.b.ctx, time.Duration(w.seconds+5)*time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.err = w.look(ctx, g)
	}()
	return func() {
		<-done
		cancel()
	}
}

func (w *watch) look(ctx context.Context, g *gateway) error {
	before, err := cpuSeconds(g.server.Pid())
	if err != nil {
		return err
	}
	if err := lab.Until(4*time.Second, func() error {
		now, err := cpuSeconds(g.server.Pid())
		if err == nil && now < before+busy {
			err = fmt.Errorf("the server was hardly busy: %.2f s of CPU", now-before)
		}
		return err
	}); err != nil {
		return err
	}
	kernel := make(chan error, 1)
	go func() { kernel <- w.perf(ctx, g) }()
	w.cpu, err = g.profile(ctx, "profile?seconds="+strconv.Itoa(w.seconds), "cpu")
	if err := <-kernel; err != nil {
		w.blind = line(err)
	}
	return err
}

// profilesAt is where a Postern serves its profiles.
func (g *gateway) profilesAt() string { return filepath.Join(g.lab.Dir, "pprof.sock") }

// ask asks a Postern for one of its profiles.
func (g *gateway) ask(ctx context.Context, what string) ([]byte, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", g.profilesAt())
	}}}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://postern/debug/pprof/"+what, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(q)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("profile %s: %s: %s", what, answer.Status, body)
	}
	return body, err
}

// profile asks for a profile and returns the stacks with the values of one type.
func (g *gateway) profile(ctx context.Context, what, kind string) ([]stack, error) {
	body, err := g.ask(ctx, what)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(g.lab.Dir, kind+".pprof")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return nil, err
	}
	out, err := output(exec.CommandContext(ctx, "go", "tool", "pprof", "-raw", "-symbolize=none", file))
	if err != nil {
		return nil, err
	}
	return parseGo(strings.NewReader(out), kind)
}

// perf has Linux's profiler look at the server, for those who have it.
func (w *watch) perf(ctx context.Context, g *gateway) error {
	if _, err := exec.LookPath("perf"); err != nil {
		return errors.New("perf is not installed (Debian's linux-perf)")
	}
	file := filepath.Join(g.lab.Dir, "perf.data")
	if _, err := output(exec.CommandContext(ctx, "perf", "record", "-q", "-o", file, "-F", "499", "-e", "cpu-clock", "-g", "-p", strconv.Itoa(g.server.Pid()),
		"--", "sleep", strconv.Itoa(w.seconds))); err != nil {
		return err
	}
	out, err := output(exec.CommandContext(ctx, "perf", "script", "-i", file, "-F", "ip,sym", "--no-inline"))
	if err != nil {
		return err
	}
	if w.kernel, err = parsePerf(strings.NewReader(out)); err == nil && len(w.kernel) == 0 {
		err = errors.New("perf took no samples")
	}
	return err
}

// output runs a program; what it says to standard error is part of its failure.
func output(cmd *exec.Cmd) (string, error) {
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[:2], " "), err, complaint.String())
	}
	return string(out), err
}
