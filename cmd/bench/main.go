// Command bench measures Postern beside OpenVPN and wireguard-go, in one run, in network namespaces of its own: what
// the server process uses for each gigabyte, each handshake and each idle session, how fast and how late it is, and
// whether the targets of docs/performance.md are met.
//
//	make bench            everything, and docs/benchmarks.md anew
//	make bench-quick      a little of everything, in less than three minutes
//	go run ./cmd/bench -list
//	go run ./cmd/bench -only '^tcp .* 1$' -rounds 5 -seconds 5
//
// It needs root, openvpn, iperf3 and ethtool, and runs in Postern's source tree. Rounds go from one server to the next,
// so that what the machine does besides hits all; medians are printed, and their ratios, which are the verdict: single
// figures depend on the machine.
//
// A case that misses a target of CPU or memory is measured once more, with a profile taken of the server, that says where
// the time goes; with perf installed, in the kernel, too.
//
// A case that fails says so in its row, and the others go on; the exit status is 1 then. However the bench ends, its
// namespaces, programs and files go with it (guard.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	rounds   int
	seconds  int
	limit    time.Duration
	quick    bool
	profiles int // at most; negative: as many as lines are missed
	only     *regexp.Regexp
	list     bool
	out      string
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == guardWord {
		guard(os.Args[2:])
		return
	}
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil && o.list {
		for _, p := range cases(o) {
			fmt.Printf("%-16s %s\n", p.name, p.title)
		}
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		err = bench(ctx, o)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := f.String("only", "", "run the cases whose names match this regular expression")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of each case; 0: 3, with -quick 1")
	f.IntVar(&o.seconds, "seconds", 0, "of each measurement; 0: 4, with -quick 1")
	f.DurationVar(&o.limit, "limit", 33*time.Minute, "have fewer rounds rather than take longer")
	f.BoolVar(&o.quick, "quick", false, "fewer cases and sessions")
	f.IntVar(&o.profiles, "profiles", -1, "take at most so many profiles of cases that miss a target; with -quick 1")
	f.BoolVar(&o.list, "list", false, "print the names of the cases, and run none")
	f.StringVar(&o.out, "out", "", "write the report into this file, too")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.quick && o.profiles < 0 {
		o.profiles = 1
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag: bench has no other arguments", f.Arg(0))
	}
	for _, d := range []struct {
		set        *int
		full, fast int
	}{{&o.rounds, 3, 1}, {&o.seconds, 4, 1}} {
		if *d.set == 0 {
			if *d.set = d.full; o.quick {
				*d.set = d.fast
			}
		}
		if *d.set < 0 {
			return o, errors.New("-rounds and -seconds are not negative")
		}
	}
	o.only, err = regexp.Compile(*only)
	return o, err
}

// bench builds everything, measures and reports.
func bench(ctx context.Context, o options) error {
	begun := time.Now()
	var list []plan
	for _, p := range cases(o) {
		if o.only.MatchString(p.name) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return fmt.Errorf("no case matches %q: -list prints their names", o.only)
	}
	if err := ready(); err != nil {
		return err
	}
	release, err := alone()
	if err != nil {
		return err
	}
	defer release()
	b, err := newBed(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	fmt.Fprintln(os.Stderr, "building")
	if err := b.build(); err != nil {
		return err
	}
	done, err := run(ctx, o, list, begun, func(m meter) (figures, error) { return b.measure(o, m) })
	text := report(o, b, done, time.Since(begun))
	fmt.Print(text)
	if ctx.Err() != nil {
		return errors.Join(errors.New("interrupted: the report above is of what was measured so far, and written nowhere else"), err)
	}
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return err
}
