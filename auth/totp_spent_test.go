package auth

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func spentFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "spent"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (s *spentCodes) mustSpend(t *testing.T, name string, step, now int64, want bool) {
	t.Helper()
	fresh, err := s.spend(name, step, now)
	if err != nil || fresh != want {
		t.Errorf("%s at %d, now %d: %v, %v, want %v", name, step, now, fresh, err, want)
	}
}

// A code is good once, and so are those before it; for each user on their own, and in the next run too.
func TestSpentOnce(t *testing.T) {
	file := spentFile(t)
	at := time.Unix(100*codeTime, 0)
	s, err := newSpentCodes(file, at)
	if err != nil {
		t.Fatal(err)
	}
	s.mustSpend(t, "alice", 100, 100, true)
	s.mustSpend(t, "alice", 100, 100, false)
	s.mustSpend(t, "alice", 99, 100, false)
	s.mustSpend(t, "bob", 99, 100, true)
	s.mustSpend(t, "alice", 101, 100, true)
	if s, err = newSpentCodes(file, at); err != nil {
		t.Fatal(err)
	}
	s.mustSpend(t, "alice", 101, 101, false)
	s.mustSpend(t, "alice", 100, 101, false)
	s.mustSpend(t, "bob", 99, 100, false)
	s.mustSpend(t, "bob", 100, 100, true)
	s.mustSpend(t, "alice", 102, 101, true)
	s.mustSpend(t, "carol", 200, 200, true)
	if len(s.steps) != 1 {
		t.Errorf("remembers %v", s.steps)
	}
	text, err := os.ReadFile(file.Name())
	if err != nil || string(text) != "200 carol\nend\n" {
		t.Errorf("file is %q, %v", text, err)
	}
}

// S116: a clock that was far ahead keeps nobody out once it is right.
func TestSpentClockSetBack(t *testing.T) {
	s, err := newSpentCodes(nil, time.Unix(1_000_000*codeTime, 0))
	if err != nil {
		t.Fatal(err)
	}
	s.mustSpend(t, "alice", 1_000_001, 1_000_000, false) // perhaps spent in the run before
	s.mustSpend(t, "alice", 1_000_002, 1_000_001, true)
	s.mustSpend(t, "alice", 100, 100, true)
	s.mustSpend(t, "alice", 100, 100, false)
}

// Where it is not known what is spent, all that may be is refused: without a file, with a broken one.
func TestSpentUnknown(t *testing.T) {
	broken := map[string]string{
		"no end": "100 alice\n", "no number": "x alice\nend\n", "no name": "100 \nend\n", "no space": "100\nend\n",
		"half an end": "100 alice\nend", "binary": "\x00\x01\x02",
	}
	check := func(name string, s *spentCodes) {
		t.Helper()
		for step := int64(99); step <= 101; step++ {
			s.mustSpend(t, name, step, 100, false)
		}
		s.mustSpend(t, name, 102, 101, true)
		s.mustSpend(t, name, 102, 101, false)
	}
	at := time.Unix(100*codeTime, 0)
	for name, text := range broken {
		file := spentFile(t)
		if _, err := io.WriteString(file, text); err != nil {
			t.Fatal(err)
		}
		s, err := newSpentCodes(file, at)
		if err == nil {
			t.Errorf("%s: taken", name)
		}
		check(name, s)
		// It is good from then on.
		if s, err = newSpentCodes(file, at); err != nil {
			t.Errorf("%s, rewritten: %v", name, err)
		}
		s.mustSpend(t, name, 102, 101, false)
	}
	s, err := newSpentCodes(nil, at)
	if err != nil {
		t.Error(err)
	}
	check("alice", s)
	// What a kill between write and truncation leaves is whole.
	file := spentFile(t)
	if _, err := io.WriteString(file, "100 alice\nend\n9 bob\nend\n"); err != nil {
		t.Fatal(err)
	}
	if s, err = newSpentCodes(file, at); err != nil || len(s.steps) != 1 {
		t.Errorf("%v, %v", s.steps, err)
	}
}

// A code that cannot be remembered lets nobody in, not even after the disk is well again.
func TestSpentDiskFull(t *testing.T) {
	file := &fullFile{}
	s, err := newSpentCodes(file, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if fresh, err := s.spend("alice", 5, 5); err == nil {
		t.Errorf("spent: %v", fresh)
	}
	s.mustSpend(t, "alice", 5, 5, false)
}

type fullFile struct{ strings.Reader }

func (*fullFile) WriteAt([]byte, int64) (int, error) { return 0, errors.New("no space left") }
func (*fullFile) Truncate(int64) error               { return nil }

// Of many at once, one has the code.
func TestSpentRace(t *testing.T) {
	s, err := newSpentCodes(spentFile(t), time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	won := 0
	for range 50 {
		wg.Go(func() {
			fresh, err := s.spend("alice", 5, 5)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if fresh {
				won++
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d got in", won)
	}
}

func FuzzSpentFile(f *testing.F) {
	for _, text := range []string{"", "end\n", "100 alice\nend\n", "100 alice\n", "-5 a b\nend\nx", "9999999999999999999 a\nend\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		steps, err := parseSpent(text)
		if (err == nil) != (steps != nil) {
			t.Fatalf("%v, %v", steps, err)
		}
		for name := range steps {
			if name == "" || strings.Contains(name, "\n") {
				t.Fatalf("name %q", name)
			}
		}
	})
}
