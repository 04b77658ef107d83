package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// writeNew makes a file for its owner only; the error is fs.ErrExist when there is one. After a crash there is the
// whole file or none.
func writeNew(name string, data []byte) error {
	return writeWhole(name, data, func(temp string) error {
		if err := os.Link(temp, name); err != nil {
			return err
		}
		return os.Remove(temp)
	})
}

// replaceFile makes a file for its owner only, in the place of one that may be there.
func replaceFile(name string, data []byte) error {
	if fi, err := os.Lstat(name); err == nil && !fi.Mode().IsRegular() {
		return &fs.PathError{Op: "replace", Path: name, Err: fmt.Errorf("not a regular file")}
	}
	return writeWhole(name, data, func(temp string) error { return os.Rename(temp, name) })
}

func writeWhole(name string, data []byte, place func(temp string) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".postern-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := place(f.Name()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
