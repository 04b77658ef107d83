package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/audit"
)

func path(t *testing.T) string { return filepath.Join(t.TempDir(), "audit.log") }

func open(t *testing.T, path string) *audit.Log {
	t.Helper()
	l, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func write(t *testing.T, l *audit.Log, events ...string) {
	t.Helper()
	for _, e := range events {
		if err := l.Write(audit.Record{Event: e}); err != nil {
			t.Fatal(err)
		}
	}
}

// verify checks the chain through files, the oldest first.
func verify(t *testing.T, paths ...string) (*audit.Chain, error) {
	t.Helper()
	c := new(audit.Chain)
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Verify(f)
		f.Close()
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func mustVerify(t *testing.T, records int, paths ...string) {
	t.Helper()
	c, err := verify(t, paths...)
	if err != nil || c.Records != records {
		t.Errorf("%d records, %v; want %d that are a chain", c.Records, err, records)
	}
}

func records(t *testing.T, path string) (list []audit.Record) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		list = append(list, r)
	}
	return list
}

func events(t *testing.T, path string) (list []string) {
	t.Helper()
	for _, r := range records(t, path) {
		list = append(list, r.Event)
	}
	return list
}

// S104: each record has its number and the hash of the one before, and the file is nobody else's.
func TestS104Chain(t *testing.T) {
	path := path(t)
	defer syscall.Umask(syscall.Umask(0o077))
	l := open(t, path)
	write(t, l, "start", "login", "stop")
	mustVerify(t, 3, path)
	all := records(t, path)
	for i, r := range all {
		if r.Seq != uint64(i+1) || r.Time.IsZero() {
			t.Errorf("record %d: %+v", i+1, r)
		}
	}
	if all[0].Prev != strings.Repeat("0", 64) || all[1].Prev == all[2].Prev {
		t.Errorf("hashes %s, %s, %s", all[0].Prev, all[1].Prev, all[2].Prev)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v; want 0640", info.Mode(), err)
	}
}

// S104: whatever is done to a file shows, and where.
func TestS104Tampering(t *testing.T) {
	whole := path(t)
	l := open(t, whole)
	for i := range 5 {
		if err := l.Write(audit.Record{Event: "login", User: fmt.Sprint("user", i), Result: audit.Refused}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(bytes.Lines(b))
	for name, c := range map[string]struct {
		forged []byte
		line   int
		why    string
	}{
		"a value is changed":     {bytes.Replace(b, []byte("user2"), []byte("user9"), 1), 4, "was changed"},
		"a result is changed":    {bytes.Replace(b, []byte(audit.Refused), []byte(audit.Accepted), 1), 2, "was changed"},
		"a blank is added":       {bytes.Replace(b, []byte(`{"seq":3,`), []byte(`{"seq":3, `), 1), 4, "was changed"},
		"a record is taken out":  {slices.Concat(lines[0], lines[1], lines[3], lines[4]), 3, "missing"},
		"two change places":      {slices.Concat(lines[0], lines[2], lines[1], lines[3], lines[4]), 2, "missing"},
		"a record comes twice":   {slices.Concat(lines[0], lines[1], lines[1], lines[2]), 3, "put in"},
		"a number is changed":    {bytes.Replace(b, []byte(`"seq":4`), []byte(`"seq":5`), 1), 4, "missing"},
		"a line of text":         {slices.Concat(lines[0], []byte("nothing\n"), lines[1]), 2, "no record"},
		"an empty line":          {slices.Concat(lines[0], []byte("\n"), lines[1]), 2, "no record"},
		"the end is cut":         {b[:len(b)-10], 5, "half a record"},
		"a very long line":       {slices.Concat(lines[0], bytes.Repeat([]byte{'x'}, 1<<20)), 2, "longer"},
		"the first is not first": {bytes.Replace(b, []byte(strings.Repeat("0", 64)), []byte(strings.Repeat("1", 64)), 1), 1, "was changed"},
	} {
		err := new(audit.Chain).Verify(bytes.NewReader(c.forged))
		broken := (*audit.BreakError)(nil)
		if !errors.As(err, &broken) || broken.Line != c.line || !strings.Contains(broken.Why, c.why) {
			t.Errorf("%s: %v; want line %d, %s", name, err, c.line, c.why)
		}
	}
}

// S104: after a restart the chain goes on; where power was lost half way through a record, that half is removed and the
// next record says so.
func TestS104Restart(t *testing.T) {
	path := path(t)
	write(t, open(t, path), "start", "stop")
	write(t, open(t, path), "start", "login")
	mustVerify(t, 4, path)

	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	const half = `{"seq":5,"time":"2026-01-02T03:0`
	if _, err := f.WriteString(half); err != nil {
		t.Fatal(err)
	}
	f.Close()
	write(t, open(t, path), "start", "stop")
	mustVerify(t, 6, path)
	if all := records(t, path); all[4].Torn != len(half) || all[5].Torn != 0 {
		t.Errorf("after half a record: %+v", all[4:])
	}
}

// What was cut off a file while nobody wrote to it shows at its next record, not at the end of the file.
func TestS104CutWhileRunning(t *testing.T) {
	path := path(t)
	l := open(t, path)
	write(t, l, "start", "login", "connect")
	b, _ := os.ReadFile(path)
	if err := os.Truncate(path, int64(bytes.LastIndexByte(b[:len(b)-1], '\n')+1)); err != nil {
		t.Fatal(err)
	}
	write(t, l, "disconnect")
	if _, err := verify(t, path); err == nil || !strings.Contains(err.Error(), "line 3: record 4 follows record 2") {
		t.Errorf("verify: %v", err)
	}
}

// S104: a file that is moved away is followed by another of its name, in which the chain goes on; both together are
// whole, and each is alone.
func TestS104Rotation(t *testing.T) {
	path := path(t)
	l := open(t, path)
	write(t, l, "start", "login")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, l, "connect")
	// One that the program that rotates has made already.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	write(t, l, "disconnect", "stop")
	mustVerify(t, 5, path+".1", path+".2", path)
	mustVerify(t, 2, path)
	if c, err := verify(t, path+".1", path); err == nil || !strings.Contains(err.Error(), "line 1: record 4 follows record 2") {
		t.Errorf("a file is missing: %v, %d records", err, c.Records)
	}
}

// A file that was moved into a place where no other can be made goes on being written, and that is told.
func TestS104Astray(t *testing.T) {
	path := path(t)
	refused := false
	l, err := audit.OpenBy(path, func(path string) (audit.File, error) {
		if refused {
			return nil, syscall.EACCES
		}
		return audit.OpenDisk(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	run(t, l)
	refused = true
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(t.Context(), audit.Record{Event: "login"}); err != nil {
		t.Fatal(err)
	}
	if err := l.Astray(); !errors.Is(err, syscall.EACCES) {
		t.Errorf("astray: %v", err)
	}
	mustVerify(t, 1, path+".1")
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(t.Context(), audit.Record{Event: "login"}); !errors.Is(err, syscall.EACCES) {
		t.Errorf("into a file that is gone: %v", err)
	}
}

// Several processes may write to one file, a server and commands: it is one chain.
func TestS104SeveralWriters(t *testing.T) {
	path := path(t)
	var writers sync.WaitGroup
	for w := range 4 {
		l := open(t, path) // a description of its own, as in another process
		writers.Go(func() {
			for range 50 {
				if err := l.Write(audit.Record{Event: "issue", Count: w}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	mustVerify(t, 200, path)
}

// S108: what others may write, or a link leads to, is not taken; nor what holds no records.
func TestS104FilesThatAreNotTaken(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("open"), nil, 0o600), os.Chmod(at("open"), 0o666),
		os.WriteFile(at("readable"), nil, 0o600), os.Chmod(at("readable"), 0o644),
		os.WriteFile(at("text"), []byte("some text\n"), 0o600),
		os.WriteFile(at("target"), nil, 0o600), os.Symlink(at("target"), at("link")),
		syscall.Mkfifo(at("pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"open": "chmod 640", "readable": "chmod 640", "text": "no record", "link": "symbolic link",
		"pipe": "is no file", "nowhere/audit": "no such file"} {
		l, err := audit.Open(at(name))
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), at(name)) {
			t.Errorf("%s: %v; want %q", name, err, want)
		}
	}
	if b, _ := os.ReadFile(at("text")); string(b) != "some text\n" {
		t.Errorf("somebody's text is now %q", b)
	}
}

// S102: what peers have a say in does nothing to whoever reads the file, and makes no record long.
func TestS104InertText(t *testing.T) {
	path := path(t)
	evil := "a\x1b[2J\n{\"seq\":9}\u009b\u202e\u2028\x7f\xff\U000e0041ü" + strings.Repeat("é", 400)
	if err := open(t, path).Write(audit.Record{Event: "login", User: evil, Reason: evil, Name: evil, Command: evil, Peer: evil}); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	for _, bad := range []string{"\x1b", "\u009b", "\u202e", "\u2028", "\x7f", "\xff", "\U000e0041"} {
		if bytes.Contains(b, []byte(bad)) {
			t.Errorf("%q stands in the file", bad)
		}
	}
	if bytes.Count(b, []byte("\n")) != 1 || len(b) > 4096 || !bytes.Contains(b, []byte("ü")) {
		t.Errorf("%d bytes: %s", len(b), b)
	}
	mustVerify(t, 1, path)
}

// run has l written, until the test ends.
func run(t *testing.T, l *audit.Log) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(stop)
	return stop
}

// trouble is a disk that behaves as it is told.
type trouble struct {
	audit.File
	mu       sync.Mutex
	writes   error         // what Write says after half of it
	syncs    error         // what Sync says
	hang     chan struct{} // what Sync waits for
	attempts int
}

func (d *trouble) set(writes, syncs error, hang chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes, d.syncs, d.hang = writes, syncs, hang
}

func (d *trouble) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attempts++
	if d.writes != nil {
		n, _ := d.File.Write(b[:len(b)/2])
		return n, d.writes
	}
	return d.File.Write(b)
}

func (d *trouble) Sync() error {
	d.mu.Lock()
	hang, err := d.hang, d.syncs
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return err
}

// inTrouble is a Log on such a disk, being written.
func inTrouble(t *testing.T) (*audit.Log, *trouble, string) {
	t.Helper()
	path := path(t)
	disk := new(trouble)
	l, err := audit.OpenBy(path, func(path string) (f audit.File, err error) {
		disk.File, err = audit.OpenDisk(path)
		return disk, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, disk, path
}

// F10: on a full disk whoever must be recorded learns that it is not; when there is space again everything is there, once,
// and nothing half.
func TestF10FullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, disk, path := inTrouble(t)
		run(t, l)
		if err := l.Commit(t.Context(), audit.Record{Event: "first"}); err != nil || l.Trouble() != nil {
			t.Fatalf("%v, %v", err, l.Trouble())
		}
		disk.set(syscall.ENOSPC, nil, nil)
		if err := l.Commit(t.Context(), audit.Record{Event: "second"}); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
			t.Errorf("commit: %v", err)
		}
		for range 100 {
			l.Add(audit.Record{Event: "more"})
			time.Sleep(50 * time.Millisecond)
		}
		if err := l.Trouble(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("trouble: %v", err)
		}
		mustVerify(t, 1, path)
		disk.set(nil, nil, nil)
		time.Sleep(2 * time.Second)
		if err := l.Trouble(); err != nil {
			t.Errorf("trouble: %v", err)
		}
		mustVerify(t, 102, path)
		if got := events(t, path); got[1] != "second" || got[101] != "more" {
			t.Errorf("events %v", got)
		}
	})
}

// The real thing: /dev/full takes nothing.
func TestF10DevFull(t *testing.T) {
	path := path(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	l, err := audit.OpenBy(path, func(path string) (audit.File, error) {
		f, err := audit.OpenDisk(path)
		return onFull{f, full}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Write(audit.Record{Event: "start"}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	mustVerify(t, 0, path)
}

type onFull struct {
	audit.File
	full *os.File
}

func (f onFull) Write(b []byte) (int, error) { return f.full.Write(b) }

// F11: after a sync that failed nothing counts as written: all of it is written again, and once only.
func TestF11FailedSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, disk, path := inTrouble(t)
		run(t, l)
		disk.set(nil, syscall.EIO, nil)
		if err := l.Commit(t.Context(), audit.Record{Event: "login"}); !errors.Is(err, syscall.EIO) {
			t.Errorf("commit: %v", err)
		}
		mustVerify(t, 0, path)
		disk.set(nil, nil, nil)
		time.Sleep(2 * time.Second)
		mustVerify(t, 1, path)
		if disk.attempts < 2 {
			t.Errorf("%d writes", disk.attempts)
		}
	})
}

// A disk that hangs holds up nobody but who must be recorded, and that one for seconds only. When it goes on, so does
// everything.
func TestS104HangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, disk, path := inTrouble(t)
		run(t, l)
		hang := make(chan struct{})
		disk.set(nil, nil, hang)
		began := time.Now()
		for range 20000 {
			l.Add(audit.Record{Event: "float", From: netip.MustParseAddrPort("192.0.2.1:1")})
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("adding took %v", took)
		}
		if err := l.Trouble(); err != nil {
			t.Errorf("trouble at once: %v", err)
		}
		time.Sleep(5 * time.Second)
		if l.Trouble() == nil {
			t.Error("no trouble after 5 s")
		}
		if err := l.Commit(t.Context(), audit.Record{Event: "login"}); err == nil || time.Since(began) > 10*time.Second {
			t.Errorf("commit: %v after %v", err, time.Since(began))
		}
		disk.set(nil, nil, nil)
		close(hang)
		time.Sleep(2 * time.Second)
		if err := l.Trouble(); err != nil {
			t.Errorf("trouble: %v", err)
		}
		if err := l.Commit(t.Context(), audit.Record{Event: "login"}); err != nil {
			t.Error(err)
		}
		all := records(t, path)
		mustVerify(t, len(all), path)
		// Nobody can keep everything: what there was no room for is counted.
		if last := all[len(all)-1]; last.Lost == 0 || int(last.Lost)+len(all) != 20002 {
			t.Errorf("%d records, and the last says that %d are missing", len(all), last.Lost)
		}
	})
}

// Whatever was queued is written before Run ends.
func TestS104RunEnds(t *testing.T) {
	path := path(t)
	l := open(t, path)
	stop := run(t, l)
	for range 2000 {
		l.Add(audit.Record{Event: "disconnect"})
	}
	stop()
	mustVerify(t, 2000, path)
}

// A nil Log records nothing, and is in no trouble.
func TestNoLog(t *testing.T) {
	var l *audit.Log
	l.Add(audit.Record{})
	l.Run(t.Context())
	if err := errors.Join(l.Write(audit.Record{}), l.Commit(t.Context(), audit.Record{}), l.Trouble(), l.Astray(), l.Close()); err != nil {
		t.Error(err)
	}
}

// quick is a file that nobody needs after a crash.
type quick struct{ audit.File }

func (quick) Sync() error { return nil }

// S018: no file breaks who verifies it, or who goes on with it.
func FuzzVerify(f *testing.F) {
	dir := f.TempDir()
	l, err := audit.Open(filepath.Join(dir, "seed"))
	if err != nil {
		f.Fatal(err)
	}
	for range 3 {
		if err := l.Write(audit.Record{Event: "login", Bytes: &audit.Bytes{Received: 1}}); err != nil {
			f.Fatal(err)
		}
	}
	l.Close()
	seed, _ := os.ReadFile(filepath.Join(dir, "seed"))
	f.Add(seed)
	f.Add(seed[:len(seed)-1])
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := new(audit.Chain)
		whole := c.Verify(bytes.NewReader(b)) == nil
		name := filepath.Join(dir, "fuzzed")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := audit.OpenBy(name, func(path string) (audit.File, error) {
			f, err := audit.OpenDisk(path)
			return quick{f}, err
		})
		if err != nil {
			if whole {
				t.Fatalf("a chain that is whole is not taken: %v", err)
			}
			return
		}
		defer l.Close()
		if err := l.Write(audit.Record{Event: "start"}); err != nil {
			t.Fatal(err)
		}
		if whole {
			mustVerify(t, c.Records+1, name)
		}
	})
}
