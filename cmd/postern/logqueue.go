package main

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	logQueueLines = 4096
	// logPatience is how long the end of the program waits for who collects the log.
	logPatience = time.Second
)

// A logQueue writes log lines in a goroutine of its own, so that nobody who logs waits for who collects the lines, a
// lane least of all (F12). When the collector stops reading, lines are dropped; once it reads again it is told how many.
type logQueue struct {
	out     io.Writer
	direct  zerolog.Logger // writes to out, and waits
	lines   chan logLine
	dropped atomic.Uint64
	closing chan struct{}
	ended   chan struct{}
}

type logLine struct {
	level zerolog.Level
	text  []byte
}

// startLogQueue returns a queue before out. Close it.
func startLogQueue(out io.Writer, direct zerolog.Logger) *logQueue {
	q := &logQueue{out: out, direct: direct, lines: make(chan logLine, logQueueLines),
		closing: make(chan struct{}), ended: make(chan struct{})}
	go q.run()
	return q
}

// Write queues a copy of one line, or drops it. Any goroutine.
func (q *logQueue) Write(line []byte) (int, error) { return q.WriteLevel(zerolog.NoLevel, line) }

// WriteLevel is Write for an out that cares how urgent a line is.
func (q *logQueue) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	select {
	case q.lines <- logLine{level, bytes.Clone(line)}:
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

// Close writes what is queued. It gives up after logPatience, and leaves behind a goroutine that the system holds in
// its write.
func (q *logQueue) Close() {
	close(q.closing)
	select {
	case <-q.ended:
	case <-time.After(logPatience):
	}
}

func (q *logQueue) run() {
	defer close(q.ended)
	for {
		select {
		case line := <-q.lines:
			q.write(line)
		case <-q.closing:
			for len(q.lines) > 0 {
				q.write(<-q.lines)
			}
			return
		}
	}
}

// write writes one line; that it cannot be written is nothing that could be logged.
func (q *logQueue) write(line logLine) {
	if out, ok := q.out.(zerolog.LevelWriter); ok {
		_, _ = out.WriteLevel(line.level, line.text)
	} else {
		_, _ = q.out.Write(line.text)
	}
	if n := q.dropped.Swap(0); n > 0 {
		q.direct.Warn().Uint64("lines", n).Msg("log lines were dropped: nobody took them")
	}
}
