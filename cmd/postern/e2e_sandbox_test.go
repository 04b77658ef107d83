package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// deniedCalls lists the system calls that the shipped unit refuses, of those that systemd knows.
func (f *field) deniedCalls() (denied []string) {
	f.t.Helper()
	out, err := exec.Command("systemd-analyze", "syscall-filter", "--no-pager").Output()
	f.must(err)
	sets, name := make(map[string][]string), ""
	for line := range strings.Lines(string(out)) {
		word := strings.TrimSpace(line)
		switch {
		case word == "" || strings.HasPrefix(word, "#"):
		case !strings.HasPrefix(line, " "):
			name = word
		default:
			sets[name] = append(sets[name], word)
		}
	}
	calls := make(map[string]bool) // whether it is allowed
	var mark func(set string, allowed bool)
	mark = func(set string, allowed bool) {
		if !strings.HasPrefix(set, "@") {
			calls[set] = allowed
			return
		}
		if len(sets[set]) == 0 {
			f.t.Fatalf("systemd-analyze knows no calls of %s", set)
		}
		for _, word := range sets[set] {
			mark(word, allowed)
		}
	}
	for set := range sets {
		if set != "@known" || len(sets[set]) > 0 {
			mark(set, false)
		}
	}
	lines := regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(f.read("../../deploy/postern@.service"), -1)
	if len(lines) < 2 {
		f.t.Fatal("the unit filters no system calls")
	}
	for _, line := range lines {
		for word := range strings.FieldsSeq(line[2]) {
			mark(word, line[1] == "")
		}
	}
	mark("@default", true) // systemd always allows these
	for call, allowed := range calls {
		if !allowed {
			denied = append(denied, call)
		}
	}
	slices.Sort(denied)
	return denied
}

// S107: what the shipped unit refuses the server, which is to mount, trace, load modules, change keys of the kernel and the
// like, it does without: every such call fails here as it does there, while it does everything that a server does.
func TestE2ES107SystemCalls(t *testing.T) {
	f := newField(t, "alice")
	f.postern("pki", "crl", "--dir", f.pki)
	users, trace := filepath.Join(f.Dir, "users"), filepath.Join(f.Dir, "trace")
	f.posternInput("alice-secret\n", "user", "add", "--file", users, "alice")
	conf := f.serverConf("auth-users-file "+users, "audit "+f.Dir+"/audit.log", "status "+f.Dir+"/status.log 1", "cd "+f.Dir, "reneg-sec 5",
		"ifconfig-pool-persist "+f.Dir+"/pool", "management m.sock unix", "crl-verify "+f.pki+"/crl.pem", "script-security 2",
		"client-connect /bin/true", "dns-forward 127.0.0.1")
	denied := f.deniedCalls()
	for _, call := range []string{"mount", "umount2", "pivot_root", "chroot", "ptrace", "process_vm_writev", "bpf", "perf_event_open", "keyctl", "add_key", "request_key",
		"init_module", "finit_module", "delete_module", "kexec_load", "reboot", "swapon", "settimeofday", "open_by_handle_at", "iopl", "setuid", "acct"} {
		if !slices.Contains(denied, call) {
			t.Errorf("the unit allows %s", call)
		}
	}
	list := "?" + strings.Join(denied, ",?") // strace may know fewer
	// strace is the server's grandchild: signals go to the server.
	srv, err := f.Host("router").Start("server.log", "strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-o", trace, "-e", "trace="+list,
		"-e", "inject="+list+":error=EPERM", programs.postern, "serve", "--config", conf)
	f.must(err)
	f.must(srv.Expect(" serving ", 1, 30*time.Second))
	v := f.connect("alice", f.credentials("login", "alice", "alice-secret"))
	v.ping(lab.Lan4, 5, 56)
	v.ping(lab.Lan6, 5, 56)
	v.move(1_000_000)
	f.must(v.Expect("VERIFY OK: depth=0, CN=gateway", 2, 30*time.Second))
	f.postern("status", "--socket", filepath.Join(f.Dir, "control.sock"))
	f.must(srv.Signal(syscall.SIGHUP))
	f.must(srv.Expect(" reloaded", 1, 10*time.Second))
	f.postern("pki", "revoke", "--dir", f.pki, "alice")
	f.must(v.Expect("AUTH_FAILED,certificate revoked", 1, 20*time.Second))
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
	for _, alarm := range []string{"operation not permitted", "alarm="} {
		if strings.Contains(srv.Output(), alarm) {
			t.Errorf("the server says %q", alarm)
		}
	}
	for line := range strings.Lines(f.read(trace)) {
		t.Logf("refused: %s", strings.TrimSpace(line))
	}
}
