package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A file is what is needed of one.
type file interface {
	io.ReaderAt
	io.Writer // at the end
	Truncate(size int64) error
	Sync() error
	Stat() (fs.FileInfo, error)
	Close() error
	// Lock waits until no other process has the lock, which only who may write can have.
	Lock() error
	Unlock() error
}

// chained is a file of records and where its chain has got to. One goroutine's.
type chained struct {
	path   string
	opener func(string) (file, error)
	f      file
	head   head
	size   int64 // of the file, as far as it has been read or written
	torn   int   // bytes that were removed, and no record says so yet
	astray error // why the file has another name now
}

// openDisk opens or makes a file that only its owner may write and its group may read (S108).
func openDisk(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o640)
	if err == nil {
		err = errors.Join(f.Chmod(0o640), syncDir(path)) // whatever the umask
	} else if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	}
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link: name the file itself", path)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is no file", path)
	case info.Mode()&0o027 != 0:
		err = fmt.Errorf("%s: others may write or read it: chmod 640 %s", path, path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return diskFile{f}, nil
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func openChained(path string, opener func(string) (file, error)) (*chained, error) {
	f, err := opener(path)
	if err != nil {
		return nil, err
	}
	c := &chained{path: path, opener: opener, f: f}
	if err := c.locked(func() error { return nil }); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (c *chained) close() error { return c.f.Close() }

// write appends records and syncs them: all or none (F10). Without records it sees whether the file is still the one.
func (c *chained) write(records []Record) error {
	if err := c.follow(); err != nil || len(records) == 0 {
		return err
	}
	return c.locked(func() error {
		var b []byte
		h := c.head
		for i, r := range records {
			if i == 0 {
				r.Torn = c.torn
			}
			var err error
			if b, h, err = appendRecord(b, r, h); err != nil {
				return err
			}
		}
		_, err := c.f.Write(b)
		if err == nil {
			err = c.f.Sync()
		}
		if err != nil {
			// What of it is on the disk nobody knows: it goes, and is written again as a whole (F11).
			return errors.Join(err, c.f.Truncate(c.size))
		}
		c.head, c.size, c.torn = h, c.size+int64(len(b)), 0
		return nil
	})
}

// locked does something with the file while no other process writes to it, and its end is known.
func (c *chained) locked(do func() error) error {
	if err := c.f.Lock(); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	err := c.catchUp()
	if err == nil {
		err = do()
	}
	return errors.Join(err, c.f.Unlock())
}

// follow goes on in the file that now has the name, when the one that had it was moved away, as it is when logs are
// rotated. The chain goes on there. When there is no right to it, the old one is good enough, unless it is gone.
func (c *chained) follow() error {
	is, err := c.f.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Lstat(c.path); err == nil && os.SameFile(is, named) {
		c.astray = nil
		return nil
	}
	f, err := c.opener(c.path)
	if err != nil {
		if c.astray = err; links(is) == 0 {
			return fmt.Errorf("it was removed, and another cannot be made: %w", err)
		}
		return nil
	}
	_ = c.locked(func() error { return nil }) // what others wrote to the old one before it was moved
	c.f.Close()
	c.f, c.size, c.astray = f, 0, nil
	return nil
}

// links is how many names a file has.
func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}

// catchUp learns where the chain is when others have written since, and removes half a record at the end. Of a file
// from which something was taken nothing is learnt: the next record then shows that it is missing.
func (c *chained) catchUp() error {
	info, err := c.f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size <= c.size {
		c.size = size
		return nil
	}
	// The last line, and half a one behind it.
	from := max(c.size, size-2*maxLine)
	b := make([]byte, size-from)
	if _, err := io.ReadFull(io.NewSectionReader(c.f, from, size-from), b); err != nil {
		return fmt.Errorf("read its end: %w", err)
	}
	end := bytes.LastIndexByte(b, '\n') + 1
	if end == 0 && from > c.size {
		return errors.New("it ends with no record: it is not a file of records")
	}
	if end > 0 {
		whole := b[:end-1]
		last := whole[bytes.LastIndexByte(whole, '\n')+1:]
		if c.head, _, err = parse(last); err != nil {
			return errors.New("it ends with no record: move it away, so that a new one is begun")
		}
	}
	if end < len(b) {
		c.torn += len(b) - end
		if err := c.f.Truncate(from + int64(end)); err != nil {
			return fmt.Errorf("remove half a record: %w", err)
		}
	}
	c.size = from + int64(end)
	return nil
}
