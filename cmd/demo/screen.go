package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// A screen prints the demo for people to read along. It is for one goroutine.
type screen struct {
	out        io.Writer
	bold, dim  string
	endOfStyle string
}

// newScreen uses styles only on a terminal.
func newScreen(out *os.File) *screen {
	s := &screen{out: out}
	if term.IsTerminal(int(out.Fd())) {
		s.bold, s.dim, s.endOfStyle = "\x1b[1m", "\x1b[2m", "\x1b[0m"
	}
	return s
}

func (s *screen) title(n int, text string) {
	fmt.Fprintf(s.out, "\n%s== %d. %s%s\n", s.bold, n, text, s.endOfStyle)
}

func (s *screen) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// command shows a command line as somebody would type it.
func (s *screen) command(args ...string) {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = a
		if strings.ContainsAny(a, " ()*$\"") {
			quoted[i] = "'" + a + "'"
		}
	}
	fmt.Fprintf(s.out, "%s$ %s%s\n", s.bold, strings.Join(quoted, " "), s.endOfStyle)
}

// lines shows what a program or a file says.
func (s *screen) lines(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprintf(s.out, "  %s%s%s\n", s.dim, strings.TrimRight(line, "\n"), s.endOfStyle)
	}
}

// withWords keeps the lines of text that contain one of the words.
func withWords(text string, words ...string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		for _, w := range words {
			if strings.Contains(line, w) {
				b.WriteString(line)
				break
			}
		}
	}
	return b.String()
}
