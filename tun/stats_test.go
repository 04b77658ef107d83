package tun

import (
	"errors"
	"io"
	"testing"
)

// fickle reads one packet for ever and refuses every second write.
type fickle struct{ writes int }

func (f *fickle) Read(b []byte) (int, error) { return copy(b, "\x45 twenty bytes or so"), nil }
func (f *fickle) Close() error               { return nil }
func (f *fickle) Write(b []byte) (int, error) {
	if f.writes++; f.writes%2 == 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

// A queue counts what came, what went and what was not taken.
func TestQueueCounts(t *testing.T) {
	q := newPlainQueue(&fickle{})
	for range 3 {
		if _, err := q.Read(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		if err := q.Write([][]byte{[]byte("abc"), []byte("de")}, GSO{}); (err != nil) != (i%2 == 1) || err != nil && !errors.Is(err, ErrDropped) {
			t.Errorf("write %d: %v", i, err)
		}
	}
	want := QueueStats{Reads: 3, ReadCalls: 3, PacketsIn: 3, BytesIn: 60, WriteCalls: 4, PacketsOut: 2, BytesOut: 10, Dropped: 2}
	if got := q.Stats(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
