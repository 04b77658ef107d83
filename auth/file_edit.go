package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// AddUser adds a user to the user file at path, and makes the file when there is none. The error is fs.ErrExist when
// the user is there already.
func AddUser(path, name string, password []byte) error {
	return editUser(path, name, password, func(lines []userLine, at int, line userLine) ([]userLine, error) {
		if at >= 0 {
			return nil, fmt.Errorf("user %q: %w", line.name, fs.ErrExist)
		}
		return append(lines, line), nil
	})
}

// SetPassword gives a user of the file another password. The error is ErrUnknownUser when there is no such user.
func SetPassword(path, name string, password []byte) error {
	return editUser(path, name, password, func(lines []userLine, at int, line userLine) ([]userLine, error) {
		if at < 0 {
			return nil, fmt.Errorf("user %q: %w", line.name, ErrUnknownUser)
		}
		lines[at] = line
		return lines, nil
	})
}

// DeleteUser removes a user from the file. The error is ErrUnknownUser when there is no such user.
func DeleteUser(path, name string) error {
	canonical, err := CanonicalName(name)
	if err != nil {
		return err
	}
	return edit(path, func(lines []userLine) ([]userLine, error) {
		at := lineOf(lines, canonical)
		if at < 0 {
			return nil, fmt.Errorf("user %q: %w", canonical, ErrUnknownUser)
		}
		return slices.Delete(lines, at, at+1), nil
	})
}

// ListUsers returns the names in the user file, in its order.
func ListUsers(path string) ([]string, error) {
	text, _, err := readUsersFile(path)
	if err != nil {
		return nil, err
	}
	lines, err := parseUsers(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	var names []string
	for _, l := range lines {
		if l.name != "" {
			names = append(names, l.name)
		}
	}
	return names, nil
}

func editUser(path, name string, password []byte, change func(lines []userLine, at int, line userLine) ([]userLine, error)) error {
	canonical, err := credentials(&Request{Username: name, Password: password})
	if err != nil {
		return err
	}
	if err := writableName(canonical); err != nil {
		return err
	}
	hash := newHash(password)
	line := userLine{text: canonical + ":" + hash.String(), name: canonical, hash: hash}
	return edit(path, func(lines []userLine) ([]userLine, error) {
		return change(lines, lineOf(lines, canonical), line)
	})
}

// writableName refuses the canonical names that a line could not begin with.
func writableName(name string) error {
	if strings.Contains(name, ":") || name[0] == '#' {
		return fmt.Errorf("user %q: a name in the user file has no ':' and does not begin with '#'", name)
	}
	return nil
}

func lineOf(lines []userLine, name string) int {
	return slices.IndexFunc(lines, func(l userLine) bool { return l.name == name })
}

// edit replaces the user file by what change makes of its lines.
func edit(path string, change func([]userLine) ([]userLine, error)) error {
	return rewrite(path, func(text []byte) ([]byte, error) {
		lines, err := parseUsers(text)
		if err != nil {
			return nil, fmt.Errorf("%s:%w", path, err)
		}
		if lines, err = change(lines); err != nil {
			return nil, err
		}
		var out bytes.Buffer
		for _, l := range lines {
			out.WriteString(l.text)
			out.WriteByte('\n')
		}
		return out.Bytes(), nil
	})
}

// rewrite replaces a file about users by what change makes of its text, whole or not at all (security S111). Of a file
// that is not there the text is empty. Edits wait for each other.
func rewrite(path string, change func(text []byte) ([]byte, error)) error {
	// The directory is the lock: the file itself is replaced, so whoever waited for it would hold the old one.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("open directory of the user file: %w", err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir.Name(), err)
	}

	text, _, err := readUsersFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if text, err = change(text); err != nil {
		return err
	}
	return replaceFile(dir, path, text)
}

// replaceFile puts text in the place of the file at path, which keeps its owner and mode. A new one is for the owner of
// its directory alone: of the server's, mostly, which has to read it.
func replaceFile(dir *os.File, path string, text []byte) error {
	tmp, err := os.CreateTemp(dir.Name(), ".users-*")
	if err != nil {
		return fmt.Errorf("write user file: %w", err)
	}
	defer os.Remove(tmp.Name()) // once renamed there is nothing by this name
	defer tmp.Close()
	old, err := os.Lstat(path)
	switch {
	case err == nil:
		err = keepOwner(tmp, old)
		if err == nil {
			err = tmp.Chmod(old.Mode().Perm())
		}
	case os.Geteuid() == 0:
		if old, err = dir.Stat(); err == nil {
			err = keepOwner(tmp, old)
		}
	default:
		err = nil
	}
	if err != nil {
		return fmt.Errorf("write user file: %w", err)
	}
	if _, err := tmp.Write(text); err != nil {
		return fmt.Errorf("write user file: %w", err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("write user file: %w", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write user file: %w", err)
	}
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("write user file: %w", err)
	}
	return nil
}

// keepOwner gives tmp the owner and group of old.
func keepOwner(tmp *os.File, old fs.FileInfo) error {
	now, err := tmp.Stat()
	if err != nil {
		return err
	}
	was, is := old.Sys().(*syscall.Stat_t), now.Sys().(*syscall.Stat_t)
	if was.Uid != is.Uid || was.Gid != is.Gid {
		if err := tmp.Chown(int(was.Uid), int(was.Gid)); err != nil {
			return err
		}
	}
	return nil
}
