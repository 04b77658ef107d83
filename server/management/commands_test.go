package management_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/management"
)

// Every command, what it answers and what the owner hears of it. Answers to what is wrong are upstream's, but where
// numbers are no numbers: there upstream reads 0 and goes on.
func TestCommands(t *testing.T) {
	tests := []struct {
		send string
		want string // lines of the reply
		call string // of the owner; "": none
	}{
		{"", "", ""},
		{"   ", "", ""},
		{"# nothing", "", ""},
		{"HELP", "ERROR: unknown command, enter 'help' for more options", ""},
		{"version", "OpenVPN Version: OpenVPN 2.6.14 postern\r\nManagement Version: 5\r\nEND", ""},
		{"version 3", "", ""},
		{"status", "OpenVPN CLIENT LIST\r\nEND", ""},
		{"status 0", "OpenVPN CLIENT LIST\r\nEND", ""},
		{"status 4", "ERROR: bad status format version number", ""},
		{"status -1", "ERROR: bad status format version number", ""},
		{"status x", "ERROR: bad status format version number", ""},
		{"load-stats", "SUCCESS: nclients=0,bytesin=0,bytesout=0", ""},
		{"load-stats x", "SUCCESS: nclients=0,bytesin=0,bytesout=0", ""},
		{"nclients", "SUCCESS: nclients=0", ""},

		{"kill", "ERROR: the 'kill' command requires 1 parameter", ""},
		{`kill ""`, "ERROR: kill parse", ""},
		{"kill foo", "ERROR: common name 'foo' not found", "kill foo"},
		{"kill foo bar", "ERROR: common name 'foo' not found", "kill foo"},
		{"kill client1", "SUCCESS: common name 'client1' found, 1 client(s) killed", "kill client1"},
		{`kill "a b"`, "ERROR: common name 'a b' not found", "kill a b"},
		{"kill 1.2.3.4:5", "ERROR: client at address 1.2.3.4:5 not found", "killaddress  1.2.3.4:5"},
		{"kill 203.0.113.2:51271", "SUCCESS: 1 client(s) at address 203.0.113.2:51271 killed", "killaddress  203.0.113.2:51271"},
		{"kill udp:203.0.113.2:51271", "SUCCESS: 1 client(s) at address udp:203.0.113.2:51271 killed", "killaddress udp 203.0.113.2:51271"},
		{"kill tcp4-server:203.0.113.2:51271", "SUCCESS: 1 client(s) at address tcp:203.0.113.2:51271 killed", "killaddress tcp 203.0.113.2:51271"},
		{"kill udp6:[2001:db8::2]:7", "ERROR: client at address udp:[2001:db8::2]:7 not found", "killaddress udp [2001:db8::2]:7"},
		{"kill [2001:db8::2]:7", "ERROR: client at address [2001:db8::2]:7 not found", "killaddress  [2001:db8::2]:7"},
		{"kill [::ffff:203.0.113.2]:51271", "SUCCESS: 1 client(s) at address 203.0.113.2:51271 killed", "killaddress  203.0.113.2:51271"},
		{"kill 1.2.3.4:x", "ERROR: port number is out of range: x", ""},
		{"kill 1.2.3.4:0", "ERROR: port number is out of range: 0", ""},
		{"kill 1.2.3.4:70000", "ERROR: port number is out of range: 70000", ""},
		{"kill [::1]", "ERROR: port number is out of range: ", ""},
		{"kill 999.2.3.4:5", "ERROR: error parsing IP address: 999.2.3.4", ""},
		{"kill foo:5", "ERROR: error parsing IP address: foo", ""},
		{"kill udp:foo:5", "ERROR: error parsing IP address: foo", ""},
		{"kill [fe80::1%eth0]:5", "ERROR: error parsing IP address: fe80::1%eth0", ""},
		{"kill :5", "ERROR: kill parse", ""},

		{"client-kill", "ERROR: the 'client-kill' command requires at least 1 parameter", ""},
		{"client-kill 0", "SUCCESS: client-kill command succeeded", "clientkill RESTART"},
		{`client-kill 0 "HALT,go away"`, "SUCCESS: client-kill command succeeded", "clientkill HALT,go away"},
		{"client-kill 7", "ERROR: client-kill command failed", ""},
		{"client-kill x", "ERROR: cannot parse CID", ""},
		{"client-kill -1", "ERROR: cannot parse CID", ""},
		{"client-auth 0", "ERROR: the 'client-auth' command requires 2 parameters", ""},
		{"client-auth x 1", "ERROR: cannot parse CID", ""},
		{"client-auth 0 x", "ERROR: cannot parse KID", ""},
		{"client-auth 0 1\nEND", "SUCCESS: client-auth command succeeded", "auth "},
		{"client-auth 0 1\n\npush \"route 1.2.3.0\"\n  END\nEND x\nEND\r", "SUCCESS: client-auth command succeeded", `auth |push "route 1.2.3.0"|  END|END x`},
		{"client-auth 0 2\nEND", "ERROR: client-auth command failed", ""},
		{"client-auth-nt 0 1", "SUCCESS: client-auth command succeeded", "auth "},
		{"client-auth-nt 1 1", "ERROR: client-auth command failed", ""},
		{"client-deny 0 1", "ERROR: the 'client-deny' command requires at least 3 parameters", ""},
		{`client-deny 0 1 "too late" sorry`, "ERROR: client-deny command failed", "deny too late sorry"},
		{"client-deny 0 x r", "ERROR: cannot parse KID", ""},
		{"client-pending-auth 0 1 a", "ERROR: the 'client-pending-auth' command requires 4 parameters", ""},
		{`client-pending-auth 0 1 "WEB_AUTH::https://x/" 120`, "SUCCESS: client-pending-auth command succeeded", "pending WEB_AUTH::https://x/ 2m0s"},
		{"client-pending-auth 0 1 a 99999999999999", "SUCCESS: client-pending-auth command succeeded", "pending a 596523h14m8s"},
		{"client-pending-auth 0 1 a x", "ERROR: cannot parse TIMEOUT", ""},
		{"client-pending-auth 9 1 a 1", "ERROR: client-pending-auth command failed. Extra parameter might be too long", ""},
		{`push-update-broad "route 1.2.3.0"`, "SUCCESS: 1 client(s) updated\r\nSUCCESS: push-update command succeeded", "pushall route 1.2.3.0"},
		{"push-update-cid 0 x", "SUCCESS: 1 client(s) updated\r\nSUCCESS: push-update command succeeded", "push x"},
		{"push-update-cid 9 x", "ERROR: no client updated\r\nERROR: push-update command failed", ""},

		{"bytecount x", "ERROR: bad bytecount interval", ""},
		{"bytecount -1", "ERROR: bad bytecount interval", ""},
		{"state", "END", ""},
		{"state on off", "SUCCESS: real-time state notification set to ON\r\nSUCCESS: real-time state notification set to OFF", ""},
		{"state on all x", "SUCCESS: real-time state notification set to ON\r\nEND", ""},
		{"state off", "SUCCESS: real-time state notification set to OFF", ""},
		{"state 0", "ERROR: state parameter must be 'on' or 'off' or some number n or 'all'", ""},
		{"log on x", "SUCCESS: real-time log notification set to ON\r\nERROR: log parameter must be 'on' or 'off' or some number n or 'all'", ""},
		{"echo", "ERROR: the 'echo' command requires at least 1 parameter", ""},
		{"echo x", "ERROR: echo parameter must be 'on' or 'off' or some number n or 'all'", ""},
		{"verb", "SUCCESS: verb=4", ""},
		{"verb 5", "SUCCESS: verb level changed", ""},
		{"verb", "SUCCESS: verb=5", ""},
		{"verb 16", "ERROR: verb level is out of range", ""},
		{"verb -1", "ERROR: verb level is out of range", ""},
		{"verb x", "ERROR: verb level is out of range", ""},
		{"mute 5", "SUCCESS: mute level changed", ""},
		{"mute", "SUCCESS: mute=5", ""},
		{"hold on", "SUCCESS: hold flag set to ON", ""},
		{"hold", "SUCCESS: hold=1", ""},
		{"hold off", "SUCCESS: hold flag set to OFF", ""},
		{"hold", "SUCCESS: hold=0", ""},
		{"hold x", "ERROR: bad hold command parameter", ""},
		{"hold release", "SUCCESS: hold release succeeded", ""},
		{"signal SIGUSR1", "SUCCESS: signal SIGUSR1 thrown", "signal SIGUSR1"},
		{"signal sigusr1", "ERROR: signal 'sigusr1' is not a known signal type", ""},
		{"auth-retry interact", "SUCCESS: auth-retry parameter changed", ""},
		{"auth-retry", "SUCCESS: auth-retry=interact", ""},
		{"auth-retry x", "ERROR: bad auth-retry parameter", ""},
		{"env-filter 2", "SUCCESS: env_filter_level=2", ""},
		{"env-filter", "SUCCESS: env_filter_level=0", ""},
		{"env-filter x", "ERROR: bad env-filter level", ""},
		{"test 0", "", ""},
		{"test -1", "", ""},
		{"test 2", "[0] This line is there to be read, and nothing else.\r\n[1] This line is there to be read, and nothing else.", ""},
		{"needok a b", "ERROR: no needok-confirmation is currently needed at this time", ""},
		{"needstr a b", "ERROR: no needstr-string is currently needed at this time", ""},
		{"pkcs11-id-count", ">PKCS11ID-COUNT:0", ""},
		{"pkcs11-id-get 1", ">PKCS11ID-ENTRY:'1'", ""},
		{"rsa-sig", "ERROR: The rsa-sig command is not currently available", ""},
		{"pk-sig", "ERROR: The pk-sig command is not currently available", ""},
		{"certificate", "ERROR: The certificate command is not currently available", ""},
		{"proxy NONE", "ERROR: The 'proxy' command is not supported by the current daemon mode", ""},
		{"remote", "ERROR: the 'remote' command requires at least 1 parameter", ""},
		{"remote ACCEPT", "ERROR: The 'remote' command is not supported by the current daemon mode", ""},
		{"remote-entry-get all", "ERROR: The 'remote-entry-get' command is not supported by the current daemon mode", ""},

		{`pid "x`, `ERROR: no closing quotation (")`, ""},
		{"'pid", "ERROR: no closing single quotation (')", ""},
		{`kill DOMAIN\user`, `ERROR: bad backslash: write \\ for one, or put the word between single quotes`, ""},
		{`kill DOMAIN\\user`, `ERROR: common name 'DOMAIN\user' not found`, `kill DOMAIN\user`},
		{"kill a\x1b[2Jb\x00", "ERROR: common name 'a[2Jb' not found", "kill a[2Jb"},
		{"\"kill\"\t\"a\\\"b\" # comment", `ERROR: common name 'a"b' not found`, `kill a"b`},
	}
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, owner *fakeOwner, c *tool) {
		for _, tt := range tests {
			want := ""
			if tt.want != "" {
				want = tt.want + "\r\n"
			}
			c.wants(tt.send, c.ask(tt.send), want)
			var calls []string
			if tt.call != "" {
				calls = []string{tt.call}
			}
			if got := owner.calls(); !slices.Equal(got, calls) {
				t.Errorf("%q: the owner was told %q, want %q", tt.send, got, calls)
			}
			if strings.HasPrefix(tt.send, "log on") {
				c.ask("log off")
			}
		}
	})
}

// A server that does not serve yet has no status.
func TestNoStatusYet(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, _ *management.Interface, owner *fakeOwner, c *tool) {
		owner.status = func(int) []byte { return nil }
		c.wants("status", c.ask("status 2"), lines("ERROR: The 'status' command is not supported by the current daemon mode"))
	})
}

// help tells of every command but those that servers only refuse.
func TestHelpIsComplete(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, _ *management.Interface, _ *fakeOwner, c *tool) {
		help := strings.Split(c.ask("help"), "\r\n")
		if n := len(help); n < 5 || help[0] != "Management Interface for OpenVPN 2.6.14 postern" || help[1] != "Commands:" || help[n-2] != "END" {
			t.Fatalf("help is no help: %q", help)
		}
		listed := make(map[string]bool)
		for _, line := range help[2 : len(help)-2] {
			word, _, _ := strings.Cut(line, " ")
			for name := range strings.SplitSeq(word, "|") {
				listed[name] = true
			}
		}
		clientsOnly := strings.Fields("certificate cr-response needok needstr net password pk-sig pkcs11-id-count pkcs11-id-get " +
			"proxy remote remote-entry-count remote-entry-get rsa-sig username")
		for _, name := range management.CommandNames() {
			if listed[name] == slices.Contains(clientsOnly, name) {
				t.Errorf("%s: listed %v", name, listed[name])
			}
			delete(listed, name)
		}
		for name := range listed {
			t.Errorf("help tells of %s, which does not exist", name)
		}
	})
}

// Commands may come in pieces, or several at once.
func TestFraming(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, _ *management.Interface, _ *fakeOwner, c *tool) {
		c.send("nclients\nverb\r\nver")
		c.wants("two and a half", c.heard(), lines("SUCCESS: nclients=0", "SUCCESS: verb=4"))
		c.send("b\nmute\nexit\nverb\n")
		c.wants("the rest", c.heard(), lines("SUCCESS: verb=4", "SUCCESS: mute=0")+"<EOF>")
	})
}

// S097: a line has at most 4,096 bytes, a block 64 KiB. What is longer is an error and leaves the next command alone.
func TestLimits(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, _ *management.Interface, owner *fakeOwner, c *tool) {
		longest := "kill " + strings.Repeat("x", 4096-len("kill "))
		c.wants("the longest line", c.ask(longest), lines("ERROR: common name '"+longest[5:]+"' not found"))
		owner.calls()
		c.wants("one more", c.ask(longest+"x"), lines("ERROR: the line is longer than 4096 bytes"))
		c.wants("a megabyte", c.ask(strings.Repeat("kill ", 200_000)), lines("ERROR: the line is longer than 4096 bytes"))

		tooLong := "ERROR: the lines of the 'client-auth' command are too long"
		c.send("client-auth 0 1\n" + longest + "x\n")
		c.wants("a long line in a block", c.ask("END"), lines(tooLong))
		line := strings.Repeat("y", 1023)
		c.send("client-auth 0 1\n" + strings.Repeat(line+"\n", 65))
		c.wants("a long block", c.ask("END"), lines(tooLong))
		if got := owner.calls(); got != nil {
			t.Errorf("the owner was told %.60q", got)
		}
		c.send("client-auth 0 1\n" + strings.Repeat(line+"\n", 64))
		c.wants("the longest block", c.ask("END"), lines("SUCCESS: client-auth command succeeded"))
		if got := owner.calls(); len(got) != 1 || len(got[0]) != len("auth ")+64*1024-1 {
			t.Errorf("the owner was told %d things", len(got))
		}
		c.wants("afterwards", c.ask("verb"), lines("SUCCESS: verb=4"))
		if got := len(c.ask("test 2000000000")); got > 1<<20 {
			t.Errorf("test wrote %d bytes", got)
		}
	})
}

func TestHistories(t *testing.T) {
	inBubble(t, management.Options{LogCache: 3}, func(t *testing.T, i *management.Interface, _ *fakeOwner, c *tool) {
		at := time.Unix(1795358846, 0)
		for n := range 105 {
			i.Echo(at, "echo "+strings.Repeat("i", n))
		}
		got := strings.Split(c.ask("echo all"), "\r\n")
		if len(got) != 102 || got[0] != "1795358846,echo iiiii" || got[99] != "1795358846,echo "+strings.Repeat("i", 104) || got[100] != "END" {
			t.Errorf("echo all gave %d lines, from %q", len(got), got[0])
		}
		i.LogLine("I", at, "one")
		i.LogLine("W", at, "two")
		i.LogLine("", at, "three")
		now := time.Now().Unix()
		if now != 946684800 {
			t.Fatalf("the bubble's time is %d", now)
		}
		c.wants("log all", c.ask("log all"), lines("1795358846,W,two", "1795358846,,three", "946684800,D,MANAGEMENT: CMD 'log all'", "END"))
		c.wants("log 1", c.ask("log 1"), lines("946684800,D,MANAGEMENT: CMD 'log 1'", "END"))
	})
}

// Byte counts come at the interval, of clients that had traffic, and end with it.
func TestByteCount(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, _ *management.Interface, owner *fakeOwner, c *tool) {
		one, idle := management.ByteCount{Client: 3, Received: 10, Sent: 20}, management.ByteCount{Client: 4}
		owner.setCounts(one, idle)
		c.wants("bytecount", c.ask("bytecount 5"), lines("SUCCESS: bytecount interval changed"))
		time.Sleep(4 * time.Second)
		c.wants("before the interval", c.heard(), "")
		time.Sleep(time.Second)
		c.wants("after it", c.heard(), lines(">BYTECOUNT_CLI:3,10,20"))
		time.Sleep(5 * time.Second)
		c.wants("without traffic", c.heard(), "")
		idle.Sent = 1
		owner.setCounts(one, idle)
		time.Sleep(5 * time.Second)
		c.wants("with traffic", c.heard(), lines(">BYTECOUNT_CLI:4,0,1"))
		c.wants("bytecount 0", c.ask("bytecount 0"), lines("SUCCESS: bytecount interval changed"))
		owner.setCounts(management.ByteCount{Client: 3, Received: 11, Sent: 20})
		time.Sleep(time.Minute)
		c.wants("when it is off", c.heard(), "")
	})
}

// A server that is to hold begins when a tool says so, and tools that come meanwhile are told.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := management.New(management.Options{Hold: true}, newFakeOwner(), quiet())
		early := connect(t.Context(), t, i, management.Access{})
		early.wants("before the hold", early.heard(), greeting)
		released := make(chan error, 1)
		go func() { released <- i.Hold(t.Context()) }()
		early.wants("at the hold", early.heard(), lines(">HOLD:Waiting for hold release:0"))
		late := connect(t.Context(), t, i, management.Access{})
		late.wants("in the hold", late.heard(), greeting+lines(">HOLD:Waiting for hold release:0"))
		late.ask("hold off")
		select {
		case <-released:
			t.Error("hold off released")
		default:
		}
		late.wants("release", late.ask("hold release"), lines("SUCCESS: hold release succeeded"))
		if err := <-released; err != nil {
			t.Error(err)
		}
		if err := i.Hold(t.Context()); err != nil { // the flag is off
			t.Error(err)
		}
		third := connect(t.Context(), t, i, management.Access{})
		third.wants("after it", third.heard(), greeting)
		for _, c := range []*tool{early, late, third} {
			c.leave()
		}
	})
}
