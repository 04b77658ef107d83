package hostnet_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"postern/server/hostnet"
)

// TestMain lets the test binary be a server that gives up its privileges.
func TestMain(m *testing.M) {
	if part := os.Getenv("HOSTNET_TEST_CHILD"); part != "" {
		json.NewEncoder(os.Stdout).Encode(play(part))
		return
	}
	os.Exit(m.Run())
}

// A fate is what became of a child.
type fate struct {
	Error    string
	NoTUN    bool
	NoAdmin  bool
	Threads  []map[string]string // the lines of /proc/self/task/*/status
	Dumpable int
	Core     uint64
	Return   string // what became of an attempt to be root again
}

func play(part string) (f fate) {
	report := func(err error) fate {
		if err != nil {
			f.Error = err.Error()
		}
		f.NoTUN, f.NoAdmin = errors.Is(err, hostnet.ErrNoTUN), errors.Is(err, hostnet.ErrNoNetAdmin)
		return f
	}
	part, args, _ := strings.Cut(part, ":")
	name, group, _ := strings.Cut(args, ":")
	switch part {
	case "preflight":
		if err := syscall.Setuid(65534); err != nil {
			return report(err)
		}
		return report(hostnet.Preflight())
	case "restore":
		return report(restoreLater(name, group))
	case "twice": // as a service that systemd started as its user, with the one capability
		if err := hostnet.DropPrivileges(name, group, hostnet.KeepNetAdmin); err != nil {
			return report(err)
		}
	}
	// Threads there are before: some run, some sleep, one is locked to its goroutine.
	var started sync.WaitGroup
	block := make(chan struct{})
	for range 5 {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			started.Done()
			<-block
		}()
	}
	started.Wait()
	var keep []hostnet.Capability
	if part == "keep" || part == "twice" {
		keep = append(keep, hostnet.KeepNetAdmin)
	}
	err := hostnet.DropPrivileges(name, group, keep...)
	for range 3 { // and some there are after
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			started.Done()
			<-block
		}()
	}
	started.Wait()

	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			return report(err)
		}
		lines := map[string]string{}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			lines[key] = strings.Join(strings.Fields(value), " ")
		}
		f.Threads = append(f.Threads, lines)
	}
	f.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var core unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_CORE, &core)
	f.Core = core.Cur + core.Max
	f.Return = fmt.Sprint(syscall.Setuid(0))
	return report(err)
}

// restoreLater undoes a change of forwarding after privileges are gone, in a network namespace of its own.
func restoreLater(name, group string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	restore, err := hostnet.EnableForwarding(true, true)
	if err != nil {
		return err
	}
	if err := hostnet.DropPrivileges(name, group, hostnet.KeepNetAdmin); err != nil {
		return err
	}
	if err := restore(); err != nil {
		return err
	}
	for _, name := range []string{v4, v6} {
		if b, err := os.ReadFile("/proc/sys/net/" + name); string(b) != "0\n" {
			return fmt.Errorf("%s is %q, error %w", name, b, err)
		}
	}
	return nil
}

// build compiles the test binary as the server is compiled: without cgo, which the race detector brings in.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hostnet-test")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "child")
	cmd := exec.Command("go", "test", "-c", "-o", binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

func child(t *testing.T, part string) fate {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root and a compiler")
	}
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), "HOSTNET_TEST_CHILD="+part)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	// It has supplementary groups to lose.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{0, 4, 1000}}}
	out, err := cmd.Output()
	var f fate
	if err == nil {
		err = json.Unmarshal(out, &f)
	}
	if err != nil {
		t.Fatalf("child: %v\n%s%s", err, out, &stderr)
	}
	return f
}

// S105, S109: every thread is unprivileged, for good.
func TestDropPrivileges(t *testing.T) {
	defer func() {
		if binary, err := build(); err == nil {
			os.RemoveAll(filepath.Dir(binary))
		}
	}()
	const none, netAdmin = "0000000000000000", "0000000000001000"
	for _, c := range []struct{ part, uid, gid, caps, back string }{
		{"drop:nobody:nogroup", "65534", "65534", none, "operation not permitted"},
		{"drop:nobody:", "65534", "65534", none, "operation not permitted"},
		{"drop:nobody:daemon", "65534", "1", none, "operation not permitted"},
		{"drop:54321:54322", "54321", "54322", none, "operation not permitted"},
		{"drop::nogroup", "0", "65534", none, "<nil>"}, // it is root still, though without privileges
		{"keep:nobody:nogroup", "65534", "65534", netAdmin, "operation not permitted"},
		{"twice:nobody:nogroup", "65534", "65534", netAdmin, "operation not permitted"},
	} {
		t.Run(c.part, func(t *testing.T) {
			f := child(t, c.part)
			if f.Error != "" {
				t.Fatal(f.Error)
			}
			if len(f.Threads) < 6 {
				t.Errorf("%d threads: too few to show anything", len(f.Threads))
			}
			want := map[string]string{
				"Uid": strings.Join([]string{c.uid, c.uid, c.uid, c.uid}, " "),
				"Gid": strings.Join([]string{c.gid, c.gid, c.gid, c.gid}, " "), "Groups": "",
				"CapPrm": c.caps, "CapEff": c.caps, "CapBnd": c.caps, "CapInh": none, "CapAmb": none,
				"NoNewPrivs": "1",
			}
			for _, thread := range f.Threads {
				got := map[string]string{}
				for key := range want {
					got[key] = thread[key]
				}
				if !maps.Equal(got, want) {
					t.Errorf("thread %s: %v, want %v", thread["Pid"], got, want)
				}
			}
			if f.Dumpable != 0 || f.Core != 0 {
				t.Errorf("dumpable %d, core dumps up to %d bytes", f.Dumpable, f.Core)
			}
			if f.Return != c.back {
				t.Errorf("becoming root again: %s, want %s", f.Return, c.back)
			}
		})
	}

	t.Run("unknown", func(t *testing.T) {
		for _, names := range []string{"no-such-user:", "nobody:no-such-group", "54321:", "-1:0", "4294967295:0"} {
			f := child(t, "drop:"+names)
			if f.Error == "" {
				t.Errorf("%s: accepted", names)
			}
			for _, thread := range f.Threads {
				if thread["Uid"] != "0 0 0 0" || thread["NoNewPrivs"] != "0" {
					t.Errorf("%s: changed to %v before the error", names, thread)
				}
			}
		}
	})

	t.Run("restore forwarding", func(t *testing.T) {
		if f := child(t, "restore:nobody:nogroup"); f.Error != "" {
			t.Error(f.Error)
		}
	})

	t.Run("preflight", func(t *testing.T) {
		f := child(t, "preflight")
		if !f.NoAdmin || !strings.Contains(f.Error, "NET_ADMIN") {
			t.Errorf("without privileges: %s", f.Error)
		}
	})
}

func TestPreflight(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	if err := hostnet.Preflight(); err != nil {
		t.Error(err)
	}
}
