package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// spentCodes knows whose codes have been used. What it remembers is the last step of each user's: the codes of that
// step and of those before are spent. What is far from now is forgotten, so a clock that was ten years ahead for
// a while leaves nothing behind (security S116), and one that is set back a little makes no code good again.
//
// A change is in the file before the login is a yes. It is written by one write of a few lines, and a kill leaves the
// old or the new text. A machine that dies may lose some, but is not back before the codes have run out.
type spentCodes struct {
	mu    sync.Mutex
	file  UsedFile // nil: nothing survives
	steps map[string]int64
	floor int64 // for everyone: of these codes it is not known whether they are spent
}

// newSpentCodes reads what the run before has left. The error tells why that is not known; what it returns is then
// still good, and refuses all that may be spent.
func newSpentCodes(file UsedFile, now time.Time) (*spentCodes, error) {
	s := &spentCodes{file: file, steps: make(map[string]int64)}
	if file == nil {
		s.floor = stepOf(now) + 1
		return s, nil
	}
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxUsersFile))
	if err == nil && len(text) > 0 {
		s.steps, err = parseSpent(text)
	}
	if err != nil {
		s.floor = stepOf(now) + 1
		s.steps = make(map[string]int64)
		return s, fmt.Errorf("read spent one-time codes: %w", err)
	}
	return s, nil
}

// spend marks one code as used, and reports whether it was not used yet.
func (s *spentCodes) spend(name string, step, now int64) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, last := range s.steps {
		if last < now-spentReach || last > now+spentReach {
			delete(s.steps, name)
		}
	}
	if s.floor > now+spentReach { // the clock has been set back
		s.floor = 0
	}
	if last, used := s.steps[name]; used && step <= last || step <= s.floor {
		return false, nil
	}
	s.steps[name] = step
	return true, s.writeLocked()
}

// spentReach is how many steps are remembered: five minutes, of which codes are good in one and a half.
const spentReach = 10

// spentEnd is the last line. What may be behind it is left of a longer text.
const spentEnd = "end"

func (s *spentCodes) writeLocked() error {
	if s.file == nil {
		return nil
	}
	var b []byte
	for name, step := range s.steps {
		b = strconv.AppendInt(b, step, 10)
		b = append(b, ' ')
		b = append(b, name...)
		b = append(b, '\n')
	}
	b = append(b, spentEnd+"\n"...)
	if _, err := s.file.WriteAt(b, 0); err != nil {
		return err
	}
	return s.file.Truncate(int64(len(b)))
}

// parseSpent reads lines "step name", up to the last one.
func parseSpent(text []byte) (map[string]int64, error) {
	steps := make(map[string]int64)
	for line := range bytes.Lines(text) {
		s, whole := strings.CutSuffix(string(line), "\n")
		if s == spentEnd && whole {
			return steps, nil
		}
		number, name, found := strings.Cut(s, " ")
		step, err := strconv.ParseInt(number, 10, 64)
		if err != nil || !found || name == "" {
			return nil, errors.New("not lines of step and name")
		}
		steps[name] = step
	}
	return nil, errors.New("the end is missing")
}
