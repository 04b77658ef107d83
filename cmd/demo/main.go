// Command demo shows a whole installation at work, step by step, in network namespaces of its own: a directory server,
// a gateway that asks it, and a stock openvpn client that logs in and moves bytes. `make demo` runs it.
//
//	depot (a host to reach) ---- router: slapd, postern ---- wan ---- laptop: openvpn
//
// It needs root, and the programs ip, ping, openvpn, slapd and ldapsearch. The host's own network is left alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"postern/auth/slapdtest"
	"postern/cmd/lab"
)

func main() {
	postern := flag.String("postern", "bin/postern", "the `program` to show")
	depot := flag.String("depot", "bin/depot", "cmd/lab/depot, built")
	keep := flag.Bool("keep", false, "leave the files of the demo where they are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *postern, *depot, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

// A demo is one run. Its steps are in steps.go; each leaves here what later ones need.
type demo struct {
	ctx       context.Context
	screen    *screen
	dir       string // everybody's files and working directory
	postern   string
	depot     string
	net       *lab.Lab
	laptop    *lab.Host
	directory *slapdtest.Server
	server    *lab.Process
	client    *lab.Process
}

func run(ctx context.Context, postern, depot string, keep bool) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: sudo make demo")
	}
	for _, program := range []string{"ip", "ping", "openvpn", "ldapsearch"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: make demo installs what is missing", err)
		}
	}
	d := &demo{ctx: ctx, screen: newScreen(os.Stdout)}
	for program, path := range map[*string]string{&d.postern: postern, &d.depot: depot} {
		if *program, err = filepath.Abs(path); err != nil {
			return err
		}
		if _, err := os.Stat(path); err != nil {
			return err
		}
	}
	if d.dir, err = os.MkdirTemp("", "postern-demo-"); err != nil {
		return err
	}
	defer d.cleanUp(keep)
	for i, s := range d.steps() {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		d.screen.title(i+1, s.title)
		if err := s.do(); err != nil {
			d.showLogs()
			return fmt.Errorf("step %d, %s: %w", i+1, s.title, err)
		}
	}
	d.screen.say("\nAll of it worked.")
	return nil
}

// cleanUp ends what runs and removes what was made, as far as the demo came.
func (d *demo) cleanUp(keep bool) {
	if d.net != nil {
		d.net.Close()
	}
	if d.directory != nil {
		d.directory.Close()
	}
	if keep {
		d.screen.say("The files are in %s", d.dir)
		return
	}
	if err := os.RemoveAll(d.dir); err != nil {
		d.screen.say("clean up: %v", err)
	}
}

// showLogs prints what the programs said, when something went wrong.
func (d *demo) showLogs() {
	logs, _ := filepath.Glob(filepath.Join(d.dir, "*.log"))
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		d.screen.say("--- %s", filepath.Base(name))
		d.screen.lines(string(text))
	}
}
