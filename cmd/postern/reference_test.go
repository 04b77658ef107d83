package main

import (
	"fmt"
	"os"
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

// The reference tests run one configuration under openvpn and under bin/postern, in the same network and with the same
// stock client, and compare what it received and what is told about it.

// contenders are the programs that are compared, by name: openvpn, and ours by the same name.
var contenders = []string{"reference", "postern"}

// family makes a directory with what testdata/families/NAME.conf names, as readable as /etc/openvpn is, and returns it.
func (f *field) family(name string) string {
	f.t.Helper()
	f.must(os.Chmod(filepath.Dir(f.Dir), 0o755)) // `user nobody` reads the revocation list
	f.must(os.Chmod(f.Dir, 0o755))
	dir := filepath.Join(f.Dir, name)
	f.must(os.MkdirAll(filepath.Join(dir, "ccd"), 0o755))
	f.must(os.MkdirAll(filepath.Join(dir, "csc"), 0o755))
	f.must(os.MkdirAll(filepath.Join(dir, "ca"), 0o755))
	copyOf := map[string]string{"ca.crt": f.pki + "/ca.crt", "server.crt": f.pki + "/issued/gateway.crt", "server.key": f.pki + "/private/gateway.key",
		"crl.pem": f.pki + "/crl.pem"}
	for to, from := range copyOf {
		mode := os.FileMode(0o644)
		if strings.HasSuffix(to, ".key") {
			mode = 0o600
		}
		f.must(os.WriteFile(filepath.Join(dir, to), []byte(f.read(from)), mode))
	}
	for _, key := range []string{"ta.key", "tls-crypt.key"} {
		f.postern("openvpn", "--genkey", "secret", filepath.Join(dir, key))
	}
	run := func(name string, args ...string) []byte {
		out, err := exec.Command(name, args...).Output()
		f.must(err)
		return out
	}
	f.must(os.WriteFile(filepath.Join(dir, "dh2048.pem"), run("openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048"), 0o644))
	hash := strings.TrimSpace(string(run("openssl", "x509", "-noout", "-subject_hash", "-in", filepath.Join(dir, "ca.crt"))))
	f.must(os.WriteFile(filepath.Join(dir, "ca", hash+".0"), []byte(f.read(filepath.Join(dir, "ca.crt"))), 0o644))
	f.must(os.WriteFile(filepath.Join(dir, "ca", hash+".r0"), []byte(f.read(filepath.Join(dir, "crl.pem"))), 0o644))
	conf := f.read(filepath.Join("testdata", "families", name+".conf"))
	for _, file := range []string{"ca.crt", "server.crt", "server.key", "ta.key"} {
		conf = strings.ReplaceAll(conf, "@"+file+"@", strings.TrimSpace(f.read(filepath.Join(dir, file))))
	}
	f.must(os.WriteFile(filepath.Join(dir, "server.conf"), []byte(conf), 0o600))
	f.must(os.WriteFile(filepath.Join(dir, "login"), []byte("alice\nsecret\n"), 0o600))
	return dir
}

// contend starts a contender on the router, in a directory with its server.conf, and waits until it serves.
func (f *field) contend(who, dir string, args ...string) *lab.Process {
	f.t.Helper()
	program := "/usr/sbin/openvpn"
	if who != "reference" {
		program = filepath.Join(f.Dir, "sbin", "openvpn")
		if _, err := os.Lstat(program); err != nil {
			f.openvpnLink()
		}
	}
	notify := filepath.Join(dir, who+".notify")
	f.must(os.RemoveAll(notify))
	systemd := f.hear(notify)
	command := append([]string{"env", "-C", dir, "NOTIFY_SOCKET=" + systemd.path, program, "--config", "server.conf"}, args...)
	p, err := f.Host("router").Start(who+"-"+filepath.Base(dir)+".log", command...)
	f.must(err)
	f.must(lab.Until(20*time.Second, func() error {
		select {
		case <-p.Done():
			return lab.Hopeless(fmt.Errorf("%s ended:\n%s", who, p.Output()))
		default:
		}
		if !strings.Contains(systemd.text(), "READY=1") {
			return fmt.Errorf("%s does not serve:\n%s", who, p.Output())
		}
		return nil
	}))
	return p
}

// A finding is what one contender did, without what differs from run to run.
type finding struct {
	push          []string
	address       string
	routes        []string
	status        map[string]string // by where it was asked for: file, 1, 2, 3
	pool          string            // ifconfig-pool-persist
	clientsKilled string            // what the management interface says to kill
}

// pushed is the last list of options that a client received.
func (v *vpn) pushed() []string {
	v.f.t.Helper()
	all := regexp.MustCompile(`Received control message: 'PUSH_REPLY,([^']*)'`).FindAllStringSubmatch(v.Output(), -1)
	if len(all) == 0 {
		v.f.t.Fatal("the client's log has no PUSH_REPLY")
	}
	return strings.Split(all[len(all)-1][1], ",")
}

// onDevice is what ip says of the client's tun device, without what the kernel adds.
func (v *vpn) onDevice(args ...string) []string {
	v.f.t.Helper()
	out, err := v.host.Run(v.f.ctx, append([]string{"ip"}, args...)...)
	v.f.must(err)
	var lines []string
	for line := range strings.Lines(out) {
		line = regexp.MustCompile(`^\d+: `).ReplaceAllString(strings.Join(strings.Fields(line), " "), "")
		if line != "" && !strings.Contains(line, "fe80::") && !strings.HasPrefix(line, "multicast") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// statusShape is a status report without what differs from run to run; rows of one kind in the order of the alphabet,
// since openvpn has none.
func statusShape(text string) string {
	for _, r := range []struct{ is, as string }{
		{`\r`, ``},
		{`TITLE([,\t])OpenVPN 2\.6\.14 .*`, `TITLE${1}OpenVPN 2.6.14 PROGRAM`},
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`, `TIME`},
		{`TIME([,\t])\d{9,}`, `TIME${1}SECONDS`},
		{`(\d+\.\d+\.\d+\.\d+):\d+`, `$1:PORT`},
		{`(queue length[,\t])\d+`, `${1}N`},
		{`(?m)^(CLIENT_LIST[,\t].*[,\t])\d+([,\t])\d+([,\t]TIME)`, `${1}BYTES${2}BYTES$3`},
		{`(?m)^([^,\n]+,[^,\n]+,)\d+,\d+(,TIME)$`, `${1}BYTES,BYTES$2`},
		{`(?m)([,\t]SECONDS[,\t][^,\t]*[,\t])\d+([,\t])\d+([,\t])`, `${1}ID${2}ID$3`},
	} {
		text = regexp.MustCompile(r.is).ReplaceAllString(text, r.as)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for from := 0; from < len(lines); {
		to := from + 1
		for kind := rowKind(lines[from]); to < len(lines) && kind != "" && rowKind(lines[to]) == kind; to++ {
		}
		slices.Sort(lines[from:to])
		from = to
	}
	return strings.Join(lines, "\n")
}

// rowKind tells rows that may be sorted from others.
func rowKind(line string) string {
	for _, kind := range []string{"CLIENT_LIST", "ROUTING_TABLE"} {
		if strings.HasPrefix(line, kind) {
			return kind
		}
	}
	if strings.HasSuffix(line, ",TIME") && strings.Count(line, ",") == 3 {
		return "route of version 1"
	}
	return ""
}

// tellsInTime waits until a status report names a client's routes, as both servers may take a moment to.
func (f *field) tellsInTime(what string, read func() string, want string) string {
	f.t.Helper()
	var got string
	f.must(lab.Until(20*time.Second, func() error {
		if got = read(); !strings.Contains(got, want) {
			return fmt.Errorf("%s does not name %s:\n%s", what, want, got)
		}
		return nil
	}))
	return got
}

// families are the fixtures, with what their clients need, and what differs on purpose. docs/compatibility.md says why.
var families = []struct {
	name    string
	client  []string
	ccd     string   // of alice, in ccd or csc
	socket  string   // of management
	status  string   // the status file
	differs []string // pushed options that only one of both sends
}{
	{name: "debian", client: []string{"udp", "tls-auth ta.key 1"}, status: "openvpn-status.log"},
	{name: "easy-rsa-howto", client: []string{"udp"}, status: "openvpn-status.log",
		ccd: "ifconfig-push 10.8.0.77 255.255.255.0\niroute 192.168.40.128 255.255.255.248\npush \"route 10.67.0.0 255.255.0.0\"\n"},
	{name: "angristan", client: []string{"udp", "tls-crypt tls-crypt.key", "auth SHA256", "cipher AES-128-GCM", "ignore-unknown-option block-outside-dns", "setenv opt block-outside-dns"},
		socket: "server.sock", status: "openvpn-status.log"},
	{name: "nyr", client: []string{"udp", "tls-crypt tls-crypt.key", "auth SHA512", "ignore-unknown-option block-outside-dns"},
		differs: []string{"block-outside-dns"}},
	{name: "kylemanna", client: []string{"tcp-client", "tls-auth ta.key 1", "auth SHA384", "comp-lzo no"}, status: "openvpn-status.log",
		differs: []string{"block-outside-dns", "comp-lzo no", "compress stub-v2"}},
	{name: "pfsense", client: []string{"udp4", "tls-crypt tls-crypt.key", "auth SHA256"}, socket: "sock",
		ccd: "push-reset\npush \"route 192.168.3.0 255.255.255.0\"\niroute 192.168.99.0 255.255.255.0\n"},
	{name: "pfsense-users", client: []string{"tcp4-client", "tls-auth ta.key 1", "auth SHA256", "auth-user-pass login", "compress"}, socket: "sock",
		ccd: "push \"route 192.168.5.0 255.255.255.0\"\n", differs: []string{"redirect-gateway def1", "redirect-gateway def1 ipv6", "block-ipv6", "compress stub-v2"}},
	{name: "site-to-site", client: []string{"udp", "comp-lzo"}, status: "openvpn-status.log",
		ccd: "ifconfig-push 10.7.0.77 10.7.0.78\niroute 192.168.66.0 255.255.255.0\n", differs: []string{"compress stub-v2"}},
	{name: "opnsense", client: []string{"udp", "tls-auth ta.key 1", "auth SHA512"}, socket: "instance.sock", status: "status.log",
		ccd: "push \"route 192.168.4.0 255.255.255.0\"\n", differs: []string{"block-outside-dns"}},
	{name: "access-server", client: []string{"tcp-client", "tls-auth ta.key 1", "comp-lzo no"}, socket: "as.sock", status: "as.log",
		differs: []string{"comp-lzo no", "compress stub-v2"}},
}

// Acceptance by what people have: each family's configuration, unchanged, under openvpn 2.6 and under ours.
func TestE2EFamilies(t *testing.T) {
	t.Parallel()
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			t.Parallel()
			f := newField(t, "alice")
			f.postern("pki", "crl", "--dir", f.pki)
			dir := f.family(fam.name)
			if fam.ccd != "" {
				for _, sub := range []string{"ccd", "csc"} {
					f.must(os.WriteFile(filepath.Join(dir, sub, "alice"), []byte(fam.ccd), 0o644))
				}
			}
			found := make(map[string]*finding)
			for _, who := range contenders {
				var args []string
				if fam.status != "" {
					args = []string{"--status", fam.status, "1"} // nobody wants to wait a minute
				}
				srv := f.contend(who, dir, args...)
				more := []string{"proto " + fam.client[0], fmt.Sprintf("remote %v 1194", f.Host("router").Wan4), "cd " + dir}
				v := f.connect("alice", append(more, fam.client[1:]...)...)
				n := &finding{push: v.pushed(), routes: append(v.onDevice("route", "show", "dev", "tun0"), v.onDevice("-6", "route", "show", "dev", "tun0")...),
					status: make(map[string]string)}
				n.address = strings.Join(append(v.onDevice("-o", "-4", "addr", "show", "dev", "tun0"), v.onDevice("-o", "-6", "addr", "show", "dev", "tun0")...), "\n")
				if fam.status != "" {
					n.status["file"] = statusShape(f.tellsInTime("the status file", func() string { return f.read(filepath.Join(dir, fam.status)) }, "alice"))
				}
				if fam.socket != "" {
					c := f.tool(filepath.Join(fam.name, fam.socket))
					c.until("type 'help' for more info\r\n")
					for _, version := range []string{"1", "2", "3"} {
						n.status[version] = statusShape(f.tellsInTime("status "+version, func() string { return c.ask("status "+version, "END\r\n") }, "alice"))
					}
					n.clientsKilled = c.ask("kill nobody", "\r\n") + c.ask("kill alice", "\r\n")
				}
				v.stop()
				f.must(srv.Signal(syscall.SIGTERM))
				f.must(srv.Wait(10 * time.Second))
				if b, err := os.ReadFile(filepath.Join(dir, "ipp.txt")); err == nil {
					n.pool = string(b)
					f.must(os.Remove(filepath.Join(dir, "ipp.txt")))
				}
				found[who] = n
			}
			compareFindings(t, found["reference"], found["postern"], fam.differs)
		})
	}
}

// compareFindings tells of what differs and may not.
func compareFindings(t *testing.T, reference, ours *finding, differs []string) {
	t.Helper()
	perSession := regexp.MustCompile(`^peer-id \d+$`)
	known := make(map[string]bool)
	for _, d := range differs {
		known[d] = true
		if slices.Contains(reference.push, d) == slices.Contains(ours.push, d) {
			t.Errorf("%q is no difference any more", d)
		}
	}
	list := func(all []string) (some []string) {
		for _, o := range all {
			if !perSession.MatchString(o) && !known[o] {
				some = append(some, o)
			}
		}
		return some
	}
	if a, b := list(reference.push), list(ours.push); !slices.Equal(a, b) {
		t.Errorf("pushed by openvpn and by us:\n%q\n%q", a, b)
	}
	if reference.address != ours.address {
		t.Errorf("addresses, openvpn's and ours:\n%s\n%s", reference.address, ours.address)
	}
	if known["block-ipv6"] { // what IPv6 there is goes into the tunnel, to end there
		ours.routes = slices.DeleteFunc(ours.routes, func(r string) bool { return strings.Contains(r, ":") })
	}
	if !slices.Equal(reference.routes, ours.routes) {
		t.Errorf("routes, openvpn's and ours:\n%s\n\n%s", strings.Join(reference.routes, "\n"), strings.Join(ours.routes, "\n"))
	}
	for where, want := range reference.status {
		if got := ours.status[where]; got != want {
			t.Errorf("status (%s), openvpn's and ours:\n%s\n\n%s", where, want, got)
		}
	}
	if reference.pool != ours.pool {
		t.Errorf("ifconfig-pool-persist, openvpn's and ours:\n%s\n%s", reference.pool, ours.pool)
	}
	if reference.clientsKilled != ours.clientsKilled {
		t.Errorf("kill, openvpn's and ours:\n%s\n%s", reference.clientsKilled, ours.clientsKilled)
	}
}

// There and back again: who moves to us and returns to openvpn keeps everybody's address, newcomers' too (S113).
func TestE2EThereAndBack(t *testing.T) {
	t.Parallel()
	names := []string{"alice", "bob", "carol"}
	f := newField(t, names...)
	dir := f.family("debian")
	held := make(map[string]string)
	for i, who := range []string{"reference", "postern", "reference"} {
		srv := f.contend(who, dir)
		for _, name := range names {
			if name == "carol" && i == 0 {
				continue // she comes while we serve
			}
			v := f.connect(name, "proto udp", fmt.Sprintf("remote %v 1194", f.Host("router").Wan4), "cd "+dir, "tls-auth ta.key 1", "explicit-exit-notify 1")
			pushed := v.pushed()
			at := slices.IndexFunc(pushed, func(o string) bool { return strings.HasPrefix(o, "ifconfig ") })
			switch {
			case at < 0:
				t.Fatalf("%s: no address in %q", name, pushed)
			case held[name] == "":
				held[name] = pushed[at]
			case held[name] != pushed[at]:
				t.Errorf("turn %d, %s: %s has %q, and had %q", i, who, name, pushed[at], held[name])
			}
			v.stop()
		}
		f.must(srv.Signal(syscall.SIGTERM))
		f.must(srv.Wait(10 * time.Second))
	}
	if held["alice"] == held["bob"] || held["bob"] == held["carol"] {
		t.Errorf("addresses are shared: %v", held)
	}
}
