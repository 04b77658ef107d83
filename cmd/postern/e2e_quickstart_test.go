package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// What make run does: quickstart makes everything, the printed login and profile connect within 10 s and reach a host
// behind the server with all traffic through the tunnel. Run again it changes nothing and serves.
func TestE2EQuickstart(t *testing.T) {
	f := newField(t)
	f.addHost("laptop")
	dir := filepath.Join(f.Dir, "quickstart")
	run := func() *lab.Process {
		p, err := f.Host("router").Start("server.log", programs.postern, "quickstart", "--dir", dir, "--endpoint", f.Host("router").Wan4.String(), "--users", "alice", "--dns", lab.Lan4)
		f.must(err)
		f.must(p.Expect(" serving ", 1, 30*time.Second))
		return p
	}
	srv := run()
	login := regexp.MustCompile(`(?m)alice\s+password\s+(\S+)|password[^\n]*?alice[^\n]*?(\S+)$`).FindStringSubmatch(srv.Output())
	profile := regexp.MustCompile(`\S+alice\.ovpn`).FindString(srv.Output())
	if login == nil || profile == "" {
		t.Fatalf("no login or profile in what quickstart printed:\n%s", srv.Output())
	}
	password := login[1] + login[2]
	start := time.Now()
	v := f.dialProfile("laptop", profile, "--auth-user-pass", f.write("login", "alice", password))
	f.must(v.Expect(completed, 1, 10*time.Second))
	t.Logf("connected after %v", time.Since(start).Round(time.Millisecond))
	v.ping(lab.Lan4, 3, 56)
	v.ping(lab.Lan6, 3, 56)
	v.move(10_000_000)
	for _, bad := range []string{"WARNING: No server certificate verification", "Options error", "DEPRECATED"} {
		if strings.Contains(v.Output(), bad) {
			t.Errorf("the client says %q:\n%s", bad, grep(v.Output(), bad))
		}
	}
	v.stop()
	before := snapshotTree(t, dir)
	f.must(srv.Signal(syscall.SIGINT))
	f.must(srv.Wait(10 * time.Second))
	srv = run()
	if strings.Contains(srv.Output(), password) {
		t.Error("the second run prints the password again")
	}
	for name, was := range snapshotTree(t, dir) {
		if is, known := before[name]; !known || is != was && !strings.HasSuffix(name, "status.log") && !strings.HasSuffix(name, "ipp.txt") {
			t.Errorf("the second run changed %s", name)
		}
	}
	v = f.dialProfile("laptop", profile, "--auth-user-pass", filepath.Join(f.Dir, "login"))
	f.must(v.Expect(completed, 1, 10*time.Second))
	if out, err := f.Host("router").Run(f.ctx, programs.postern, "status"); err != nil || !strings.Contains(out, "alice") {
		t.Errorf("postern status: %v\n%s", err, out)
	}
}

// snapshotTree returns all files below dir by name.
func snapshotTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
