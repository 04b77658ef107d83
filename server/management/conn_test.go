package management_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

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

// S098, F43: a tool that never reads misses events and is told so; the others get theirs, and nobody waits.
func TestToolThatDoesNotRead(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, _ *fakeOwner, c *tool) {
		deaf := connectDeaf(t.Context(), t, i, management.Access{})
		synctest.Wait()
		const events = 10_000
		value := strings.Repeat("v", 200)
		start := time.Now()
		for n := range events {
			i.ClientEstablished(management.ClientID(n), n, env([2]string{"common_name", value}))
			if n%100 == 0 { // the other one reads, but needs a turn to
				if got := strings.Count(c.heard(), ">CLIENT:ESTABLISHED,"); n > 0 && got != 100 {
					t.Fatalf("the tool that reads got %d of 100 events", got)
				}
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("the events took %v", d)
		}
		dropped := i.Dropped()
		if dropped == 0 || dropped >= events {
			t.Fatalf("%d of %d events were dropped", dropped, events)
		}
		go deaf.read()
		got := deaf.heard()
		if len(got) < management.OutboxLimit/2 || len(got) > management.OutboxLimit+1000 {
			t.Errorf("%d bytes were kept", len(got))
		}
		told := fmt.Sprintf(">INFO:%d notifications were dropped, since this client read too slowly\r\n", dropped)
		if !strings.HasSuffix(got, ">CLIENT:ENV,END\r\n"+told) {
			t.Errorf("it ends in %q, want %q", got[max(len(got)-300, 0):], told)
		}
		if n := strings.Count(got, ">CLIENT:ESTABLISHED,"); uint64(n)+dropped != events || strings.Count(got, ">CLIENT:ENV,END\r\n") != n {
			t.Errorf("%d events came and %d were dropped, of %d", n, dropped, events)
		}
		i.ClientEstablished(1, 1, nil)
		deaf.wants("once it reads", deaf.heard(), lines(">CLIENT:ESTABLISHED,1", ">CLIENT:ENV,n_clients=1", ">CLIENT:ENV,END"))
		deaf.wants("a command", deaf.ask("verb"), lines("SUCCESS: verb=4"))
		deaf.leave()
	})
}

// After a drop a tool gets nothing new before it has read half of what waits: its gap is one piece, told where it is.
func TestGapIsOnePiece(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, _ *fakeOwner, _ *tool) {
		slow := connectDeaf(t.Context(), t, i, management.Access{})
		synctest.Wait()
		for i.Dropped() == 0 {
			i.Info(strings.Repeat("before ", 1000))
			synctest.Wait() // the other one reads
		}
		var got strings.Builder
		read := func(bytes int) {
			b := make([]byte, bytes)
			n, err := readFull(slow.nc, b)
			got.Write(b[:n])
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		read(management.OutboxLimit / 4)
		i.Info("in the gap")
		if n := i.Dropped(); n != 2 {
			t.Errorf("%d were dropped", n)
		}
		read(management.OutboxLimit / 2)
		i.Info("after the gap")
		i.Info("at last")
		slow.got.WriteString(got.String())
		go slow.read()
		want := lines(">INFO:2 notifications were dropped, since this client read too slowly", ">INFO:after the gap", ">INFO:at last")
		if all := slow.heard(); !strings.HasSuffix(all, "before \r\n"+want) || strings.Contains(all, "in the gap") {
			t.Errorf("it ends in %q", all[max(0, len(all)-400):])
		}
		slow.leave()
	})
}

// S098: replies are never dropped. A tool that asks and does not read is not answered further, and after a minute it
// is let go, so that it does not keep its place for ever.
func TestToolThatAsksAndDoesNotRead(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, owner *fakeOwner, c *tool) {
		deaf := connectDeaf(t.Context(), t, i, management.Access{})
		go deaf.nc.Write([]byte(strings.Repeat("test 5000\nkill x\n", 100)))
		synctest.Wait()
		if n := len(owner.calls()); n == 0 || n > 5 {
			t.Errorf("%d commands were run", n)
		}
		c.wants("the other one", c.ask("verb"), lines("SUCCESS: verb=4"))
		time.Sleep(time.Minute - time.Second)
		select {
		case err := <-deaf.done:
			t.Fatalf("before its time: %v", err)
		default:
		}
		time.Sleep(time.Second)
		<-deaf.done
		deaf.nc.Close()
	})
}

// What was queued when the server ends still arrives, the answer to the signal that ends it included.
func TestServerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		owner := newFakeOwner()
		i := management.New(management.Options{}, owner, quiet())
		owner.after = func(call string) {
			if call == "signal SIGTERM" {
				i.State(management.State{Time: time.Unix(7, 0), Name: "EXITING", Detail: "SIGTERM"})
				cancel()
				synctest.Wait() // the end comes before the reply does
			}
		}
		c, deaf := connect(ctx, t, i, management.Access{}), connectDeaf(ctx, t, i, management.Access{})
		c.heard()
		c.ask("state on")
		start := time.Now()
		c.send("signal SIGTERM\n")
		if err := <-c.done; err != nil {
			t.Errorf("it ended with %v", err)
		}
		c.wants("the last words", c.heard(), lines("SUCCESS: signal SIGTERM thrown", ">STATE:7,EXITING,SIGTERM,,,,,")+"<EOF>")
		<-deaf.done
		if d := time.Since(start); d != time.Second {
			t.Errorf("the one that does not read had %v", d)
		}
		deaf.nc.Close()
	})
}

// A tool that comes when the server ends, and never gives a password, keeps nothing waiting.
func TestServerEndsAtThePrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := management.New(management.Options{}, newFakeOwner(), quiet())
		for _, wait := range []time.Duration{0, time.Second} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(wait, cancel)
			synctest.Wait()
			start := time.Now()
			c := connect(ctx, t, i, management.Access{Password: []byte("x")})
			if err := <-c.done; err != nil || time.Since(start) != wait {
				t.Errorf("it ended after %v with %v, want %v", time.Since(start), err, wait)
			}
			c.nc.Close()
		}
	})
}

func TestSignalOnLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner := newFakeOwner()
		i := management.New(management.Options{SignalOnLeave: true}, owner, quiet())
		a, b := connect(t.Context(), t, i, management.Access{}), connect(t.Context(), t, i, management.Access{})
		a.heard()
		a.leave()
		if got := owner.calls(); got != nil {
			t.Errorf("while one is there: %q", got)
		}
		b.leave()
		if got := owner.calls(); !slices.Equal(got, []string{"signal SIGUSR1"}) {
			t.Errorf("after the last: %q", got)
		}
		locked := connect(t.Context(), t, i, management.Access{Password: []byte("x")})
		locked.heard()
		locked.leave()
		if got := owner.calls(); got != nil {
			t.Errorf("after one that was not let in: %q", got)
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

// Real sockets: as many tools as there are places, more wait; who connects is known and judged; all ends with ctx.
func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	i := management.New(management.Options{MaxClients: 2}, newFakeOwner(), zerolog.New(zerolog.SyncWriter(&log)))
	me, other := uint32(os.Getuid()), uint32(os.Getuid())+1
	myGroup, otherGroup := uint32(os.Getgid()), uint32(os.Getgid())+1
	served := make(chan error, 8)
	listen := func(name string, a management.Access) string {
		path := filepath.Join(t.TempDir(), name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { served <- i.Serve(ctx, l, a) }()
		return path
	}
	mine := listen("mine", management.Access{UID: &me, GID: &myGroup})
	others := []string{listen("user", management.Access{UID: &other}), listen("group", management.Access{GID: &otherGroup})}
	dial := func(path string) net.Conn {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return nc
	}
	expect := func(nc net.Conn, want string) {
		t.Helper()
		b := make([]byte, len(want))
		if n, err := readFull(nc, b); err != nil || string(b) != want {
			t.Fatalf("got %q, %v, want %q", b[:n], err, want)
		}
	}
	for _, path := range others {
		nc := dial(path)
		if n, err := nc.Read(make([]byte, 1)); err == nil || n != 0 {
			t.Errorf("%s lets another in", filepath.Base(path))
		}
		nc.Close()
	}
	first, second, third := dial(mine), dial(mine), dial(mine)
	expect(first, greeting)
	expect(second, greeting)
	if err := third.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := third.Read(make([]byte, 1)); err == nil {
		t.Fatalf("a third tool got %d bytes", n)
	}
	if err := third.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Write([]byte("exit\n")); err != nil {
		t.Fatal(err)
	}
	expect(third, greeting)
	if _, err := third.Write([]byte("kill client1\npid\n")); err != nil {
		t.Fatal(err)
	}
	expect(third, fmt.Sprintf("SUCCESS: common name 'client1' found, 1 client(s) killed\r\nSUCCESS: pid=%d\r\n", os.Getpid()))
	cancel()
	for range 3 {
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	if n, err := second.Read(make([]byte, 1)); err == nil || n != 0 {
		t.Errorf("a tool outlived the server")
	}
	if _, err := os.Stat(mine); err == nil {
		t.Error("the socket was left behind")
	}
	// S098: every change is audited with who made it; what only asks is not.
	audit := fmt.Sprintf(`"level":"info","part":"management","connection":5,"peer":"uid=%d gid=%d pid=%d","command":"kill client1","done":true`, me, myGroup, os.Getpid())
	if !strings.Contains(log.String(), audit) {
		t.Errorf("the log has no %s:\n%s", audit, log.String())
	}
}

func readFull(nc net.Conn, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = nc.Read(b[n:])
		n += m
	}
	return n, err
}

// S096: TCP is for loopback, with a password; an access that checks users is for unix sockets.
func TestServeRefuses(t *testing.T) {
	uid := uint32(0)
	for name, tt := range map[string]struct {
		addr   string
		access management.Access
		ok     bool
	}{
		"no password":       {"127.0.0.1:0", management.Access{}, false},
		"everywhere":        {"0.0.0.0:0", management.Access{Password: []byte("x")}, false},
		"users over TCP":    {"127.0.0.1:0", management.Access{Password: []byte("x"), UID: &uid}, false},
		"an empty password": {"127.0.0.1:0", management.Access{Password: []byte{}, Insecure: true}, false},
		"loopback":          {"127.0.0.1:0", management.Access{Password: []byte("x")}, true},
		"loopback, IPv6":    {"[::1]:0", management.Access{Password: []byte("x")}, true},
		"insecure":          {"0.0.0.0:0", management.Access{Insecure: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err = management.New(management.Options{}, newFakeOwner(), quiet()).Serve(ctx, l, tt.access)
			if (err == nil) != tt.ok {
				t.Errorf("Serve: %v", err)
			}
			if _, err := l.Accept(); err == nil {
				t.Error("the listener was left open")
			}
		})
	}
}

// Dial serves a tool that listens, and returns when it has gone.
func TestDial(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "tool"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	i := management.New(management.Options{}, newFakeOwner(), quiet())
	ended := make(chan error, 1)
	go func() { ended <- i.Dial(t.Context(), "unix", l.Addr().String(), management.Access{}) }()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(greeting))
	if _, err := readFull(nc, b); err != nil || string(b) != greeting {
		t.Errorf("got %q, %v", b, err)
	}
	nc.Close()
	if err := <-ended; err != nil {
		t.Errorf("Dial: %v", err)
	}
	if err := i.Dial(t.Context(), "unix", "/nonexistent/socket", management.Access{}); err == nil {
		t.Error("a tool that is not there was no error")
	}
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
