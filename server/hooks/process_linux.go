package hooks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"syscall"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// execute runs a program in a process group of its own. When ctx ends first, the group is killed.
func (r *Runner) execute(ctx context.Context, argv, env []string, log zerolog.Logger) (exitStatus, error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	out, in, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("pipe for its output: %w", err)
	}
	// Whatever library or parent process forgot to close at exec is none of the script's business.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		out.Close()
		in.Close()
		return 0, fmt.Errorf("keep descriptors from it: %w", err)
	}
	cmd := &exec.Cmd{Path: argv[0], Args: argv, Env: env, Dir: r.o.Load().Dir, Stdout: in, Stderr: in, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	if env == nil {
		cmd.Env = []string{} // nil would be the server's own
	}
	err = cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		return 0, fmt.Errorf("start: %w%s", err, obstacle(err))
	}
	r.logOutput(out, log)

	// The process is looked at without being reaped, so that its id names this group and no other until it was
	// decided whether to kill.
	ended := make(chan error, 1)
	go func() { ended <- untilEnded(cmd.Process.Pid) }()
	killed := false
	select {
	case err = <-ended:
	case <-ctx.Done():
		killed = true
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // the group exists: its leader was not reaped
		err = <-ended
	}
	_ = cmd.Wait() // the state tells more than the error
	switch {
	case killed:
		return 0, context.Cause(ctx)
	case err != nil:
		return 0, fmt.Errorf("wait for its end: %w", err)
	case !cmd.ProcessState.Exited():
		return 0, fmt.Errorf("ended by %v", cmd.ProcessState)
	}
	return exitStatus(cmd.ProcessState.ExitCode()), nil
}

// obstacle is what may be behind a program that cannot be started, for who reads the log.
func obstacle(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return " (the service manager, or a security module, does not let the server run programs)"
	case errors.Is(err, unix.EACCES):
		return fmt.Sprintf(" (for the user id %d, which the server has; see `user`, and NoExecPaths= of systemd)", os.Geteuid())
	}
	return ""
}

// untilEnded waits for a child's end and leaves it to be reaped.
func untilEnded(pid int) error {
	for {
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			return err
		}
	}
}
