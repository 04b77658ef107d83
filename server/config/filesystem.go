package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A filesystem is all of the machine that Load looks at.
type filesystem interface {
	Stat(name string) (fs.FileInfo, error)
	Lstat(name string) (fs.FileInfo, error)
	// ReadFile returns at most limit bytes of contents and fails when there are more. With plain it also fails when
	// name is a symbolic link or no regular file.
	ReadFile(name string, limit int, plain bool) ([]byte, fs.FileInfo, error)
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	Abs(name string) string
}

// disk is the real one.
type disk struct{}

func (disk) Stat(name string) (fs.FileInfo, error)  { return os.Stat(name) }
func (disk) Lstat(name string) (fs.FileInfo, error) { return os.Lstat(name) }

func (disk) ReadDir(name string) (names []string, err error) {
	entries, err := os.ReadDir(name)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (disk) Abs(name string) string {
	abs, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	return abs
}

var errLink = errors.New("it is a symbolic link or no regular file; name the file itself")

func (disk) ReadFile(name string, limit int, plain bool) ([]byte, fs.FileInfo, error) {
	before, err := os.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if plain && !before.Mode().IsRegular() {
		return nil, nil, errLink
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if plain && !os.SameFile(before, info) {
		return nil, nil, errLink
	}
	if info.IsDir() {
		return nil, nil, errors.New("it is a directory")
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, nil, err
	}
	if len(b) > limit {
		return nil, nil, fmt.Errorf("larger than %d bytes", limit)
	}
	return b, info, nil
}

// remembering is the disk, and what it looked like before it could not be read any more for lack of rights.
type remembering struct {
	disk
	files map[string]rememberedFile
	infos map[string]fs.FileInfo // by the call and the name
	stale []string
}

type rememberedFile struct {
	contents []byte
	info     fs.FileInfo
}

func (r *remembering) ReadFile(name string, limit int, plain bool) ([]byte, fs.FileInfo, error) {
	b, info, err := r.disk.ReadFile(name, limit, plain)
	switch {
	case err == nil:
		if r.files == nil {
			r.files = make(map[string]rememberedFile)
		}
		r.files[name] = rememberedFile{b, info}
	case errors.Is(err, fs.ErrPermission):
		if old, ok := r.files[name]; ok {
			r.stale = append(r.stale, name)
			return old.contents, old.info, nil
		}
	}
	return b, info, err
}

func (r *remembering) Stat(name string) (fs.FileInfo, error) {
	return r.info("stat", name, r.disk.Stat)
}
func (r *remembering) Lstat(name string) (fs.FileInfo, error) {
	return r.info("lstat", name, r.disk.Lstat)
}

func (r *remembering) info(call, name string, ask func(string) (fs.FileInfo, error)) (fs.FileInfo, error) {
	info, err := ask(name)
	key := call + " " + name
	switch {
	case err == nil:
		if r.infos == nil {
			r.infos = make(map[string]fs.FileInfo)
		}
		r.infos[key] = info
	case errors.Is(err, fs.ErrPermission):
		if old := r.infos[key]; old != nil {
			return old, nil
		}
	}
	return info, err
}
