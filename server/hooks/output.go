package hooks

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

const (
	maxOutputLine = 512     // bytes of one line that reach the log
	maxOutput     = 1 << 16 // bytes of one script that do
)

// pipes are the reading ends of what scripts print. A script that leaves a process in the background leaves its pipe
// open: closing it would kill that process when it next prints.
type pipes struct {
	mu     sync.Mutex
	closed bool
	open   map[*os.File]struct{}
}

func (p *pipes) add(f *os.File) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.open == nil {
		p.open = make(map[*os.File]struct{})
	}
	p.open[f] = struct{}{}
	return true
}

func (p *pipes) remove(f *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, f)
	f.Close()
}

func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for f := range p.open {
		f.Close() // ends the read under way
	}
}

// logOutput writes what comes out of a pipe to the log, line by line, until its last writer is gone.
func (r *Runner) logOutput(out *os.File, log zerolog.Logger) {
	if !r.pipes.add(out) {
		out.Close()
		return
	}
	r.output.Go(func() {
		defer r.pipes.remove(out)
		logLines(out, log)
	})
}

// logLines logs what a script prints: no control bytes, no line longer than maxOutputLine, and no more than maxOutput
// in all. The rest is read and dropped, so that the script is not held up.
func logLines(out io.Reader, log zerolog.Logger) {
	in := bufio.NewReaderSize(out, maxOutputLine)
	left := maxOutput
	for begins := true; ; {
		part, err := in.ReadSlice('\n')
		if text := printable(part); begins && text != "" && left > 0 {
			log.Info().Msg(text)
			if left -= len(part); left <= 0 {
				log.Warn().Msgf("the script prints more than %d bytes: the rest is dropped", maxOutput)
			}
		}
		begins = !errors.Is(err, bufio.ErrBufferFull) // else the line goes on
		if err != nil && begins {
			return
		}
	}
}

// printable is a line as the log may hold it.
func printable(line []byte) string {
	s := clean(strings.TrimRight(string(line), "\r\n"))
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "_")
	}
	return s
}
