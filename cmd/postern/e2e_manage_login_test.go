package main

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/cmd/lab"
)

// asked reads the next login that is put to a tool: its client, its key and its environment.
func (c *tool) asked(kind string) (client, key, env string) {
	c.f.t.Helper()
	c.until(">CLIENT:" + kind + ",")
	ids := strings.Split(strings.TrimSpace(c.until("\r\n")), ",")
	return ids[0], ids[1], c.until(">CLIENT:ENV,END\r\n")
}

// Logins that management clients decide, with the stock client: let in with settings, let in plainly, refused with a
// reason, asked for more, and asked again when keys change. The same conversation with openvpn as the server.
func TestE2EManageLogin(t *testing.T) {
	t.Parallel()
	for _, who := range contenders {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			f := newField(t, "alice", "bob")
			dir := f.family("angristan")
			f.write("angristan/server.conf", "dev tun", "topology subnet", "server 10.83.0.0 255.255.255.0", "ca ca.crt", "cert server.crt", "key server.key", "dh none",
				"keepalive 10 60", "reneg-sec 0", "management m.sock unix", "management-client-auth", "verb 3")
			f.contend(who, dir)
			c := f.tool("angristan/m.sock")
			c.until("type 'help' for more info\r\n")
			login := func(name, password string) []string {
				return []string{"auth-user-pass " + f.write(name+".login", name, password), "auth-retry nointeract", "reneg-sec 0"}
			}
			forbidden := regexp.MustCompile(`(?m)^>CLIENT:ENV,(ifconfig_pool_remote_ip|trusted_ip)=`)

			v := f.dial("alice", login("alice", "s3cret")...)
			cid, kid, env := c.asked("CONNECT")
			for _, want := range []string{"n_clients=0", "password=s3cret", "username=alice", "common_name=alice", "untrusted_ip=198.18.0.2", "IV_VER=2.6.14", "X509_0_CN=alice"} {
				if !strings.Contains(env, ">CLIENT:ENV,"+want+"\r\n") {
					t.Errorf("the environment lacks %s:\n%s", want, env)
				}
			}
			if forbidden.MatchString(env) {
				t.Errorf("the environment tells of what is not decided:\n%s", env)
			}
			if strings.Contains(v.Output(), completed) {
				t.Error("the client is in before anybody said so")
			}
			c.wants(fmt.Sprintf("client-auth %s 9%s\npush \"route 192.168.77.0 255.255.255.0\"\nEND", cid, kid), "ERROR: client-auth command failed")
			c.wants("client-deny 99 1 \"no such client\"", "ERROR: client-deny command failed")
			c.wants(fmt.Sprintf("client-auth %s %s\npush \"route 192.168.77.0 255.255.255.0\"\nEND", cid, kid), "SUCCESS: client-auth command succeeded")
			v.up(1)
			if got := strings.Join(v.pushed(), ","); !strings.Contains(got, "route 192.168.77.0 255.255.255.0") {
				t.Errorf("pushed is %s", got)
			}
			c.until(">CLIENT:ADDRESS," + cid + ",10.83.0.2,1\r\n")
			c.until(">CLIENT:ESTABLISHED," + cid + "\r\n")
			c.until(">CLIENT:ENV,END\r\n")
			c.wants("client-auth-nt "+cid+" "+kid, "SUCCESS: client-auth command succeeded")
			c.wants("client-auth-nt "+cid+" 77", "ERROR: client-auth command failed")

			// It leaves, and they are told.
			v.stop()
			c.until(">CLIENT:DISCONNECT," + cid + "\r\n")
			if env := c.until(">CLIENT:ENV,END\r\n"); !strings.Contains(env, ">CLIENT:ENV,time_duration=") || strings.Contains(env, "n_clients") {
				t.Errorf("the environment at the end:\n%s", env)
			}

			// Refused, with what the client is told.
			v = f.dial("bob", login("bob", "guess")...)
			cid, kid, _ = c.asked("CONNECT")
			c.wants(fmt.Sprintf(`client-deny %s %s "not on the list" "ask the office"`, cid, kid), "SUCCESS: client-deny command succeeded")
			f.must(v.Expect("AUTH_FAILED,ask the office", 1, 20*time.Second))
			c.until(">CLIENT:DISCONNECT," + cid + "\r\n")
			v.Kill()

			// The user is sent to a page, and let in when whoever owns that says so.
			v = f.dial("alice", append(login("alice", "s3cret"), "setenv IV_SSO webauth,crtext", "push-peer-info")...)
			cid, kid, _ = c.asked("CONNECT")
			if got := c.ask(fmt.Sprintf(`client-pending-auth %s %s "WEB_AUTH::https://sso.example.org/x" 120`, cid, kid), "\r\n"); got != "SUCCESS: client-pending-auth command succeeded\r\n" {
				t.Errorf("client-pending-auth: %q", got)
			}
			f.must(v.Expect("AUTH_PENDING", 1, 20*time.Second))
			c.wants("client-auth-nt "+cid+" "+kid, "SUCCESS: client-auth command succeeded")
			v.up(1)
			v.ping("10.83.0.1", 3, 56)
		})
	}
}

// A server that calls its management client ends when that leaves; renegotiations are put to it, and a wrong answer ends
// the session.
func TestE2EManageClient(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	path := filepath.Join(f.Dir, "tool.sock")
	l, err := net.Listen("unix", path)
	f.must(err)
	defer l.Close()
	conf := f.serverConf("management "+path+" unix", "management-client", "management-client-auth", "reneg-sec 4")
	srv, err := f.Host("router").Start("server.log", programs.postern, "serve", "--config", conf)
	f.must(err)
	c := &tool{f: f}
	c.conn, err = l.Accept()
	f.must(err)
	c.until(toolGreeting)
	f.must(srv.Expect(" serving ", 1, 20*time.Second))
	v := f.dial("alice", "auth-user-pass "+f.write("login", "alice", "s3cret"), "reneg-sec 0")
	cid, kid, _ := c.asked("CONNECT")
	c.wants("client-auth-nt "+cid+" "+kid, "SUCCESS: client-auth command succeeded")
	v.up(1)
	v.ping(lab.Lan4, 3, 56)
	again, kid2, env := c.asked("REAUTH")
	if again != cid || kid2 == kid || !strings.Contains(env, ">CLIENT:ENV,password=s3cret\r\n") {
		t.Errorf("REAUTH of %s under key %s after %s and %s:\n%s", again, kid2, cid, kid, env)
	}
	c.wants("client-auth-nt "+cid+" "+kid, "ERROR: client-auth command failed") // that key is over
	c.wants("client-auth-nt "+cid+" "+kid2, "SUCCESS: client-auth command succeeded")
	v.ping(lab.Lan4, 20, 56)
	_, kid, _ = c.asked("REAUTH")
	c.wants(fmt.Sprintf(`client-deny %s %s "account closed"`, cid, kid), "SUCCESS: client-deny command succeeded")
	f.must(v.Expect("AUTH_FAILED", 1, 20*time.Second))
	c.until(">CLIENT:DISCONNECT," + cid + "\r\n")
	f.must(c.conn.Close())
	f.must(srv.Wait(10 * time.Second))
}
