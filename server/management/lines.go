package management

import (
	"bufio"
	"errors"
	"io"
)

// maxLine is how long a line may be, without its end (S097).
const maxLine = 4096

// lines reads commands. Control characters but the tab are left out, as upstream does.
type lines struct{ from *bufio.Reader }

func newLines(r io.Reader) lines { return lines{bufio.NewReaderSize(r, maxLine+len("\r\n"))} }

// next returns one line without its end. A line that is too long is read to its end and thrown away; ok is false.
// What follows the last line end is no line.
func (l lines) next() (line []byte, ok bool, err error) {
	raw, err := l.from.ReadSlice('\n')
	for ok = true; errors.Is(err, bufio.ErrBufferFull); {
		ok = false
		raw, err = l.from.ReadSlice('\n')
	}
	if err != nil {
		return nil, false, err
	}
	if !ok {
		return nil, false, nil
	}
	for _, c := range raw {
		if c == '\t' || c >= ' ' && c != 0x7f {
			line = append(line, c)
		}
	}
	clear(raw) // it may have been a password (S047)
	return line, len(line) <= maxLine, nil
}
