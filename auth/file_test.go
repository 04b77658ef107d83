package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/bcrypt"

	"postern/auth"
)

func bcryptOf(t testing.TB, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func writeUsers(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newFile(t *testing.T, path string) *auth.File {
	t.Helper()
	f, err := auth.NewFile(path, new(places), zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFileLogin(t *testing.T) {
	path := writeUsers(t, "# staff\n\nalice:"+bcryptOf(t, "alice-secret")+"\n  # more\nBob:"+bcryptOf(t, "bob-secret")+"\r\n")
	if err := auth.AddUser(path, "Carol", []byte("carol-secret")); err != nil {
		t.Fatal(err)
	}
	f := newFile(t, path)
	for _, user := range []string{"alice", "Alice", "bob", "carol"} {
		id, err := login(f, user, strings.ToLower(user)+"-secret")
		if err != nil {
			t.Errorf("%s: %v", user, err)
		} else if id.Name != strings.ToLower(user) || id.By != "file" {
			t.Errorf("%s is %+v", user, id)
		}
		_, err = login(f, user, "wrong")
		wantDenied(t, err, "wrong password", auth.PublicRefusal)
		_, err = login(f, user, "")
		wantDenied(t, err, "empty password", "empty password")
	}
	_, err := login(f, "dave", "alice-secret")
	wantDenied(t, err, "not in the user file", auth.PublicRefusal)
	if !errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("%v does not wrap ErrUnknownUser", err)
	}
	_, err = login(f, "# staff", "x")
	wantDenied(t, err, "canonical", auth.PublicRefusal)
}

func TestFileRefuses(t *testing.T) {
	hash := bcryptOf(t, "x")
	for _, c := range []struct{ name, text, want string }{
		{"no hash", "alice\n", ":1: line is not name:hash"},
		{"clear text", "# x\nalice:secret\n", ":2: user \"alice\": hash is neither"},
		{"empty hash", "alice:\n", "hash is neither"},
		{"no name", ":" + hash, ":1: no user name"},
		{"twice", "alice:" + hash + "\nbob:" + hash + "\nALICE:" + hash, ":3: user \"alice\" is already on line 1"},
		{"name without a form", "al ice:" + hash, "canonical form"},
		{"name with a space behind it", "alice :" + hash, "canonical form"},
		{"short bcrypt", "alice:" + hash[:59], "bcrypt hash is 59 bytes"},
		{"dear bcrypt", "alice:$2b$15$" + hash[7:], "bcrypt cost 15"},
		{"bcrypt with rubbish", "alice:" + hash[:59] + "!", "base64"},
		{"md5", "alice:$1$abc$def", "hash is neither"},
		{"argon2i", "alice:$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "hash is neither"},
		{"argon2id, old version", "alice:$argon2id$v=16$m=64,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "version"},
		{"argon2id, no version", "alice:$argon2id$m=64,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "five parts"},
		{"argon2id, much memory", "alice:$argon2id$v=19$m=262145,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "m=262145"},
		{"argon2id, no passes", "alice:$argon2id$v=19$m=64,t=0,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "t=0"},
		{"argon2id, no lanes", "alice:$argon2id$v=19$m=64,t=1,p=0$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "p=0"},
		{"argon2id, other order", "alice:$argon2id$v=19$t=1,m=64,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "not m=,t=,p="},
		{"argon2id, short hash", "alice:$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$MDEyMw", "hash is 4 bytes"},
		{"argon2id, short salt", "alice:$argon2id$v=19$m=64,t=1,p=1$c29t$MDEyMzQ1Njc4OWFiY2RlZg", "salt is 3 bytes"},
		{"argon2id, bad base64", "alice:$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg==", "argon2id hash"},
		{"endless line", strings.Repeat("x", 70_000), ":1: "},
	} {
		_, err := auth.NewFile(writeUsers(t, c.text), new(places), zerolog.Nop())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
	if _, err := auth.NewFile(filepath.Join(t.TempDir(), "none"), new(places), zerolog.Nop()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// S108: a file that others can get at is not used.
func TestFilePermissions(t *testing.T) {
	text := "alice:" + bcryptOf(t, "x")
	for mode, good := range map[fs.FileMode]bool{
		0o600: true, 0o400: true, 0o640: true, 0o644: false, 0o604: false, 0o660: false, 0o602: false, 0o620: false, 0o601: false, 0o666: false,
	} {
		path := writeUsers(t, text)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := auth.NewFile(path, new(places), zerolog.Nop()); (err == nil) != good {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	path := writeUsers(t, text)
	link := filepath.Join(filepath.Dir(path), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.NewFile(link, new(places), zerolog.Nop()); err == nil {
		t.Error("a symbolic link was followed")
	}
	if _, err := auth.NewFile(filepath.Dir(path), new(places), zerolog.Nop()); err == nil {
		t.Error("a directory was read")
	}
	if err := os.Chmod(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.NewFile(path, new(places), zerolog.Nop()); err == nil {
		t.Error("a file that everybody could replace was used")
	}
}

// The next login sees a change; a bad change is as if it had not been.
func TestFileReload(t *testing.T) {
	path := writeUsers(t, "alice:"+bcryptOf(t, "first")+"\n")
	f := newFile(t, path)
	if err := auth.SetPassword(path, "alice", []byte("second")); err != nil {
		t.Fatal(err)
	}
	if _, err := login(f, "alice", "first"); err == nil {
		t.Error("the old password is still good")
	}
	if _, err := login(f, "alice", "second"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	for name, spoil := range map[string]func() error{
		"bad line":            func() error { return os.WriteFile(path, []byte("alice:x\n"), 0o600) },
		"open to all":         func() error { return errors.Join(os.WriteFile(path, []byte(""), 0o600), os.Chmod(path, 0o666)) },
		"no file":             func() error { return os.Remove(path) },
		"a bad version again": func() error { return os.WriteFile(path, []byte("nobody\n"), 0o600) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := login(f, "alice", "second"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !f.Holds("alice") {
			t.Errorf("%s: alice has gone", name)
		}
	}
	os.Remove(path)
	if err := auth.AddUser(path, "bob", []byte("bob-secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := login(f, "bob", "bob-secret"); err != nil {
		t.Errorf("after the next good version: %v", err)
	}
	if f.Holds("alice") {
		t.Error("alice is still there")
	}
}

// places is one place to compute in. It notes how many wanted it, and had it, at one time.
type places struct {
	one           sync.Mutex
	wanted, had   atomic.Int32
	queued, taken atomic.Int32 // at most
	none          bool         // nobody gets it
}

func (p *places) Begin(ctx context.Context) error {
	raise(&p.queued, p.wanted.Add(1))
	defer p.wanted.Add(-1)
	if p.none {
		<-ctx.Done()
		return ctx.Err()
	}
	p.one.Lock()
	raise(&p.taken, p.had.Add(1))
	return nil
}

func (p *places) End() {
	p.had.Add(-1)
	p.one.Unlock()
}

func raise(most *atomic.Int32, n int32) {
	for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
	}
}

// However many log in at once, a hash is computed only in a place that is shared with the handshakes, and those do not
// have to wait behind all of the hashes (S011). A login that gets no place in time is no wrong password.
func TestFileHashesBounded(t *testing.T) {
	path := writeUsers(t, "")
	if err := auth.AddUser(path, "alice", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	p := new(places)
	f, err := auth.NewFile(path, p, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			name := []string{"alice", "nobody"}[i%2] // an unknown user's costs as much
			if _, err := login(f, name, "secret"); (err == nil) != (name == "alice") {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	if most := int32(max(1, runtime.GOMAXPROCS(0)/2)); p.queued.Load() > most || p.taken.Load() != 1 {
		t.Errorf("%d at once wanted the place, want at most %d; %d had it", p.queued.Load(), most, p.taken.Load())
	}
	p.none = true
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for range 8 {
		wg.Go(func() {
			_, err := f.Authenticate(ctx, &auth.Request{Username: "alice", Password: []byte("secret")})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("without a place: %v, want that the time is over", err)
			}
		})
	}
	wg.Wait()
}

func TestEditUsers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	add := func(name string) error { return auth.AddUser(path, name, []byte(name+"-secret")) }
	for _, name := range []string{"alice", "bob", "carol"} {
		if err := add(name); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("new file: %v, %v", info.Mode(), err)
	}
	if err := add("ALICE"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("alice again: %v", err)
	}
	if err := auth.SetPassword(path, "dave", []byte("x")); !errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("password of nobody: %v", err)
	}
	if err := auth.DeleteUser(path, "dave"); !errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("delete nobody: %v", err)
	}
	for _, name := range []string{"", "a b", "a:b", "#a", "a\nb", strings.Repeat("a", 256)} {
		if err := auth.AddUser(path, name, []byte("x")); err == nil {
			t.Errorf("added %q", name)
		}
	}
	for _, password := range []string{"", "a\x00b"} {
		if err := auth.AddUser(path, "dave", []byte(password)); err == nil {
			t.Errorf("added a user with password %q", password)
		}
	}

	// Comments, other hashes, owner and mode stay as they were.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	htpasswd := "dave:" + bcryptOf(t, "dave-secret")
	if err := os.WriteFile(path, []byte("# mine\n"+string(text)+"\n"+htpasswd+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(path, 0o640), os.Chown(path, 0, 12345)); err != nil {
		t.Fatal(err)
	}
	if err := auth.DeleteUser(path, "Bob"); err != nil {
		t.Fatal(err)
	}
	if err := auth.SetPassword(path, "carol", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if info, err = os.Stat(path); err != nil || info.Mode() != 0o640 || gidOf(info) != 12345 {
		t.Errorf("mode %v, group %d, %v", info.Mode(), gidOf(info), err)
	}
	if text, err = os.ReadFile(path); err != nil || !strings.HasPrefix(string(text), "# mine\nalice:") || !strings.Contains(string(text), "\n"+htpasswd+"\n") {
		t.Errorf("file is now %q, %v", text, err)
	}
	names, err := auth.ListUsers(path)
	if want := []string{"alice", "carol", "dave"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("users %v, %v, want %v", names, err, want)
	}
	f := newFile(t, path)
	for user, password := range map[string]string{"alice": "alice-secret", "carol": "new", "dave": "dave-secret"} {
		if _, err := login(f, user, password); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A file that cannot be understood is not rewritten.
func TestEditRefusesBadFile(t *testing.T) {
	const text = "alice:oops\n"
	path := writeUsers(t, text)
	if err := auth.AddUser(path, "bob", []byte("x")); err == nil {
		t.Error("added to a bad file")
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("file is now %q, %v", got, err)
	}
}

// Edits at once all happen.
func TestEditsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := auth.AddUser(path, fmt.Sprintf("user%d", i), []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if names, err := auth.ListUsers(path); err != nil || len(names) != 8 {
		t.Errorf("users %v, %v", names, err)
	}
}

func gidOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Gid) }

// A new file is for the owner of its directory, who is the server's user; one that is there keeps its owner.
func TestNewFileBelongsToDirectory(t *testing.T) {
	dir, uid, gid, other := t.TempDir(), os.Geteuid(), os.Getegid(), os.Geteuid()
	if uid == 0 { // who alone makes files for others
		uid, gid = 12345, 23456
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	owner := func(path string) (owner [2]int, mode os.FileMode) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sys := info.Sys().(*syscall.Stat_t)
		return [2]int{int(sys.Uid), int(sys.Gid)}, info.Mode()
	}
	users, secrets := filepath.Join(dir, "users"), filepath.Join(dir, "totp-secrets")
	for path, make := range map[string]func() error{
		users:   func() error { return auth.AddUser(users, "alice", []byte("secret")) },
		secrets: func() error { _, err := auth.AddTOTP(secrets, "alice"); return err },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if who, mode := owner(path); who != [2]int{uid, gid} || mode != 0o600 {
			t.Errorf("%s belongs to %v, mode %v", path, who, mode)
		}
	}
	if err := os.Chown(users, other, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(users, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := auth.AddUser(users, "bob", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if who, mode := owner(users); who != [2]int{other, gid} || mode != 0o640 {
		t.Errorf("after a change it belongs to %v, mode %v", who, mode)
	}
}
