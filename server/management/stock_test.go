package management_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/server/management"
)

// stockScript is every command there is, right and wrong, with one client connected: id 0, negotiation 1. Replies must
// be the same after normalShape, but where why says otherwise.
var stockScript = []struct{ send, why string }{
	{"", ""},
	{"help", "our own words, and without commands for clients"},
	{"HELP", ""},
	{"version", ""},
	{"version 3", ""},
	{"pid x", ""},
	{"status", ""},
	{"status 1", ""},
	{"status 2", ""},
	{"status 3", ""},
	{"status 0", ""},
	{"status 4", ""},
	{"status -1", ""},
	{"status x", "what is no number is an error"},
	{"load-stats", ""},
	{"nclients", ""},
	{"kill", ""},
	{"kill nosuch", ""},
	{"kill nosuch x", ""},
	{`kill ""`, ""},
	{`kill "a b"`, ""},
	{`kill 'a b'`, ""},
	{`kill a\ b`, ""},
	{`kill "a\"b"`, ""},
	{`kill 'a\'`, ""},
	{`kill a"b"c`, ""},
	{"kill a\x1bb", ""},
	{"kill \xe4", ""},
	{"kill 1.2.3.4:5", ""},
	{"kill 1.2.3.4", ""},
	{"kill 1.2.3.4:x", ""},
	{"kill 1.2.3.4:0", ""},
	{"kill 1.2.3.4:70000", ""},
	{"kill 999.2.3.4:5", ""},
	{"kill foo:5", ""},
	{"kill :5", ""},
	{"kill udp:1.2.3.4:5", "the form of 2.7"},
	{"kill [::1]:5", "IPv6 has addresses, too"},
	{"client-kill", ""},
	{"client-kill 77", ""},
	{"client-kill 77 HALT", ""},
	{"client-kill x", ""},
	{"client-kill -1", "what is no number is an error"},
	{"client-kill 7x", "what is no number is an error"},
	{"client-auth", ""},
	{"client-auth 0", ""},
	{"client-auth x 1", ""},
	{"client-auth 0 x", ""},
	{"client-auth 0 9\nEND", ""},
	{"client-auth 77 1\npush x\n\n  END\n\"x\nEND", ""},
	{"client-auth-nt", ""},
	{"client-auth-nt 0 9", ""},
	{"client-auth-nt 0 1", ""},
	{"client-auth-nt x 1", ""},
	{"client-deny 0 1", ""},
	{"client-deny 0 9 x", ""},
	{"client-deny x 1 x", ""},
	{"client-deny 0 x x", ""},
	{"client-pending-auth 0 1 a", ""},
	{"client-pending-auth 0 9 a 10", ""},
	{"client-pending-auth 0 1 a x", ""},
	{"client-pending-auth x 1 a 10", ""},
	{"client-pending-auth 0 x a 10", ""},
	{"client-pf 0", ""},
	{"push-update-broad", "a command of 2.7"},
	{"push-update-cid 9 x", "a command of 2.7"},
	{"bytecount", ""},
	{"bytecount 1000", ""},
	{"bytecount 0", ""},
	{"bytecount x", "what is no number is an error"},
	{"state", ""},
	{"state on", ""},
	{"state on 1", ""},
	{"state 1 off", ""},
	{"state 0", ""},
	{"state x y", ""},
	{"log", ""},
	{"log 1", ""},
	{"log on", ""},
	{"log on off", ""},
	{"log off 2", ""},
	{"log x", ""},
	{"echo", ""},
	{"echo all", ""},
	{"echo on 1", ""},
	{"echo off", ""},
	{"verb", ""},
	{"verb 4", ""},
	{"verb -1", ""},
	{"verb x", "what is no number is an error"},
	{"mute", ""},
	{"mute 0", ""},
	{"mute -1", ""},
	{"hold", ""},
	{"hold x", ""},
	{"hold on", ""},
	{"hold", ""},
	{"hold off", ""},
	{"hold release", ""},
	{"signal", ""},
	{"signal SIGFOO", ""},
	{"signal sigusr2", ""},
	{"signal SIGUSR2", ""},
	{"auth-retry", ""},
	{"auth-retry interact", ""},
	{"auth-retry", ""},
	{"auth-retry x", "upstream sends its log line without a mark"},
	{"env-filter", ""},
	{"env-filter 2", ""},
	{"env-filter 0", ""},
	{"test", ""},
	{"test 0", ""},
	{"test 2", "our own words"},
	{"forget-passwords", ""},
	{"password", ""},
	{"password a b", ""},
	{"username a", ""},
	{"username a b", ""},
	{"needok a", ""},
	{"needok a b", ""},
	{"needstr a b", ""},
	{"pkcs11-id-count", ""},
	{"pkcs11-id-get", ""},
	{"pkcs11-id-get 1", ""},
	{"rsa-sig", ""},
	{"pk-sig", ""},
	{"certificate", ""},
	{"proxy", ""},
	{"proxy NONE", ""},
	{"remote", ""},
	{"remote ACCEPT", ""},
	{"remote-entry-count", ""},
	{"remote-entry-get", ""},
	{"remote-entry-get all", ""},
	{"cr-response", ""},
	{"cr-response x", ""},
	{"net", ""},
	{"foo", ""},
	{"END", ""},
	{`pid "x`, "without a place that means nothing"},
	{"pid 'x", "without a place that means nothing"},
	{`p\id`, "without a place that means nothing"},
	{`"verb" # comment`, ""},
	{"; comment", ""},
	{" verb\r", ""},
	{"verb\t", ""},
	{"verb\tx", "upstream drops the tab, and the command is unknown"},
	{"pid " + strings.Repeat("x", 300), "words may be longer here"},
	{"pid " + strings.Repeat("x", 2000), "lines may be longer here"},
	{"kill client1", ""},
}

// The same script against OpenVPN 2.6 and against us.
func TestStockServerAnswersTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root and openvpn")
	}
	lab := newLab(t)
	lab.startServer(t, "--management", lab.socket, "unix", "--management-client-auth")
	socket, login := serveFake(t)
	theirs, ours := dialSession(t, lab.socket), dialSession(t, socket)
	for _, s := range []*session{theirs, ours} {
		s.until(t, greeting)
	}
	lab.startClient(t)
	login()
	for _, s := range []*session{theirs, ours} {
		s.until(t, ">CLIENT:CONNECT,0,1\r\n")
		s.until(t, ">CLIENT:ENV,END\r\n")
		s.send(t, "client-auth 0 1\niroute 192.168.50.0 255.255.255.0\nEND")
		s.until(t, "SUCCESS: client-auth command succeeded\r\n")
		s.until(t, ">CLIENT:ESTABLISHED,0\r\n")
		s.until(t, ">CLIENT:ENV,END\r\n")
	}
	if got, want := ours.events(), theirs.events(); got != want {
		t.Errorf("events of a login: got\n%s\nwant\n%s", got, want)
	}
	for _, step := range stockScript {
		got, want := normalShape(ours.ask(t, step.send)), normalShape(theirs.ask(t, step.send))
		switch {
		case step.why == "" && got != want:
			t.Errorf("%.60q: got\n%s\nwant\n%s", step.send, got, want)
		case step.why != "" && got == want:
			t.Errorf("%.60q is the same as there: %s", step.send, want)
		}
	}
	for _, s := range []*session{theirs, ours} {
		if !strings.Contains(s.seen.String(), ">CLIENT:DISCONNECT,0\r\n") {
			s.until(t, ">CLIENT:DISCONNECT,0\r\n")
		}
		s.send(t, "state on\nsignal SIGTERM")
		s.until(t, "SUCCESS: signal SIGTERM thrown\r\n")
		s.until(t, ",EXITING,SIGTERM,,,,,\r\n")
		s.untilEnd(t)
	}
}

// A server with a password that is held.
func TestStockServerGreetsTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root and openvpn")
	}
	dir := t.TempDir()
	pw := filepath.Join(dir, "pw")
	if err := os.WriteFile(pw, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lab := newLab(t)
	lab.startServer(t, "--management", lab.socket, "unix", pw, "--management-hold")
	theirs := dialSession(t, lab.socket)

	owner := newFakeOwner()
	owner.status = func(int) []byte { return nil }
	i := management.New(management.Options{Hold: true}, owner, quiet())
	go i.Hold(t.Context())
	l, err := net.Listen("unix", filepath.Join(dir, "ours"))
	if err != nil {
		t.Fatal(err)
	}
	i.State(management.State{Time: time.Now(), Name: "CONNECTING"})
	i.Echo(time.Now(), "hello world")
	go i.Serve(t.Context(), l, management.Access{Password: []byte("secret")})
	ours := dialSession(t, l.Addr().String())

	var transcripts [2]string
	for n, s := range []*session{theirs, ours} {
		s.until(t, "ENTER PASSWORD:")
		s.send(t, "wrong")
		s.until(t, "ENTER PASSWORD:")
		s.send(t, "secret")
		s.until(t, ">HOLD:")
		s.until(t, "\r\n")
		for _, line := range []string{"state all", "status", "hold", "echo all", "hold release"} {
			s.ask(t, line)
		}
		transcripts[n] = normalShape(s.seen.String())
	}
	if transcripts[0] != transcripts[1] {
		t.Errorf("got\n%s\nwant\n%s", transcripts[1], transcripts[0])
	}
}

// serveFake serves an Interface with a fake owner that has what the stock server has. login makes its client come.
func serveFake(t *testing.T) (socket string, login func()) {
	t.Helper()
	owner := newFakeOwner()
	owner.status = reports(t)
	owner.load = management.Load{Clients: 1, Received: 2495, Sent: 2633}
	ctx, cancel := context.WithCancel(t.Context())
	i := management.New(management.Options{Title: title}, owner, quiet())
	i.State(management.State{Time: time.Now(), Name: "CONNECTED", Detail: "SUCCESS", Addr4: addressOf(t, "10.9.0.1").Addr(), Local: stockAddr})
	i.Echo(time.Now(), "hello world")
	vars := env([2]string{"password", "secret"}, [2]string{"common_name", "client1"})
	owner.after = func(call string) {
		switch {
		case strings.HasPrefix(call, "auth iroute"):
			i.ClientAddress(0, addressOf(t, "10.9.0.2"), true)
			i.ClientAddress(0, addressOf(t, "192.168.50.0/24"), false)
			i.ClientEstablished(0, 1, vars)
		case call == "kill client1":
			i.ClientDisconnect(0, vars)
		case call == "signal SIGTERM":
			i.State(management.State{Time: time.Now(), Name: "EXITING", Detail: "SIGTERM"})
			cancel()
		}
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "ours"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- i.Serve(ctx, l, management.Access{}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String(), func() { i.ClientConnect(0, 1, 0, vars) }
}
