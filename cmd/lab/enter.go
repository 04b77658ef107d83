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
	go func() {
		// The thread is not unlocked: it ends with this goroutine, so that no other one runs in the namespace.
		runtime.LockOSThread()
		ns, err := os.Open("/var/run/netns/" + h.NS)
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", h.NS, err)
			return
		}
		done <- f()
	}()
	return <-done
}
