package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// clientDir makes a client-config-dir.
func clientDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoadClient(t *testing.T) {
	dir := clientDir(t, map[string]string{
		"alice": "ifconfig-push 10.9.0.77 255.255.255.0\nifconfig-ipv6-push fd00::77/64 fd00::1\niroute 192.168.7.0 255.255.255.0\niroute-ipv6 fd07::/48\npush \"route 1.2.3.0 255.255.255.0\"\n",
		"bob":   "disable\n", "DEFAULT": "push-reset\n", "common": "push \"echo x\"\n", "eve": "config common\nifconfig-ipv6-push fd00::5\n",
	})
	for _, tt := range []struct {
		cn        string
		exclusive bool
		want      string
		err       error
	}{
		{"alice", true, "alice 10.9.0.77 255.255.255.0 fd00::77/64 fd00::1 [192.168.7.0/24 fd07::/48] [route 1.2.3.0 255.255.255.0] disable=false reset=false", nil},
		{"bob", false, "bob invalid IP invalid IP invalid Prefix invalid IP [] [] disable=true reset=false", nil},
		{"carol", false, "DEFAULT invalid IP invalid IP invalid Prefix invalid IP [] [] disable=false reset=true", nil},
		{"carol", true, "", ErrNoClientFile},
		{"eve", false, "eve invalid IP invalid IP fd00::5/64 invalid IP [] [echo x] disable=false reset=false", nil},
	} {
		c, err := LoadClient(dir, tt.cn, tt.exclusive)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", tt.cn, err, tt.err)
		}
		if err != nil {
			continue
		}
		if len(c.Warnings) > 0 {
			t.Errorf("%s: warnings %q", tt.cn, c.Warnings)
		}
		got := fmt.Sprint(filepath.Base(c.Path), " ", c.IfconfigPush4, " ", c.IfconfigMask, " ", c.IfconfigPush6, " ", c.Gateway6, " ", c.IRoutes, " ", c.Push, " disable=", c.Disable, " reset=", c.PushReset)
		if got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.cn, got, tt.want)
		}
	}
	if c, err := LoadClient(clientDir(t, nil), "carol", false); err != nil || c.Path != "" || len(c.Push) > 0 {
		t.Errorf("in an empty directory: %+v, %v", c, err)
	}
	if _, err := LoadClient(filepath.Join(dir, "none"), "carol", true); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the directory: %v; it is not the client that has no file", err)
	}
}

// S088: client files are opened beneath their directory, by harmless names, and never through a link.
func TestS088ClientFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("push-reset\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := clientDir(t, map[string]string{"DEFAULT": "", "Dave": "", "mallory": "", ".hidden": "", "erin": "config link\nconfig ../outside\nconfig .hidden\nconfig a/b\nconfig fifo\n"})
	for _, link := range []struct{ name, target string }{{"link", outside}, {"inner", "mallory"}} {
		if err := os.Symlink(link.target, filepath.Join(dir, link.name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for cn, want := range map[string]string{
		"../../etc/passwd": "characters other than", "..": "begins with a dot", ".": "begins with a dot", ".hidden": "begins with a dot",
		"DEFAULT": "reserved", "default": "reserved", "": "1 to 64 bytes", strings.Repeat("a", 65): "1 to 64 bytes",
		"a\x00b": "characters other than", "a b": "characters other than", "a\nb": "characters other than", "ä": "characters other than", "a/b": "characters other than",
		"link": "symbolic link", "inner": "symbolic link", "fifo": "symbolic link or no regular file", "sub": "no regular file",
		"dave": `a file "Dave" whose name differs only in case`, "MALLORY": "differs only in case",
	} {
		if c, err := LoadClient(dir, cn, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v; want an error with %q", cn, c, err, want)
		}
	}
	for _, cn := range []string{"alice", "Dave", "alice@example.org", "a.b_c-d+e", strings.Repeat("a", 64)} {
		if _, err := LoadClient(dir, cn, false); err != nil {
			t.Errorf("%q: %v", cn, err)
		}
	}
	c, err := LoadClient(dir, "erin", false)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 5 || c.PushReset {
		t.Errorf("includes that lead out: reset %v, warnings\n%s", c.PushReset, strings.Join(c.Warnings, "\n"))
	}
}

// Both files may exist on a file system that tells them apart; neither client is then let in.
func TestS088NamesThatDifferInCase(t *testing.T) {
	dir := clientDir(t, map[string]string{"Alice": "", "alice": ""})
	for _, cn := range []string{"Alice", "alice", "ALICE"} {
		if _, err := LoadClient(dir, cn, false); err == nil {
			t.Errorf("%s was let in", cn)
		}
	}
}

// Lines that cannot be used are skipped with a warning; the rest of the file counts.
func TestClientWarnings(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"frobnicate", "there is no such directive"},
		{"push route 1.2.3.4", "Unrecognized option or missing or extra parameter(s)"},
		{"push \"a,b\"", "illegal comma"},
		{"push \"open", "No closing quotation"},
		{"push-remove \"\"", "push-reset"},
		{"ifconfig-push 10.9.0.256 255.255.255.0", "not an IPv4 address"},
		{"ifconfig-push 10.9.0.5", "missing or extra parameter"},
		{"ifconfig-push 10.9.0.5 255.255.255.0 gateway", "gateway"},
		{"override-username bob", "not supported yet: the client keeps the name"},
		{"auth-token abc", "clients get tokens by `auth-gen-token`"},
		{"inactive soon", "not a number"},
		{"ifconfig-ipv6-push fd00::5/129", "not an IPv6 network"},
		{"iroute 192.168.1.1 255.255.255.0", "write 192.168.1.0/24"},
		{"iroute fd00:: 255.0.0.0", "not an IPv4 address"},
		{"iroute-ipv6 fd00::1/64", "write fd00::/64"},
		{"route 10.0.0.0 255.0.0.0", `write push "route 10.0.0.0 255.0.0.0"`},
		{"dhcp-option DNS 1.1.1.1", `write push "dhcp-option DNS 1.1.1.1"`},
		{"comp-lzo yes", "nothing is compressed"},
		{"vlan-pvid 7", "not supported in client files"},
		{"cipher AES-256-CBC", "not supported in client files"},
		{"cd /", "not possible in a client file"},
		{"config none", "Error opening configuration file"},
		{"<ca>\n</ca>", "not supported in client files"},
		{"<disable>\n</disable>", "not expected to be inline"},
	} {
		c := parseClient("ccd", "alice", []byte("disable\n"+tt.line+"\npush \"echo x\"\n"), func(string) ([]byte, error) { return nil, fs.ErrNotExist })
		if len(c.Warnings) != 1 || !strings.HasPrefix(c.Warnings[0], "ccd/alice:2: ") || !strings.Contains(c.Warnings[0], tt.want) {
			t.Errorf("%s: warnings %q, want one with %q", tt.line, c.Warnings, tt.want)
		}
		if !c.Disable || !slices.Equal(c.Push, []string{"echo x"}) {
			t.Errorf("%s: the other lines were lost: %+v", tt.line, c)
		}
	}
	quiet := parseClient("ccd", "alice", []byte("# comment\necho hello\nsetenv opt frobnicate\nignore-unknown-option foo\nfoo\ntun-ipv6\n"), nil)
	if len(quiet.Warnings) > 0 {
		t.Errorf("warnings %q", quiet.Warnings)
	}
	many := parseClient("ccd", "alice", []byte(strings.Repeat("iroute 10.0.0.0 255.0.0.0\n", 80)), nil)
	if len(many.IRoutes) != 1 || len(many.Warnings) != 0 {
		t.Errorf("one network 80 times gives %d networks, %q", len(many.IRoutes), many.Warnings)
	}
	var b strings.Builder
	for i := range 70 {
		fmt.Fprintf(&b, "iroute 10.%d.0.0 255.255.0.0\n", i)
	}
	if c := parseClient("ccd", "alice", []byte(b.String()), nil); len(c.IRoutes) != maxIRoutes || len(c.Warnings) != 70-maxIRoutes {
		t.Errorf("S087: %d networks, %d warnings", len(c.IRoutes), len(c.Warnings))
	}
}

func TestClientPushes(t *testing.T) {
	inherited := []string{"route 10.1.0.0 255.255.0.0", "dhcp-option DNS 1.1.1.1", "tun-ipv6", "route-gateway 10.9.0.1", "topology subnet", "route-ipv6 fd01::/48", "route 10.2.3.4"}
	for _, tt := range []struct {
		file string
		want []string
	}{
		{"", inherited},
		{"push \"echo a\"\npush \"echo b\"", append(slices.Clone(inherited), "echo a", "echo b")},
		{"push-reset\npush \"echo a\"", []string{"echo a"}},
		{"push \"echo a\"\npush-reset\npush \"echo b\"", []string{"echo b"}},
		{"push-remove route", []string{"dhcp-option DNS 1.1.1.1", "tun-ipv6", "topology subnet"}},
		{"push-remove \"route \"\npush-remove \"dhcp-option DNS\"", []string{"tun-ipv6", "route-gateway 10.9.0.1", "topology subnet", "route-ipv6 fd01::/48"}},
		{"push \"echo a\"\npush-remove echo\npush \"echo b\"\npush-reset\npush \"echo c\"\npush-remove nothing", []string{"echo c"}},
		{"push-reset\npush \"echo a\"\npush-remove echo\npush \"echo b\"", []string{"echo b"}},
		{"push-remove ifconfig\npush-remove ifconfig-ipv6\npush-reset\npush \"ifconfig x\"", []string{"ifconfig x"}},
		{"iroute 10.1.0.0 255.255.0.0\niroute 10.2.3.4\niroute-ipv6 fd01::/48\npush-remove dhcp-option\npush \"route 10.1.0.0 255.255.0.0 vpn_gateway 5\"", []string{"tun-ipv6", "route-gateway 10.9.0.1", "topology subnet"}},
	} {
		before := slices.Clone(inherited)
		c := parseClient("ccd", "alice", []byte(tt.file), nil)
		if got := c.Pushes(inherited); !slices.Equal(got, tt.want) {
			t.Errorf("%q pushes\n%q, want\n%q", tt.file, got, tt.want)
		}
		if !slices.Equal(inherited, before) {
			t.Fatalf("%q changed everybody's list: %q", tt.file, inherited)
		}
	}
	c := parseClient("ccd", "alice", []byte("push-remove ifconfig\npush-remove x\npush-reset\n"), nil)
	if want := []PushRemove{{"ifconfig", 0}}; !slices.Equal(c.PushRemove, want) {
		t.Errorf("push-reset leaves %v, want %v", c.PushRemove, want)
	}
}

func FuzzClient(f *testing.F) {
	f.Add([]byte("ifconfig-push 10.9.0.77 255.255.255.0\niroute 192.168.7.0 255.255.255.0\npush \"route 1.2.3.0 255.255.255.0\"\npush-remove route\n"))
	f.Add([]byte("push-reset\npush-remove ifconfig\ndisable\nconfig x\n<ca>\n"))
	f.Add([]byte("ifconfig-ipv6-push fd00::5 fd00::1\niroute-ipv6 fd00::/48\nsetenv opt a\n"))
	inherited := []string{"route 10.1.0.0 255.255.0.0", "topology subnet"}
	f.Fuzz(func(t *testing.T, src []byte) {
		c := parseClient("ccd", "fuzz", src, func(string) ([]byte, error) { return src, nil })
		for _, p := range c.Pushes(inherited) {
			if _, err := checkPush(p); err != nil {
				t.Fatalf("%q is pushed: %v", p, err)
			}
		}
	})
}

// A client's own timers go before the configuration's; ping-restart and ping-exit are one, of which the last counts.
func TestClientTimers(t *testing.T) {
	all := &Config{Ping: 10 * time.Second, PingRestart: 2 * time.Minute, Inactive: time.Hour, InactiveBytes: 9, SessionTimeout: time.Hour}
	for _, c := range []struct {
		lines string
		want  Timers
	}{
		{"", Timers{10 * time.Second, 2 * time.Minute, time.Hour, 9, time.Hour}},
		{"ping 5\nping-restart 60\nping-exit 30\ninactive 600\nsession-timeout 0\n", Timers{5 * time.Second, 30 * time.Second, 10 * time.Minute, 0, 0}},
		{"inactive 600 1000\nmax-routes-per-client 3\n", Timers{10 * time.Second, 2 * time.Minute, 10 * time.Minute, 1000, time.Hour}},
	} {
		client := parseClient("ccd", "alice", []byte(c.lines), nil)
		if got := client.Timers(all); got != c.want || len(client.Warnings) > 0 {
			t.Errorf("%q: %v, %q, want %v", c.lines, got, client.Warnings, c.want)
		}
	}
}

// Lines that a script adds stand behind those of the file, and leave what the file says as it was.
func TestClientWith(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "office"), []byte("push \"route 10.3.0.0 255.255.0.0\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := parseClient(dir, "alice", []byte("push a\npush b\niroute 10.1.0.0 255.255.0.0\n"), nil)
	before := fmt.Sprint(*file)
	more, warnings := file.With(dir, "client-connect", []byte("push c\nconfig office\npush-remove a\niroute 10.2.0.0 255.255.0.0\nconfig ../office\nfrobnicate\n"))
	if got, want := more.Pushes(nil), []string{"b", "c", "route 10.3.0.0 255.255.0.0"}; !slices.Equal(got, want) {
		t.Errorf("pushes %q, want %q", got, want)
	}
	if len(more.IRoutes) != 2 || len(warnings) != 2 || !strings.HasPrefix(warnings[0], "client-connect:5: config: ") {
		t.Errorf("networks %v, warnings %q", more.IRoutes, warnings)
	}
	if after := fmt.Sprint(*file); after != before {
		t.Errorf("the file says %s now, before %s", after, before)
	}
	if _, warnings := (&Client{}).With("", "client-connect", []byte("config office\n")); len(warnings) != 1 {
		t.Errorf("an include without a directory: %q", warnings)
	}
}
