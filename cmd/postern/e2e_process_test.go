package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// A socketLog keeps the datagrams that come to a socket: systemd's, or syslog's.
type socketLog struct {
	path string
	mu   sync.Mutex
	got  strings.Builder
}

// hear listens at a path.
func (f *field) hear(path string) *socketLog {
	f.t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	f.must(err)
	s := &socketLog{path: path}
	f.t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 8192)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.got.Write(append(b[:n:n], '\n'))
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *socketLog) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.String()
}

// expect waits until a text has come n times.
func (s *socketLog) expect(t *testing.T, text string, n int) {
	t.Helper()
	err := lab.Until(20*time.Second, func() error {
		if got := strings.Count(s.text(), text); got < n {
			return fmt.Errorf("%q came %d times, want %d, in:\n%s", text, got, n, s.text())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// openvpnLink makes a link to our program by the name of openvpn.
func (f *field) openvpnLink() string {
	f.t.Helper()
	link := filepath.Join(f.Dir, "sbin", "openvpn")
	f.must(os.MkdirAll(filepath.Dir(link), 0o755))
	f.must(os.Symlink(programs.postern, link))
	return link
}

// Debian's openvpn-server@ unit, with the program behind its name exchanged: systemd hears all that it waits for, the
// status file has the form that the unit asks for, signals do what they do for openvpn, and nobody is dropped.
func TestE2EOpenVPNServerUnit(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	systemd := f.hear(filepath.Join(f.Dir, "notify"))
	conf := f.serverConf("keepalive 10 60")
	status := filepath.Join(f.Dir, "status-server.log")
	srv, err := f.Host("router").Start("server.log", "env", "-C", f.Dir, "NOTIFY_SOCKET="+systemd.path, "WATCHDOG_USEC=4000000",
		f.openvpnLink(), "--status", status, "--status-version", "2", "--suppress-timestamps", "--config", filepath.Base(conf))
	f.must(err)
	systemd.expect(t, "READY=1\nMAINPID="+strconv.Itoa(srv.Pid())+"\nSTATUS=Serving, 0 clients connected", 1)
	systemd.expect(t, "WATCHDOG=1", 2)
	v := f.connect("alice")
	v.ping(lab.Lan4, 3, 56)
	systemd.expect(t, "STATUS=Serving, 1 client connected", 1)
	f.must(lab.Until(70*time.Second, func() error {
		b, err := os.ReadFile(status)
		if err == nil && !bytes.HasPrefix(b, []byte("TITLE,OpenVPN 2.")) {
			err = fmt.Errorf("the status file begins with %.40q", b)
		}
		return err
	}))

	// A reload with another level of logging; then one with a broken file.
	b, err := os.ReadFile(conf)
	f.must(err)
	f.must(os.WriteFile(conf, bytes.Replace(b, []byte("verb 4"), []byte("verb 0"), 1), 0o600))
	f.must(srv.Signal(syscall.SIGHUP))
	systemd.expect(t, "RELOADING=1\nMONOTONIC_USEC=", 1)
	systemd.expect(t, "READY=1", 2)
	f.must(os.WriteFile(conf, append(b, "frobnicate\n"...), 0o600))
	f.must(srv.Signal(syscall.SIGUSR1))
	f.must(srv.Expect("server.conf:"+strconv.Itoa(bytes.Count(b, []byte("\n"))+1)+": frobnicate", 1, 10*time.Second))
	systemd.expect(t, "READY=1", 3)
	said := srv.Output()
	if strings.Contains(said[strings.LastIndex(said, " serving "):], " reloaded") {
		t.Error("verb 0 is not heeded before a restart: the line about the reload was written")
	}
	f.must(os.WriteFile(conf, b, 0o600))
	f.must(srv.Signal(syscall.SIGHUP))
	f.must(srv.Expect(" reloaded", 1, 10*time.Second))
	f.must(srv.Signal(syscall.SIGUSR2))
	f.must(srv.Expect("CLIENT_LIST,alice,", 1, 10*time.Second))
	v.ping(lab.Lan4, 3, 56)
	if n := strings.Count(v.Output(), completed); n != 1 {
		t.Errorf("the client connected %d times", n)
	}
	if regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\d `).MatchString(said) {
		t.Error("there are times in the log, with suppress-timestamps")
	}
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
	systemd.expect(t, "STOPPING=1", 1)
}

// Debian's openvpn@ unit and the init script before it: with daemon the server goes into the background, unless systemd
// waits for it; syslog has its log under the name that was given.
func TestE2EOpenVPNDaemon(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	run := filepath.Join(f.Dir, "run")
	f.must(os.MkdirAll(run, 0o755))
	syslog := f.hear(filepath.Join(run, "log"))
	systemd := f.hear(filepath.Join(f.Dir, "notify"))
	conf := f.serverConf("verb 3")
	pidFile := filepath.Join(f.Dir, "office.pid")
	link := f.openvpnLink()
	// Programs in a lab have mounts of their own: the socket takes the place of the system's.
	mount := `if [ -e /dev/log ]; then mount --bind ` + run + `/log /dev/log; else mount --bind ` + run + ` /run; fi && exec "$@"`
	start := func(log string, env ...string) *lab.Process {
		args := append([]string{"env"}, env...)
		args = append(args, "sh", "-c", mount, "sh", link, "--daemon", "ovpn-office", "--status", filepath.Join(f.Dir, "office.status"), "10",
			"--cd", f.Dir, "--config", conf, "--writepid", pidFile)
		p, err := f.Host("router").Start(log, args...)
		f.must(err)
		return p
	}
	pid := func() int {
		b, err := os.ReadFile(pidFile)
		f.must(err)
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		f.must(err)
		return n
	}

	p := start("unit.log", "NOTIFY_SOCKET="+systemd.path)
	systemd.expect(t, "READY=1", 1)
	if pid() != p.Pid() {
		t.Errorf("under systemd the process went into the background")
	}
	syslog.expect(t, "ovpn-office["+strconv.Itoa(p.Pid())+"]: serving", 1)
	f.must(p.Signal(syscall.SIGTERM))
	f.must(p.Wait(10 * time.Second))

	p = start("init.log")
	f.must(p.Wait(20 * time.Second)) // status 0 when it serves
	server := pid()
	t.Cleanup(func() { _ = syscall.Kill(server, syscall.SIGKILL) })
	if server == p.Pid() {
		t.Error("the process did not go into the background")
	}
	if out := p.Output(); out != "" {
		t.Errorf("it printed %q", out)
	}
	v := f.connect("alice")
	v.ping(lab.Lan4, 3, 56)
	v.stop()
	f.must(syscall.Kill(server, syscall.SIGTERM))
	syslog.expect(t, "ovpn-office["+strconv.Itoa(server)+"]: ended", 1)

	// What goes wrong in the background is said in the foreground, and in the log.
	f.must(os.WriteFile(conf, []byte(strings.Replace(f.read(conf), "dev tun", "dev tun0", 1)), 0o600))
	_, err := f.Host("router").Run(f.ctx, link, "--mktun", "--dev", "tun0")
	f.must(err)
	holder, err := f.Host("router").Start("holder.log", programs.postern, "serve", "--config", f.write("holder.conf",
		strings.NewReplacer("10.83.0.0", "10.84.0.0", "fd00:83", "fd00:84", "control.sock", "holder.sock").Replace(f.read(conf)), "port 1195"))
	f.must(err)
	f.must(holder.Expect(" serving ", 1, 20*time.Second))
	p = start("failed.log")
	if err := p.Wait(20 * time.Second); err == nil {
		t.Error("a server whose device is taken went into the background with status 0")
	}
	f.must(p.Expect("in use by another process", 1, time.Second))
	syslog.expect(t, "cannot serve error=", 1)
	f.must(holder.Signal(syscall.SIGTERM))
	f.must(holder.Wait(10 * time.Second))
	_, err = f.Host("router").Run(f.ctx, link, "--rmtun", "--dev", "tun0")
	f.must(err)
}

func (f *field) read(name string) string {
	f.t.Helper()
	b, err := os.ReadFile(name)
	f.must(err)
	return string(b)
}

// takesSignals waits, without a pause, until a process that was just started has set up its signals.
func (f *field) takesSignals(p *lab.Process) {
	f.t.Helper()
	ignored := regexp.MustCompile(`SigIgn:\s*([0-9a-f]+)`)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
		f.must(err)
		if m := ignored.FindSubmatch(status); m != nil && bytes.HasPrefix(status, []byte("Name:\tpostern\n")) {
			if mask, _ := strconv.ParseUint(string(m[1]), 16, 64); mask>>(syscall.SIGPIPE-1)&1 == 1 {
				return
			}
		}
	}
	f.t.Fatal("the process takes no signals")
}

// Signals while it starts, while it is held, and while it ends, kill nothing, and none is forgotten.
func TestE2ESignalsAnytime(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	every := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE}
	start := func(log string, more ...string) *lab.Process {
		p, err := f.Host("router").Start(log, programs.postern, "serve", "--config", f.serverConf(more...))
		f.must(err)
		f.takesSignals(p)
		return p
	}
	srv := start("server.log", "management m.sock unix", "cd "+f.Dir, "management-hold")
	for _, s := range every {
		f.must(srv.Signal(s))
	}
	f.must(srv.Expect("management clients may come", 1, 10*time.Second))
	f.must(srv.Signal(syscall.SIGHUP))
	c := f.tool("m.sock")
	c.wants("hold release", strings.TrimSuffix(toolGreeting, "\r\n"))
	f.must(srv.Expect(" serving ", 1, 10*time.Second))
	f.must(lab.Until(10*time.Second, func() error { // the first of those that waited was a reload
		if out := srv.Output(); !strings.Contains(out, " reloaded") {
			return fmt.Errorf("the reload was forgotten:\n%s", out)
		}
		return nil
	}))
	f.connect("alice").ping(lab.Lan4, 3, 56)
	f.must(srv.Signal(syscall.SIGTERM))
	for range 50 {
		for _, s := range append(every, syscall.SIGTERM) {
			_ = srv.Signal(s) // it may have ended
		}
	}
	f.must(srv.Wait(10 * time.Second))

	// One that ends it before it serves is no failure either.
	srv = start("early.log")
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))

	// With remap-usr1 the signal ends the server.
	srv = f.serve("remap-usr1 SIGTERM")
	f.must(srv.Signal(syscall.SIGUSR1))
	f.must(srv.Wait(10 * time.Second))
}

// With as few threads as Debian's units allow the server serves, reloads and takes clients: one thread too many would be
// its end.
func TestE2EFewThreads(t *testing.T) {
	f := newField(t, "alice", "bob")
	f.must(os.Chmod(filepath.Dir(f.Dir), 0o755))
	f.must(os.Chmod(f.Dir, 0o755))
	conf := f.serverConf("user nobody", "group nogroup", "status "+filepath.Join(f.Dir, "status.log")+" 1")
	f.must(os.Chmod(conf, 0o644))
	srv, err := f.Host("router").Start("server.log", "prlimit", "--nproc=10:10", programs.postern, "openvpn", "--config", conf)
	f.must(err)
	f.must(srv.Expect(" serving ", 1, 20*time.Second))
	if n := runtime.NumCPU(); n > 2 {
		f.must(srv.Expect("only so many threads are allowed here", 1, time.Second))
	}
	alice, bob := f.connect("alice"), f.connect("bob")
	alice.move(5_000_000)
	bob.ping(lab.Lan4, 20, 56)
	for range 20 {
		f.must(srv.Signal(syscall.SIGHUP))
		f.postern("status", "--socket", filepath.Join(f.Dir, "control.sock"))
	}
	f.must(srv.Expect(" reload", 1, 10*time.Second))
	alice.ping(lab.Lan4, 20, 56)
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", srv.Pid()))
	f.must(err)
	t.Logf("%d threads", len(threads))
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
}
