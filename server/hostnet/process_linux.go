package hostnet

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Nice sets the priority of all threads of the process, 0 leaves it as it is. Threads that are made later inherit it.
func Nice(n int) error {
	if n == 0 {
		return nil
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("nice: %w", err)
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, n); err != nil && err != unix.ESRCH {
			return fmt.Errorf("nice %d: %w", n, err)
		}
	}
	return nil
}

// ThreadLimit is how many threads the process may have: the lowest pids.max of its control groups, and, unless it is
// root and stays so, RLIMIT_NPROC. known is false when nothing limits them.
func ThreadLimit(root bool) (limit int, known bool) {
	lower := func(n int) {
		if !known || n < limit {
			limit, known = n, true
		}
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		name, unified := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if err != nil || !unified {
			continue
		}
		for dir := filepath.Clean("/" + name); ; dir = filepath.Dir(dir) {
			if b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", dir, "pids.max")); err == nil {
				if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
					lower(n)
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	var r unix.Rlimit
	if !root && unix.Getrlimit(unix.RLIMIT_NPROC, &r) == nil && r.Cur < 1<<20 {
		lower(int(r.Cur))
	}
	return limit, known
}
