package management_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lab is a network namespace with a stock server, and maybe a client, in it.
type lab struct {
	dir, namespace, socket string
}

var stockAddr = netip.MustParseAddrPort("127.0.0.1:1199")

// newLab makes a namespace and the keys of a server and a client.
func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{dir: t.TempDir(), namespace: "ptmg-stock"}
	l.socket = filepath.Join(l.dir, "stock")
	_ = exec.Command("ip", "netns", "delete", l.namespace).Run() // of a run that was killed
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "delete", l.namespace).CombinedOutput(); err != nil {
			t.Errorf("delete the namespace: %v: %s", err, out)
		}
	})
	l.run(t, "ip", "netns", "add", l.namespace)
	l.run(t, "ip", "-n", l.namespace, "link", "set", "lo", "up")
	const newKey = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
	l.run(t, "openssl", strings.Fields("req -x509 "+newKey+" -keyout ca.key -out ca.crt -subj /CN=ca")...)
	for _, name := range []string{"server", "client1"} {
		l.run(t, "openssl", strings.Fields("req -x509 -CA ca.crt -CAkey ca.key "+newKey+" -keyout "+name+".key -out "+name+".crt -subj /CN="+name)...)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "login"), []byte("alice\nsecret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = l.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
}

// start runs openvpn in the namespace until the test ends.
func (l *lab) start(t *testing.T, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("ip", append([]string{"netns", "exec", l.namespace, "openvpn"}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = l.dir, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("openvpn: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		kill.Stop()
		if t.Failed() {
			t.Logf("openvpn %s: %v\n%s", args[0], err, out.Bytes()[max(0, out.Len()-3000):])
		}
	})
}

func (l *lab) startServer(t *testing.T, more ...string) {
	t.Helper()
	l.start(t, append(strings.Fields("--dev tun --server 10.9.0.0 255.255.255.0 --topology subnet --proto udp --local 127.0.0.1 --port 1199 "+
		"--ca ca.crt --cert server.crt --key server.key --dh none --keepalive 10 60 --verb 4 --echo hello world"), more...)...)
}

func (l *lab) startClient(t *testing.T) {
	t.Helper()
	l.start(t, strings.Fields("--client --dev tun --ifconfig-noexec --route-noexec --proto udp --remote 127.0.0.1 1199 --nobind "+
		"--ca ca.crt --cert client1.crt --key client1.key --auth-user-pass login --connect-retry 1 1")...)
}

// session is a tool on a real socket.
type session struct {
	nc    net.Conn
	asked int
	seen  bytes.Buffer // all that came
	rest  []byte       // what came and was not looked at
}

// dialSession connects, once the socket is there.
func dialSession(t *testing.T, socket string) *session {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		nc, err := net.Dial("unix", socket)
		if err == nil {
			t.Cleanup(func() { nc.Close() })
			return &session{nc: nc}
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *session) send(t *testing.T, line string) {
	t.Helper()
	if _, err := s.nc.Write([]byte(line + "\n")); err != nil {
		t.Fatalf("send %q: %v", line, err)
	}
}

// until reads up to and with text, and returns it.
func (s *session) until(t *testing.T, text string) string {
	t.Helper()
	if err := s.nc.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	for {
		if n := bytes.Index(s.rest, []byte(text)); n >= 0 {
			n += len(text)
			found := string(s.rest[:n])
			s.rest = s.rest[n:]
			return found
		}
		n, err := s.nc.Read(b)
		s.seen.Write(b[:n])
		s.rest = append(s.rest, b[:n]...)
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", text, err, s.seen.String()[max(0, s.seen.Len()-500):])
		}
	}
}

func (s *session) untilEnd(t *testing.T) {
	t.Helper()
	if err := s.nc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(&s.seen, s.nc); err != nil {
		t.Errorf("the connection did not end: %v", err)
	}
}

// ask sends a command and returns all that comes before the answer to the next one.
func (s *session) ask(t *testing.T, line string) string {
	t.Helper()
	s.asked++
	mark := fmt.Sprintf("mark%d", s.asked)
	s.send(t, line+"\nsignal "+mark)
	end := "ERROR: signal '" + mark + "' is not a known signal type\r\n"
	return strings.TrimSuffix(s.until(t, end), end)
}

// events are the events about clients so far, with environments cut to what this package adds.
func (s *session) events() string {
	var b strings.Builder
	for line := range strings.Lines(s.seen.String()) {
		if strings.HasPrefix(line, ">CLIENT:") && (!strings.HasPrefix(line, ">CLIENT:ENV,") || strings.HasPrefix(line, ">CLIENT:ENV,n_clients=") || strings.HasPrefix(line, ">CLIENT:ENV,END")) {
			b.WriteString(line)
		}
	}
	return b.String()
}

var (
	number    = regexp.MustCompile(`\d+`)
	titleText = regexp.MustCompile(`OpenVPN 2\.\d+\.\d+ .*`)
)

// normalShape is a reply without events, numbers, titles and the lines about clients in a status report.
func normalShape(reply string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(reply, "\r\n") {
		event := strings.HasPrefix(line, ">") && !strings.HasPrefix(line, ">PKCS11")
		row := strings.Contains(line, "client1") && !strings.Contains(line, "'")
		if !event && !row {
			b.WriteString(number.ReplaceAllString(titleText.ReplaceAllString(line, "TITLE"), "N") + "\n")
		}
	}
	return b.String()
}
