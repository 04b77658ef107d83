package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// spareDescriptors are kept for what must go on when clients over TCP have taken all others: the log, files of clients
// and of state, 32 connections to directories and 32 of management, status and scripts (S117, F28).
const spareDescriptors = 32 + 32 + 32

// streamBudget is how many clients over TCP may be connected at once: what the limit of descriptors leaves beside those
// that are open already and the spare ones.
func streamBudget() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("limit of file descriptors: %w", err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, fmt.Errorf("count file descriptors: %w", err)
	}
	budget := int64(min(limit.Cur, 1<<30)) - int64(len(open)) - spareDescriptors
	if budget < 1 {
		return 0, fmt.Errorf("%d file descriptors are allowed, %d are open and %d must stay spare: raise the limit (LimitNOFILE, ulimit -n)",
			limit.Cur, len(open), spareDescriptors)
	}
	return int(budget), nil
}
