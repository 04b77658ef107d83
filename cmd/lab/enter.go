package lab

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f in the host's namespace: sockets it opens stay there. f must not start goroutines that open more.
func (h *Host) Do(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- h.do(f) }()
	return <-done
}

// do borrows a thread for the namespace and takes it back. The thread must not end instead: programs that it started
// for others would die with it (Pdeathsig is the thread's, not the process's).
func (h *Host) do(f func() error) error {
	lost := false
	runtime.LockOSThread()
	defer func() {
		if !lost {
			runtime.UnlockOSThread()
		}
	}()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open("/var/run/netns/" + h.NS)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", h.NS, err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		lost = true // still locked, the thread ends with this goroutine
		return fmt.Errorf("leave %s: %w", h.NS, back)
	}
	return err
}
