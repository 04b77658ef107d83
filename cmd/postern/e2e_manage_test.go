package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// A tool is one connection to the management interface.
type tool struct {
	f      *field
	conn   net.Conn
	unread string
}

const toolGreeting = ">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n"

// tool connects to a unix socket in the field's directory.
func (f *field) tool(name string) *tool {
	f.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(f.Dir, name))
	f.must(err)
	f.t.Cleanup(func() { conn.Close() })
	return &tool{f: f, conn: conn}
}

// until reads up to and with a text, and returns all of that.
func (c *tool) until(text string) string {
	c.f.t.Helper()
	c.f.must(c.conn.SetReadDeadline(time.Now().Add(20 * time.Second)))
	b := make([]byte, 4096)
	for {
		if i := strings.Index(c.unread, text); i >= 0 {
			got := c.unread[:i+len(text)]
			c.unread = c.unread[i+len(text):]
			return got
		}
		n, err := c.conn.Read(b)
		if err != nil {
			c.f.t.Fatalf("waiting for %q: %v after %q", text, err, c.unread)
		}
		c.unread += string(b[:n])
	}
}

// ask sends a line and reads up to and with a text.
func (c *tool) ask(line, end string) string {
	c.f.t.Helper()
	_, err := fmt.Fprintf(c.conn, "%s\n", line)
	c.f.must(err)
	return c.until(end)
}

// wants compares what a command was answered.
func (c *tool) wants(line, want string) {
	c.f.t.Helper()
	if got := c.ask(line, "\r\n"); got != want+"\r\n" {
		c.f.t.Errorf("%s: %q, want %q", line, got, want)
	}
}

// Two tools watch a server and end its clients over a unix socket, as scripts of installers do.
func TestE2EManage(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	socket := filepath.Join(f.Dir, "m.sock")
	// What a killed server left is in nobody's way.
	stale, err := net.Listen("unix", socket)
	f.must(err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	f.must(stale.Close())
	srv := f.serve("management "+socket+" unix", "verb 3")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v, want mode 0660 (S096)", info.Mode(), err)
	}
	one, two := f.tool("m.sock"), f.tool("m.sock")
	one.until(toolGreeting)
	two.until(toolGreeting)
	two.wants("state on", "SUCCESS: real-time state notification set to ON")
	two.wants("log on", "SUCCESS: real-time log notification set to ON")
	if got := one.ask("state all", "END\r\n"); !regexp.MustCompile(`^\d+,CONNECTING,,,,,,\r\n\d+,ASSIGN_IP,,10\.83\.0\.1,,,,,fd00:83::1\r\n` +
		`\d+,CONNECTED,SUCCESS,10\.83\.0\.1,,,,,fd00:83::1\r\nEND\r\n$`).MatchString(got) {
		t.Errorf("state all: %q", got)
	}

	v := f.connect("alice")
	for _, c := range []*tool{one, two} {
		c.until(">CLIENT:ESTABLISHED,0\r\n")
		env := c.until(">CLIENT:ENV,END\r\n")
		for _, want := range []string{"n_clients=1", "common_name=alice", "ifconfig_pool_remote_ip=10.83.0.2", "X509_0_CN=alice",
			"trusted_ip=", "IV_VER=2.6.14", "dev=tun"} {
			if !strings.Contains(env, ">CLIENT:ENV,"+want) {
				t.Errorf("the environment lacks %s:\n%s", want, env)
			}
		}
	}
	v.ping(lab.Lan4, 5, 56)
	if !strings.Contains(two.ask("log all", "END\r\n"), "client connected") {
		t.Error("log all has no line about alice")
	}
	v2, v3 := one.ask("status 2", "END\r\n"), one.ask("status 3", "END\r\n")
	row := regexp.MustCompile(`(?m)^CLIENT_LIST,alice,[0-9.]+:\d+,10\.83\.0\.2,fd00:83::1000,\d+,\d+,[-0-9]+ [:0-9]+,\d+,UNDEF,0,0,AES-256-GCM\r$`)
	if !strings.HasPrefix(v2, "TITLE,OpenVPN 2.6.14 postern\r\nTIME,") || !row.MatchString(v2) || !row.MatchString(strings.ReplaceAll(v3, "\t", ",")) {
		t.Errorf("status 2 and 3:\n%s%s", v2, v3)
	}
	if got := one.ask("status", "END\r\n"); !strings.HasPrefix(got, "OpenVPN CLIENT LIST\r\nUpdated,") {
		t.Errorf("status:\n%s", got)
	}
	load := regexp.MustCompile(`^SUCCESS: nclients=1,bytesin=(\d+),bytesout=(\d+)\r\n$`).FindStringSubmatch(one.ask("load-stats", "\r\n"))
	if load == nil {
		t.Fatal("load-stats has another form")
	}
	if in, _ := strconv.Atoi(load[1]); in < 5*84 {
		t.Errorf("%d bytes in after five pings", in)
	}
	one.wants("version", "OpenVPN Version: OpenVPN 2.6.14 postern")
	one.until("END\r\n")
	one.wants("pid", fmt.Sprintf("SUCCESS: pid=%d", srv.Pid()))
	one.wants("bytecount 1", "SUCCESS: bytecount interval changed")
	one.until(">BYTECOUNT_CLI:0,")
	one.until("\r\n")
	one.wants("bytecount 0", "SUCCESS: bytecount interval changed")
	one.unread = ""

	// client-kill is heard: the client comes back at once, with a number of its own.
	one.ask("client-kill 0", "SUCCESS: client-kill command succeeded\r\n")
	v.up(2)
	two.until(">CLIENT:ESTABLISHED,1\r\n")
	one.until(">CLIENT:ESTABLISHED,1\r\n")
	one.until(">CLIENT:ENV,END\r\n")
	one.wants("client-kill 0", "ERROR: client-kill command failed")

	// A script's one command, with the end of its input right behind it, as installers' revocation has it.
	breath := f.tool("m.sock")
	_, err = fmt.Fprint(breath.conn, "kill alice\n")
	f.must(err)
	f.must(breath.conn.(*net.UnixConn).CloseWrite())
	if got := breath.until("killed\r\n"); got != toolGreeting+"SUCCESS: common name 'alice' found, 1 client(s) killed\r\n" {
		t.Errorf("kill: %q", got)
	}
	f.must(srv.Expect("killed by a management client", 1, 10*time.Second))
	two.until("killed by a management client")
	one.wants("nclients", "SUCCESS: nclients=0")
	one.wants("kill alice", "ERROR: common name 'alice' not found")

	// The amount of log and a reload, on the way that signals take.
	one.wants("verb", "SUCCESS: verb=3")
	one.wants("verb 5", "SUCCESS: verb level changed")
	one.wants("signal SIGUSR1", "SUCCESS: signal SIGUSR1 thrown")
	f.must(srv.Expect(" reloaded", 1, 10*time.Second))
	two.unread = ""
	one.wants("signal SIGTERM", "SUCCESS: signal SIGTERM thrown")
	two.until(",EXITING,SIGTERM,,,,,\r\n")
	f.must(srv.Wait(10 * time.Second))
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left behind")
	}
}

// Over TCP a password is asked for, and nothing is answered before; a held server waits for its release (S096).
func TestE2EManageHold(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	pw := f.write("mgmt-password", "s3cret")
	conf := f.serverConf("management 127.0.0.1 7505 "+pw, "management-hold")
	srv, err := f.Host("router").Start("server.log", programs.postern, "serve", "--config", conf)
	f.must(err)
	f.must(srv.Expect("management clients may come", 1, 20*time.Second))
	c := &tool{f: f}
	f.must(f.Host("router").Do(func() (err error) {
		c.conn, err = net.Dial("tcp", "127.0.0.1:7505")
		return err
	}))
	defer c.conn.Close()
	c.until("ENTER PASSWORD:")
	if got := c.ask("hold release", "ENTER PASSWORD:"); got != "ENTER PASSWORD:" {
		t.Errorf("a command before the password: %q", got)
	}
	if got := c.ask("s3cret", toolGreeting); got != "SUCCESS: password is correct\r\n"+toolGreeting {
		t.Errorf("the password: %q", got)
	}
	c.until(">HOLD:Waiting for hold release:0\r\n")
	c.wants("state on", "SUCCESS: real-time state notification set to ON")
	c.wants("status 2", "ERROR: The 'status' command is not supported by the current daemon mode")
	c.wants("load-stats", "SUCCESS: nclients=0,bytesin=0,bytesout=0")
	if strings.Contains(srv.Output(), " serving ") {
		t.Error("a held server serves")
	}
	c.wants("hold release", "SUCCESS: hold release succeeded")
	c.until(",CONNECTED,SUCCESS,10.83.0.1,,,,,fd00:83::1\r\n")
	f.connect("alice").ping(lab.Lan4, 3, 56)
	c.until(">CLIENT:ESTABLISHED,0\r\n")
	if strings.Contains(srv.Output(), "s3cret") {
		t.Error("the password is in the log")
	}
	f.must(srv.Signal(syscall.SIGINT))
	c.until(",EXITING,SIGINT,,,,,\r\n")
	f.must(srv.Wait(10 * time.Second))

	// It ends while held, too.
	srv, err = f.Host("router").Start("held.log", programs.postern, "serve", "--config", conf)
	f.must(err)
	f.must(srv.Expect("management clients may come", 1, 20*time.Second))
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
}

// A server that gives up its privileges keeps the socket, which belongs to the group that may use it.
func TestE2EManageUnprivileged(t *testing.T) {
	t.Parallel()
	f := newField(t)
	srv := f.serve("management m.sock unix", "cd "+f.Dir, "management-client-group daemon", "user nobody", "group nogroup")
	info, err := os.Stat(filepath.Join(f.Dir, "m.sock"))
	f.must(err)
	want, err := groupID("daemon")
	f.must(err)
	if gid := fmt.Sprint(info.Sys().(*syscall.Stat_t).Gid); gid != want {
		t.Errorf("the socket's group is %s, want %s (daemon)", gid, want)
	}
	// We are root, but of another group.
	c := f.tool("m.sock")
	f.must(c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)))
	if n, err := c.conn.Read(make([]byte, 100)); n > 0 || err == nil {
		t.Errorf("another group was greeted")
	}
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
}
