package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// A hookCall is one run of the recording script.
type hookCall struct {
	kind string // script_type
	argv []string
	env  map[string]string
}

func (c *hookCall) String() string {
	return strings.TrimSpace(c.kind + " " + strings.Join(c.argv, " "))
}

// recorder writes a script that records its arguments and environment in a directory of this name, and then does what
// its further lines say.
func (f *field) recorder(name string, lines ...string) (script, dir string) {
	f.t.Helper()
	dir = filepath.Join(f.Dir, name)
	f.must(os.MkdirAll(dir, 0o755))
	script = filepath.Join(f.Dir, name+".sh")
	text := append([]string{
		"#!/bin/sh",
		"at=" + dir + "/$(/usr/bin/date +%s%N)-$$",
		`/usr/bin/cat /proc/$$/environ >$at.env`, // not the shell's own variables
		`for a in "$@"; do /usr/bin/printf '%s\0' "$a"; done >$at.part`,
		"/usr/bin/mv $at.part $at.argv",
	}, lines...)
	f.must(os.WriteFile(script, []byte(strings.Join(text, "\n")+"\n"), 0o755))
	return script, dir
}

// recorded is what a recorder has recorded, in the order of the calls.
func (f *field) recorded(dir string) (calls []*hookCall) {
	f.t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.argv"))
	f.must(err)
	slices.Sort(names)
	fields := func(name string) []string {
		b, err := os.ReadFile(name)
		f.must(err)
		list := strings.Split(string(b), "\x00")
		return list[:len(list)-1]
	}
	for _, name := range names {
		c := &hookCall{argv: fields(name), env: make(map[string]string)}
		for _, v := range fields(strings.TrimSuffix(name, "argv") + "env") {
			key, value, _ := strings.Cut(v, "=")
			c.env[key] = value
		}
		c.kind = c.env["script_type"]
		calls = append(calls, c)
	}
	return calls
}

// hookDifferences are the variables in which our hooks differ from OpenVPN's, and why. All others are compared.
var hookDifferences = map[string]string{
	"daemon_pid":        "another process",
	"daemon_start_time": "at another time",
	"time_ascii":        "at another time",
	"time_unix":         "at another time",
	"time_duration":     "at another time",
	"session_id":        "at random",
	"untrusted_port":    "the client's, of this connection",
	"trusted_port":      "the client's, of this connection",
	"bytes_received":    "handshakes are cut into packets in another way, and acknowledged at other times",
	"bytes_sent":        "handshakes are cut into packets in another way, and acknowledged at other times",
}

// temporary are the names of files that are made for one script. They are compared without their number.
var temporary = regexp.MustCompile(`(openvpn_[a-z0-9_]+?_+)[0-9a-f]{16,32}\.tmp`)

func (c *hookCall) value(name string) string {
	if hookDifferences[name] != "" {
		return "(differs)"
	}
	if strings.HasPrefix(c.env[name], "SESS_ID_AT_") {
		return "(a token)"
	}
	return temporary.ReplaceAllString(c.env[name], "${1}NUMBER.tmp")
}

func (c *hookCall) arguments() []string {
	list := slices.Clone(c.argv)
	for i := range list {
		list[i] = temporary.ReplaceAllString(list[i], "${1}NUMBER.tmp")
	}
	return list
}

// One configuration under openvpn and under ours, with the same stock client: scripts are called in the same order, with
// the same arguments and the same variables.
func TestE2EHooksAsReference(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"via-file", "via-env", "via-env and tokens"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f := newField(t, "alice")
			serverWrap, clientWrap := f.wraps("tls-crypt-v2")
			calls := make(map[string][]*hookCall)
			for _, who := range []string{"reference", "postern"} {
				calls[who] = f.hookRun(who, how, serverWrap, clientWrap)
			}
			want, got := inOrder(calls["reference"]), inOrder(calls["postern"])
			for i := range max(len(want), len(got)) {
				switch {
				case i >= len(want):
					t.Errorf("call %d, %v: openvpn makes none", i, got[i])
				case i >= len(got):
					t.Errorf("call %d, %v: we make none", i, want[i])
				case want[i].kind != got[i].kind || !slices.Equal(want[i].arguments(), got[i].arguments()):
					t.Errorf("call %d: openvpn %v, we %v", i, want[i], got[i])
				default:
					compareEnv(t, i, want[i], got[i])
				}
			}
			if len(want) < 15 {
				t.Errorf("openvpn called %d times: the test looks at the wrong place", len(want))
			}
		})
	}
}

// inOrder sorts the addresses that a client loses: openvpn has them in a table without order.
func inOrder(calls []*hookCall) []*hookCall {
	lost := func(c *hookCall) bool { return c.kind == "learn-address" && c.argv[0] == "delete" }
	from := max(slices.IndexFunc(calls, lost), 0)
	to := from
	for to < len(calls) && lost(calls[to]) {
		to++
	}
	slices.SortFunc(calls[from:to], func(a, b *hookCall) int { return strings.Compare(a.argv[1], b.argv[1]) })
	return calls
}

func compareEnv(t *testing.T, i int, want, got *hookCall) {
	t.Helper()
	names := make(map[string]bool)
	for _, c := range []*hookCall{want, got} {
		for name := range c.env {
			names[name] = true
		}
	}
	for name := range names {
		_, theirs := want.env[name]
		_, ours := got.env[name]
		if theirs != ours || want.value(name) != got.value(name) {
			t.Errorf("call %d, %s: %s: openvpn %q (%v), we %q (%v)", i, want.kind, name, want.value(name), theirs, got.value(name), ours)
		}
	}
}

// hookRun has a server run with a recording script at every hook while a client comes and goes, and returns what was
// called.
func (f *field) hookRun(who, how string, serverWrap, clientWrap []string) []*hookCall {
	f.t.Helper()
	ccd := filepath.Join(f.Dir, "ccd")
	f.must(os.MkdirAll(ccd, 0o755))
	f.must(os.WriteFile(filepath.Join(ccd, "alice"), []byte("iroute 192.168.50.0 255.255.255.0\niroute-ipv6 fd00:50::/64\n"), 0o644))
	tmp := filepath.Join(f.Dir, "tmp")
	f.must(os.MkdirAll(tmp, 0o755))
	script, dir := f.recorder("calls-"+who, `test "$script_type" != client-connect || echo 'push "route 10.77.0.0 255.255.0.0"' >$1`)
	lines := []string{
		"dev tun7", "proto udp", "topology subnet", "server 10.83.0.0 255.255.255.0", "server-ipv6 fd00:83::/64",
		"route 192.168.50.0 255.255.255.0", "route 192.168.51.0 255.255.255.0 10.83.0.9 7", "route-ipv6 fd00:50::/64",
		"ca " + f.pki + "/ca.crt", "cert " + f.pki + "/issued/gateway.crt", "key " + f.pki + "/private/gateway.key", "dh none",
		"keepalive 10 60", "verb 4", "client-config-dir " + ccd, "tmp-dir " + tmp, "tls-export-cert " + tmp,
		"setenv COLOUR blue", "setenv-safe SHAPE 'round and green'",
		"setenv opt control-socket " + filepath.Join(f.Dir, "control.sock"), "setenv opt login-must-match-cert no",
		"script-security 3", "auth-user-pass-verify \"" + script + " 'one argument'\" " + strings.Fields(how)[0],
	}
	if how == "via-file" {
		lines = append(lines, "proto udp4", fmt.Sprintf("local %v", f.Host("router").Wan4))
	}
	if strings.HasSuffix(how, "tokens") {
		lines = append(lines, "auth-gen-token 3600 120 external-auth", "reneg-sec 3")
	}
	for _, hook := range []string{"up", "down", "route-up", "route-pre-down", "tls-verify", "tls-crypt-v2-verify", "client-connect", "client-disconnect", "learn-address"} {
		lines = append(lines, hook+" "+script)
	}
	conf := f.write("hooks.conf", append(lines, serverWrap...)...)
	program, serves := []string{"openvpn", "--config", conf}, completed
	if who == "postern" {
		program, serves = []string{programs.postern, "serve", "--config", conf}, " serving "
	}
	srv, err := f.Host("router").Start(who+".log", program...)
	f.must(err)
	f.must(srv.Expect(serves, 1, 20*time.Second))
	v := f.connect("alice", append(clientWrap, fmt.Sprintf("remote %v 1194 udp", f.Host("router").Wan4), "explicit-exit-notify 1",
		"setenv UV_OFFICE north", "push-peer-info", f.credentials("login", "Bob", "wonder ful"))...)
	if !strings.Contains(v.Output(), "route 10.77.0.0 255.255.0.0") {
		f.t.Errorf("%s: the route of client-connect was not pushed", who)
	}
	if strings.HasSuffix(how, "tokens") {
		f.must(lab.Until(20*time.Second, func() error { // it has renegotiated, and shown its token
			for _, c := range f.recorded(dir) {
				if c.kind == "user-pass-verify" && c.env["session_state"] == "Authenticated" {
					return nil
				}
			}
			return fmt.Errorf("%s: no login with a token", who)
		}))
	}
	v.stop()
	f.must(lab.Until(10*time.Second, func() error {
		for _, c := range f.recorded(dir) {
			if c.kind == "client-disconnect" {
				return nil
			}
		}
		return fmt.Errorf("%s: no client-disconnect", who)
	}))
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
	left, err := filepath.Glob(filepath.Join(tmp, "openvpn_*"))
	f.must(err)
	if who == "postern" && len(left) > 0 {
		f.t.Errorf("files are left: %v", left)
	}
	for _, name := range left {
		os.Remove(name)
	}
	return f.recorded(dir)
}

// A script that sleeps for ten seconds, one that never ends, one that fails and one that writes rubbish: each is its own
// client's trouble, and another's pings, a hundred a second, lose nothing (S090).
func TestE2EHooksHang(t *testing.T) {
	f := newField(t, "alice", "sleeper", "endless", "loser", "rubbish", "stuck")
	script, dir := f.recorder("calls", `case $script_type-$common_name in
		client-connect-sleeper) exec /usr/bin/sleep 10;;
		client-connect-endless) /usr/bin/sleep 86461 & while :; do wait; done;;
		client-connect-loser) exit 1;;
		client-connect-rubbish) /usr/bin/head -c 200000 /dev/urandom >$1; /usr/bin/head -c 2000000 /dev/urandom;;
		client-disconnect-stuck) exec /usr/bin/sleep 86461;;
		learn-address-rubbish) exec /usr/bin/head -c 100000 /dev/urandom;;
	esac`)
	srv := f.serve("script-security 2", "client-connect "+script, "client-disconnect "+script, "learn-address "+script, "tls-verify "+script)
	alice := f.connect("alice")
	alice.ping(lab.Lan4, 5, 56)
	type result struct {
		lab.Pings
		err error
	}
	pings := make(chan result, 1)
	go func() {
		p, err := alice.host.Ping(f.ctx, lab.Lan4, 3800, 56, 10*time.Millisecond)
		pings <- result{p, err}
	}()
	began := time.Now()
	sleeper, endless, loser, rubbish, stuck := f.dial("sleeper"), f.dial("endless"), f.dial("loser"), f.dial("rubbish"), f.dial("stuck")
	f.must(loser.Expect("AUTH_FAILED", 1, 20*time.Second))
	if out := loser.Output(); strings.Contains(out, "AUTH_FAILED,") || strings.Contains(out, completed) {
		t.Errorf("the loser heard more than AUTH_FAILED, or came in:\n%s", grep(out, "AUTH"))
	}
	rubbish.up(1)
	stuck.up(1)
	stuck.stop()
	sleeper.up(1)
	if took := time.Since(began); took < 10*time.Second {
		t.Errorf("the sleeper was in after %v, before its script had ended", took)
	}
	sleeper.ping(lab.Lan4, 5, 56)
	rubbish.ping(lab.Lan4, 5, 56)
	f.must(endless.Expect("AUTH_FAILED,TEMP", 1, 45*time.Second))
	f.must(srv.Expect("killed, it took longer than 30s", 1, 10*time.Second))
	endless.Kill()
	r := <-pings
	f.must(r.err)
	t.Logf("%d of %d pings lost, p99 %v", r.Lost(), r.Sent, percentile(r.RTTs, 99))
	if r.Lost() > 0 {
		t.Errorf("%d of %d pings lost: %v", r.Lost(), r.Sent, r.Missing)
	}
	if n := strings.Count(srv.Output(), "client-connect:"); n == 0 || len(srv.Output()) > 1_000_000 {
		t.Errorf("%d lines about rubbish in a log of %d bytes, want some, and no more than bounds allow", n, len(srv.Output()))
	}
	// Scripts that hang do not keep the server from its end either (F02).
	stopping := time.Now()
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
	if took := time.Since(stopping); took > 5*time.Second {
		t.Errorf("the server took %v to end, want 5 s at most", took)
	}
	for _, c := range f.recorded(dir) {
		if c.kind == "client-disconnect" && c.env["common_name"] == "loser" {
			t.Error("client-disconnect ran for a client that client-connect had refused")
		}
	}
	if out, err := f.Host("router").Run(f.ctx, "pgrep", "-fc", "sleep 86461"); err == nil {
		t.Errorf("processes of scripts are left: %s", out)
	}
}

// With `user nobody` scripts of clients run as nobody, those of the device as root. One that nobody may not run keeps the
// server from starting, and says so, where openvpn would keep every client out.
func TestE2EHooksWithoutPrivileges(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	for _, dir := range []string{filepath.Dir(f.Dir), f.Dir} {
		f.must(os.Chmod(dir, 0o755))
	}
	dir := filepath.Join(f.Dir, "who")
	f.must(os.MkdirAll(dir, 0o777))
	f.must(os.Chmod(dir, 0o777))
	script := filepath.Join(f.Dir, "who.sh")
	f.must(os.WriteFile(script, []byte("#!/bin/sh\n/usr/bin/id -un >"+dir+"/$script_type\n"), 0o755))
	conf := []string{"script-security 2", "user nobody", "up " + script, "route-up " + script, "client-connect " + script, "client-disconnect " + script, "down " + script}
	srv := f.serve(conf...)
	v := f.connect("alice")
	v.ping(lab.Lan4, 3, 56)
	v.stop()
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
	for hook, want := range map[string]string{"up": "root", "route-up": "root", "client-connect": "nobody", "client-disconnect": "nobody", "down": "nobody"} {
		b, err := os.ReadFile(filepath.Join(dir, hook))
		if got := strings.TrimSpace(string(b)); err != nil || got != want {
			t.Errorf("%s ran as %q, %v, want %s", hook, got, err, want)
		}
	}
	f.must(os.Chmod(script, 0o700))
	p, err := f.Host("router").Start("again.log", programs.postern, "serve", "--config", f.serverConf(conf...))
	f.must(err)
	if err := ended(p.Wait(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if out := p.Output(); !strings.Contains(out, "without privileges (user nobody") || !strings.Contains(out, script+": not executable") || strings.Contains(out, " serving ") {
		t.Errorf("it does not say that nobody may not run the script:\n%s", out)
	}
}
