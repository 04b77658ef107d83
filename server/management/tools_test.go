package management_test

import (
	"encoding/csv"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/server/management"
)

// The tests of this file read the interface as tools that are in use do, as far as their reading is described: each
// says what it looks at.

// reports are the recorded status reports with one client, with LF as the Owner renders them.
func reports(t *testing.T) func(version int) []byte {
	t.Helper()
	byVersion := make(map[int][]byte)
	for _, e := range recordedSessions(t)["2.6.14"] {
		if e.Send == nil {
			continue
		}
		var version int
		if n, _ := fmt.Sscanf(*e.Send, "status %d", &version); n == 1 && version <= 3 && byVersion[version] == nil {
			byVersion[version] = []byte(strings.ReplaceAll(e.Recv, "\r\n", "\n"))
		}
	}
	if len(byVersion) != 3 {
		t.Fatalf("%d status reports were recorded", len(byVersion))
	}
	return func(version int) []byte { return byVersion[version] }
}

// withClient gives a tool an Interface of a server with one client.
func withClient(t *testing.T, title string, f func(i *management.Interface, c *tool)) {
	t.Helper()
	status := reports(t)
	inBubble(t, management.Options{Title: title}, func(t *testing.T, i *management.Interface, owner *fakeOwner, c *tool) {
		owner.status = status
		owner.load = management.Load{Clients: 1, Received: 2495, Sent: 2633}
		i.State(management.State{Time: time.Unix(1795358846, 0), Name: "CONNECTED", Detail: "SUCCESS", Addr4: addressOf(t, "10.9.0.1").Addr()})
		f(i, c)
	})
}

const title = "OpenVPN 2.6.14 x86_64-pc-linux-gnu [postern 1.0]"

// openvpn-monitor: replies to status and state end in \nEND\r\n, load-stats is one SUCCESS line; the release is the
// second word of version; columns of status 3 by index.
func TestReadAsOpenVPNMonitor(t *testing.T) {
	withClient(t, title, func(_ *management.Interface, c *tool) {
		version, _, _ := strings.Cut(c.ask("version"), "\r\n")
		release := strings.Split(strings.TrimPrefix(version, "OpenVPN Version: "), " ")
		if len(release) < 3 || release[0] != "OpenVPN" || !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(release[1]) {
			t.Errorf("version %q", version)
		}
		state := c.ask("state")
		if parts := strings.Split(strings.SplitN(state, "\r\n", 2)[0], ","); !strings.HasSuffix(state, "\nEND\r\n") || len(parts) < 8 ||
			parts[0] != "1795358846" || parts[1] != "CONNECTED" || parts[2] != "SUCCESS" || parts[3] != "10.9.0.1" {
			t.Errorf("state %q", state)
		}
		stats := strings.Split(strings.TrimSpace(strings.Replace(c.ask("load-stats"), "SUCCESS: ", "", 1)), ",")
		if len(stats) != 3 || stats[0] != "nclients=1" || stats[1] != "bytesin=2495" || stats[2] != "bytesout=2633" {
			t.Errorf("load-stats %q", stats)
		}
		status := c.ask("status 3")
		if !strings.HasSuffix(status, "\nEND\r\n") || strings.Count(status, "END") != 1 {
			t.Errorf("status 3 has no end, or several: %q", status)
		}
		clients, routes := 0, 0
		for line := range strings.SplitSeq(status, "\r\n") {
			switch p := strings.Split(line, "\t"); p[0] {
			case "CLIENT_LIST":
				clients++
				since, err := strconv.ParseInt(p[8], 10, 64)
				if p[1] != "client1" || p[2] != "203.0.113.2:51271" || p[3] != "10.9.0.2" || p[5] != "2351" || err != nil || since != 1795358847 || p[9] != "alice" || p[10] != "0" {
					t.Errorf("client %q", p)
				}
			case "ROUTING_TABLE":
				routes++
				if len(p) != 6 || p[2] != "client1" {
					t.Errorf("route %q", p)
				}
			}
		}
		if clients != 1 || routes != 4 {
			t.Errorf("%d clients, %d routes", clients, routes)
		}
		c.wants("client-kill", c.ask("client-kill 0"), lines("SUCCESS: client-kill command succeeded"))
		c.wants("quit", c.ask("quit"), "<EOF>")
	})
}

// openvpn_exporter reads reports as CSV, versions 2 and 3: every line begins with a word it knows, TITLE has two
// fields, TIME three, and every other line as many as its HEADER.
func TestReadAsExporter(t *testing.T) {
	withClient(t, title, func(_ *management.Interface, c *tool) {
		for version, separator := range map[int]rune{2: ',', 3: '\t'} {
			report := c.ask("status " + strconv.Itoa(version))
			r := csv.NewReader(strings.NewReader(report))
			r.Comma, r.FieldsPerRecord = separator, -1
			all, err := r.ReadAll()
			if err != nil {
				t.Errorf("version %d: %v", version, err)
			}
			headers := make(map[string][]string)
			seen := make(map[string]int)
			for _, fields := range all {
				seen[fields[0]]++
				ok := true
				switch fields[0] {
				case "TITLE":
					ok = len(fields) == 2
				case "TIME":
					ok = len(fields) == 3
				case "HEADER":
					headers[fields[1]] = fields[2:]
				case "CLIENT_LIST", "ROUTING_TABLE":
					ok = len(fields)-1 == len(headers[fields[0]])
					for i, column := range headers[fields[0]] {
						if strings.Contains(column, "Bytes") || strings.Contains(column, "time_t") {
							_, err := strconv.ParseFloat(fields[i+1], 64)
							ok = ok && err == nil
						}
					}
				case "GLOBAL_STATS", "END":
				default:
					ok = false
				}
				if !ok {
					t.Errorf("version %d: %q", version, fields)
				}
			}
			if seen["CLIENT_LIST"] != 1 || seen["ROUTING_TABLE"] != 4 || seen["END"] != 1 || seen["TITLE"] != 1 {
				t.Errorf("version %d: %v", version, seen)
			}
		}
	})
}

// OPNsense reads until the text ends in END or ERROR; pfSense splits status 2 by index and takes the third field of
// the first line of state 1.
func TestReadAsSense(t *testing.T) {
	withClient(t, title, func(_ *management.Interface, c *tool) {
		if got := strings.TrimSpace(c.ask("status 3")); !strings.HasSuffix(got, "END") {
			t.Errorf("status 3 ends in %q", got[len(got)-10:])
		}
		found := false
		for line := range strings.Lines(c.ask("status 2")) {
			list := strings.Split(strings.TrimSpace(line), ",")
			if list[0] == "CLIENT_LIST" {
				found = list[1] == "client1" && list[2] == "203.0.113.2:51271" && list[3] == "10.9.0.2" && list[4] == "fd00:9::1000" && list[10] == "0"
			}
		}
		if !found {
			t.Error("status 2 has no client")
		}
		if state := strings.Split(strings.SplitN(c.ask("state 1"), "\n", 2)[0], ","); len(state) < 3 || state[2] != "SUCCESS" {
			t.Errorf("state 1: %q", state)
		}
		c.wants("kill", c.ask("kill 203.0.113.2:51271"), lines("SUCCESS: 1 client(s) at address 203.0.113.2:51271 killed"))
		c.wants("client-kill", c.ask("client-kill 0 HALT"), lines("SUCCESS: client-kill command succeeded"))
	})
}

// netdata: two regular expressions, and status 3 split at white space into the columns of its header.
func TestReadAsNetdata(t *testing.T) {
	withClient(t, title, func(_ *management.Interface, c *tool) {
		version := regexp.MustCompile(`^OpenVPN Version: OpenVPN (\d+)\.(\d+)\.(\d+)\S* [\s\S]*Management Version: (\d+)`)
		if m := version.FindStringSubmatch(c.ask("version")); m == nil || m[1] != "2" || m[4] != "5" {
			t.Errorf("version: %q", m)
		}
		load := regexp.MustCompile(`^SUCCESS: nclients=(\d+),bytesin=(\d+),bytesout=(\d+)`)
		if m := load.FindStringSubmatch(c.ask("load-stats")); m == nil || m[1] != "1" {
			t.Errorf("load-stats: %q", m)
		}
		for line := range strings.Lines(c.ask("status 3")) {
			// Since the time of connection has a blank, the columns are one more than the header's.
			if strings.HasPrefix(line, "CLIENT_LIST") && len(strings.Fields(line)) != 14 {
				t.Errorf("%d columns: %q", len(strings.Fields(line)), line)
			}
		}
	})
}

// openvpn-auth-oauth2: messages end at SUCCESS, ERROR, END, >H, >I, >N, or at >CLIENT:ENV,END. It logs a client in.
func TestReadAsAuthOAuth2(t *testing.T) {
	withClient(t, title, func(i *management.Interface, c *tool) {
		var rest string
		message := func() string {
			rest += c.heard()
			var m strings.Builder
			for rest != "" {
				line, after, _ := strings.Cut(rest, "\r\n")
				rest = after
				m.WriteString(line + "\n")
				for _, end := range []string{"SUCCESS", "ERROR", "END", ">H", ">I", ">N", ">CLIENT:ENV,END"} {
					if strings.HasPrefix(line, end) {
						return m.String()
					}
				}
			}
			return m.String()
		}
		ask := func(line string) string {
			c.send(line + "\r\n")
			return message()
		}
		if v := strings.Split(strings.TrimSpace(ask("version")), "\n"); len(v) != 3 || v[1][len(v[1])-1] < '5' {
			t.Errorf("version: %q", v)
		}
		if got := ask("hold release"); got != "SUCCESS: hold release succeeded\n" {
			t.Errorf("hold release: %q", got)
		}
		i.ClientConnect(0, 1, 0, env([2]string{"session_id", "x"}, [2]string{"untrusted_ip", "203.0.113.2"}, [2]string{"common_name", "client1"}, [2]string{"IV_SSO", "webauth"}))
		if got := message(); !strings.HasPrefix(got, ">CLIENT:CONNECT,0,1\n>CLIENT:ENV,n_clients=0\n") || !strings.HasSuffix(got, ">CLIENT:ENV,END\n") {
			t.Errorf("the login: %q", got)
		}
		if got := ask(`client-pending-auth 0 1 "WEB_AUTH::https://login.example.com/?state=abc" 300`); got != "SUCCESS: client-pending-auth command succeeded\n" {
			t.Errorf("client-pending-auth: %q", got)
		}
		if got := ask("client-auth 0 1\r\npush \"ping 10\"\r\nEND"); got != "SUCCESS: client-auth command succeeded\n" {
			t.Errorf("client-auth: %q", got)
		}
		status := ask("status 3")
		if !strings.Contains(status, "\tUsername\tClient ID\t") {
			t.Errorf("status 3: %q", status)
		}
	})
}
