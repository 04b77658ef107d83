package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// detach starts this program again, with the same arguments, as a process without terminal in a session of its own, and
// waits until that serves: unlike with OpenVPN the exit status tells whether it does. The working directory stays, and
// names in the configuration mean the same.
func detach(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	defer null.Close()
	answers, child, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	defer answers.Close()
	cmd := &exec.Cmd{Path: program, Args: os.Args, Env: append(os.Environ(), detachedEnv+"=1"), Stdin: null, Stdout: null, Stderr: null,
		ExtraFiles: []*os.File{child}, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	err = cmd.Start()
	child.Close()
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	answer, err := io.ReadAll(answers)
	switch {
	case err != nil:
		return fmt.Errorf("daemon: %w", err)
	case string(answer) == detachedReady:
		return nil
	case len(answer) == 0:
		return errors.New("the server ended before it served: its log may say why")
	}
	return errors.New(string(answer))
}
