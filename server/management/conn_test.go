package management_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/management"
)

// S096: three tries, a second apart, and nothing before the password has any effect.
func TestPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner := newFakeOwner()
		i := management.New(management.Options{}, owner, quiet())
		locked := management.Access{Password: []byte("secret")}
		const prompt = "ENTER PASSWORD:"

		c := connect(t.Context(), t, i, locked)
		c.wants("the prompt", c.heard(), prompt)
		for try := range 3 {
			start := time.Now()
			c.wants("at once", c.ask("kill client1"), "")
			time.Sleep(time.Second)
			want := prompt
			if try == 2 {
				want = "<EOF>"
			}
			c.wants("after a second", c.heard(), want)
			if d := time.Since(start); d != time.Second {
				t.Errorf("it took %v", d)
			}
		}
		if err := <-c.done; err == nil {
			t.Error("three wrong passwords were no error")
		}
		if got := owner.calls(); got != nil {
			t.Errorf("without a password: %q", got)
		}

		c = connect(t.Context(), t, i, locked)
		c.heard()
		// Commands sent with a wrong password are tries themselves.
		go c.send("wrong\nsecret\nverb\n")
		c.wants("a wrong one first", c.heard(), "")
		time.Sleep(time.Second)
		c.wants("then the right one", c.heard(), prompt+"SUCCESS: password is correct\r\n"+greeting+"SUCCESS: verb=4\r\n")
		time.Sleep(time.Hour)
		c.wants("an hour later", c.ask("verb"), lines("SUCCESS: verb=4"))
		c.leave()

		for _, wrong := range []string{"", "secret ", "Secret", "secre", "secrets", strings.Repeat("secret", 1000)} {
			c = connect(t.Context(), t, i, locked)
			c.heard()
			if got := c.ask(wrong); strings.Contains(got, "SUCCESS") {
				t.Errorf("%.10q opened", wrong)
			}
			c.leave()
		}

		c = connect(t.Context(), t, i, locked)
		c.heard()
		i.ClientEstablished(1, 1, nil)
		c.wants("an event before the password", c.heard(), "")
		time.Sleep(time.Minute)
		c.wants("after a minute", c.heard(), "<EOF>")
		<-c.done
	})
}

// S096: what begins as a web page's request does is closed, and does nothing.
func TestWebPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner := newFakeOwner()
		i := management.New(management.Options{}, owner, quiet())
		for _, start := range []string{
			"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
			"GET /\r\n",
			"OPTIONS * HTTP/1.1\r\n",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			"kill /x http/1.0\r\n",
			"PUT /" + strings.Repeat("x", 5000) + " HTTP/1.1\r\n",
			strings.Repeat("x", 5000) + "\n",
			"\x16\x03\x01\x02\x00\x01\x00\x01",
		} {
			for _, a := range []management.Access{{}, {Password: []byte("secret")}} {
				c := connect(t.Context(), t, i, a)
				c.heard()
				go c.nc.Write([]byte(start + "\nkill client1\nsecret\nkill client1\n"))
				time.Sleep(time.Second)
				c.wants(fmt.Sprintf("%.20q", start), c.heard(), "<EOF>")
				if err := <-c.done; err == nil {
					t.Errorf("%.20q was no error", start)
				}
			}
		}
		if got := owner.calls(); got != nil {
			t.Errorf("web pages did %q", got)
		}
	})
}

// Several tools: each has its own settings and its own replies, all have the events.
func TestSeveralTools(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, owner *fakeOwner, a *tool) {
		b, watcher := connect(t.Context(), t, i, management.Access{}), connect(t.Context(), t, i, management.Access{ReadOnly: true})
		b.heard()
		watcher.heard()
		a.ask("state on")
		b.ask("env-filter 2")
		i.State(management.State{Time: time.Unix(1, 0), Name: "CONNECTED", Detail: "SUCCESS", Addr4: netip.MustParseAddr("10.9.0.1"),
			Local: netip.MustParseAddrPort("127.0.0.1:1199")})
		a.wants("state on", a.heard(), lines(">STATE:1,CONNECTED,SUCCESS,10.9.0.1,,,127.0.0.1,1199"))
		b.wants("state off", b.heard(), "")

		login := env([2]string{"password", "secret"}, [2]string{"common_name", "client1"}, [2]string{"username", "alice"}, [2]string{"IV_VER", "2.6.14"})
		i.ClientConnect(0, 1, 0, login)
		a.wants("the login", a.heard(), lines(">CLIENT:CONNECT,0,1", ">CLIENT:ENV,n_clients=0", ">CLIENT:ENV,password=secret",
			">CLIENT:ENV,common_name=client1", ">CLIENT:ENV,username=alice", ">CLIENT:ENV,IV_VER=2.6.14", ">CLIENT:ENV,END"))
		b.wants("the login, filtered", b.heard(), lines(">CLIENT:CONNECT,0,1", ">CLIENT:ENV,password=secret", ">CLIENT:ENV,username=alice",
			">CLIENT:ENV,IV_VER=2.6.14", ">CLIENT:ENV,END"))
		watcher.wants("the login, for who cannot answer it", watcher.heard(), "")
		a.wants("the answer", a.ask("client-auth-nt 0 1"), lines("SUCCESS: client-auth command succeeded"))
		b.wants("another's answer", b.heard(), "")

		i.ClientReauth(0, 2, 1, env())
		a.wants("a renegotiation", a.heard(), lines(">CLIENT:REAUTH,0,2", ">CLIENT:ENV,n_clients=1", ">CLIENT:ENV,END"))
		i.ClientCRResponse(0, 2, "YQ==", 1, login)
		a.wants("a challenge's answer", a.heard(), lines(">CLIENT:CR_RESPONSE,0,2,YQ==", ">CLIENT:ENV,n_clients=1",
			">CLIENT:ENV,common_name=client1", ">CLIENT:ENV,username=alice", ">CLIENT:ENV,IV_VER=2.6.14", ">CLIENT:ENV,END"))

		b.heard()
		i.ClientEstablished(0, 1, login)
		want := lines(">CLIENT:ESTABLISHED,0", ">CLIENT:ENV,n_clients=1", ">CLIENT:ENV,common_name=client1", ">CLIENT:ENV,username=alice",
			">CLIENT:ENV,IV_VER=2.6.14", ">CLIENT:ENV,END")
		a.wants("established", a.heard(), want)
		b.wants("established, filtered", b.heard(), lines(">CLIENT:ESTABLISHED,0", ">CLIENT:ENV,username=alice", ">CLIENT:ENV,END"))
		watcher.wants("established, for who watches", watcher.heard(), want)
		i.Info("the address pool is nearly full")
		watcher.wants("a notice", watcher.heard(), lines(">INFO:the address pool is nearly full"))
		b.leave()
		watcher.leave()
		a.heard()
	})
}

// As upstream: the address and the end are told only of clients whose login was put to the tools.
func TestUnaskedClients(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, _ *fakeOwner, c *tool) {
		addr, network := netip.MustParsePrefix("10.9.0.2/32"), netip.MustParsePrefix("192.168.50.0/24")
		i.ClientAddress(5, addr, true)
		i.ClientEstablished(5, 1, nil)
		i.ClientDisconnect(5, nil)
		c.wants("not asked about", c.heard(), lines(">CLIENT:ESTABLISHED,5", ">CLIENT:ENV,n_clients=1", ">CLIENT:ENV,END"))
		i.ClientConnect(6, 9, 1, nil)
		i.ClientAddress(6, addr, true)
		i.ClientAddress(6, network, false)
		i.ClientAddress(6, netip.MustParsePrefix("fd00:50::/64"), false)
		i.ClientDisconnect(6, env([2]string{"bytes_sent", "7"}))
		i.ClientDisconnect(6, nil)
		c.wants("asked about", c.heard(), lines(">CLIENT:CONNECT,6,9", ">CLIENT:ENV,n_clients=1", ">CLIENT:ENV,END",
			">CLIENT:ADDRESS,6,10.9.0.2,1", ">CLIENT:ADDRESS,6,192.168.50.0/255.255.255.0,0", ">CLIENT:ADDRESS,6,fd00:50::/64,0",
			">CLIENT:DISCONNECT,6", ">CLIENT:ENV,bytes_sent=7", ">CLIENT:ENV,END"))
	})
}

// What a command brings about is told after its reply, and the lines of a reply stay together.
func TestEventsWaitForReply(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, owner *fakeOwner, c *tool) {
		other := connect(t.Context(), t, i, management.Access{})
		other.heard()
		owner.after = func(string) { i.ClientEstablished(0, 1, nil) }
		event := lines(">CLIENT:ESTABLISHED,0", ">CLIENT:ENV,n_clients=1", ">CLIENT:ENV,END")
		c.wants("client-auth-nt", c.ask("client-auth-nt 0 1"), lines("SUCCESS: client-auth command succeeded")+event)
		other.wants("the others", other.heard(), event)
		owner.after = nil
		owner.status = func(int) []byte {
			i.ClientEstablished(0, 1, nil)
			return []byte("one\ntwo\nEND\n")
		}
		c.wants("status", c.ask("status"), lines("one", "two", "END")+event)
		// Between the lines of a block there is no reply to wait for.
		owner.status = nil
		c.send("client-auth 0 1\n")
		i.ClientEstablished(0, 1, nil)
		c.wants("inside a block", c.heard(), event)
		c.wants("the block", c.ask("END"), lines("SUCCESS: client-auth command succeeded"))
		other.leave()
	})
}

// S097: no value of a peer starts a line of its own.
func TestPeersCannotForgeLines(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, _ *fakeOwner, c *tool) {
		c.ask("state on")
		c.ask("log on")
		c.ask("echo on")
		c.heard()
		evil := "x\r\n>CLIENT:DISCONNECT,0\r\nSUCCESS: \u2028\u0085END\nEND\x00"
		i.ClientConnect(0, 1, 0, env([2]string{evil, evil}, [2]string{"END", ""}, [2]string{"username", evil}))
		i.ClientCRResponse(0, 1, evil, 0, env([2]string{"common_name", evil}))
		i.ClientEstablished(0, 1, env([2]string{"IV_" + evil, evil}))
		i.ClientDisconnect(0, env([2]string{"common_name", evil}))
		i.LogLine("I", time.Unix(1, 0), evil)
		i.Echo(time.Unix(1, 0), evil)
		i.State(management.State{Time: time.Unix(1, 0), Name: "CONNECTED", Detail: evil})
		i.Info(evil)
		i.Fatal(evil)
		starts := regexp.MustCompile(`^>(CLIENT:(CONNECT,0,1$|CR_RESPONSE,0,1,x\\x0d|ESTABLISHED,0$|DISCONNECT,0$|ENV,(END$|(END_|x_+|IV_x_+|n_clients|username|common_name)[A-Z0-9_]*=))|LOG:1,I,x\\x0d|ECHO:1,x\\x0d|STATE:1,CONNECTED,x\\x0d|INFO:x\\x0d|FATAL:x\\x0d)`)
		got := c.heard()
		list := strings.FieldsFunc(got, func(r rune) bool { return strings.ContainsRune("\r\n\v\f\x1c\x1d\x1e\u0085\u2028\u2029", r) })
		ends := 0
		for _, line := range list {
			if !starts.MatchString(line) {
				t.Errorf("a line of its own: %q", line)
			}
			if line == ">CLIENT:ENV,END" {
				ends++
			}
		}
		if ends != 4 || strings.Count(got, ">CLIENT:DISCONNECT,0\r\n") != 1 || len(list) != 22 {
			t.Errorf("%d lines, %d ends of blocks:\n%s", len(list), ends, got)
		}
	})
}

// S098: a read-only access tells all and changes nothing.
func TestReadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner := newFakeOwner()
		i := management.New(management.Options{}, owner, quiet())
		c := connect(t.Context(), t, i, management.Access{ReadOnly: true})
		c.heard()
		for _, line := range []string{"kill client1", "kill 203.0.113.2:51271", "client-kill 0", "client-auth 0 1", "client-auth-nt 0 1",
			"client-deny 0 1 x", "client-pending-auth 0 1 x 1", "push-update-broad x", "push-update-cid 0 x", "signal SIGTERM",
			"hold release", "hold on", "verb 5", "mute 5", "auth-retry none", "forget-passwords"} {
			name, _, _ := strings.Cut(line, " ")
			c.wants(line, c.ask(line), lines("ERROR: the '"+name+"' command is not for read-only access"))
		}
		c.wants("no block was begun", c.ask("END"), lines("ERROR: unknown command, enter 'help' for more options"))
		for _, line := range []string{"hold", "verb", "mute", "auth-retry", "state on all", "log 1", "echo off", "bytecount 1", "load-stats", "env-filter 1"} {
			if got := c.ask(line); !strings.Contains(got, "SUCCESS:") && !strings.HasSuffix(got, "END\r\n") {
				t.Errorf("%s: %q", line, got)
			}
		}
		if got := owner.calls(); got != nil {
			t.Errorf("it did %q", got)
		}
		c.leave()
	})
}

// FuzzCommand feeds bytes to a connection: whatever comes, every line that goes out is whole and is one of the
// protocol's.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{"help\n", "status 2\nverb\n", "client-auth 0 1\npush x\nEND\n", "client-auth 0 1\nEND", "kill \"a b\"\n",
		"kill 1.2.3.4:5\nkill udp6:[::1]:7\n", "log on all\nstate on all\nlog off\n", "client-deny 0 1 \"r\" 'c'\n", "client-pending-auth 0 1 a 5\n",
		"signal SIGHUP\n", "\x00\xff\n\n\r\n", "password Auth x\n", "bytecount 1\nbytecount 0\n", "env-filter 9\n", "GET / HTTP/1.0\n", "\x16\x03",
		"hold on\nhold\nhold release\n", "test 3\n", "kill \"\n", "push-update-broad \"a,b\"\n", strings.Repeat("x", 5000) + "\nverb\n"} {
		f.Add([]byte(s))
	}
	whole := regexp.MustCompile(`^(SUCCESS: |ERROR: |END$|>INFO:|>LOG:\d+,D?,|>PKCS11ID-|\d+,D?,MANAGEMENT: |\[\d+\] |Management |Commands:|OpenVPN |[a-z0-9 |-]+ .*:)`)
	f.Fuzz(func(t *testing.T, input []byte) {
		i := management.New(management.Options{}, newFakeOwner(), quiet())
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- i.ServeConn(t.Context(), theirs, management.Access{}) }()
		go func() {
			ours.Write(append(input, "\nEND\nexit\n"...))
		}()
		var out bytes.Buffer
		out.ReadFrom(ours)
		<-done
		ours.Close()
		text := out.String()
		if !strings.HasPrefix(text, greeting) || !strings.HasSuffix(text, "\r\n") {
			t.Fatalf("%q was answered %q", input, text)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(text, "\r\n"), "\r\n") {
			if strings.ContainsAny(line, "\r\n\x00") || !whole.MatchString(line) {
				t.Fatalf("%q was answered with a line %q", input, line)
			}
		}
	})
}
