package hostnet

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Nice lowers the priority of every thread, not of the one that happens to ask.
func TestNice(t *testing.T) {
	runtime.LockOSThread() // a second thread at least
	defer runtime.UnlockOSThread()
	was, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 minus the number
	if err != nil {
		t.Fatal(err)
	}
	want := min(20-was+1, 19)
	if err := Nice(want); err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, th := range threads {
		id, _ := strconv.Atoi(th.Name())
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, id); err == nil && 20-got != want {
			t.Errorf("thread %d has %d, want %d", id, 20-got, want)
		}
	}
}
