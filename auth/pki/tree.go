package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// A tree is the directory. Nothing outside it is opened, and no link out of it is followed.
type tree struct {
	root *os.Root
	// fault, in tests, is asked before every step that reaches the disk; an error stops the world there, as a kill
	// would, with nothing tidied up.
	fault func(step string) error
}

const (
	journalName = ".postern-journal"
	lockName    = ".postern-lock"
	tempPrefix  = ".postern-new-"
)

func (t *tree) at(step, name string) error {
	if t.fault == nil {
		return nil
	}
	return t.fault(step + " " + name)
}

func (t *tree) read(name string) ([]byte, error) { return t.root.ReadFile(name) }

func (t *tree) exists(name string) bool {
	_, err := t.root.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// names lists the files of dir that end in suffix, without it. A missing directory is empty.
func (t *tree) names(dir, suffix string) ([]string, error) {
	d, err := t.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	all, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range all {
		if base, ok := strings.CutSuffix(n, suffix); ok && base != "" && base[0] != '.' {
			names = append(names, base)
		}
	}
	return names, nil
}

// write replaces a file, or makes it: afterwards the disk holds data under that name, and at every moment before it
// held what was there. New files are 0600; a file that was there keeps its mode and its owner, since a CRL is often
// made readable for the user that a server drops to.
func (t *tree) write(name string, data []byte) error {
	if err := t.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	mode, old := fs.FileMode(0o600), fs.FileInfo(nil)
	if fi, err := t.root.Lstat(name); err == nil {
		if !fi.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file, and replacing it might leave others with the old one", name)
		}
		mode, old = fi.Mode().Perm(), fi
	}
	temp := path.Join(path.Dir(name), tempPrefix+path.Base(name))
	if err := t.at("create", temp); err != nil {
		return err
	}
	t.root.Remove(temp) // of one that was interrupted
	f, err := t.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.at("write", temp); err != nil {
		f.Write(data[:len(data)/2])
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := keepOwner(f, old); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := t.at("sync", temp); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := t.at("rename", name); err != nil {
		return err
	}
	if err := t.root.Rename(temp, name); err != nil {
		return err
	}
	return t.syncDir(path.Dir(name))
}

func keepOwner(f *os.File, old fs.FileInfo) error {
	if old == nil {
		return nil
	}
	was, ok := old.Sys().(*syscall.Stat_t)
	if !ok || int(was.Uid) == os.Geteuid() && int(was.Gid) == os.Getegid() {
		return nil
	}
	return f.Chown(int(was.Uid), int(was.Gid))
}

// remove deletes a file that may be gone already.
func (t *tree) remove(name string) error {
	if err := t.at("remove", name); err != nil {
		return err
	}
	if err := t.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return t.syncDir(path.Dir(name))
}

func (t *tree) syncDir(name string) error {
	if err := t.at("syncdir", name); err != nil {
		return err
	}
	d, err := t.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lock waits until nobody else of ours changes the tree. The lock ends with unlock, or with the process.
func (t *tree) lock() (unlock func(), err error) {
	f, err := t.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", lockName, err)
	}
	return func() { f.Close() }, nil
}
