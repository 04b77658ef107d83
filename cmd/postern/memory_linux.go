package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory has the collector run more often than usual and keep within 80 % of what the control group may
// have, unless GOGC and GOMEMLIMIT say otherwise, and returns what it may have; 0 when there is no limit (S117).
//
// What a server holds are idle sessions, and what it throws away are handshakes: between two collections their garbage
// takes places between what stays, which are resident for good. Collecting at a third of the usual distance costs a
// handshake a seventh more and an idle session a quarter less; traffic makes no garbage and does not notice.
func limitMemory(root string) int64 {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(30)
	}
	limit := groupMemory(root)
	if limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 10 * 8)
	}
	return limit
}

// groupMemory is the least memory limit of the control groups, version 2, that this process is in, from its own up to
// the root; 0 when none has one. root is where the file systems are mounted: "/".
func groupMemory(root string) int64 {
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	least := int64(math.MaxInt64)
	for line := range strings.Lines(string(groups)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !ok {
			continue
		}
		for dir := "/" + name; ; dir = filepath.Dir(dir) {
			b, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup", dir, "memory.max"))
			if n, bad := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && bad == nil && n > 0 {
				least = min(least, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}
