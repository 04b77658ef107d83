package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// report writes what was found, as Markdown.
func report(o options, b *bed, done []*bout, took time.Duration) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# Benchmarks\n\nWritten by `make bench`, which measures all of this in one run on one machine: rounds go from one server to the next,\n"+
		"medians of up to %s of %d s are shown. s/GB are CPU seconds of the server process, with the system calls it makes, for each\n"+
		"gigabyte that arrived. Ratios are the verdict: single figures depend on the machine.\n\n", counted(o.rounds, "round"), o.seconds)
	fmt.Fprintf(&s, "%s\n\n", strings.Join(machine(b), "  \n"))
	judge(&s, done)
	explain(&s, done)
	for _, r := range done {
		r.print(&s, o)
	}
	fmt.Fprintf(&s, "It took %v.\n", took.Round(time.Second))
	return s.String()
}

func (r *bout) print(s *strings.Builder, o options) {
	p := &r.plan
	fmt.Fprintf(s, "## %s\n\n", p.title)
	if p.note != "" {
		fmt.Fprintf(s, "%s\n\n", p.note)
	}
	head, rule := "| server |", "|---|"
	for _, c := range p.columns {
		head += fmt.Sprintf(" %s |", c)
		rule += "---:|"
		if slices.Contains(p.ratios, c) {
			head += " ratio |"
			rule += "---:|"
		}
	}
	fmt.Fprintf(s, "%s\n%s\n", head, rule)
	var remarks []string
	for i, c := range p.runs {
		run := &r.runs[i]
		if len(run.rounds) == 0 {
			why := "not measured"
			if len(run.failed) > 0 {
				why = "failed: " + line(run.failed[0])
			}
			fmt.Fprintf(s, "| %s | %s |\n", c.who, why)
			continue
		}
		for _, err := range run.failed {
			remarks = append(remarks, fmt.Sprintf("%s failed in one round: %s", c.who, line(err)))
		}
		row := "| " + c.who + " |"
		for _, col := range p.columns {
			v := median(run.rounds, col)
			row += " " + shown(v) + " |"
			if !slices.Contains(p.ratios, col) {
				continue
			}
			if base := median(r.runs[c.to].rounds, col); c.to == i || base == 0 {
				row += " |"
			} else {
				row += fmt.Sprintf(" %.2f |", v/base)
			}
		}
		fmt.Fprintln(s, row)
	}
	fmt.Fprintln(s)
	if n := len(r.runs[0].rounds) + len(r.runs[0].failed); n > 0 && n < p.rounds(o) {
		remarks = append(remarks, fmt.Sprintf("%s only, for lack of time.", counted(n, "round")))
	}
	if len(remarks) > 0 {
		fmt.Fprintf(s, "%s\n\n", strings.Join(remarks, "  \n"))
	}
}

// line is an error as part of a table: one line, not too long.
func line(err error) string {
	text := []rune(strings.ReplaceAll(strings.Join(strings.Fields(err.Error()), " "), "|", "/"))
	if len(text) > 300 {
		text = append(text[:300], []rune(" ...")...)
	}
	return string(text)
}

func median(runs []figures, c column) float64 {
	v := make([]float64, len(runs))
	for i, f := range runs {
		v[i] = f[c]
	}
	slices.Sort(v)
	n := len(v)
	switch {
	case n == 0:
		return 0
	case n%2 == 0:
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[n/2]
}

// machine says what this was measured on, and what.
func machine(b *bed) (lines []string) {
	model := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	lines = append(lines, fmt.Sprintf("Machine: %d CPUs, %s; Linux %s; %s.", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.Version()))
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(load)); len(f) > 2 {
			lines = append(lines, fmt.Sprintf("Load average of the last 15 minutes, the bench included: %s.", f[2]))
		}
	}
	first := func(name string, args ...string) string {
		out, _ := exec.Command(name, args...).CombinedOutput() // --version of some exits with an error
		line, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(line)
	}
	version := "a working tree"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) > 12 {
				version = s.Value[:12]
			}
		}
	}
	if version == "a working tree" {
		if out := first("git", "describe", "--always", "--dirty"); out != "" {
			version = out
		}
	}
	wg := first("go", "list", "-C", "cmd/bench/wireguard", "-m", "-f", "{{.Version}}", "golang.zx2c4.com/wireguard")
	openssl := first("openssl", "version")
	lines = append(lines, fmt.Sprintf("Versions: Postern %s; %s (%s); wireguard-go %s; %s.", version, first("openvpn", "--version"), openssl, wg, first("iperf3", "--version")))
	return lines
}
