package hooks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ program, want string }{
		{"/bin/true", ""},
		{"true", "PATH is not searched"},
		{filepath.Join(dir, "none"), "no such file"},
		{dir, "not a file"},
		{plain, "not executable"},
	} {
		_, err := New(Options{Security: 2, Commands: map[Kind]Command{Up: {c.program, "x"}}}, &Daemon{})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.program, err, c.want)
		}
	}
	for _, o := range []Options{{TempDir: filepath.Join(dir, "none")}, {ExportCert: plain}} {
		o.Security, o.Commands = 2, map[Kind]Command{Up: {"/bin/true"}}
		if _, err := New(o, &Daemon{}); err == nil || !strings.Contains(err.Error(), "directory for files") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
