package hostnet_test

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// run runs a command that must succeed.
func run(t *testing.T, command string) {
	t.Helper()
	f := strings.Fields(command)
	if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// newHost makes a network namespace with some devices, for the length of the test, and returns a function that
// calls f within it.
func newHost(t *testing.T, devices ...string) (within func(f func())) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a network namespace")
	}
	const ns = "pthn-host"
	if _, err := os.Stat("/run/netns/" + ns); err == nil {
		run(t, "ip netns delete "+ns)
	}
	run(t, "ip netns add "+ns)
	t.Cleanup(func() { run(t, "ip netns delete "+ns) })
	for _, d := range devices {
		run(t, "ip -n "+ns+" link add "+d+" type bridge")
		run(t, "ip -n "+ns+" link set "+d+" up")
	}
	return func(f func()) {
		t.Helper()
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			file, err := os.Open("/run/netns/" + ns)
			if err == nil {
				err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
				file.Close()
			}
			if err == nil {
				f()
			}
			done <- err
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
