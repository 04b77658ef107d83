package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// The end-to-end tests (TestE2E...) run bin/postern as a process in a lab of network namespaces, and the stock
// openvpn client against it. They need root; -short leaves them out.
//
// Those that mostly wait are parallel, each in networks of its own. Those that want every packet, measure times, rates or
// memory, or keep the processors busy are not: they come first, and have the machine to themselves. The soaks are parallel,
// too, but make e2e runs them by themselves, after the others.

// programs are built once for all tests.
var programs struct {
	once    sync.Once
	dir     string
	postern string
	depot   string
	err     error

	loadOnce sync.Once
	loadErr  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if programs.dir != "" {
		os.RemoveAll(programs.dir)
	}
	os.Exit(code)
}

func buildPrograms(t *testing.T) {
	t.Helper()
	programs.once.Do(func() {
		dir, err := os.MkdirTemp("", "postern-e2e-")
		if err != nil {
			programs.err = err
			return
		}
		programs.dir, programs.postern, programs.depot = dir, filepath.Join(dir, "postern"), filepath.Join(dir, "depot")
		for pkg, bin := range map[string]string{"postern/cmd/postern": programs.postern, "postern/cmd/lab/depot": programs.depot} {
			cmd := exec.Command("go", "build", "-o", bin, pkg)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				programs.err = fmt.Errorf("build %s: %w: %s", pkg, err, out)
				return
			}
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
}

// A field is one end-to-end test's network: a gateway on the router, clients on the wan, a depot on the lan.
type field struct {
	*lab.Lab
	t   *testing.T
	ctx context.Context
	pki string
}

// newField builds the network, a CA, a server certificate and certificates for the named clients.
func newField(t *testing.T, clients ...string) *field {
	t.Helper()
	if testing.Short() {
		t.Skip("end-to-end: not with -short")
	}
	buildPrograms(t)
	dir := t.TempDir()
	l, err := lab.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &field{Lab: l, t: t, ctx: t.Context(), pki: filepath.Join(dir, "pki")}
	t.Cleanup(func() {
		l.Close()
		if t.Failed() {
			f.showLogs()
		}
	})
	f.postern("pki", "init", "--dir", f.pki)
	f.postern("pki", "server", "--dir", f.pki, "gateway")
	for _, c := range clients {
		f.postern("pki", "client", "--dir", f.pki, c)
		f.addHost(c)
	}
	p, err := f.Host("lan").Start("depot.log", programs.depot, "serve", ":5001")
	f.must(err)
	f.must(p.Expect("depot serves", 1, 10*time.Second))
	return f
}

func (f *field) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *field) addHost(name string) {
	f.t.Helper()
	_, err := f.AddHost(name)
	f.must(err)
}

// postern runs a command of ours to its end, outside the lab.
func (f *field) postern(args ...string) string {
	f.t.Helper()
	return f.posternInput("", args...)
}

func (f *field) posternInput(input string, args ...string) string {
	f.t.Helper()
	cmd := exec.Command(programs.postern, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("postern %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// showLogs prints the end of every log of the lab.
func (f *field) showLogs() {
	logs, _ := filepath.Glob(filepath.Join(f.Dir, "*.log"))
	for _, name := range logs {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
		if n := len(lines); n > 60 {
			lines = append([]string{fmt.Sprintf("(%d lines left out)", n-60)}, lines[n-60:]...)
		}
		f.t.Logf("--- %s\n%s", filepath.Base(name), strings.Join(lines, "\n"))
	}
}

// write puts a file into the lab's directory and returns its path.
func (f *field) write(name string, lines ...string) string {
	f.t.Helper()
	path := filepath.Join(f.Dir, name)
	f.must(os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return path
}

// serverConf is a server.conf on the field's PKI, UDP unless more says otherwise.
func (f *field) serverConf(more ...string) string {
	f.t.Helper()
	lines := []string{
		"dev tun", "topology subnet", "server 10.83.0.0 255.255.255.0", "server-ipv6 fd00:83::/64",
		`push "route 172.29.7.0 255.255.255.0"`, `push "route-ipv6 fd00:29::/64"`,
		"ca " + f.pki + "/ca.crt", "cert " + f.pki + "/issued/gateway.crt", "key " + f.pki + "/private/gateway.key", "dh none",
		"verb 4", "nat yes",
		"control-socket " + filepath.Join(f.Dir, "control.sock"),
	}
	for _, usual := range []string{"proto udp", "keepalive 10 60"} {
		name := strings.Fields(usual)[0] + " "
		if !slices.ContainsFunc(more, func(s string) bool { return strings.HasPrefix(s, name) }) {
			lines = append(lines, usual)
		}
	}
	return f.write("server.conf", append(lines, more...)...)
}

// serve starts the gateway on the router and waits until it serves.
func (f *field) serve(more ...string) *lab.Process {
	f.t.Helper()
	return f.serveConf(f.serverConf(more...))
}

func (f *field) serveConf(conf string) *lab.Process {
	f.t.Helper()
	p, err := f.Host("router").Start("server.log", programs.postern, "serve", "--config", conf)
	f.must(err)
	f.must(p.Expect(" serving ", 1, 20*time.Second))
	return p
}

// A vpn is one running stock client.
type vpn struct {
	*lab.Process
	f    *field
	host *lab.Host
}

const completed = "Initialization Sequence Completed"

// clientConf is a client configuration for a certificate of the field's PKI.
func (f *field) clientConf(name string, more ...string) string {
	f.t.Helper()
	lines := []string{
		"client", "dev tun", "nobind", "verb 4", "remote-cert-tls server", "connect-retry 1 2", "resolv-retry infinite",
		"ca " + f.pki + "/ca.crt", "cert " + f.pki + "/issued/" + name + ".crt", "key " + f.pki + "/private/" + name + ".key",
	}
	if !slices.ContainsFunc(more, func(s string) bool { return strings.HasPrefix(s, "remote ") }) {
		lines = append(lines, fmt.Sprintf("remote %v 1194 udp", f.Host("router").Wan4), "explicit-exit-notify 1")
	}
	return f.write(name+".ovpn", append(lines, more...)...)
}

// dial starts a stock client on the host of its name; it does not wait.
func (f *field) dial(name string, more ...string) *vpn {
	f.t.Helper()
	return f.dialProfile(name, f.clientConf(name, more...))
}

func (f *field) dialProfile(name, profile string, args ...string) *vpn {
	f.t.Helper()
	h := f.Host(name)
	p, err := h.Start(name+".log", append([]string{"openvpn", "--config", profile}, args...)...)
	f.must(err)
	return &vpn{Process: p, f: f, host: h}
}

// connect starts a stock client and waits until it is connected.
func (f *field) connect(name string, more ...string) *vpn {
	f.t.Helper()
	v := f.dial(name, more...)
	v.up(1)
	return v
}

// up waits until the client has completed its start n times, and its kernel sends from the addresses that it got: IPv6 ones
// are tentative at first, for a moment or, with a tap device, for a second or two.
func (v *vpn) up(n int) {
	v.f.t.Helper()
	v.f.must(v.Expect(completed, n, 30*time.Second))
	v.f.must(lab.Until(10*time.Second, func() error {
		out, err := v.host.Run(v.f.ctx, "ip", "-6", "-o", "addr", "show", "scope", "global", "tentative")
		if err == nil && out != "" {
			err = fmt.Errorf("not in use yet: %s", out)
		}
		return err
	}))
}

// ping wants every ping answered. A shared machine may stall for so long that a queue of the kernel overflows: a series that
// lost some is repeated once. Tests that count losses use Host.Ping.
func (v *vpn) ping(to string, count, size int) {
	v.f.t.Helper()
	for again := true; ; again = false {
		p, err := v.host.Ping(v.f.ctx, to, count, size, 50*time.Millisecond)
		v.f.must(err)
		switch {
		case p.Lost() == 0:
			return
		case !again:
			v.f.t.Errorf("ping %s with %d bytes: %d of %d lost", to, size, p.Lost(), p.Sent)
			return
		}
		v.f.t.Logf("ping %s with %d bytes: %d of %d lost, once more", to, size, p.Lost(), p.Sent)
	}
}

// move downloads and uploads n bytes and wants equal checksums.
func (v *vpn) move(n int) {
	v.f.t.Helper()
	for _, way := range []string{"get", "put"} {
		ctx, cancel := context.WithTimeout(v.f.ctx, 2*time.Minute)
		out, err := v.host.Run(ctx, programs.depot, way, lab.Lan4+":5001", fmt.Sprint(n))
		cancel()
		v.f.must(err)
		v.f.t.Log(strings.TrimSpace(out))
	}
}

// stop ends the client as a user does.
func (v *vpn) stop() {
	v.f.t.Helper()
	if err := v.Stop(); err != nil {
		v.f.t.Errorf("stop client: %v", err)
	}
}

// A plain connection: log in by certificate, ping both families and sizes, move data, and leave.
func TestE2EConnect(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	srv := f.serve()
	v := f.connect("alice")
	v.ping(lab.Lan4, 10, 56)
	v.ping(lab.Lan4, 10, 1400)
	v.ping(lab.Lan6, 10, 1200)
	v.move(20_000_000)
	if out := f.postern("status", "--socket", filepath.Join(f.Dir, "control.sock")); !strings.Contains(out, "alice") {
		t.Errorf("postern status does not name alice:\n%s", out)
	}
	v.stop()
	f.must(srv.Expect("client disconnected", 1, 10*time.Second))
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
}
