package hooks

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// answer finds the one file of a kind and writes it, as somebody's program would.
func (b *bench) answer(t *testing.T, kind, text string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(b.tmp, "openvpn_"+kind+"_*.tmp"))
	if err != nil || len(found) != 1 {
		t.Fatalf("files of kind %s: %v, %v", kind, found, err)
	}
	if err := os.WriteFile(found[0], []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDeferredLogin(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []string // one a minute, into auth_control_file
		reason  string
		want    string // "" is accepted
		public  string
	}{
		{"yes", []string{"1"}, "", "", ""},
		{"still pending, then yes", []string{"2", "", "1\n"}, "", "", ""},
		{"no", []string{"0"}, "", "0 in auth_control_file", ""},
		{"no, with a reason", []string{"2", "0\n"}, "call \x07 the desk\r\n", "0 in auth_control_file", "call _ the desk"},
		{"no answer", nil, "", "no answer in ", ""},
		{"rubbish", []string{"yes"}, "", "no answer in ", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, "exit 2", nil)
			synctest.Test(t, func(t *testing.T) {
				defer b.close(t)
				s := b.Session()
				defer s.Close()
				l, err := s.AuthUserPassVerify(t.Context(), alice, Credentials{"alice", []byte("x")})
				if err != nil || !l.Deferred() || l.Pending != nil {
					t.Fatalf("%+v, %v", l, err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				result := make(chan error, 1)
				go func() { result <- l.Wait(ctx) }()
				if c.reason != "" {
					b.answer(t, "afr", c.reason)
				}
				for _, a := range c.answers {
					time.Sleep(time.Minute)
					select {
					case err := <-result:
						t.Fatalf("an early answer: %v", err)
					default:
					}
					b.answer(t, "acf", a)
				}
				asked := time.Now()
				err = <-result
				refusal := (*Refusal)(nil)
				errors.As(err, &refusal)
				switch {
				case (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want):
					t.Errorf("got %v, want %q", err, c.want)
				case strings.HasPrefix(c.want, "no answer") != errors.Is(err, context.DeadlineExceeded):
					t.Errorf("got %v", err)
				case !strings.HasPrefix(c.want, "no answer") && time.Since(asked) > time.Second:
					t.Errorf("noticed after %v", time.Since(asked))
				case (refusal != nil) != strings.HasPrefix(c.want, "0"):
					t.Errorf("refusal %v of %v", refusal, err)
				case refusal != nil && refusal.Public != c.public:
					t.Errorf("the client reads %q, want %q", refusal.Public, c.public)
				}
			})
		})
	}
}

func TestRefusedLoginReason(t *testing.T) {
	b := newBench(t, `printf 'go\naway\n' > $auth_failed_reason_file; exit 1`, nil)
	defer b.close(t)
	_, err := b.Session().AuthUserPassVerify(t.Context(), alice, Credentials{"alice", []byte("x")})
	refusal := (*Refusal)(nil)
	if !errors.As(err, &refusal) || refusal.Public != "go_away" {
		t.Errorf("got %v", err)
	}
}

func TestPendingLogin(t *testing.T) {
	for _, c := range []struct {
		name, sso, file string
		want            Pending
		err             string
	}{
		{"web", "openurl,webauth", "120\nwebauth\nWEB_AUTH::https://sso.example/x\n", Pending{2 * time.Minute, "webauth", "WEB_AUTH::https://sso.example/x"}, ""},
		{"no newline at the end", "crtext", "1\ncrtext\nCR_TEXT:R,E:hi", Pending{time.Second, "crtext", "CR_TEXT:R,E:hi"}, ""},
		{"unknown to the client", "webauth", "120\ncrtext\nx\n", Pending{}, "does not know the method"},
		{"client knows none", "", "120\ncrtext\nx\n", Pending{}, "does not know the method"},
		{"two lines", "crtext", "120\ncrtext", Pending{}, "three lines"},
		{"no number", "crtext", "soon\ncrtext\nx\n", Pending{}, "line 1"},
		{"no time", "crtext", "0\ncrtext\nx\n", Pending{}, "line 1"},
		{"for ever", "crtext", "999999999\ncrtext\nx\n", Pending{}, "line 1"},
		{"no method", "crtext", "12\n\nx\n", Pending{}, "line 2"},
		{"control byte", "crtext", "12\ncrtext\n\x1b\n", Pending{}, "line 3"},
		{"long", "crtext", "12\ncrtext\n" + strings.Repeat("x", maxPendingExtra+1), Pending{}, "line 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, `/bin/cp $D/pending $auth_pending_file; exit 2`, nil)
			defer b.close(t)
			if err := os.WriteFile(filepath.Join(b.dir, "pending"), []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			info := *alice
			if c.sso != "" {
				info.Peer = []Var{{"IV_SSO", c.sso}}
			}
			s := b.Session()
			l, err := s.AuthUserPassVerify(t.Context(), &info, Credentials{"alice", []byte("x")})
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("got %v, want %q", err, c.err)
			}
			if refusal := (*Refusal)(nil); errors.As(err, &refusal) &&
				refusal.Public != "Authentication failed, required pending auth method 'crtext' not supported" {
				t.Errorf("the client reads %q", refusal.Public)
			}
			if err == nil && (l.Pending == nil || *l.Pending != c.want) {
				t.Errorf("got %+v, want %+v", l.Pending, c.want)
			}
			s.Close() // nobody waits: the files go
		})
	}
}

// A client's answer to a challenge reaches the script while the login waits, and the script decides there.
func TestCRResponse(t *testing.T) {
	b := newBench(t, `case $script_type in
user-pass-verify) printf '60\ncrtext\nCR_TEXT:R,E:number\n' > $auth_pending_file; exit 2;;
client-crresponse) read answer < $1; [ "$answer" = MTIz ] && echo 1 > $auth_control_file || echo 0 > $auth_control_file;;
esac`, nil)
	defer b.close(t)
	info := *alice
	info.Peer = []Var{{"IV_SSO", "crtext"}}
	for answer, want := range map[string]bool{"MTIz": true, "NDU2": false} {
		s := b.Session()
		l, err := s.AuthUserPassVerify(t.Context(), &info, Credentials{"alice", []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		result := make(chan error, 1)
		go func() { result <- l.Wait(t.Context()) }()
		if err := s.ClientCRResponse(t.Context(), &info, answer); err != nil {
			t.Fatal(err)
		}
		if err := <-result; (err == nil) != want {
			t.Errorf("%s: %v", answer, err)
		}
		s.Close()
	}
}

// The files of a login that was superseded go, too.
func TestSecondLogin(t *testing.T) {
	b := newBench(t, "exit 2", nil)
	defer b.close(t)
	s := b.Session()
	for range 3 {
		if _, err := s.AuthUserPassVerify(t.Context(), alice, Credentials{"alice", []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(b.tmp); len(left) != 3 {
			t.Errorf("%d files", len(left))
		}
	}
	s.Close()
}

func TestClientConnect(t *testing.T) {
	const lines = `echo 'push "route 10.1.0.0 255.255.0.0"' > $1`
	for _, c := range []struct {
		name, script string
		answers      []string // one a minute, into client_connect_deferred_file
		lines, err   string
	}{
		{"lines", lines, nil, "push \"route 10.1.0.0 255.255.0.0\"\n", ""},
		{"none", "", nil, "", ""},
		{"through the variable", "echo disable > $client_connect_config_file", nil, "disable\n", ""},
		{"file removed", "/bin/rm $1 $client_connect_deferred_file", nil, "", ""},
		{"file replaced", "/bin/rm $1; /usr/bin/mkfifo $1", nil, "", "not a file any more"},
		{"file is a link", "/bin/ln -sf /etc/passwd $1", nil, "", "too many levels of symbolic links"},
		{"file too large", "/usr/bin/head -c 2000000 /dev/zero > $1", nil, "", "larger than"},
		{"refused", "exit 1", nil, "", "refused: exit status 1"},
		{"at once", "echo 1 > $client_connect_deferred_file\n" + lines, nil, "push \"route 10.1.0.0 255.255.0.0\"\n", ""},
		{"deferred", "echo 2 > $client_connect_deferred_file\n" + lines, []string{"2", "1"}, "push \"route 10.1.0.0 255.255.0.0\"\n", ""},
		{"deferred, refused", "echo 2 > $client_connect_deferred_file\n" + lines, []string{"0"}, "", "refused: 0 in"},
		{"deferred for ever", "echo 2 > $client_connect_deferred_file", nil, "", "deferred: no answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.script, nil)
			synctest.Test(t, func(t *testing.T) {
				defer b.close(t)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				go func() {
					for _, a := range c.answers {
						time.Sleep(time.Minute)
						b.answer(t, "ccr", a)
					}
				}()
				got, err := b.Session().ClientConnect(ctx, alice)
				if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				if string(got) != c.lines {
					t.Errorf("lines %q, want %q", got, c.lines)
				}
			})
		})
	}
}

func FuzzParsePending(f *testing.F) {
	f.Add([]byte("120\nwebauth\nWEB_AUTH::https://x\n"))
	f.Add([]byte("1\r\na\r\n\r\n"))
	f.Add([]byte("\n\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePending(b)
		if err != nil {
			return
		}
		if p.Timeout <= 0 || p.Timeout > maxPendingTime || p.Method == "" || strings.ContainsAny(p.Method+p.Extra, "\x00\r\n") || len(p.Extra) > maxPendingExtra {
			t.Errorf("accepted %+v", p)
		}
		if public := publicReason(b); len(public) > 3*maxReason || strings.ContainsAny(public, "\x00\r\n") {
			t.Errorf("reason %q", public)
		}
	})
}
