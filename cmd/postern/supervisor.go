package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postern/server"
)

// A supervisor is who started the process and waits for it: systemd, by its notification protocol, or the process that
// put this one into the background. Without any it is silent. It belongs to one goroutine at a time.
type supervisor struct {
	systemd  *net.UnixConn // nil: not under systemd
	watchdog time.Duration // how often systemd wants to hear of us; 0: never
	parent   *os.File      // nil: none, or it has heard
	pulse    int64         // the server's, when it was last told of
	status   string        // what was last told
}

// What the environment says of supervisors. Programs that the server starts are told nothing of it.
const (
	notifySocketEnv = "NOTIFY_SOCKET"
	watchdogEnv     = "WATCHDOG_USEC"
	watchdogPIDEnv  = "WATCHDOG_PID"
	detachedEnv     = "POSTERN_DETACHED"
)

// detachedFD is where a process in the background tells the one that started it how it went.
const detachedFD = 3

func openSupervisor() *supervisor {
	s := new(supervisor)
	if name := os.Getenv(notifySocketEnv); name != "" {
		// A name that begins with @ is not in the file system: net knows.
		if conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"}); err == nil {
			s.systemd = conn
		}
		pid := os.Getenv(watchdogPIDEnv)
		if usec, err := strconv.ParseInt(os.Getenv(watchdogEnv), 10, 64); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
			s.watchdog = time.Duration(usec) * time.Microsecond
		}
	}
	if os.Getenv(detachedEnv) != "" {
		unix.CloseOnExec(detachedFD)
		s.parent = os.NewFile(detachedFD, "parent")
	}
	for _, name := range []string{notifySocketEnv, watchdogEnv, watchdogPIDEnv, detachedEnv} {
		os.Unsetenv(name)
	}
	return s
}

// present reports whether somebody waits already, so that the server must not go into the background by itself.
func (s *supervisor) present() bool { return s.systemd != nil || s.parent != nil }

func (s *supervisor) tell(lines ...string) {
	if s.systemd != nil {
		_, _ = s.systemd.Write([]byte(strings.Join(lines, "\n"))) // systemd that does not listen is nothing to end for
	}
}

// answer tells the parent once, and lets it go.
func (s *supervisor) answer(text string) {
	if s.parent != nil {
		_, _ = s.parent.WriteString(text)
		s.parent.Close()
		s.parent = nil
	}
}

// detachedReady is what a process in the background says when it serves; anything else is why it does not.
const detachedReady = "ready"

// held tells that the server waits for the release of management-hold. systemd goes on waiting.
func (s *supervisor) held() {
	s.tell("STATUS=Waiting for a management client: hold release")
	s.answer(detachedReady)
}

// failed tells why the process ends, if that is not what was asked for.
func (s *supervisor) failed(err error) {
	if err != nil {
		s.tell("STATUS=" + strings.ReplaceAll(err.Error(), "\n", "; "))
		s.answer(err.Error())
	}
	s.answer("it was told to end")
}

func (s *supervisor) ready(srv *server.Server) {
	s.status = statusLine(srv)
	s.tell("READY=1", "MAINPID="+strconv.Itoa(os.Getpid()), "STATUS="+s.status)
	s.answer(detachedReady)
}

func statusLine(srv *server.Server) string {
	n := srv.Connected()
	if n == 1 {
		return "Serving, 1 client connected"
	}
	return fmt.Sprintf("Serving, %d clients connected", n)
}

func (s *supervisor) reloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it never fails
	s.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000), "STATUS=Reloading")
}

func (s *supervisor) stopping() { s.tell("STOPPING=1", "STATUS=Telling the clients that it ends") }

// statusEvery is how often the status line follows what it tells of.
const statusEvery = 5 * time.Second

// interval is how often beat is to be called.
func (s *supervisor) interval() time.Duration {
	if s.watchdog > 0 {
		return min(max(s.watchdog/4, 10*time.Millisecond), statusEvery)
	}
	return statusEvery
}

// beat feeds the watchdog as long as the server goes on (F05), and tells of changes.
func (s *supervisor) beat(srv *server.Server) {
	if line := statusLine(srv); line != s.status {
		s.status = line
		s.tell("STATUS=" + line)
	}
	if pulse := srv.Pulse(); s.watchdog > 0 && pulse != s.pulse {
		s.pulse = pulse
		s.tell("WATCHDOG=1")
	}
}
