package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// As installers set servers up: the key is root's alone, and the server becomes nobody. A reload brings what it can read,
// says what it cannot, and the key stays in use.
func TestE2EReloadWithoutPrivileges(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	f.postern("pki", "crl", "--dir", f.pki)
	dir := f.family("angristan")
	conf := filepath.Join(dir, "server.conf")
	f.must(os.Chmod(conf, 0o644))
	srv := f.contend("postern", dir)
	tls := []string{"proto udp", "tls-crypt " + filepath.Join(dir, "tls-crypt.key"), "auth SHA256", "cipher AES-128-GCM", "reneg-sec 8"}
	v := f.connect("alice", append(tls, "remote "+f.Host("router").Wan4.String()+" 1194")...)
	f.must(os.WriteFile(conf, []byte(strings.Replace(f.read(conf), "verb 3", "verb 4\npush \"route 192.168.70.0 255.255.255.0\"", 1)), 0o644))
	f.must(srv.Signal(syscall.SIGHUP))
	f.must(srv.Expect(" reloaded", 1, 10*time.Second))
	f.must(srv.Expect("cannot be read again without privileges", 1, time.Second))
	if !strings.Contains(srv.Output(), filepath.Join(dir, "server.key")) {
		t.Error("the log does not name the key")
	}
	f.must(v.Expect("VERIFY OK: depth=0, CN=gateway", 2, 30*time.Second)) // keys change, with the key that stayed
	v.stop()
	v = f.connect("alice", append(tls, "remote "+f.Host("router").Wan4.String()+" 1194")...)
	if got := v.pushed(); !slices.Contains(got, "route 192.168.70.0 255.255.255.0") {
		t.Errorf("after the reload %q is pushed", got)
	}
	v.ping("10.8.0.1", 3, 56)
}
