package hooks

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A call is what a script was given: by OpenVPN, or by us.
type call struct {
	ScriptType  string            `json:"script_type"`
	Argv        []string          `json:"argv"`
	Env         map[string]string `json:"env"`
	Descriptors []string          `json:"descriptors"`
	Files       map[string]string `json:"files"` // "argv0", or a variable -> mode and content
}

// recorder is the first argument that makes this test binary a script: it writes its call into the directory that is
// the second.
const recorder = "record-the-call"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == recorder {
		if err := record(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		// Not os.Exit: with the race detector that takes a second.
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
	os.Exit(m.Run())
}

func record(dir string, args []string) error {
	c := call{Argv: args, Env: map[string]string{}, Files: map[string]string{}}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		c.Env[name] = strings.ToValidUTF8(value, "\\")
	}
	c.ScriptType = c.Env["script_type"]
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		c.Descriptors = append(c.Descriptors, fd.Name()+" "+to)
	}
	note := func(name, path string) {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return
		}
		content, _ := os.ReadFile(path)
		if name == "peer_cert" {
			content = content[:min(27, len(content))]
		}
		c.Files[name] = fmt.Sprintf("%v %q", info.Mode(), content)
	}
	for i, a := range args {
		if filepath.IsAbs(a) {
			note("argv"+strconv.Itoa(i), a)
		}
	}
	for name, value := range c.Env {
		if strings.HasSuffix(name, "_file") || name == "peer_cert" {
			note(name, value)
		}
	}
	if c.ScriptType == "client-connect" {
		if err := os.WriteFile(args[0], []byte("push \"route 10.77.0.0 255.255.0.0\"\n"), 0o600); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	// Read in the order of the names, and only whole files.
	name := filepath.Join(dir, fmt.Sprintf("%020d.%s", time.Now().UnixNano(), c.ScriptType))
	if err := os.WriteFile(name+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// recorded returns the calls in a directory, in their order.
func recorded(t *testing.T, dir string) (calls []call) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		var c call
		if strings.HasSuffix(f.Name(), ".tmp") {
			continue
		}
		if err := json.Unmarshal(b, &c); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	return calls
}

// facts turns what OpenVPN told a script back into what the server would have told us: the test of whether we can
// tell the same with the same names, in the same formats.
func (c *call) facts(t *testing.T) (*Daemon, *ClientInfo) {
	t.Helper()
	e := c.Env
	number := func(name string) int {
		n, err := strconv.Atoi(e[name])
		if e[name] != "" && err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	addr := func(name string) netip.Addr {
		if e[name] == "" {
			return netip.Addr{}
		}
		return netip.MustParseAddr(e[name])
	}
	source := func(prefix string) netip.AddrPort {
		a := addr(prefix + "_ip")
		if !a.IsValid() {
			a = addr(prefix + "_ip6")
		}
		if !a.IsValid() {
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(a, uint16(number(prefix+"_port")))
	}
	prefixOf := func(ip, mask string) netip.Prefix {
		if ip == "" || mask == "" {
			return netip.Prefix{}
		}
		m := netip.MustParseAddr(mask).As4()
		ones, _ := net.IPMask(m[:]).Size()
		return netip.PrefixFrom(netip.MustParseAddr(ip), ones)
	}
	d := &Daemon{
		Config: e["config"], PID: number("daemon_pid"), Started: time.Unix(int64(number("daemon_start_time")), 0),
		Verb: number("verb"), Background: e["daemon"] == "1", LogRedirect: e["daemon_log_redirect"] == "1",
		Listeners: []Listener{{Proto: e["proto_1"], Local: addr("local_1"), Port: uint16(number("local_port_1")), RemotePort: uint16(number("remote_port_1"))}},
		Dev:       e["dev"], DevType: e["dev_type"], MTU: number("tun_mtu"),
		Local4: prefixOf(e["ifconfig_local"], e["ifconfig_netmask"]), Remote4: addr("ifconfig_remote"),
		Remote6:    addr("ifconfig_ipv6_remote"),
		VPNGateway: addr("route_vpn_gateway"), NetGateway: addr("route_net_gateway"),
		RedirectGateway: e["redirect_gateway"] == "1",
	}
	if a := addr("ifconfig_ipv6_local"); a.IsValid() {
		d.Local6 = netip.PrefixFrom(a, number("ifconfig_ipv6_netbits"))
	}
	for i := 1; e["route_network_"+strconv.Itoa(i)] != ""; i++ {
		n := strconv.Itoa(i)
		d.Routes = append(d.Routes, Route{Prefix: prefixOf(e["route_network_"+n], e["route_netmask_"+n]), Gateway: addr("route_gateway_" + n), Metric: number("route_metric_" + n)})
	}
	for i := 1; e["route_ipv6_network_"+strconv.Itoa(i)] != ""; i++ {
		n := strconv.Itoa(i)
		d.Routes = append(d.Routes, Route{Prefix: netip.MustParsePrefix(e["route_ipv6_network_"+n]), Gateway: addr("route_ipv6_gateway_" + n)})
	}
	info := &ClientInfo{
		CommonName: e["common_name"], Username: e["username"], Untrusted: source("untrusted"), Trusted: source("trusted"),
		SessionID: e["session_id"], SessionState: e["session_state"],
		Remote4: addr("ifconfig_pool_remote_ip"), Netmask4: addr("ifconfig_pool_netmask"), Local4: addr("ifconfig_pool_local_ip"),
		Remote6: addr("ifconfig_pool_remote_ip6"), Local6: addr("ifconfig_pool_local_ip6"), Netbits6: number("ifconfig_pool_ip6_netbits"),
	}
	if unix := number("time_unix"); unix != 0 {
		info.Since = time.Unix(int64(unix), 0).UTC()
	}
	for name, value := range e {
		if strings.HasPrefix(name, "IV_") || strings.HasPrefix(name, "UV_") {
			info.Peer = append(info.Peer, Var{name, value})
		}
	}
	for i := range 8 {
		n := strconv.Itoa(i)
		if _, ok := e["tls_id_"+n]; ok {
			for len(info.Chain) <= i {
				info.Chain = append(info.Chain, CertInfo{})
			}
			cert := CertInfo{Subject: e["tls_id_"+n]}
			for _, part := range strings.Split(cert.Subject, ", ") {
				name, value, _ := strings.Cut(part, "=")
				cert.Fields = append(cert.Fields, Var{name, value})
			}
			var ok bool
			if cert.Serial, ok = new(big.Int).SetString(e["tls_serial_"+n], 10); !ok {
				t.Fatalf("serial %q", e["tls_serial_"+n])
			}
			unhex(t, cert.SHA1[:], e["tls_digest_"+n])
			unhex(t, cert.SHA256[:], e["tls_digest_sha256_"+n])
			info.Chain[i] = cert
		}
	}
	return d, info
}

func unhex(t *testing.T, to []byte, s string) {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || copy(to, b) != len(to) {
		t.Fatalf("digest %q: %v", s, err)
	}
}

// setup of a Runner whose every script is the recorder.
func recordingRunner(t *testing.T, d *Daemon, change func(*Options)) (r *Runner, calls func() []call) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := Options{Security: 3, TempDir: t.TempDir(), Commands: map[Kind]Command{}, Log: testLog(t), Limit: time.Minute}
	for _, k := range []Kind{Up, Down, RouteUp, RoutePreDown, TLSCryptV2Verify, TLSVerify, AuthUserPassVerify, ClientCRResponse, ClientConnect, LearnAddress, ClientDisconnect} {
		o.Commands[k] = Command{self, recorder, dir}
	}
	if change != nil {
		change(&o)
	}
	if r, err = New(o, d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		if left, err := os.ReadDir(o.TempDir); err != nil || len(left) > 0 {
			t.Errorf("left in the directory for files: %v, %v", left, err)
		}
	})
	return r, func() []call { return recorded(t, dir) }
}

// replay has our own scripts called at the event at which OpenVPN made the call, and compares. chain, if there is one,
// are the certificates that the call is about.
func replay(t *testing.T, want call, chain []CertInfo) {
	t.Helper()
	d, info := want.facts(t)
	if len(info.Chain) > 0 && chain != nil {
		info.Chain = chain
	}
	r, calls := recordingRunner(t, d, func(o *Options) {
		o.PasswordInFile = want.ScriptType == "user-pass-verify" && want.Env["password"] == ""
		if want.Env["peer_cert"] != "" {
			o.ExportCert = t.TempDir()
		}
	})
	ctx := t.Context()
	s := r.Session()
	defer s.Close()
	if _, ok := want.Env["auth_control_file"]; ok && want.ScriptType != "user-pass-verify" {
		// A login leaves the names of its files behind.
		if _, err := s.AuthUserPassVerify(ctx, &ClientInfo{}, Credentials{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := fire(ctx, r, s, want, info); err != nil {
		t.Fatalf("%s: %v", want.ScriptType, err)
	}
	var got *call
	for _, c := range calls() {
		if c.ScriptType == want.ScriptType {
			got = &c // tls-verify is called for all of the chain: the last is depth 0
			if c.ScriptType == "tls-verify" && argument(c.Argv, 1) == argument(want.Argv, 1) {
				break
			}
		}
	}
	if got == nil {
		t.Fatalf("%s: not called", want.ScriptType)
	}
	compare(t, *got, want)
}

// argument is the n-th argument from the end.
func argument(argv []string, n int) string { return argv[len(argv)-1-n] }

// fire makes a Runner do what makes the call.
func fire(ctx context.Context, r *Runner, s *Session, c call, info *ClientInfo) error {
	switch c.ScriptType {
	case "up":
		return r.Up(ctx, Context(argument(c.Argv, 0)))
	case "down":
		return r.Down(ctx, Context(argument(c.Argv, 0)), c.Env["signal"])
	case "route-up":
		return r.RouteUp(ctx)
	case "tls-crypt-v2-verify":
		kind, _ := strconv.Atoi(c.Env["metadata_type"])
		return r.TLSCryptV2Verify(ctx, MetadataType(kind), []byte(fileContent(c.Files["metadata_file"])))
	case "tls-verify":
		return s.TLSVerify(ctx, info)
	case "user-pass-verify":
		password := c.Env["password"]
		if lines := strings.Split(fileContent(c.Files["argv0"]), "\n"); len(lines) == 3 {
			password = lines[1]
		}
		_, err := s.AuthUserPassVerify(ctx, info, Credentials{Username: c.Env["username"], Password: []byte(password)})
		return err
	case "client-crresponse":
		return s.ClientCRResponse(ctx, info, strings.TrimSuffix(fileContent(c.Files["argv0"]), "\n"))
	case "client-connect":
		lines, err := s.ClientConnect(ctx, info)
		if err == nil && !strings.Contains(string(lines), "10.77.0.0") {
			err = fmt.Errorf("the script's lines are %q", lines)
		}
		return err
	case "learn-address":
		op, addr := c.Argv[0], c.Argv[1]
		p, err := netip.ParsePrefix(addr)
		if err != nil {
			a, err := netip.ParseAddr(addr)
			if err != nil {
				return err
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		return s.LearnAddress(ctx, AddressOp(op), p, info)
	case "client-disconnect":
		in, _ := strconv.ParseUint(c.Env["bytes_received"], 10, 64)
		out, _ := strconv.ParseUint(c.Env["bytes_sent"], 10, 64)
		lasted, _ := strconv.Atoi(c.Env["time_duration"])
		return s.ClientDisconnect(ctx, info, in, out, time.Duration(lasted)*time.Second)
	}
	return fmt.Errorf("unknown event %q", c.ScriptType)
}

func fileContent(note string) string {
	_, quoted, _ := strings.Cut(note, " ")
	s, _ := strconv.Unquote(quoted)
	return s
}

// tempFile finds a path of a file made for a script: kind and hexadecimal name.
var tempFile = regexp.MustCompile(`^/.*/openvpn_(.+?)_[0-9a-f]{24,32}\.tmp$`)

func withoutTemp(s string) string { return tempFile.ReplaceAllString(s, "DIR/openvpn_${1}_HEX.tmp") }

// justified are the differences to OpenVPN 2.6.14 that are meant.
func justified(ours, theirs call, name string) bool {
	_, weSay := ours.Env[name]
	_, theySay := theirs.Env[name]
	// After SIGUSR1 OpenVPN has forgotten it by the time of down; it is 0 all the same.
	return name == "redirect_gateway" && theirs.ScriptType == "down" && theirs.Env["signal"] == "sigusr1" && weSay && !theySay
}

func compare(t *testing.T, got, want call) {
	t.Helper()
	own := func(argv []string) []string {
		argv = slices.Clone(argv)
		for i, a := range argv {
			argv[i] = withoutTemp(a)
		}
		return argv
	}
	// The command's own arguments are the recorder's here.
	wantArgv := want.Argv
	for len(wantArgv) > 0 && (wantArgv[0] == "arg1" || wantArgv[0] == "arg two" || wantArgv[0] == "pre") {
		wantArgv = wantArgv[1:]
	}
	if g, w := own(got.Argv), own(wantArgv); !slices.Equal(g, w) {
		t.Errorf("%s: arguments\n got %q\nwant %q", want.ScriptType, g, w)
	}
	names := maps.Clone(got.Env)
	maps.Copy(names, want.Env)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		g, weSay := got.Env[name]
		w, theySay := want.Env[name]
		switch {
		case justified(got, want, name):
		case !weSay:
			t.Errorf("%s: we do not say %s, which is %q", want.ScriptType, name, w)
		case !theySay:
			t.Errorf("%s: we say %s=%q, OpenVPN does not", want.ScriptType, name, g)
		case withoutTemp(g) != withoutTemp(w):
			t.Errorf("%s: %s is %q, want %q", want.ScriptType, name, g, w)
		}
	}
	for name, note := range got.Files {
		if !strings.HasPrefix(note, "-rw------- ") {
			t.Errorf("%s: %s is a file with mode and content %s", want.ScriptType, name, note)
		}
	}
	if want.Files != nil && !maps.Equal(got.Files, want.Files) {
		t.Errorf("%s: files\n got %v\nwant %v", want.ScriptType, got.Files, want.Files)
	}
}

// What OpenVPN 2.6.14 was seen to hand to scripts, we do.
func TestVectors(t *testing.T) {
	b, err := os.ReadFile("../../testdata/vectors/data-scripts.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct{ Calls []call }
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Calls) < 12 {
		t.Fatalf("only %d calls in the vectors", len(vectors.Calls))
	}
	for i, c := range vectors.Calls {
		t.Run(fmt.Sprintf("%d-%s", i, c.ScriptType), func(t *testing.T) {
			replay(t, c, nil)
		})
	}
}
