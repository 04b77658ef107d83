// Command bench measures Postern beside OpenVPN and wireguard-go, in one run, in network namespaces of its own: what
// the server process uses for each gigabyte, each handshake and each idle session, and how fast and how late it is.
//
//	make bench            everything, and docs/benchmarks.md anew
//	make bench-quick      a little of everything, in less than three minutes
//	go run ./cmd/bench -only 'tcp.*stock' -rounds 5 -seconds 5
//
// It needs root, openvpn, iperf3 and ethtool. Rounds go from one server to the next, so that what the machine does
// besides hits all; medians are printed, and their ratios, which are the verdict: single figures depend on the machine.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// options are the command line.
type options struct {
	rounds  int
	seconds int
	quick   bool
	only    *regexp.Regexp
	out     string
}

func main() {
	var o options
	only := flag.String("only", "", "run the cases whose names match this regular expression")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds of each case; 0: 5, with -quick 1")
	flag.IntVar(&o.seconds, "seconds", 0, "of each measurement; 0: 5, with -quick 2")
	flag.BoolVar(&o.quick, "quick", false, "fewer cases and sessions")
	flag.StringVar(&o.out, "out", "", "write the report into this file, too")
	flag.Parse()
	for _, d := range []struct {
		set        *int
		full, fast int
	}{{&o.rounds, 5, 1}, {&o.seconds, 5, 2}} {
		if *d.set == 0 {
			if *d.set = d.full; o.quick {
				*d.set = d.fast
			}
		}
	}
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		err = bench(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench builds everything, measures and reports.
func bench(o options) error {
	begun := time.Now()
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bed{dir: dir}
	defer b.close()
	if err := b.build(); err != nil {
		return err
	}
	var done []*bout
	var failed []error
	for _, c := range cases(o) {
		if !o.only.MatchString(c.name) {
			continue
		}
		r := &bout{plan: c}
		if err := b.fight(o, r); err != nil { // an hour's other figures are still worth having
			failed = append(failed, fmt.Errorf("%s: %w", c.name, err))
			fmt.Fprintln(os.Stderr, "bench:", failed[len(failed)-1])
		}
		done = append(done, r)
	}
	if len(done) == 0 {
		return fmt.Errorf("no case matches %q", o.only)
	}
	text := report(o, b, done, time.Since(begun))
	fmt.Print(text)
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// fight measures one case: rounds that go from one contestant to the next.
func (b *bed) fight(o options, r *bout) error {
	rounds := o.rounds
	if r.plan.once {
		rounds = 1
	}
	r.runs = make([][]figures, len(r.plan.runs))
	for round := range rounds {
		for i, c := range r.plan.runs {
			f, err := c.measure(b, o)
			if err != nil {
				return fmt.Errorf("%s: %w", c.who, err)
			}
			r.runs[i] = append(r.runs[i], f)
			fmt.Fprintf(os.Stderr, "%s round %d %-24s %s\n", r.plan.name, round+1, c.who, f.line(r.plan.columns))
		}
	}
	return nil
}

// build compiles what is measured and what measures, and makes a CA.
func (b *bed) build() error {
	bin := filepath.Join(b.dir, "bin")
	b.postern, b.vpnload, b.wireguard = filepath.Join(bin, "postern"), filepath.Join(bin, "vpnload"), filepath.Join(bin, "wireguard-go")
	for _, p := range []struct{ dir, bin, pkg string }{
		{".", b.postern, "postern/cmd/postern"}, {".", b.vpnload, "postern/cmd/vpnload"},
		{"cmd/bench/wireguard", b.wireguard, "golang.zx2c4.com/wireguard"},
	} {
		cmd := exec.Command("go", "build", "-C", p.dir, "-o", p.bin, p.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", p.pkg, err, out)
		}
	}
	b.pki = filepath.Join(b.dir, "pki")
	for _, args := range [][]string{{"init"}, {"server", "gateway"}, {"client", "c1"}, {"client", "c2"}, {"client", "c3"}, {"client", "c4"}} {
		if out, err := exec.Command(b.postern, append([]string{"pki", args[0], "--dir", b.pki}, args[1:]...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("pki %s: %w: %s", args[0], err, out)
		}
	}
	return nil
}
