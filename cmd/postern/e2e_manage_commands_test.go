package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// manageCommands are put to both servers while one client is connected.
var manageCommands = []string{
	"version", "version 3", "pid", "nclients", "load-stats",
	"status", "status 0", "status 1", "status 2", "status 3", "status 4", "status x",
	"state", "state 1", "state all", "state x", "state on", "state off", "log x", "log off", "echo all", "echo x", "echo on", "echo off",
	"verb", "verb 4", "verb", "verb 3", "verb 99", "mute", "mute 5", "mute", "mute 0",
	"hold", "hold on", "hold", "hold off", "hold release", "hold x",
	"bytecount 0", "bytecount x", "auth-retry", "auth-retry none", "auth-retry interact", "auth-retry x", "auth-retry none",
	"env-filter", "env-filter 1", "env-filter", "env-filter 0",
	"signal", "signal FOO", "forget-passwords",
	"kill", "kill nobody", "kill 203.0.113.9:1", "kill 203.0.113.9:x", "kill udp:203.0.113.9:1",
	"client-kill", "client-kill 99", "client-kill x", "client-kill 99 HALT",
	"client-auth-nt", "client-auth-nt 0", "client-auth-nt 9 9", "client-auth-nt x 1", "client-deny", "client-deny 0", "client-deny 9 9 why", "client-deny 9 9 why what",
	"client-auth 9 9\nEND", "client-pending-auth", "client-pending-auth 0", "client-pending-auth 9 9 WEB_AUTH::https://x/ 30",
	"client-pf 0", "nonsense", "NCLIENTS", `kill "open`, "  nclients  ", "password", `password "Auth" x`, `username "Auth" x`,
	"needok a ok", "needstr a b", "rsa-sig", "proxy", "remote", "remote-entry-count", "remote-entry-get", "remote-entry-get all", "cr-response", "cr-response x", "net",
	"pkcs11-id-count", "pkcs11-id-get", "pkcs11-id-get 1",
}

// manageDiffers says where our answer is another on purpose.
var manageDiffers = map[string]string{
	"status x":               "a word is no version, where openvpn takes it for 0",
	"bytecount x":            "likewise",
	"auth-retry x":           "openvpn lets a line of its log slip in",
	"kill udp:203.0.113.9:1": "the form of openvpn 2.7, which tools of today send, is understood",
	`kill "open`:             "openvpn speaks of a line of a file",
}

// Every command, with and without what it needs, is answered as openvpn answers it in the same place.
func TestE2EManageCommands(t *testing.T) {
	t.Parallel()
	answers := make(map[string]map[string]string)
	for _, who := range contenders {
		f := newField(t, "alice")
		dir := f.family("angristan")
		f.write("angristan/server.conf", "dev tun", "topology subnet", "server 10.83.0.0 255.255.255.0", "server-ipv6 fd00:83::/64", "ca ca.crt",
			"cert server.crt", "key server.key", "dh none", "keepalive 10 60", "management m.sock unix", "verb 3", "echo hello there")
		srv := f.contend(who, dir)
		f.connect("alice").ping("10.83.0.1", 3, 56)
		c := f.tool("angristan/m.sock")
		c.until("type 'help' for more info\r\n")
		f.tellsInTime("status", func() string { return c.ask("status", "END\r\n") }, "10.83.0.2")
		answers[who] = make(map[string]string)
		const sentinel = "SUCCESS: nclients=1\r\n"
		for i, command := range manageCommands {
			// What comes before the answer to the second command is that to the first.
			got := strings.TrimSuffix(c.ask(command+"\nnclients", sentinel), sentinel)
			if strings.TrimSpace(command) == "nclients" {
				got = c.until(sentinel)
			}
			answers[who][fmt.Sprintf("%d %s", i, command)] = manageShape(got)
		}
		c.ask("exit", "")
		f.must(srv.Stop())
		f.Close()
	}
	for i, command := range manageCommands {
		key := fmt.Sprintf("%d %s", i, command)
		want, got := answers["reference"][key], answers["postern"][key]
		if reason, differs := manageDiffers[command]; (want != got) != differs {
			t.Errorf("%q (%s): openvpn answers\n%s\nand we\n%s", command, reason, want, got)
		}
	}
}

// manageShape is an answer without what differs from run to run.
func manageShape(text string) string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for _, r := range []struct{ is, as string }{
		{`pid=\d+`, `pid=N`}, {`bytesin=\d+,bytesout=\d+`, `bytesin=N,bytesout=N`},
		{`OpenVPN Version: OpenVPN 2\.6\.14 .*`, `OpenVPN Version: OpenVPN 2.6.14 PROGRAM`},
		{`(?m)^\d{9,},`, `SECONDS,`},
	} {
		text = regexp.MustCompile(r.is).ReplaceAllString(text, r.as)
	}
	if strings.Contains(text, "CLIENT_LIST") || strings.Contains(text, "CLIENT LIST") {
		text = statusShape(text)
	}
	return text
}
