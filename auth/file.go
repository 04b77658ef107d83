package auth

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// A File is the local user file: lines "name:hash", the hash bcrypt or argon2id, and comments after '#'.
// It is read again when it has changed on disk; a bad new version is logged and the last good one stays in use.
type File struct {
	path   string
	log    zerolog.Logger
	hashes chan struct{} // holds one element for each hash that computes, or is the next to
	places Workers

	mu    sync.Mutex
	seen  stamp // of the version last read, good or bad
	users map[string]passwordHash
	dummy passwordHash // computed for unknown users: the first user's, or as costly as a new one
}

// Workers bound how much computes at one time in all of a server, whoever wants it.
type Workers interface {
	// Begin waits for a place, until ctx is done; End gives it back.
	Begin(ctx context.Context) error
	End()
}

// A stamp tells versions of a file apart.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

// NewFile reads the user file at path; hashes are computed in places of workers'. A file, or its directory, that others could write, a file that they could
// read, and a symbolic link are refused (security S108).
func NewFile(path string, workers Workers, log zerolog.Logger) (*File, error) {
	f := &File{
		path:   path,
		log:    log.With().Str("file", path).Logger(),
		hashes: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		places: workers,
	}
	text, seen, err := readUsersFile(path)
	if err != nil {
		return nil, err
	}
	if err := f.take(text, seen); err != nil {
		return nil, err
	}
	return f, nil
}

// Holds reports whether the file has a line for this canonical name.
func (f *File) Holds(name string) bool {
	f.refresh()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.users[name] != nil
}

func (f *File) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	name, err := credentials(r)
	if err != nil {
		return nil, err
	}
	f.refresh()
	f.mu.Lock()
	hash, known := f.users[name]
	if !known {
		hash = f.dummy // so that an unknown user takes as long as a wrong password
	}
	f.mu.Unlock()

	matches, err := f.compute(ctx, hash, r.Password)
	switch {
	case err != nil:
		return nil, fmt.Errorf("wait for a free processor: %w", err)
	case !known:
		return nil, &Denied{Reason: "not in the user file", Public: PublicRefusal, Err: ErrUnknownUser}
	case !matches:
		return nil, &Denied{Reason: "wrong password", Public: PublicRefusal}
	}
	return &Identity{Name: name, By: "file"}, nil
}

// compute tries the password when there is a processor for it. However many logins come, only so many of them stand in the
// workers' queue, and the handshakes between them: those of who is connected, too.
func (f *File) compute(ctx context.Context, hash passwordHash, password []byte) (matches bool, err error) {
	select {
	case f.hashes <- struct{}{}:
		defer func() { <-f.hashes }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if err := f.places.Begin(ctx); err != nil {
		return false, err
	}
	defer f.places.End()
	return hash.matches(password), nil
}

// refresh reads the file again when it has changed.
func (f *File) refresh() {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Lstat(f.path)
	var now stamp
	if err == nil {
		now = stampOf(info)
	}
	if now == f.seen {
		return
	}
	text, seen, err := readUsersFile(f.path)
	if err != nil {
		f.seen = now
	} else {
		f.seen = seen
		err = f.takeLocked(text)
	}
	if err != nil {
		f.log.Error().Err(err).Msg("user file is bad, the last good one stays in use")
		return
	}
	f.log.Info().Int("users", len(f.users)).Msg("user file read again")
}

func (f *File) take(text []byte, seen stamp) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = seen
	return f.takeLocked(text)
}

func (f *File) takeLocked(text []byte) error {
	lines, err := parseUsers(text)
	if err != nil {
		return fmt.Errorf("%s:%w", f.path, err)
	}
	users := make(map[string]passwordHash)
	var dummy passwordHash
	for _, l := range lines {
		if l.name == "" {
			continue
		}
		users[l.name] = l.hash
		if dummy == nil {
			dummy = l.hash
		}
	}
	if dummy == nil {
		dummy = newHash([]byte("nobody"))
	}
	f.users, f.dummy = users, dummy
	return nil
}

// A userLine is one line of the file; name is "" for comments and empty lines.
type userLine struct {
	text string
	name string
	hash passwordHash
}

// maxUsersFile is far above any list of local users.
const maxUsersFile = 4 << 20

// parseUsers reads the text of a user file. Errors begin with the number of the line.
func parseUsers(text []byte) ([]userLine, error) {
	var lines []userLine
	held := make(map[string]int) // name -> line
	in := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; in.Scan(); n++ {
		l := userLine{text: in.Text()}
		if s := strings.TrimSpace(l.text); s != "" && s[0] != '#' {
			if err := l.parse(s); err != nil {
				return nil, fmt.Errorf("%d: %w", n, err)
			}
			if first := held[l.name]; first != 0 {
				return nil, fmt.Errorf("%d: user %q is already on line %d", n, l.name, first)
			}
			held[l.name] = n
		}
		lines = append(lines, l)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("%d: %w", len(lines)+1, err)
	}
	return lines, nil
}

func (l *userLine) parse(s string) error {
	name, hash, found := strings.Cut(s, ":")
	if !found {
		return errors.New("line is not name:hash")
	}
	canonical, err := CanonicalName(name)
	if err != nil {
		return err
	}
	if l.hash, err = parseHash(hash); err != nil {
		return fmt.Errorf("user %q: %w", canonical, err)
	}
	l.name = canonical
	return nil
}

// readUsersFile reads the file after looking at who else could have written or read it.
func readUsersFile(path string) ([]byte, stamp, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, stamp{}, fmt.Errorf("open user file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, stamp{}, fmt.Errorf("open user file: %w", err)
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, stamp{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxUsersFile+1))
	if err != nil {
		return nil, stamp{}, fmt.Errorf("read user file: %w", err)
	}
	if len(text) > maxUsersFile {
		return nil, stamp{}, fmt.Errorf("%s: more than %d bytes", path, maxUsersFile)
	}
	return text, stampOf(info), nil
}

// checkPrivate lets a group read the file, for a server that has dropped its privileges; nobody else may.
func checkPrivate(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return fmt.Errorf("%s: mode %04o lets others at it, use 0600 or 0640", path, mode)
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("directory of the user file: %w", err)
	}
	if dir.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%s: everybody may write this directory, so the user file could be replaced", filepath.Dir(path))
	}
	return nil
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{modified: info.ModTime(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}
