package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// stateFile is a server.StateFile. It is opened while there are rights to; later it may be that only the file itself
// can be written, or its whole directory.
type stateFile struct {
	f *os.File
	// durable files survive a crash at any moment, whole: the old contents or the new (S111). They are replaced by
	// another file, if the directory lets us. Others are written in place: programs that have them open go on reading.
	durable bool
}

func openStateFile(name string, durable bool) (*stateFile, error) {
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real // the link stays
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &stateFile{f: f, durable: durable}, nil
}

func (s *stateFile) Close() error { return s.f.Close() }

// Load implements server.StateFile.
func (s *stateFile) Load() ([]byte, error) {
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(s.f)
}

// Save implements server.StateFile.
func (s *stateFile) Save(b []byte) error {
	if !s.durable {
		return overwrite(s.f, b)
	}
	err := s.replace(b)
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return err
	}
	if err := overwrite(s.f, b); err != nil {
		return err
	}
	return s.f.Sync()
}

func overwrite(f *os.File, b []byte) error {
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(b)))
}

// replace puts a new file in the place of the old one, with its mode and, where we may, its owner.
func (s *stateFile) replace(b []byte) error {
	name := s.f.Name()
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".postern-*")
	if err != nil {
		return err
	}
	defer func() {
		if f != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && (int(owner.Uid) != os.Geteuid() || int(owner.Gid) != os.Getegid()) {
		_ = f.Chown(int(owner.Uid), int(owner.Gid)) // only root can; ours is as good for us
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	// f has the temporary name still: it is opened again, to be known by its own.
	next, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.f.Close()
	f.Close()
	s.f, f = next, nil
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// SetAside implements server.StateFile.
func (s *stateFile) SetAside() (string, error) {
	b, err := s.Load()
	if err != nil {
		return "", err
	}
	name := s.f.Name() + ".broken"
	return name, replaceFile(name, b)
}
