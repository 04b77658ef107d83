package pki

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var errKilled = errors.New("killed")

// killAt lets n steps reach the disk.
func killAt(n int) func(string) error {
	return func(string) error {
		if n--; n < 0 {
			return errKilled
		}
		return nil
	}
}

// S094 and S111: a kill at any step of any change leaves, for whoever comes next, the old tree or the new one; what
// was acknowledged is there. The one who comes next may be killed as well.
func TestCrash(t *testing.T) {
	base := newPKI(t)
	for _, name := range []string{"alice", "bob"} {
		if _, err := base.Client(name, IssueOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := base.Renew("alice", IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, op := range []struct {
		name string
		do   func(p *PKI) error
		done func(t *testing.T, p *PKI) bool // checks that all of it happened, or none
	}{
		{"issue",
			func(p *PKI) error { _, err := p.Client("carol", IssueOptions{}); return err },
			func(t *testing.T, p *PKI) bool {
				valid := count(t, p, "carol", Valid)
				b, err := p.Load("carol")
				if valid == 0 && errors.Is(err, ErrNoCertificate) && !p.tree.exists("private/carol.key") {
					return false
				}
				if valid != 1 || err != nil {
					t.Fatalf("carol has %d valid certificates and loads with %v", valid, err)
				}
				if key, err := parseKey(b.Key, nil); err != nil || !samePublic(key, b.Leaf.PublicKey) {
					t.Fatalf("carol's key: %v", err)
				}
				return true
			}},
		{"renew",
			func(p *PKI) error { _, err := p.Renew("bob", IssueOptions{}); return err },
			func(t *testing.T, p *PKI) bool {
				b, err := p.Load("bob")
				if err != nil {
					t.Fatal(err)
				}
				if key, err := parseKey(b.Key, nil); err != nil || !samePublic(key, b.Leaf.PublicKey) {
					t.Fatalf("bob's key: %v", err)
				}
				n := count(t, p, "bob", Valid)
				if archived := p.tree.exists("renewed/issued/bob.crt"); archived != (n == 2) || n == 0 {
					t.Fatalf("bob has %d valid certificates; the old one is archived: %v", n, archived)
				}
				return n == 2
			}},
		{"revoke",
			func(p *PKI) error { _, err := p.Revoke("alice", "keyCompromise", 0); return err },
			func(t *testing.T, p *PKI) bool {
				n, listed := count(t, p, "alice", Revoked), len(readCRL(t, p).RevokedCertificateEntries)
				_, err := p.Load("alice")
				gone := errors.Is(err, ErrNoCertificate) && !p.tree.exists("private/alice.key") && !p.tree.exists("renewed/issued/alice.crt")
				if n != listed || n != 0 && n != 2 || gone != (n == 2) {
					t.Fatalf("alice has %d revoked certificates, %d are listed, files gone: %v", n, listed, gone)
				}
				return n == 2
			}},
	} {
		t.Run(op.name, func(t *testing.T) {
			for kill, acknowledged := 0, false; !acknowledged; kill++ {
				p := copyPKI(t, base)
				p.tree.fault = killAt(kill)
				err := op.do(p)
				acknowledged = err == nil
				if err != nil && !errors.Is(err, errKilled) {
					t.Fatalf("step %d: %v", kill, err)
				}
				p.Close()

				// The next one is killed too, at a step that differs from round to round, and the one after is not.
				if next, err := openFaulty(p.dir, killAt(kill%7)); err == nil {
					next.Close()
				} else if !errors.Is(err, errKilled) {
					t.Fatalf("step %d: the next: %v", kill, err)
				}
				last, err := Open(p.dir, Options{})
				if err != nil {
					t.Fatalf("step %d: %v", kill, err)
				}
				if done := op.done(t, last); acknowledged && !done {
					t.Fatalf("step %d: acknowledged and lost", kill)
				} else if !done {
					// The old tree: the same again must work.
					if err := op.do(last); err != nil {
						t.Fatalf("step %d: again: %v", kill, err)
					}
				}
				last.Close()
				os.RemoveAll(filepath.Dir(p.dir))
				if kill > 500 {
					t.Fatal("it never ends")
				}
			}
		})
	}
}

func TestCrashOfInit(t *testing.T) {
	for kill, done := 0, false; !done; kill++ {
		dir := filepath.Join(t.TempDir(), "pki")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		p, err := open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		p.tree.fault = killAt(kill)
		err = p.init(InitOptions{CommonName: "CA"}, DefaultCALife, DefaultCRLLife)
		done = err == nil
		p.Close()
		p, err = Open(dir, Options{})
		if errors.Is(err, ErrNoCA) {
			p, err = Init(dir, InitOptions{})
		}
		if err != nil {
			t.Fatalf("step %d: %v", kill, err)
		}
		if _, err := p.Client("alice", IssueOptions{}); err != nil {
			t.Errorf("step %d: %v", kill, err)
		}
		p.Close()
	}
}

// Between our crash and our return easy-rsa has worked on the tree: finishing must not undo that.
func TestCrashThenOthers(t *testing.T) {
	p := newPKI(t)
	if _, err := p.Client("alice", IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	p.tree.fault = func(step string) error {
		if strings.HasPrefix(step, "rename ") && !strings.HasSuffix(step, journalName) {
			return errKilled
		}
		return nil
	}
	if _, err := p.Client("bob", IssueOptions{}); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	p.tree.fault = nil
	theirs := "V\t290224202716Z\t\t77\tunknown\t/CN=carol\n"
	index := filepath.Join(p.dir, "index.txt")
	b, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(index, append(b, theirs...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "private/bob.key"), []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := p.List()
	if err != nil || len(list) != 3 {
		t.Fatalf("list: %+v, %v; want alice, carol and bob", list, err)
	}
	if b, err := os.ReadFile(filepath.Join(p.dir, "private/bob.key")); err != nil || string(b) != "theirs" {
		t.Errorf("the other's file was replaced: %q, %v", b, err)
	}
}

func copyPKI(t *testing.T, p *PKI) *PKI {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy", "pki")
	if err := os.CopyFS(dir, os.DirFS(p.dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "private/ca.key"), 0o600); err != nil { // CopyFS follows the umask
		t.Fatal(err)
	}
	q, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// openFaulty is open with a fault from the start.
func openFaulty(dir string, fault func(string) error) (*PKI, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	p := &PKI{dir: dir, tree: &tree{root: root, fault: fault}}
	if err := p.settle(); err != nil {
		root.Close()
		return nil, err
	}
	return p, nil
}

func count(t *testing.T, p *PKI, name string, s Status) int {
	t.Helper()
	list, err := p.List()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range list {
		if r.Name == name && r.Status == s {
			n++
		}
	}
	return n
}
