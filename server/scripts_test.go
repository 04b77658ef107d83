package server

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/server/config"
	"postern/server/hooks"
	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// withScripts has the server run one shell script at these hooks. It notes its hook, arguments and common_name, and then
// does what text says. In a bubble no time passes while a script, or what it has left running with its output open, runs.
func (w *world) withScripts(text string, kinds ...hooks.Kind) (calls func() []string) {
	w.t.Helper()
	dir := w.t.TempDir()
	script, notes := filepath.Join(dir, "script"), filepath.Join(dir, "notes")
	must(w.t, os.WriteFile(script, []byte("#!/bin/sh\necho $script_type ${1#"+os.TempDir()+"*} $2 $3 [$common_name] >>"+notes+"\n"+text+"\n"), 0o700))
	commands := make(map[hooks.Kind]hooks.Command)
	for _, k := range kinds {
		commands[k] = hooks.Command{script}
	}
	tmp := filepath.Join(dir, "tmp")
	must(w.t, os.Mkdir(tmp, 0o700))
	var err error
	w.scripts, err = hooks.New(hooks.Options{Commands: commands, Security: 3, TempDir: tmp, Log: zerolog.New(w.log)}, new(hooks.Daemon))
	must(w.t, err)
	w.t.Cleanup(func() {
		w.scripts.Close()
		if left, _ := os.ReadDir(tmp); len(left) > 0 {
			w.t.Errorf("files are left: %v", left)
		}
	})
	return func() (lines []string) {
		b, _ := os.ReadFile(notes)
		for line := range strings.Lines(string(b)) {
			fields := strings.Fields(line)
			lines = append(lines, strings.Join(slices.DeleteFunc(fields, func(f string) bool { return strings.HasPrefix(f, "/") }), " "))
		}
		return lines
	}
}

// What client-connect writes is applied behind the client's file: pushes, networks behind the client, a fixed address.
// What makes no sense is skipped and told.
func TestClientConnectLines(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.ClientConfigDir = t.TempDir()
		must(t, os.WriteFile(filepath.Join(w.cfg.ClientConfigDir, "alice"), []byte("push \"route 10.1.0.0 255.255.0.0\"\n"), 0o600))
		must(t, os.WriteFile(filepath.Join(w.cfg.ClientConfigDir, "office"), []byte("push \"route 10.3.0.0 255.255.0.0\"\n"), 0o600))
		w.withScripts(`cat >$1 <<-'END'
			push "route 10.2.0.0 255.255.0.0"
			config office
			iroute 192.168.7.0 255.255.255.0
			ifconfig-push 10.8.0.15 255.255.255.0
			rubbish `+"\x01\xff"+`
			push-remove "topology"
			config ../../etc/passwd
		END`, hooks.ClientConnect)
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		options := strings.Join(alice.ctl.Options(), ",")
		if want := "route 10.1.0.0 255.255.0.0,route 10.2.0.0 255.255.0.0,route 10.3.0.0 255.255.0.0,"; !strings.Contains(options, want) || strings.Contains(options, "topology") {
			t.Errorf("pushed %q, want %q and no topology in it", options, want)
		}
		if got := alice.addr4().String(); got != "10.8.0.15" {
			t.Errorf("address %s, want the script's", got)
		}
		alice.mustReach()
		alice.mustReachFrom(netip.MustParseAddr("192.168.7.9"), lanHost)
		if n := w.log.count("client-connect:", "rubbish"); n != 1 {
			t.Errorf("%d lines about rubbish, want 1; log:\n%s", n, w.log)
		}
		if leased, _, _ := w.srv.usage(); leased != 1 {
			t.Errorf("%d entries of the pool are leased, want the one of the address", leased)
		}
	})
}

// A script that fails, or says disable, keeps its client out, and takes nothing. One that had agreed is told of the end.
func TestClientConnectRefuses(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		calls := w.withScripts(`case $script_type-$common_name in client-connect-bob) exit 1;; client-connect-carol) echo disable >$1;; esac`,
			hooks.ClientConnect, hooks.ClientDisconnect)
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		for i, name := range []string{"bob", "carol"} {
			if text, _ := w.peer(name, from(i)).refusal(); text != "AUTH_FAILED" {
				t.Errorf("%s heard %q, want AUTH_FAILED alone", name, text)
			}
		}
		time.Sleep(time.Minute)
		alice.mustReach()
		if leased, _, _ := w.srv.usage(); leased != 1 {
			t.Errorf("%d entries of the pool are leased, want alice's", leased)
		}
		want := []string{"client-connect [alice]", "client-connect [bob]", "client-connect [carol]", "client-disconnect [carol]"}
		if got := calls(); !slices.Equal(got, want) {
			t.Errorf("called %q, want %q", got, want)
		}
	})
}

// A client that comes again: its older session's scripts run to their end before the newer one's begin, or they would
// take down what that has set up. An address that it keeps is its own all along.
func TestScriptsOfOneNameInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		calls := w.withScripts("", hooks.ClientConnect, hooks.ClientDisconnect, hooks.LearnAddress)
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		again := w.peerWith(alice.cert, otherAddr).connect()
		again.mustReach()
		again.ctl.Leave()
		time.Sleep(10 * time.Second)
		session := []string{
			"client-connect [alice]", "learn-address add 10.8.0.2 alice [alice]", "learn-address add fd00:8::1000 alice [alice]",
			"client-disconnect [alice]", "learn-address delete 10.8.0.2 []", "learn-address delete fd00:8::1000 []",
		}
		if got, want := calls(), slices.Concat(session, session); !slices.Equal(got, want) {
			t.Errorf("called\n%q, want\n%q", got, want)
		}
	})
}

// An address that learn-address refuses is not the client's, and is not told of when it goes.
func TestLearnAddressRefuses(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.ClientConfigDir = t.TempDir()
		must(t, os.WriteFile(filepath.Join(w.cfg.ClientConfigDir, "alice"), []byte("iroute 192.168.7.0 255.255.255.0\niroute 192.168.8.0 255.255.255.0\n"), 0o600))
		calls := w.withScripts(`case $1-$2 in add-fd00*|add-192.168.7*) exit 1;; esac`, hooks.LearnAddress)
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		alice.mustReach()
		alice.mustReachFrom(netip.MustParseAddr("192.168.8.9"), lanHost)
		w.written()
		alice.send(udp(netip.MustParseAddr("192.168.7.9"), lanHost, []byte("not mine")))
		alice.send(udp(alice.addr6(), lanHost6, []byte("not mine either")))
		expect(t, "from addresses that were refused", w.written())
		alice.ctl.Leave()
		time.Sleep(10 * time.Second)
		var deleted []string
		for _, c := range calls() {
			if strings.Contains(c, "delete") {
				deleted = append(deleted, strings.Fields(c)[2])
			}
		}
		if want := []string{"10.8.0.2", "192.168.8.0/24"}; !slices.Equal(deleted, want) {
			t.Errorf("told of the end of %q, want %q", deleted, want)
		}
	})
}

// tls-verify has a say about each certificate, from the authority's to the client's, at each handshake.
func TestTLSVerify(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		calls := w.withScripts(`test "$1 $common_name" != "0 bob"`, hooks.TLSVerify)
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		if text, _ := w.peer("bob", otherAddr).refusal(); text != "AUTH_FAILED,certificate not accepted" {
			t.Errorf("bob heard %q", text)
		}
		time.Sleep(2 * time.Minute)
		alice.renegotiate()
		alice.mustReach()
		one := []string{"tls-verify 1 CN=Test CA []", "tls-verify 0 CN=alice [alice]"}
		want := slices.Concat(one, []string{one[0], "tls-verify 0 CN=bob [bob]"}, []string{"tls-verify 1 CN=Test CA [alice]", one[1]})
		if got := calls(); !slices.Equal(got, want) {
			t.Errorf("called %q, want %q", got, want)
		}
	})
}

// A login by a script: yes, no, no with words, and an answer that comes later.
func TestLoginByScript(t *testing.T) {
	for _, c := range []struct{ password, want string }{
		{"yes", ""},
		{"no", "AUTH_FAILED"},
		{"words", "AUTH_FAILED,come on Monday"},
		{"question", "AUTH_FAILED,CRV1:R,E:state1:YWxpY2U=:Which colour?"},
		{"crash", "AUTH_FAILED,TEMP"},
		{"later-yes", ""},
		{"later-no", "AUTH_FAILED,not today"},
		{"", "AUTH_FAILED,empty password"}, // S051: the script is not asked
	} {
		t.Run(c.password, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				calls := w.withScripts(`case $password in
					yes) exit 0;;
					words) echo come on Monday >$auth_failed_reason_file; exit 1;;
					question) echo CRV1:R,E:state1:YWxpY2U=:Which colour? >$auth_failed_reason_file; exit 1;;
					crash) kill -9 $$;;
					later-yes) (sleep 0.3; echo 1 >$auth_control_file) & exit 2;;
					later-no) (sleep 0.3; echo not today >$auth_failed_reason_file; echo 0 >$auth_control_file) & exit 2;;
				esac
				exit 1`, hooks.AuthUserPassVerify)
				w.login = auth.Scripted()
				w.start()
				p := w.peer("alice", homeAddr, withLogin("Alice", c.password))
				if c.want == "" {
					p.connect().mustReach()
				} else if text, _ := p.refusal(); !strings.HasPrefix(text, c.want) || c.want == "AUTH_FAILED" && text != c.want {
					t.Errorf("heard %q, want %q", text, c.want)
				}
				if n := len(calls()); c.password != "" && n != 1 || c.password == "" && n != 0 {
					t.Errorf("the script was called %d times", n)
				}
			})
		})
	}
}

// A script that has the user asked: the question goes out, the answer goes to client-crresponse, and that decides.
func TestLoginByScriptWithQuestion(t *testing.T) {
	for answer, want := range map[string]string{"123456": "", "654321": "AUTH_FAILED,wrong code", "none": "AUTH_FAILED"} {
		t.Run(answer, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.withScripts(`case $script_type in
					user-pass-verify) printf '40\ncrtext\nCR_TEXT:R,E:One-time code\n' >$auth_pending_file; exit 2;;
					client-crresponse)
						case $(base64 -d <$1) in
						123456) echo 1 >$auth_control_file;;
						none) exit 1;;
						*) echo wrong code >$auth_failed_reason_file; echo 0 >$auth_control_file;;
						esac;;
				esac`, hooks.AuthUserPassVerify, hooks.ClientCRResponse)
				w.login, w.cfg.Renegotiate = auth.Scripted(), time.Hour
				w.start()
				alice := w.peer("alice", homeAddr, withLogin("alice", "secret"), announcing("crtext"))
				done := make(chan error, 1)
				go func() { done <- alice.ctl.Connect(w.ctx) }()
				if _, err := alice.ctl.AwaitMessage(w.ctx, "AUTH_PENDING,timeout "); err != nil {
					t.Fatal(err)
				}
				q, err := alice.ctl.AwaitMessage(w.ctx, "INFO_PRE")
				must(t, err)
				if q != "INFO_PRE,CR_TEXT:R,E:One-time code" {
					t.Errorf("asked %q", q)
				}
				time.Sleep(20 * time.Second)
				alice.respond(answer)
				got := ""
				if err := <-done; err != nil {
					got = err.Error()
				}
				if got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		})
	}
}

// Of a client that cannot be asked the script's way, the user is told so.
func TestLoginByScriptUnableToAsk(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.withScripts(`printf '40\nwebauth\nWEB_AUTH::https://example.org/\n' >$auth_pending_file; exit 2`, hooks.AuthUserPassVerify)
		w.login = auth.Scripted()
		w.start()
		text, _ := w.peer("alice", homeAddr, withLogin("alice", "secret"), announcing("crtext")).refusal()
		if want := "AUTH_FAILED,Authentication failed, required pending auth method 'webauth' not supported"; text != want {
			t.Errorf("heard %q, want %q", text, want)
		}
	})
}

// What scripts want users to be asked, as tlsctl puts it.
func TestPendingQuestion(t *testing.T) {
	for _, c := range []struct {
		method, extra string
		want          string // "" is refused
	}{
		{"crtext", "CR_TEXT:R,E:One: two", "crtext [R E] One: two"},
		{"webauth", "WEB_AUTH::https://example.org/a:b", "webauth [] https://example.org/a:b"},
		{"webauth", "WEB_AUTH:hidden:https://example.org/", "webauth [hidden] https://example.org/"},
		{"openurl", "OPEN_URL:https://example.org/", "openurl [] https://example.org/"},
		{"webauth", "OPEN_URL:https://example.org/", ""},
		{"crtext", "CR_TEXT:R", ""},
		{"fax", "FAX:1", ""},
		{"crtext", "", ""},
	} {
		q, err := pendingQuestion(&hooks.Pending{Method: c.method, Extra: c.extra})
		got := fmt.Sprint(q.Method, " ", q.Flags, " ", q.Text)
		if (err == nil) != (c.want != "") || err == nil && got != c.want {
			t.Errorf("%s %q: %q, %v, want %q", c.method, c.extra, got, err, c.want)
		}
	}
}

// Whatever a script writes, it is refused or put to the user as it stands.
func FuzzPendingQuestion(f *testing.F) {
	f.Add("crtext", "CR_TEXT:R,E:One-time code")
	f.Add("webauth", "WEB_AUTH:hidden:https://example.org/")
	f.Add("openurl", "OPEN_URL:https://example.org/")
	f.Fuzz(func(t *testing.T, method, extra string) {
		q, err := pendingQuestion(&hooks.Pending{Method: method, Extra: extra})
		if err != nil {
			return
		}
		want := map[tlsctl.Method]string{tlsctl.AskText: "CR_TEXT:", tlsctl.AskWeb: "WEB_AUTH:", tlsctl.AskURL: "OPEN_URL:"}[q.Method]
		if q.Method != tlsctl.AskURL {
			want += strings.Join(q.Flags, ",") + ":"
		}
		if want += q.Text; want != extra || string(q.Method) != method {
			t.Errorf("%q, %q: became %+v", method, extra, q)
		}
	})
}

// tls-crypt-v2-verify judges keys before anything else: whose key it refuses gets no answer to what it says.
func TestTLSCryptV2Verify(t *testing.T) {
	for _, c := range []struct {
		metadata string
		in       bool
	}{{"office", true}, {"home", false}} {
		t.Run(c.metadata, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				text := tlsctl.GenerateServerKeyV2()
				raw, err := tlsctl.ParseServerKeyV2(text)
				must(t, err)
				server, err := tlsctl.NewServerKey(raw)
				must(t, err)
				own, err := server.GenerateClientKey([]byte(c.metadata), time.Now())
				must(t, err)
				kc, wkc, err := tlsctl.ParseClientKeyV2(own)
				must(t, err)
				w.cfg.TLSCryptV2 = config.Material{Name: "[inline]", Bytes: text}
				w.withScripts(`test "$metadata_type $(cat $metadata_file) $(env | wc -l)" = "0 office 4"`, hooks.TLSCryptV2Verify)
				w.start()
				p := w.peer("alice", homeAddr, func(cfg *ctltest.Config) {
					wrap, err := tlsctl.NewClientWrapV2(kc, wkc, true, time.Now())
					must(t, err)
					cfg.Wrap, cfg.CryptV2 = wrap, true
				})
				if c.in {
					p.connect().mustReach()
					return
				}
				ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
				defer cancel()
				if err := p.ctl.Connect(ctx); err == nil || len(p.ctl.KeyIDs()) > 0 {
					t.Errorf("connect: %v, and keys %v, want neither", err, p.ctl.KeyIDs())
				}
				if n := w.log.count("tls-crypt-v2-verify script refused"); n == 0 {
					t.Errorf("nothing in the log about it:\n%s", w.log)
				}
			})
		})
	}
}

// A client's file has timers of its own, and an address to be pushed in place of the one that it is known by.
func TestClientFileTimersAndAlias(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.ClientConfigDir = t.TempDir()
		must(t, os.WriteFile(filepath.Join(w.cfg.ClientConfigDir, "alice"), []byte("session-timeout 30\nifconfig-push 10.8.0.9 255.255.255.0 192.0.2.9\n"), 0o600))
		w.start()
		alice, bob := w.peer("alice", homeAddr).connect(), w.peer("bob", otherAddr).connect()
		if got := alice.option("ifconfig"); got != "192.0.2.9" {
			t.Errorf("pushed %s, want the alias", got)
		}
		alice.mustReachFrom(netip.MustParseAddr("10.8.0.9"), lanHost)
		time.Sleep(40 * time.Second)
		if got := w.clients(); !slices.Equal(got, []string{"bob"}) {
			t.Errorf("connected %v, want bob alone", got)
		}
		bob.mustReach()
	})
}

// A reload brings other scripts; one whose program is not there changes nothing (S095).
func TestReloadScripts(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		calls := w.withScripts("", hooks.ClientConnect)
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		script := filepath.Join(t.TempDir(), "refuse")
		must(t, os.WriteFile(script, []byte("#!/bin/sh\nexit 1\n"), 0o700))
		reload := func(program string) error {
			cfg := *w.cfg
			cfg.Scripts = config.Scripts{Commands: map[string][]string{"client-connect": {program}}, Security: 2}
			_, err := w.srv.Reload(&cfg, Login{})
			return err
		}
		if err := reload(script + "-none"); err == nil || !strings.Contains(err.Error(), "client-connect") {
			t.Errorf("reload with a program that is not there: %v", err)
		}
		w.peer("bob", otherAddr).connect()
		must(t, reload(script))
		if text, _ := w.peer("carol", thirdAddr).refusal(); text != "AUTH_FAILED" {
			t.Errorf("carol heard %q, want the new script's refusal", text)
		}
		alice.mustReach()
		if got, want := calls(), []string{"client-connect [alice]", "client-connect [bob]"}; !slices.Equal(got, want) {
			t.Errorf("the old script was called %q, want %q", got, want)
		}
	})
}

// client-connect may put its answer off: the client waits for it, and gets what the file says by then, or is refused.
func TestClientConnectLater(t *testing.T) {
	for _, answer := range []string{"1", "0"} {
		t.Run(answer, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.withScripts(`test $common_name = alice || exit 0
					printf 2 >$client_connect_deferred_file
					(sleep 0.3; echo 'push "route 10.5.0.0 255.255.0.0"' >$client_connect_config_file; printf `+answer+` >$client_connect_deferred_file) &`, hooks.ClientConnect)
				w.start()
				bob := w.peer("bob", otherAddr).connect()
				alice := w.peer("alice", homeAddr)
				if answer == "0" {
					if text, _ := alice.refusal(); text != "AUTH_FAILED" {
						t.Errorf("heard %q, want AUTH_FAILED alone", text)
					}
				} else if alice.connect().mustReach(); !slices.Contains(alice.ctl.Options(), "route 10.5.0.0 255.255.0.0") {
					t.Errorf("pushed %q, want the route that came later", alice.ctl.Options())
				}
				bob.mustReach()
			})
		})
	}
}
