package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
	"postern/server/audit"
)

// recordsIn reads the whole records of an audit file, which may be about to be made.
func (f *field) recordsIn(path string) (list []audit.Record) {
	f.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			f.t.Fatalf("%v: %s", err, line)
		}
		list = append(list, r)
	}
	return list
}

// awaitRecord waits until a record of an audit file is as wanted.
func (f *field) awaitRecord(path, what string, wanted func(r *audit.Record) bool) (found audit.Record) {
	f.t.Helper()
	f.must(lab.Until(20*time.Second, func() error {
		for _, r := range f.recordsIn(path) {
			if wanted(&r) {
				found = r
				return nil
			}
		}
		return fmt.Errorf("no record of %s", what)
	}))
	return found
}

// S104: a stock client logs in, fails, and is thrown out; the configuration is reloaded, a certificate issued and revoked,
// the file rotated and the server restarted. All of it is in one chain, without a secret, and a change of it is found.
func TestE2ES104Audit(t *testing.T) {
	f := newField(t, "alice", "bob")
	f.postern("pki", "crl", "--dir", f.pki)
	users, path := filepath.Join(f.Dir, "users"), filepath.Join(f.Dir, "audit.log")
	f.posternInput("alice-secret\n", "user", "add", "--file", users, "--audit", path, "alice")
	conf := f.serverConf("verb 11", "auth-users-file "+users, "audit "+path, "crl-verify "+f.pki+"/crl.pem", "cd "+f.Dir, "management m.sock unix")
	srv := f.serveConf(conf)
	v := f.connect("alice", f.credentials("login", "alice", "alice-secret"))
	v.ping(lab.Lan4, 5, 56)
	connect := f.awaitRecord(path, "the client that is in", func(r *audit.Record) bool { return r.Event == "connect" })
	if connect.Name != "alice" || connect.User != "alice" || connect.By != "file" || connect.Addr4.String() != "10.83.0.2" || connect.From.Addr() != f.Host("alice").Wan4 {
		t.Errorf("record %+v", connect)
	}
	guess := f.dial("bob", f.credentials("guess", "bob", "bobs-guess"))
	f.must(guess.Expect("AUTH_FAILED", 1, 30*time.Second))
	refused := f.awaitRecord(path, "the wrong login", func(r *audit.Record) bool { return r.Event == "login" && r.Result == audit.Refused })
	if refused.Name != "bob" || refused.User != "bob" || refused.Reason == "" {
		t.Errorf("record %+v", refused)
	}

	f.must(os.Rename(path, path+".1"))
	c := f.tool("m.sock")
	c.until("type 'help' for more info\r\n")
	c.wants("kill alice", "SUCCESS: common name 'alice' found, 1 client(s) killed")
	killed := f.awaitRecord(path, "the command", func(r *audit.Record) bool { return r.Event == "management" })
	if killed.Command != "kill alice" || !strings.Contains(killed.Peer, "uid=0") || killed.Result != audit.Done {
		t.Errorf("record %+v", killed)
	}
	ended := f.awaitRecord(path, "the client that is out", func(r *audit.Record) bool { return r.Event == "disconnect" })
	if ended.Session != connect.Session || ended.Addr4 != connect.Addr4 || ended.Bytes == nil || ended.Bytes.Received < 400 || !strings.Contains(ended.Reason, "killed") {
		t.Errorf("record %+v", ended)
	}
	v.stop()
	f.must(srv.Signal(syscall.SIGHUP))
	f.awaitRecord(path, "the reload", func(r *audit.Record) bool { return r.Event == "reload" && r.Result == audit.Done })
	f.must(os.WriteFile(conf, []byte(f.read(conf)+"nonsense\n"), 0o600))
	f.must(srv.Signal(syscall.SIGHUP))
	f.awaitRecord(path, "the reload that failed", func(r *audit.Record) bool { return r.Event == "reload" && r.Result == audit.Failed && r.Reason != "" })
	f.must(os.WriteFile(conf, []byte(strings.TrimSuffix(f.read(conf), "nonsense\n")), 0o600))

	f.postern("pki", "client", "--dir", f.pki, "--audit", path, "carol")
	f.postern("pki", "revoke", "--dir", f.pki, "carol", "--audit", path)
	issued := f.awaitRecord(path, "the certificate", func(r *audit.Record) bool { return r.Event == "issue" && r.Name == "carol" })
	revoked := f.awaitRecord(path, "the revocation", func(r *audit.Record) bool { return r.Event == "revoke" && r.Name == "carol" })
	if issued.Serial == "" || issued.Serial != revoked.Serial || !strings.Contains(issued.Peer, "uid=0") {
		t.Errorf("issued %+v, revoked %+v", issued, revoked)
	}
	f.awaitRecord(path, "the list in force", func(r *audit.Record) bool { return r.Event == "revocation list" })

	srv.Kill() // nothing is said
	srv = f.serveConf(conf)
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
	events := make([]string, 0, 8)
	for _, r := range f.recordsIn(path) {
		events = append(events, r.Event)
	}
	if n := len(events); !slices.Equal(events[n-2:], []string{"start", "stop"}) {
		t.Errorf("events %q", events)
	}
	if out := f.postern("audit", "verify", path+".1", path); !strings.Contains(out, "the chain is whole") {
		t.Errorf("verify: %s", out)
	}
	for _, name := range []string{path, path + ".1"} {
		for _, secret := range []string{"alice-secret", "bobs-guess"} {
			if strings.Contains(f.read(name), secret) {
				t.Errorf("%s holds %q", name, secret)
			}
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if log := srv.Output(); strings.Contains(log, "alice-secret") {
		t.Error("the log holds a password")
	}
	f.must(os.WriteFile(path+".1", []byte(strings.Replace(f.read(path+".1"), `"user":"bob"`, `"user":"eve"`, 1)), 0o640))
	out, err := exec.Command(programs.postern, "audit", "verify", path+".1", path).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("line ")) || !bytes.Contains(out, []byte("was changed")) {
		t.Errorf("verify of a forgery: %v, %s", err, out)
	}
}

// F10: the disk with the audit file is full. Who is in stays in and has traffic, newcomers are put off, and get in by
// themselves when there is room again; no record is lost.
func TestE2EF10AuditDiskFull(t *testing.T) {
	f := newField(t, "alice", "bob")
	disk := filepath.Join(f.Dir, "disk")
	f.must(os.Mkdir(disk, 0o755))
	f.must(syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { f.must(syscall.Unmount(disk, syscall.MNT_DETACH)) })
	path := filepath.Join(disk, "audit.log")
	srv := f.serve("audit " + path)
	alice := f.connect("alice")

	ballast := filepath.Join(disk, "ballast")
	b, err := os.Create(ballast)
	f.must(err)
	for page := make([]byte, 4096); err == nil; {
		_, err = b.Write(page)
	}
	b.Close()
	// The page that the file is in has room still.
	for n := 1; !strings.Contains(srv.Output(), "alarm=audit"); n++ {
		if n > 100 {
			t.Fatal("no alarm")
		}
		f.must(srv.Signal(syscall.SIGHUP))
		f.must(srv.Expect(" reloaded", n, 10*time.Second))
	}
	bob := f.dial("bob")
	f.must(bob.Expect("AUTH_FAILED,TEMP", 1, 30*time.Second))
	alice.ping(lab.Lan4, 5, 56)
	f.must(os.Remove(ballast))
	bob.up(1)
	bob.ping(lab.Lan4, 5, 56)
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
	if out := f.postern("audit", "verify", path); !strings.Contains(out, "the chain is whole") {
		t.Errorf("verify: %s", out)
	}
	if all := f.recordsIn(path); all[0].Event != "start" || all[len(all)-1].Event != "stop" {
		t.Errorf("%d records, %s to %s", len(all), all[0].Event, all[len(all)-1].Event)
	}
}
