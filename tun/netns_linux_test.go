package tun_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postern/tun"
)

// Namespaces of these tests are named pttun, the process and what they are for. Those of processes that are gone are
// removed first.
func TestMain(m *testing.M) {
	old, _ := filepath.Glob("/run/netns/pttun-*")
	for _, path := range old {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "pttun-"), "-")
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
			exec.Command("ip", "netns", "del", filepath.Base(path)).Run()
		}
	}
	os.Exit(m.Run())
}

// namespace is a network namespace for one test.
type namespace struct {
	t    testing.TB
	name string
}

func newNamespace(t testing.TB, what string) *namespace {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a network namespace")
	}
	ns := &namespace{t, fmt.Sprintf("pttun-%d-%s", os.Getpid(), what)}
	if out, err := exec.Command("ip", "netns", "add", ns.name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", ns.name).Run() })
	ns.ip("link", "set", "lo", "up")
	return ns
}

// do runs f on a thread within the namespace. The thread dies with it.
func (ns *namespace) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			h, err := os.Open("/run/netns/" + ns.name)
			if err != nil {
				return err
			}
			defer h.Close()
			if err := unix.Setns(int(h.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("setns: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}

func (ns *namespace) must(f func() error) {
	ns.t.Helper()
	if err := ns.do(f); err != nil {
		ns.t.Fatal(err)
	}
}

// ip runs ip within the namespace and returns what it prints.
func (ns *namespace) ip(args ...string) string {
	ns.t.Helper()
	out, err := exec.Command("ip", append([]string{"-n", ns.name}, args...)...).CombinedOutput()
	if err != nil {
		ns.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

// has reports whether the namespace has a device of this name.
func (ns *namespace) has(dev string) bool {
	return exec.Command("ip", "-n", ns.name, "link", "show", "dev", dev).Run() == nil
}

func (ns *namespace) sysctl(key, value string) {
	ns.t.Helper()
	ns.must(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), []byte(value), 0)
	})
}

// open opens a device in the namespace, configured and up, with n queues.
func (ns *namespace) open(o tun.Options, n int, addrs ...string) (tun.Device, []tun.Queue) {
	ns.t.Helper()
	var d tun.Device
	var queues []tun.Queue
	ns.must(func() (err error) {
		if d, err = tun.Open(o); err != nil {
			return err
		}
		if queues, err = d.Queues(n); err != nil {
			return err
		}
		var prefixes []netip.Prefix
		for _, a := range addrs {
			prefixes = append(prefixes, netip.MustParsePrefix(a))
		}
		return tun.Configure(d.Name(), prefixes, 0, 1000)
	})
	ns.t.Cleanup(func() { d.Close() })
	return d, queues
}
