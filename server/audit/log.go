package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// patience is how long a record may wait for the disk before it counts as not written.
	patience = 3 * time.Second
	// retry is how often a file that could not be written is tried again.
	retry = time.Second
	// maxPending is how many records wait at most while the file cannot be written; what comes then is counted.
	maxPending = 16384
	// maxBatch is how many are written at a time.
	maxBatch = 512
)

// A Log is a file of records that is being written. Open makes one. Nobody who has something to record waits for its
// lock longer than it takes to append to a list. All methods may be called on a nil Log, which records nothing.
type Log struct {
	file *chained // the writer's: whoever runs Run, or calls Write before it
	wake chan struct{}

	mu      sync.Mutex
	pending []entry   // guarded by mu: the oldest first
	since   time.Time // guarded by mu: when the oldest of them became the oldest
	lost    uint64    // guarded by mu: how many there was no room for, since one was queued last
	failed  error     // guarded by mu: of the last attempt to write
	astray  error     // guarded by mu
}

// An entry is a record that waits, and who waits for it.
type entry struct {
	Record
	written chan<- error // told nil when it is on the disk, or why it could not be written at first; nil: nobody waits
}

// Open opens a file of records, or makes it, with mode 0640, and goes on with its chain. Half a record at its end, which a
// crash leaves, is removed. It does not take a file that others may write, or a link.
func Open(path string) (*Log, error) { return open(path, openDisk) }

func open(path string, opener func(string) (file, error)) (*Log, error) {
	c, err := openChained(path, opener)
	if err != nil {
		return nil, err
	}
	return &Log{file: c, wake: make(chan struct{}, 1)}, nil
}

// Close closes the file. Nobody may be in Run any more.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	return l.file.close()
}

// Write records r and returns when it is on the disk, or why it cannot be. It is for who runs no Run.
func (l *Log) Write(r Record) error {
	if l == nil {
		return nil
	}
	r.Time = now()
	return l.file.write([]Record{r})
}

// Add queues r. It never waits; any goroutine.
func (l *Log) Add(r Record) {
	if l != nil {
		l.queue(entry{Record: r})
	}
}

// Commit is Add, and waits until r is on the disk. After an error, which tells why it is not, it may get there yet.
func (l *Log) Commit(ctx context.Context, r Record) error {
	if l == nil {
		return nil
	}
	written := make(chan error, 1)
	if !l.queue(entry{r, written}) {
		return errFull
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late.C:
		return errSlow
	}
}

var (
	errSlow = errors.New("the disk does not answer")
	errFull = errors.New("too many records wait to be written")
)

// Trouble is why records cannot be written now; nil when they can. Any goroutine; it never waits.
func (l *Log) Trouble() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil:
		return l.failed
	case len(l.pending) > 0 && time.Since(l.since) > patience:
		return errSlow
	}
	return nil
}

// Astray is why records go into a file that has another name by now, since nobody could make one in its place; nil when
// they do not. Any goroutine; it never waits.
func (l *Log) Astray() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.astray
}

func (l *Log) queue(e entry) bool {
	e.Time = now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) >= maxPending {
		l.lost++
		return false
	}
	if len(l.pending) == 0 {
		l.since = time.Now()
	}
	e.Lost, l.lost = l.lost, 0
	l.pending = append(l.pending, e)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

// Run writes what is queued, until ctx is done and nothing is left that can be written. It alone waits for the disk: on
// one that hangs it does not end.
func (l *Log) Run(ctx context.Context) {
	if l == nil {
		return
	}
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			for l.flush() {
			}
			return
		case <-l.wake:
			for l.flush() {
			}
		case <-tick.C:
			// Also when there is nothing to write: a file that was moved away is noticed before others write to the next.
			if l.flush() {
				l.nudge()
			}
		}
	}
}

func (l *Log) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// flush writes a batch of what is queued, and reports whether there is more and it could.
func (l *Log) flush() (more bool) {
	l.mu.Lock()
	batch := make([]Record, min(len(l.pending), maxBatch))
	for i := range batch {
		batch[i] = l.pending[i].Record
	}
	l.mu.Unlock()
	err := l.file.write(batch)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.astray = l.file.astray
	if l.failed = err; err != nil {
		l.failed = fmt.Errorf("%s cannot be written: %w", l.file.path, err)
	}
	for i := range l.pending[:len(batch)] {
		if e := &l.pending[i]; e.written != nil {
			e.written <- l.failed
			e.written = nil
		}
	}
	if err != nil {
		return false // all of it waits for the next time
	}
	clear(l.pending[:len(batch)])
	if l.pending = l.pending[len(batch):]; len(l.pending) == 0 {
		l.pending = nil // do not keep for good what a disk that hung has gathered
	}
	l.since = time.Now()
	return len(l.pending) > 0
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
