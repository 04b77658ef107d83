package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/cmd/lab"
)

// A guard is a second process of the bench that waits for the end of the first, however it ends, and then removes what it
// has left: programs, namespaces, sockets and files.
//
//	bench ---- pipe ----> guard
//	  | ends: closed         `---> waits until the bench is gone, sweeps
const guardWord = "guard-of-the-bench"

// startGuard starts the guard of this process and the directory. stop ends it, for the bench has cleaned up.
func startGuard(dir string) (stop func(), err error) {
	r, w, err := os.Pipe() // no other program has its ends
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", guardWord, strconv.Itoa(os.Getpid()), dir)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what a terminal sends is for the bench
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return func() {
		_, _ = w.WriteString("clean")
		w.Close()
		_ = cmd.Wait()
	}, nil
}

// guard waits for a bench to end, and cleans up after it unless it says that it has.
func guard(args []string) {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return
	}
	if said, _ := io.ReadAll(os.Stdin); len(said) > 0 {
		return
	}
	_ = lab.Until(10*time.Second, func() error {
		if lab.Alive(pid) {
			return errors.New("it is still on its way out")
		}
		return nil
	})
	lab.Sweep()
	sweepSockets()
	_ = os.RemoveAll(args[1])
}

// sweepSockets removes the sockets of wireguard-go, which lie where all namespaces see them. A killed one leaves its own.
func sweepSockets() {
	list, _ := filepath.Glob(wireguardSockets + devicePrefix + "*.sock")
	for _, name := range list {
		_ = os.Remove(name)
	}
}

// alone makes sure that no other bench runs on this machine.
func alone() (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "postern-bench.lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another bench runs on this machine: each would measure the other")
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}

// needs are the programs that the bench runs, and where Debian has them.
var needs = []struct{ program, pkg string }{
	{"ip", "iproute2"}, {"ping", "iputils-ping"}, {"openvpn", "openvpn"}, {"iperf3", "iperf3"}, {"ethtool", "ethtool"}, {"sysctl", "procps"},
	{"openssl", "openssl"}, {"go", "golang-go"},
}

// ready says what is missing for a bench, all of it at once.
func ready() error {
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root, for network namespaces and devices")
	}
	for _, n := range needs {
		if _, err := exec.LookPath(n.program); err != nil {
			missing = append(missing, fmt.Sprintf("the program %s (Debian's package %s)", n.program, n.pkg))
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		missing = append(missing, "/dev/net/tun (modprobe tun)")
	}
	if _, err := os.Stat("cmd/bench/wireguard/go.mod"); err != nil {
		missing = append(missing, "Postern's source tree as the working directory")
	}
	if len(missing) > 0 {
		return fmt.Errorf("cannot measure: missing are\n  %s", strings.Join(missing, "\n  "))
	}
	return nil
}
