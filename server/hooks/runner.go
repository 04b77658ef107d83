package hooks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

const (
	// atOnce is how many scripts run side by side (S090), and maxBeforeLogin how many of them for those who have not
	// logged in yet.
	atOnce         = 16
	maxBeforeLogin = 12
)

// Options say which scripts there are and how they are run.
type Options struct {
	Commands map[Kind]Command
	// Security is script-security: 2 lets scripts run, 3 lets passwords into their environment.
	Security int
	// PasswordInFile gives auth-user-pass-verify a file with name and password in place of variables (via-file).
	PasswordInFile bool
	// Limit replaces what Kind.DefaultLimit says, for all kinds; 0 does not.
	Limit time.Duration
	// Dir is the directory that scripts start in; "" is the server's.
	Dir string
	// TempDir is where files for scripts are made; "" is the system's directory for such files.
	TempDir string
	// ExportCert is the directory of tls-export-cert, where tls-verify finds each certificate as PEM; "" is none.
	ExportCert string
	Log        zerolog.Logger
}

// ErrSecurity is why a script was not run: script-security does not allow it.
var ErrSecurity = errors.New("script-security does not allow it")

// A Refusal is a script's definite no. Other errors are about scripts that could not be asked, or gave no answer.
type Refusal struct {
	Kind   Kind
	Public string // what the client may read in AUTH_FAILED; "" is nothing
	Reason string // for the log
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s script refused: %s", r.Kind, r.Reason) }

// A Runner runs scripts. Any goroutine may use it.
type Runner struct {
	o      atomic.Pointer[Options]
	daemon atomic.Pointer[Daemon]
	all    chan struct{} // holds one element for each script that runs
	early  chan struct{} // the same for those before login
	output sync.WaitGroup
	pipes  pipes
}

// New checks what can be checked before a script runs: that each program is there, and that script-security lets run
// what nobody could log in without. It starts nothing.
func New(o Options, d *Daemon) (*Runner, error) {
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	r := &Runner{all: make(chan struct{}, atOnce), early: make(chan struct{}, maxBeforeLogin)}
	r.o.Store(&o)
	r.daemon.Store(d)
	return r, nil
}

// Change has scripts run by other options from now on, after the checks that New makes; those of the kinds in past will
// not run any more. On error nothing has changed. A script that runs already is left alone.
func (r *Runner) Change(o Options, past ...Kind) error {
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	if err := o.without(past).check(); err != nil {
		return err
	}
	r.o.Store(&o)
	return nil
}

// without leaves out the scripts of some kinds.
func (o *Options) without(kinds []Kind) *Options {
	less := *o
	less.Commands = maps.Clone(o.Commands)
	for _, k := range kinds {
		delete(less.Commands, k)
	}
	return &less
}

// Check looks again whether this process can run the scripts, after it has become another user; those of the kinds in
// past will not run any more.
func (r *Runner) Check(past ...Kind) error {
	return r.o.Load().without(past).check()
}

func (o *Options) check() error {
	var problems []error
	for kind, command := range o.Commands {
		if err := command.Check(); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", kind, err))
		}
		if err := o.allows(kind); err != nil && !kind.forgiving() {
			problems = append(problems, err)
		} else if err != nil {
			o.Log.Warn().Err(err).Msg("a script will not be run")
		}
	}
	if len(o.Commands) > 0 {
		for _, dir := range []string{o.TempDir, o.ExportCert} {
			if dir == "" {
				continue
			}
			if info, err := os.Stat(dir); err != nil {
				problems = append(problems, fmt.Errorf("directory for files of scripts: %w", err))
			} else if !info.IsDir() {
				problems = append(problems, fmt.Errorf("directory for files of scripts: %s is not a directory", dir))
			} else if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
				problems = append(problems, fmt.Errorf("directory for files of scripts: %s: %w for the user id %d", dir, err, os.Getuid()))
			}
		}
	}
	return errors.Join(problems...)
}

// allows reports why script-security forbids the script of a kind. OpenVPN runs a login script that gets no password
// for want of script-security 3; to one that asks a directory with an empty password, that may look like a yes.
func (o *Options) allows(k Kind) error {
	switch {
	case o.Security < 2:
		return fmt.Errorf("%s script: %w: it is %d, write script-security 2", k, ErrSecurity, o.Security)
	case k == AuthUserPassVerify && !o.PasswordInFile && o.Security < 3:
		return fmt.Errorf("%s script: %w: the password goes into its environment, write script-security 3 or via-file", k, ErrSecurity)
	}
	return nil
}

// Describe changes what scripts are told about the server.
func (r *Runner) Describe(d *Daemon) { r.daemon.Store(d) }

// Has reports whether there is a script of the kind. Calls for other kinds do nothing and agree.
func (r *Runner) Has(k Kind) bool { return len(r.o.Load().Commands[k]) > 0 }

// Close ends the reading of what scripts print that were left in the background, and waits for it. No call may be
// under way and none may follow. The scripts' processes go on, as they do when OpenVPN ends.
func (r *Runner) Close() {
	r.pipes.close()
	r.output.Wait()
}

// exitStatus is how a script ended by itself.
type exitStatus int

// run runs the script of a kind, with args behind the command's own, and returns its exit status. The error is about
// a script that was not run or did not end by itself. who is for the log.
func (r *Runner) run(ctx context.Context, k Kind, who string, args []string, env Env) (exitStatus, error) {
	o := r.o.Load()
	if len(o.Commands[k]) == 0 {
		return 0, fmt.Errorf("%s script: there is none any more", k)
	}
	if err := o.allows(k); err != nil {
		return 0, err
	}
	leave, err := r.enter(ctx, k)
	if err != nil {
		return 0, fmt.Errorf("%s script: waiting for one of %d places: %w", k, atOnce, err)
	}
	defer leave()
	limit := o.Limit
	if limit == 0 {
		limit = k.DefaultLimit()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("killed, it took longer than %v", limit))
	defer cancel()
	env.set("script_type", k.scriptType())
	argv := append(append([]string(nil), o.Commands[k]...), args...)
	log := o.Log.With().Str("hook", string(k)).Logger()
	if who != "" {
		log = log.With().Str("client", who).Logger()
	}
	started := time.Now()
	status, err := r.execute(ctx, argv, env.strings(), log)
	if err != nil {
		return 0, fmt.Errorf("%s script: %w", k, err)
	}
	log.Debug().Int("status", int(status)).Stringer("took", time.Since(started).Round(time.Millisecond)).Msg("script ended")
	return status, nil
}

// enter waits for a place to run a script in.
func (r *Runner) enter(ctx context.Context, k Kind) (leave func(), err error) {
	if k.beforeLogin() {
		select {
		case r.early <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	select {
	case r.all <- struct{}{}:
	case <-ctx.Done():
		if k.beforeLogin() {
			<-r.early
		}
		return nil, context.Cause(ctx)
	}
	return func() {
		<-r.all
		if k.beforeLogin() {
			<-r.early
		}
	}, nil
}
