package server

import (
	"io"
	"os"
)

// A StateFile is rewritten in place: readers that hold it open go on, and no right to its directory is needed.
// *os.File is one.
type StateFile interface {
	io.ReadWriteSeeker
	Truncate(size int64) error
}

var _ StateFile = (*os.File)(nil)

// rewrite replaces a file's contents.
func rewrite(f StateFile, b []byte) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Truncate(int64(len(b)))
}

// save writes what is remembered of the pool, when it changed. A full disk stops nothing: it is tried again (F09).
func (s *Server) save() {
	if s.parts.Pool == nil || s.live.Load().cfg.PoolPersistEvery == 0 {
		return
	}
	b, changed := s.pool.changes()
	if !changed {
		return
	}
	if err := rewrite(s.parts.Pool, b); err != nil {
		s.pool.touch()
		s.alarmOnce("pool file", err)
	}
}
