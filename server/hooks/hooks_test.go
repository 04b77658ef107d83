package hooks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// A bench is a Runner whose scripts are written in the test.
type bench struct {
	*Runner
	dir string // of the scripts, for what they leave
	tmp string // for files of the Runner
	log *logged
}

// newBench makes a Runner with one shell script for all kinds. $D in it is a directory.
func newBench(t *testing.T, script string, change func(*Options)) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir(), tmp: t.TempDir(), log: &logged{}}
	path := filepath.Join(b.dir, "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nD="+b.dir+"\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	o := Options{Security: 3, TempDir: b.tmp, Commands: map[Kind]Command{}, Log: zerolog.New(b.log)}
	for _, k := range []Kind{Up, Down, RouteUp, RoutePreDown, TLSCryptV2Verify, TLSVerify, AuthUserPassVerify, ClientCRResponse, ClientConnect, LearnAddress, ClientDisconnect} {
		o.Commands[k] = Command{path}
	}
	if change != nil {
		change(&o)
	}
	var err error
	if b.Runner, err = New(o, &Daemon{Dev: "tun0", DevType: "tun"}); err != nil {
		t.Fatal(err)
	}
	return b
}

// close closes the Runner and looks whether it left files.
func (b *bench) close(t *testing.T) {
	t.Helper()
	b.Close()
	if left, err := os.ReadDir(b.tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the directory for files: %v, %v", left, err)
	}
}

// text returns what the script has written into a file.
func (b *bench) text(name string) string {
	s, _ := os.ReadFile(filepath.Join(b.dir, name))
	return string(s)
}

// eventually waits for something that another process brings about.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

var alice = &ClientInfo{CommonName: "alice", Chain: []CertInfo{{Subject: "CN=alice"}, {Subject: "CN=ca"}}}

var inside = netip.MustParsePrefix("10.8.0.2/32")

// every calls every hook, and reports the errors by kind.
func every(ctx context.Context, r *Runner) map[Kind]error {
	s := r.Session()
	defer s.Close()
	errs := map[Kind]error{
		Up: r.Up(ctx, Init), Down: r.Down(ctx, Init, "sigterm"), RouteUp: r.RouteUp(ctx),
		TLSCryptV2Verify: r.TLSCryptV2Verify(ctx, MetadataUser, []byte("x")), TLSVerify: s.TLSVerify(ctx, alice),
		LearnAddress: s.LearnAddress(ctx, AddressAdd, inside, alice), ClientDisconnect: s.ClientDisconnect(ctx, alice, 1, 2, time.Second),
		ClientCRResponse: s.ClientCRResponse(ctx, alice, "eA=="),
	}
	_, errs[AuthUserPassVerify] = s.AuthUserPassVerify(ctx, alice, Credentials{"alice", []byte("x")})
	_, errs[ClientConnect] = s.ClientConnect(ctx, alice)
	return errs
}

func TestOutcomes(t *testing.T) {
	asks := map[Kind]bool{TLSCryptV2Verify: true, TLSVerify: true, AuthUserPassVerify: true, ClientCRResponse: true, ClientConnect: true, LearnAddress: true}
	for _, c := range []struct {
		name, script string
		refusal      bool
		want         string // in the error; "" is none
	}{
		{"yes", "exit 0", false, ""},
		{"no", "exit 1", true, "exit status 1"},
		{"dies", "kill -SEGV $$", false, "ended by signal: segmentation fault"},
		{"hangs", "while :; do /bin/sleep 60; done", false, "it took longer than 300ms"},
		{"gone", "", false, "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.script, func(o *Options) {
				if c.name == "hangs" {
					o.Limit = 300 * time.Millisecond
				}
			})
			defer b.close(t)
			if c.name == "gone" {
				if err := os.Remove(filepath.Join(b.dir, "script")); err != nil {
					t.Fatal(err)
				}
			}
			for k, err := range every(t.Context(), b.Runner) {
				refusal := (*Refusal)(nil)
				switch {
				case (err == nil) != (c.want == ""), err != nil && !strings.Contains(err.Error(), c.want):
					t.Errorf("%s: got %v, want %q", k, err, c.want)
				case err != nil && !strings.Contains(err.Error(), string(k)):
					t.Errorf("%s: error does not name the hook: %v", k, err)
				case errors.As(err, &refusal) != (c.refusal && asks[k]):
					t.Errorf("%s: %T is a refusal: %v, want %v", k, err, refusal != nil, c.refusal && asks[k])
				}
			}
		})
	}
}

// Without a script, nothing is asked and everything agreed to.
func TestNoScripts(t *testing.T) {
	r, err := New(Options{}, &Daemon{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for k, err := range every(t.Context(), r) {
		if err != nil || r.Has(k) {
			t.Errorf("%s: %v, has one: %v", k, err, r.Has(k))
		}
	}
}

func TestScriptSecurity(t *testing.T) {
	for _, c := range []struct {
		level int
		file  bool
		kind  Kind
		start bool // the server may start
		runs  bool
	}{
		{0, false, ClientConnect, false, false},
		{1, false, Up, false, false},
		{1, false, ClientDisconnect, true, false},
		{2, false, ClientConnect, true, true},
		{2, false, AuthUserPassVerify, false, false},
		{2, true, AuthUserPassVerify, true, true},
		{3, false, AuthUserPassVerify, true, true},
	} {
		r, err := New(Options{Security: c.level, PasswordInFile: c.file, Commands: map[Kind]Command{c.kind: {"/bin/true"}}}, &Daemon{})
		if (err == nil) != c.start || err != nil && !errors.Is(err, ErrSecurity) {
			t.Errorf("level %d, %s: New: %v", c.level, c.kind, err)
		}
		if err != nil {
			continue
		}
		if err := every(t.Context(), r)[c.kind]; (err == nil) != c.runs || err != nil && !errors.Is(err, ErrSecurity) {
			t.Errorf("level %d, %s: %v", c.level, c.kind, err)
		}
		r.Close()
	}
}

// S090: nothing of the server's environment is inherited, and no client can set a variable that is not meant for it.
func TestS090Environment(t *testing.T) {
	t.Setenv("LD_LIBRARY_PATH", "/inherited")
	d := &Daemon{Dev: "tun0", SetEnv: [][2]string{{"BASH_ENV", "/etc/mine"}, {"verb", "99"}, {"a b", "x"}, {"", "x"}}}
	r, calls := recordingRunner(t, d, nil)
	s := r.Session()
	evil := &ClientInfo{
		CommonName: "-rf\n$(id)", Username: "x\ny",
		Peer: []Var{{"LD_PRELOAD", "/x"}, {"BASH_ENV", "/x"}, {"$(id)", "x"}, {"IV_$(id)", "x"}, {"IV_A=B", "x"}, {"IV_", "x"}, {"PATH", "/x"},
			{"IV_OK", "a\x00b\nLD_PRELOAD=/x\x7f"}, {"UV_seat", "7 A"}, {"IV_\nLD_PRELOAD", "x"}},
		Chain: []CertInfo{{Subject: "-n CN=x\x1b[2J", Fields: []Var{{"CN", "x\x1b"}, {"1.2.3", "y"}, {"=LD_PRELOAD", "z"}}}},
	}
	if err := s.TLSVerify(t.Context(), evil); err != nil {
		t.Fatal(err)
	}
	if err := s.LearnAddress(t.Context(), AddressAdd, inside, evil); err != nil {
		t.Fatal(err)
	}
	if err := s.LearnAddress(t.Context(), AddressDelete, inside, evil); err != nil {
		t.Fatal(err)
	}
	got := calls()
	if len(got) != 3 {
		t.Fatalf("%d calls, want 3", len(got))
	}
	if want := []string{"0", "_n CN=x_[2J"}; !slices.Equal(got[0].Argv, want) {
		t.Errorf("arguments %q, want %q", got[0].Argv, want)
	}
	env := got[1].Env
	if want := []string{"add", "10.8.0.2", "_rf_$(id)"}; !slices.Equal(got[1].Argv, want) {
		t.Errorf("arguments %q, want %q", got[1].Argv, want)
	}
	for name, want := range map[string]string{"IV_OK": "a_b_LD_PRELOAD=/x_", "UV_seat": "7 A", "common_name": "-rf_$(id)", "username": "x_y", "BASH_ENV": "/etc/mine",
		"verb": "0", "X509_0_CN": "x_", "X509_0_1_2_3": "y", "X509_0__LD_PRELOAD": "z"} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	for name := range env {
		if !goodName(name) {
			t.Errorf("name %q", name)
		}
		for _, no := range []string{"LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HOME", "IV_", "PWD"} {
			if name == no {
				t.Errorf("%s is set", name)
			}
		}
	}
	if len(got[2].Env) != 1 || got[2].Env["script_type"] != "learn-address" {
		t.Errorf("environment of a delete: %v", got[2].Env)
	}
}

// S090: of the server's descriptors a script gets none, not even those that were opened without close-on-exec, and
// its standard input is empty.
func TestS090Descriptors(t *testing.T) {
	for range 3 {
		fd, err := syscall.Open("/dev/zero", syscall.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
	}
	b := newBench(t, "/bin/ls /proc/self/fd > $D/fds; /usr/bin/readlink /proc/self/fd/0 > $D/stdin", nil)
	defer b.close(t)
	if err := b.Up(t.Context(), Init); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(b.text("fds")); !slices.Equal(got, []string{"0", "1", "2", "3"}) { // 3 is ls looking
		t.Errorf("descriptors %v", got)
	}
	if got := b.text("stdin"); got != "/dev/null\n" {
		t.Errorf("standard input is %q", got)
	}
}

// S090: scripts run 16 at once, whoever calls, and at most 12 for those who have not logged in.
func TestS090AtOnce(t *testing.T) {
	b := newBench(t, "echo >> $D/started; read x < $D/gate; echo >> $D/ended", func(o *Options) { o.Limit = 5 * time.Minute })
	defer b.close(t)
	gate := filepath.Join(b.dir, "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	open, err := os.OpenFile(gate, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	const strangers, members = 60, 40
	for range strangers {
		wg.Go(func() {
			if err := b.Session().TLSVerify(t.Context(), &ClientInfo{Chain: alice.Chain[:1]}); err != nil {
				t.Error(err)
			}
		})
	}
	started := func() int { return len(b.text("started")) }
	eventually(t, "12 of strangers run", func() bool { return started() == 12 })
	for range members {
		wg.Go(func() {
			if err := b.Session().LearnAddress(t.Context(), AddressAdd, inside, alice); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "16 run", func() bool { return started() == 16 })
	for i := 1; i <= strangers+members; i++ {
		if _, err := open.WriteString("\n"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "one ends", func() bool { return len(b.text("ended")) >= i })
		if n := started(); n > i+16 {
			t.Fatalf("%d started when %d had ended", n, i)
		}
	}
	eventually(t, "all have run", func() bool { return started() == strangers+members })
}

// Who stops waiting for a place gives back what it has of it.
func TestStopWaitingForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "", nil)
		defer b.close(t)
		for range cap(b.all) {
			b.all <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for range 3 * cap(b.early) {
			wg.Go(func() {
				if err := b.Session().TLSVerify(ctx, alice); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waiting for one of 16 places") {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if len(b.early) != 0 || len(b.all) != cap(b.all) {
			t.Errorf("%d and %d places are taken", len(b.early), len(b.all))
		}
	})
}

// processes of a group.
func processes(t *testing.T, group int) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat")
		// Behind the name, which may hold anything: state, parent, group.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) && fields[0] != "Z" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A script that multiplies is ended whole when nobody waits for it any more.
func TestGroupIsKilled(t *testing.T) {
	const bomb = `
grow() {
	if [ $1 -gt 0 ]; then
		grow $(($1 - 1)) & grow $(($1 - 1)) & wait
	else
		echo >> $D/leaves
		trap '' TERM HUP
		exec /bin/sleep 300
	fi
}
echo $$ > $D/pid
grow 5`
	b := newBench(t, bomb, func(o *Options) { o.Limit = time.Hour })
	defer b.close(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	result := make(chan error, 1)
	go func() { result <- b.Up(ctx, Init) }()
	eventually(t, "the script has grown", func() bool { return len(b.text("leaves")) == 32 })
	group, err := strconv.Atoi(strings.TrimSpace(b.text("pid")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // should the test fail
		for _, pid := range processes(t, group) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	if n := len(processes(t, group)); n < 32 {
		t.Fatalf("%d processes in the group", n)
	}
	why := errors.New("nobody waits")
	cancel(why)
	if err := <-result; !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
	eventually(t, "the group is gone", func() bool { return len(processes(t, group)) == 0 })
}

// What a script prints reaches the log by lines, cleaned and bounded; rubbish does no harm.
func TestOutput(t *testing.T) {
	b := newBench(t, `echo hello; printf 'a\033[2Jb\r\n\000\377\n'; /usr/bin/head -c 100000 /dev/zero | /usr/bin/tr '\000' x; echo; echo after >&2
i=0; while [ $i -lt 300 ]; do echo "$i $(/usr/bin/head -c 400 /dev/zero | /usr/bin/tr '\000' y)"; i=$((i+1)); done; echo unseen`, nil)
	defer b.close(t)
	if err := b.Session().ClientDisconnect(t.Context(), alice, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the output ends", func() bool { return strings.Contains(b.log.String(), "the rest is dropped") })
	got := b.log.String()
	for _, want := range []string{`"hook":"client-disconnect","client":"alice","message":"hello"`, `"a_[2Jb"`, `"__"`, `"after"`} {
		if !strings.Contains(got, want) {
			t.Errorf("log lacks %s", want)
		}
	}
	for _, not := range []string{"unseen", `\u00`, strings.Repeat("x", maxOutputLine+1)} {
		if strings.Contains(got, not) {
			t.Errorf("log holds %q", not)
		}
	}
	if len(got) > 3*maxOutput {
		t.Errorf("log of %d bytes", len(got))
	}
}

// What a script leaves in the background goes on, even when it prints: that is how deferred answers are written.
func TestBackgroundGoesOn(t *testing.T) {
	b := newBench(t, `( /bin/sleep 0.3; echo printing; echo 1 > $auth_control_file ) & exit 2`, nil)
	defer b.close(t)
	s := b.Session()
	l, err := s.AuthUserPassVerify(t.Context(), alice, Credentials{"alice", []byte("x")})
	if err != nil || !l.Deferred() {
		t.Fatalf("%+v, %v", l, err)
	}
	if err := l.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its output is logged", func() bool { return strings.Contains(b.log.String(), "printing") })
}

// Close ends the reading of a process that was left behind and never ends.
func TestCloseWithBackground(t *testing.T) {
	b := newBench(t, `/bin/sleep 300 & echo $! > $D/pid`, nil)
	if err := b.Up(t.Context(), Init); err != nil {
		t.Fatal(err)
	}
	b.close(t)
	pid, err := strconv.Atoi(strings.TrimSpace(b.text("pid")))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the process left behind: %v", err)
	}
}

// The scripts of one session do not overlap and keep the order of the calls; those of another do not wait for them.
func TestOrder(t *testing.T) {
	b := newBench(t, `case $2 in
10.8.0.0) echo >> $D/held; read x < $D/gate;;
esac
/bin/mkdir $D/lock.$3 || echo overlap >> $D/order
echo $2 >> $D/order
/bin/rmdir $D/lock.$3`, func(o *Options) { o.Limit = 5 * time.Minute })
	defer b.close(t)
	gate := filepath.Join(b.dir, "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	open, err := os.OpenFile(gate, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	s := b.Session()
	var wg sync.WaitGroup
	learn := func(i int) {
		wg.Go(func() {
			addr := netip.AddrFrom4([4]byte{10, 8, 0, byte(i)})
			if err := s.LearnAddress(t.Context(), AddressAdd, netip.PrefixFrom(addr, 32), alice); err != nil {
				t.Error(err)
			}
		})
		eventually(t, "the call has its place in the row", func() bool {
			s.turn.mu.Lock()
			defer s.turn.mu.Unlock()
			return s.turn.taken && len(s.turn.waiting) == i
		})
	}
	for i := range 10 {
		learn(i)
	}
	eventually(t, "the first runs", func() bool { return b.text("held") != "" })
	if err := b.Session().LearnAddress(t.Context(), AddressAdd, netip.MustParsePrefix("10.9.0.1/32"), &ClientInfo{CommonName: "bob"}); err != nil {
		t.Fatal(err)
	}
	if got := b.text("order"); got != "10.9.0.1\n" {
		t.Errorf("while one session is held up, %q has run", got)
	}
	if _, err := open.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	want := "10.9.0.1\n"
	for i := range 10 {
		want += fmt.Sprintf("10.8.0.%d\n", i)
	}
	if got := b.text("order"); got != want {
		t.Errorf("order\n%swant\n%s", got, want)
	}
}

func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turn turn
		var order []int
		first, err := turn.wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		for i := range 5 {
			go func() {
				ctx := ctx
				if i != 2 {
					ctx = t.Context()
				}
				leave, err := turn.wait(ctx)
				if i == 2 {
					if !errors.Is(err, gone) {
						t.Errorf("got %v, want %v", err, gone)
					}
					return
				}
				if err != nil {
					t.Error(err)
				}
				order = append(order, i) // the turn guards it
				leave()
			}()
			synctest.Wait()
		}
		cancel(gone)
		synctest.Wait()
		first()
		synctest.Wait()
		if want := []int{0, 1, 3, 4}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		if turn.taken {
			t.Error("still taken")
		}
	})
}
