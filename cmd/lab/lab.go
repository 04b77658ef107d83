// Package lab builds small networks out of Linux network namespaces and runs programs in them, for end-to-end tests
// and the demo. It needs root and iproute2.
//
//	host lan ---- router (the gateway under test) ---- wan (a bridge) ---- host client1, client2, ...
//
// Every namespace's name starts with a prefix of this package and the process that made it; what a killed run left
// behind is removed by the next one. Programs die with the process that started them.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const prefix = "ptlab"

// A Lab is one network. Its methods are not for concurrent use, but programs run concurrently.
type Lab struct {
	name  string
	Dir   string // for files of programs; its maker's to remove
	hosts map[string]*Host
	next  int // of addresses on the wan
	mu    sync.Mutex
	procs []*Process
}

// A Host is one namespace.
type Host struct {
	lab  *Lab
	Name string
	NS   string
	Wan4 netip.Addr // its address on the wan
	Wan6 netip.Addr
}

// Addresses of every lab: they live in namespaces only.
const (
	wan4 = "198.18.0.%d/24"
	wan6 = "fd00:18::%d/64"
	// The wan's router, every host's default gateway. It knows the wan alone.
	isp4, isp6 = "198.18.0.254", "fd00:18::fe"
	// Lan addresses: the router's and the host's behind it.
	RouterLan4, Lan4 = "172.29.7.1", "172.29.7.2"
	RouterLan6, Lan6 = "fd00:29::1", "fd00:29::2"
)

var counter struct {
	sync.Mutex
	n int
}

// New makes a lab with a router, a wan and a lan host behind the router.
func New(dir string) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab of network namespaces needs root")
	}
	Sweep()
	counter.Lock()
	counter.n++
	l := &Lab{name: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), counter.n), Dir: dir, hosts: make(map[string]*Host), next: 1}
	counter.Unlock()
	if err := l.build(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Lab) build() error {
	if err := run("ip", "netns", "add", l.name+"-wan"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"link", "add", "br0", "type", "bridge"}, {"link", "set", "br0", "up"}, {"link", "set", "lo", "up"},
		{"addr", "add", isp4 + "/24", "dev", "br0"}, {"addr", "add", isp6 + "/64", "dev", "br0", "nodad"},
	} {
		if err := run("ip", append([]string{"-n", l.name + "-wan"}, args...)...); err != nil {
			return err
		}
	}
	if err := run("ip", "netns", "exec", l.name+"-wan", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"); err != nil {
		return err
	}
	if _, err := l.AddHost("router"); err != nil {
		return err
	}
	lan := &Host{lab: l, Name: "lan", NS: l.name + "-lan"}
	if err := run("ip", "netns", "add", lan.NS); err != nil {
		return err
	}
	l.hosts["lan"] = lan
	router := l.hosts["router"]
	return each(
		[]string{"-n", lan.NS, "link", "set", "lo", "up"},
		[]string{"-n", router.NS, "link", "add", "lan0", "type", "veth", "peer", "name", "eth0", "netns", lan.NS},
		[]string{"-n", router.NS, "addr", "add", RouterLan4 + "/24", "dev", "lan0"},
		[]string{"-n", router.NS, "addr", "add", RouterLan6 + "/64", "dev", "lan0", "nodad"},
		[]string{"-n", router.NS, "link", "set", "lan0", "up"},
		[]string{"-n", lan.NS, "addr", "add", Lan4 + "/24", "dev", "eth0"},
		[]string{"-n", lan.NS, "addr", "add", Lan6 + "/64", "dev", "eth0", "nodad"},
		[]string{"-n", lan.NS, "link", "set", "eth0", "up"},
	)
}

// AddHost makes a host on the wan.
func (l *Lab) AddHost(name string) (*Host, error) {
	h := &Host{lab: l, Name: name, NS: l.name + "-" + name}
	if err := run("ip", "netns", "add", h.NS); err != nil {
		return nil, err
	}
	l.hosts[name] = h
	if err := each(
		[]string{"-n", h.NS, "link", "set", "lo", "up"},
		[]string{"-n", h.NS, "link", "add", "eth0", "type", "veth", "peer", "name", "p-" + name, "netns", l.name + "-wan"},
		[]string{"-n", l.name + "-wan", "link", "set", "p-" + name, "master", "br0", "up"},
		[]string{"-n", h.NS, "link", "set", "eth0", "up"},
	); err != nil {
		return nil, err
	}
	return h, h.Renumber()
}

// Renumber gives the host new wan addresses, as a change of network does.
func (h *Host) Renumber() error {
	n := h.lab.next
	h.lab.next++
	a4, a6 := netip.MustParsePrefix(fmt.Sprintf(wan4, n)), netip.MustParsePrefix(fmt.Sprintf(wan6, n))
	if err := each(
		[]string{"-n", h.NS, "addr", "flush", "dev", "eth0", "scope", "global"},
		[]string{"-n", h.NS, "addr", "add", a4.String(), "dev", "eth0"},
		[]string{"-n", h.NS, "addr", "add", a6.String(), "dev", "eth0", "nodad"},
		[]string{"-n", h.NS, "route", "replace", "default", "via", isp4},
		[]string{"-n", h.NS, "route", "replace", "default", "via", isp6},
	); err != nil {
		return err
	}
	h.Wan4, h.Wan6 = a4.Addr(), a6.Addr()
	return nil
}

// Host returns a host by name: "router", "lan", or one that AddHost made.
func (l *Lab) Host(name string) *Host { return l.hosts[name] }

// Close kills what runs in the lab and removes it.
func (l *Lab) Close() {
	l.mu.Lock()
	procs := l.procs
	l.procs = nil
	l.mu.Unlock()
	for i := len(procs) - 1; i >= 0; i-- {
		procs[i].Kill()
	}
	for _, suffix := range append(l.names(), "wan") {
		removeNamespace(l.name + "-" + suffix)
	}
}

func (l *Lab) names() (names []string) {
	for n := range l.hosts {
		names = append(names, n)
	}
	return names
}

// Sweep removes namespaces of processes that are gone, with all that still runs in them.
func Sweep() {
	entries, _ := os.ReadDir("/var/run/netns")
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok {
			continue
		}
		pid, err := strconv.Atoi(strings.SplitN(rest, "-", 2)[0])
		if err != nil || Alive(pid) {
			continue
		}
		removeNamespace(e.Name())
	}
}

// Alive reports whether a process runs. One that has ended does not, even if its parent has not asked how.
func Alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state is the first field behind the name, which is in parentheses and may hold anything.
	state := bytes.TrimSpace(stat[bytes.LastIndexByte(stat, ')')+1:])
	return len(state) > 0 && state[0] != 'Z' && state[0] != 'X'
}

// removeNamespace kills whatever still runs in a namespace of ours, then deletes it.
func removeNamespace(ns string) {
	out, _ := exec.Command("ip", "netns", "pids", ns).Output()
	for _, f := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(f); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
	}
	_ = exec.Command("ip", "netns", "del", ns).Run() // it may be gone already
}

func each(lines ...[]string) error {
	for _, args := range lines {
		if err := run("ip", args...); err != nil {
			return err
		}
	}
	return nil
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// Run runs a program on the host to its end and returns what it printed.
func (h *Host) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.NS}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s on %s: %w: %s", strings.Join(args, " "), h.Name, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// A Process is a program that runs on a host; its output goes to a file.
type Process struct {
	cmd  *exec.Cmd
	Log  string // path
	from int64  // where in it this program's output begins
	done chan struct{}
	err  error // valid when done is closed
}

// Start starts a program. Its standard output and error go to LABDIR/logName.
func (h *Host) Start(logName string, args ...string) (*Process, error) {
	return h.StartWith(logName, nil, args...)
}

// StartWith is Start for a program that gets open files, from descriptor 3 on.
func (h *Host) StartWith(logName string, files []*os.File, args ...string) (*Process, error) {
	p := &Process{Log: filepath.Join(h.lab.Dir, logName), done: make(chan struct{})}
	f, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if p.from, err = f.Seek(0, io.SeekEnd); err != nil {
		return nil, err
	}
	p.cmd = exec.Command("ip", append([]string{"netns", "exec", h.NS}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.ExtraFiles = files
	p.cmd.Dir = h.lab.Dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	h.lab.mu.Lock()
	h.lab.procs = append(h.lab.procs, p)
	h.lab.mu.Unlock()
	return p, nil
}

// Signal sends a signal to the program ("ip netns exec" becomes the program it runs).
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Pid is the program's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end and returns how it went; after the limit it gives up.
func (p *Process) Wait(limit time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
		return fmt.Errorf("still running after %v", limit)
	}
}

// Stop asks the program to end, and kills it when it does not within 10 s.
func (p *Process) Stop() error {
	_ = p.Signal(syscall.SIGTERM) // it may have ended already
	if err := p.Wait(10 * time.Second); err != nil {
		p.Kill()
		return err
	}
	return nil
}

// Kill kills the program and waits for its end.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
}

// Output is what the program printed so far.
func (p *Process) Output() string {
	b, _ := os.ReadFile(p.Log)
	return string(b[min(p.from, int64(len(b))):])
}

// Expect waits until the program has printed a text at least n times; it fails when the program ends or the limit is
// over first.
func (p *Process) Expect(text string, n int, limit time.Duration) error {
	return Until(limit, func() error {
		have := strings.Count(p.Output(), text)
		if have >= n {
			return nil
		}
		select {
		case <-p.done:
			if strings.Count(p.Output(), text) >= n {
				return nil
			}
			return Hopeless(fmt.Errorf("ended (%v) before it printed %q %d times", p.err, text, n))
		default:
			return fmt.Errorf("printed %q %d times, want %d", text, have, n)
		}
	})
}

type hopeless struct{ error }

// Hopeless marks an error after which Until need not try again.
func Hopeless(err error) error { return hopeless{err} }

// Until asks again and again until the answer is nil, and returns the last answer when the limit is over.
func Until(limit time.Duration, ask func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if h := (hopeless{}); errors.As(err, &h) {
			return h.error
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// OnWan makes addresses that every host reaches through the wan's router, as the Internet has them.
func (l *Lab) OnWan(prefixes ...string) error {
	for _, p := range prefixes {
		if err := run("ip", "-n", l.name+"-wan", "addr", "add", p, "dev", "lo"); err != nil {
			return err
		}
	}
	return nil
}

// Afar gives the host an address that the others reach through the wan's router only.
func (h *Host) Afar(a netip.Addr) error {
	return each(
		[]string{"-n", h.NS, "addr", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "lo"},
		[]string{"-n", h.lab.name + "-wan", "route", "add", netip.PrefixFrom(a, a.BitLen()).String(), "via", h.Wan4.String()},
	)
}
