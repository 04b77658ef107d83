package management_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/management"
)

// exchange is a command of a recorded session and all that came back before the next.
type exchange struct {
	Send *string // nil: the greeting
	Recv string
}

func recordedSessions(t *testing.T) (sessions map[string][]exchange) {
	t.Helper()
	b, err := os.ReadFile("../../testdata/vectors/data-management.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		V26 []exchange `json:"openvpn_2_6_14"`
		V27 []exchange `json:"openvpn_2_7_6"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.V26) < 60 || len(file.V27) < 60 {
		t.Fatalf("the sessions have %d and %d commands: the file has changed its form", len(file.V26), len(file.V27))
	}
	return map[string][]exchange{"2.6.14": file.V26, "2.7.6": file.V27}
}

// differs says what we answer where it is not what was recorded, and why.
var differs = map[string]map[string]struct{ want, why string }{
	"2.6.14": {
		`push-update-broad "route 1.2.3.0 255.255.255.0"`: {lines("SUCCESS: 1 client(s) updated", "SUCCESS: push-update command succeeded"),
			"a command of 2.7 that is of use to clients of 2.7"},
		`push-update-cid 0 "route 1.2.4.0 255.255.255.0"`: {lines("SUCCESS: 1 client(s) updated", "SUCCESS: push-update command succeeded"), "as above"},
		`push-update-cid 9 "route 1.2.4.0 255.255.255.0"`: {lines("ERROR: no client updated", "ERROR: push-update command failed"), "as above"},
	},
	"2.7.6": {
		"bytecount 1": {lines("SUCCESS: bytecount interval changed", ">BYTECOUNT_CLI:0,2405,2580"),
			"recorded over two intervals; a second line only when there was traffic"},
		"foo":            {lines("ERROR: unknown command, enter 'help' for more options"), "we speak as 2.6"},
		"client-pf 0":    {lines("ERROR: unknown command, enter 'help' for more options"), "we speak as 2.6"},
		"need-ok a b":    {lines("ERROR: unknown command, enter 'help' for more options"), "we speak as 2.6"},
		"kill 1.2.3.4:5": {lines("ERROR: client at address 1.2.3.4:5 not found"), "2.6 takes an address without protocol, and tools send it"},
		"version 5":      {"", "2.6 has no answer to it"},
	},
}

// The recorded sessions run again, against an owner that does what the recording server did.
func TestRecordedSessions(t *testing.T) {
	for version, session := range recordedSessions(t) {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { replay(t, version, session) })
		})
	}
}

func replay(t *testing.T, version string, session []exchange) {
	owner := newFakeOwner()
	i := management.New(management.Options{Title: titleOf(t, session), Hold: true}, owner, quiet())
	for _, s := range []management.State{
		{Name: "CONNECTING"},
		{Name: "ASSIGN_IP", Addr4: netip.MustParseAddr("10.9.0.1"), Addr6: netip.MustParseAddr("fd00:9::1")},
		{Name: "ADD_ROUTES"},
		{Name: "CONNECTED", Detail: "SUCCESS", Addr4: netip.MustParseAddr("10.9.0.1"), Addr6: netip.MustParseAddr("fd00:9::1")},
	} {
		s.Time = time.Now()
		i.State(s)
	}
	go i.Hold(t.Context())
	synctest.Wait()
	c := connect(t.Context(), t, i, management.Access{})
	stage := &stage{i: i, owner: owner}
	unused := make(map[string]bool)
	for send := range differs[version] {
		unused[send] = true
	}
	for _, e := range session {
		if e.Send == nil {
			c.wants("greeting", c.heard(), strings.Replace(e.Recv, "Version 6", "Version 5", 1))
			continue
		}
		send, want := *e.Send, e.Recv
		delete(unused, send)
		before, reply := stage.split(want)
		stage.emit(t, before)
		stage.prepare(reply)
		got := c.ask(send)
		if strings.HasPrefix(send, "bytecount ") {
			time.Sleep(1100 * time.Millisecond)
			got += c.heard()
		}
		stage.emit(t, after(reply))
		got += c.heard()
		if d, ok := differs[version][send]; ok {
			want = d.want
		}
		if send == "version" {
			want = strings.Replace(want, "Version: 6", "Version: 5", 1)
		}
		if send == "help" {
			checkHelp(t, got, want)
			continue
		}
		if got, want := normal(got), normal(want); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", send, strconv.Quote(got), strconv.Quote(want))
		}
		if strings.HasPrefix(send, "env-filter ") {
			stage.filtered = true
		}
	}
	for send := range unused {
		t.Errorf("%q is listed as different but was not recorded", send)
	}
	if err := <-c.done; err != nil {
		t.Errorf("after exit: %v", err)
	}
}

func titleOf(t *testing.T, session []exchange) string {
	for _, e := range session {
		if title, ok := strings.CutPrefix(e.Recv, "OpenVPN Version: "); ok {
			title, _, _ = strings.Cut(title, "\r\n")
			return title
		}
	}
	t.Fatal("no version was recorded")
	return ""
}

// Each recorded help line is a word we know, but clients' ones; ours are told by TestHelpIsComplete.
func checkHelp(t *testing.T, got, want string) {
	g, w := strings.Split(got, "\r\n"), strings.Split(want, "\r\n")
	if g[0] != w[0] || g[1] != w[1] || g[len(g)-2] != "END" || g[len(g)-1] != "" {
		t.Errorf("help: got\n%s\nwant the frame of\n%s", got, want)
	}
}

var (
	unixTime = regexp.MustCompile(`\b\d{9,10},`)
	pid      = regexp.MustCompile(`SUCCESS: pid=\d+`)
)

// normal replaces what differs from run to run.
func normal(s string) string {
	return pid.ReplaceAllString(unixTime.ReplaceAllString(s, "TIME,"), "SUCCESS: pid=N")
}

// stage makes the server do what it did when the session was recorded.
type stage struct {
	i        *management.Interface
	owner    *fakeOwner
	filtered bool // the recorded environments have been through a filter
}

// split separates events that were recorded before a reply from the rest.
func (s *stage) split(recv string) (events, rest string) {
	for strings.HasPrefix(recv, ">CLIENT:") {
		line, r, _ := strings.Cut(recv, "\n")
		events, recv = events+line+"\n", r
	}
	return events, recv
}

// after is what of a reply are clients' events.
func after(reply string) string {
	if n := strings.Index(reply, ">CLIENT:"); n >= 0 {
		return reply[n:]
	}
	return ""
}

var (
	bytecount = regexp.MustCompile(`>BYTECOUNT_CLI:0,(\d+),(\d+)`)
	loadStats = regexp.MustCompile(`nclients=(\d+),bytesin=(\d+),bytesout=(\d+)`)
)

// prepare gives the owner the numbers and reports that were recorded.
func (s *stage) prepare(reply string) {
	s.owner.status = func(int) []byte { return []byte(strings.ReplaceAll(reply, "\r\n", "\n")) }
	if m := bytecount.FindStringSubmatch(reply); m != nil {
		var n management.ByteCount
		fmt.Sscan(m[1], &n.Received)
		fmt.Sscan(m[2], &n.Sent)
		s.owner.setCounts(n)
	}
	if m := loadStats.FindStringSubmatch(reply); m != nil {
		s.owner.mu.Lock()
		fmt.Sscan(m[1], &s.owner.load.Clients)
		fmt.Sscan(m[2], &s.owner.load.Received)
		fmt.Sscan(m[3], &s.owner.load.Sent)
		s.owner.mu.Unlock()
	}
}

// emit makes the recorded events happen again.
func (s *stage) emit(t *testing.T, recorded string) {
	for recorded != "" {
		line, rest, _ := strings.Cut(recorded, "\r\n")
		recorded = rest
		head, list, _ := strings.Cut(strings.TrimPrefix(line, ">CLIENT:"), ",")
		args := strings.Split(list, ",")
		id, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			t.Fatalf("recorded %q: %v", line, err)
		}
		client := management.ClientID(id)
		if head == "ADDRESS" {
			s.i.ClientAddress(client, addressOf(t, args[1]), args[2] == "1")
			continue
		}
		var vars [][2]string
		clients := 0
		for {
			line, recorded, _ = strings.Cut(recorded, "\r\n")
			line = strings.TrimPrefix(line, ">CLIENT:ENV,")
			if line == "END" {
				break
			}
			name, value, _ := strings.Cut(line, "=")
			if name == "n_clients" {
				fmt.Sscan(value, &clients)
				continue
			}
			vars = append(vars, [2]string{name, value})
		}
		if s.filtered {
			vars = append(vars, [][2]string{{"tls_id_0", "CN=client1"}, {"IV_VER", "2.6.14"}, {"untrusted_port", "1"}, {"time_unix", "1"},
				{"ifconfig_pool_remote_ip6", "fd00:9::1000"}, {"tls_digest_0", "b6"}, {"password", "secret"}}...)
		}
		switch head {
		case "CONNECT":
			key, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				t.Fatalf("recorded %q: %v", line, err)
			}
			s.i.ClientConnect(client, management.KeyID(key), clients, env(vars...))
		case "ESTABLISHED":
			s.i.ClientEstablished(client, clients, env(vars...))
		case "DISCONNECT":
			s.i.ClientDisconnect(client, env(vars...))
		default:
			t.Fatalf("recorded event %q is not known", head)
		}
	}
}

func addressOf(t *testing.T, s string) netip.Prefix {
	host, mask, isNet := strings.Cut(s, "/")
	a := netip.MustParseAddr(host)
	if !isNet {
		return netip.PrefixFrom(a, a.BitLen())
	}
	bits, err := strconv.Atoi(mask)
	if err != nil {
		m := netip.MustParseAddr(mask).As4()
		bits = 0
		for _, b := range m {
			for ; b != 0; b <<= 1 {
				bits++
			}
		}
	}
	p, err := a.Prefix(bits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
