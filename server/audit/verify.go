package audit

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// maxLine is more than any record has.
const maxLine = 64 << 10

// maxSeq is a number that no chain ever gets to.
const maxSeq = 1 << 62

// A Chain is what Verify has seen of one: of one file, or of several in a row.
type Chain struct {
	head        head
	Records     int
	First       uint64 // number of the first record; 0: none was seen
	Began, Last time.Time
}

// Seq is the number of the last record.
func (c *Chain) Seq() uint64 { return c.head.seq }

// Hash is the hash of the last record, which the next one will have.
func (c *Chain) Hash() string { return c.head.hash() }

// A BreakError is where a chain is broken.
type BreakError struct {
	Line int // from 1
	Why  string
}

func (e *BreakError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Why) }

// Verify reads one file, whose records must follow those that c has seen. Where c has seen none, a file may begin in the
// middle of a chain: the files before may be gone. It returns a *BreakError where the chain is broken.
func (c *Chain) Verify(from io.Reader) error {
	r := bufio.NewReaderSize(from, maxLine)
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return &BreakError{n, "half a record: the end of the file is missing"}
		case errors.Is(err, bufio.ErrBufferFull):
			return &BreakError{n, "longer than any record"}
		case err != nil:
			return err
		}
		if why := c.take(bytes.TrimSuffix(line, []byte("\n"))); why != "" {
			return &BreakError{n, why}
		}
	}
}

// take goes on by one line, or says why it does not follow.
func (c *Chain) take(line []byte) (why string) {
	next, rec, err := parse(line)
	switch {
	case err != nil:
		return err.Error()
	case c.First != 0 && next.seq != c.head.seq+1:
		return fmt.Sprintf("record %d follows record %d: records are missing or were put in", next.seq, c.head.seq)
	case c.First == 0 && next.seq > 1:
		// what was before is not here
	case rec.Prev != c.head.hash():
		return fmt.Sprintf("the record before record %d is not the one that was written: it was changed", next.seq)
	}
	if c.First == 0 {
		c.First, c.Began = next.seq, rec.Time
	}
	c.head, c.Last = next, rec.Time
	c.Records++
	return ""
}

// parse reads a line, and says where the chain is behind it.
func parse(line []byte) (head, Record, error) {
	var rec Record
	if err := json.Unmarshal(line, &rec); err != nil {
		return head{}, rec, errors.New("no record: it was changed or put in")
	}
	if sum, err := hex.DecodeString(rec.Prev); err != nil || len(sum) != len(head{}.sum) || rec.Seq == 0 || rec.Seq > maxSeq || rec.Event == "" {
		return head{}, rec, errors.New("no record: it was changed or put in")
	}
	return head{rec.Seq - 1, [32]byte{}}.after(line), rec, nil
}
