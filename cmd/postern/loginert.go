package main

import (
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// An inertWriter escapes what zerolog leaves as it is in JSON and a terminal or a log reader may act upon: C1 controls,
// and characters that change the direction of text (S102). They can only be within strings there.
type inertWriter struct{ out io.Writer }

func (w inertWriter) Write(line []byte) (int, error) {
	if _, err := w.out.Write(inert(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// WriteLevel is Write for an out that cares how urgent a line is.
func (w inertWriter) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	out, ok := w.out.(zerolog.LevelWriter)
	if !ok {
		return w.Write(line)
	}
	if _, err := out.WriteLevel(level, inert(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// inert returns line itself when there is nothing to escape, as nearly always.
func inert(line []byte) []byte {
	var safe []byte
	from := 0
	for i := 0; i < len(line); {
		if line[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRune(line[i:])
		if acts(r) || r == utf8.RuneError && n == 1 {
			safe = fmt.Appendf(append(safe, line[from:i]...), `\u%04x`, r)
			from = i + n
		}
		i += n
	}
	if from == 0 {
		return line
	}
	return append(safe, line[from:]...)
}

// acts reports whether a character does more than stand there.
func acts(r rune) bool {
	switch {
	case 0x80 <= r && r <= 0x9f, // C1
		r == 0x061c, r == 0x200e, r == 0x200f, 0x202a <= r && r <= 0x202e, 0x2066 <= r && r <= 0x2069, // direction
		r == 0x2028, r == 0x2029: // ends of lines and paragraphs
		return true
	}
	return false
}
