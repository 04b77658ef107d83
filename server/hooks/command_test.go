package hooks

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseCommand(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
		err  string
	}{
		{"/bin/true", []string{"/bin/true"}, ""},
		{" /a\t'b c'  \"d \\\" e\" f\\ g ", []string{"/a", "b c", `d " e`, "f g"}, ""},
		{`/a $(id) ;rm # x > y`, []string{"/a", "$(id)", ";rm", "#", "x", ">", "y"}, ""}, // no shell sees them
		{`/a ""`, []string{"/a", ""}, ""},
		{`/a b"c`, []string{"/a", `b"c`}, ""},
		{`/a '\x'`, []string{"/a", `\x`}, ""},
		{"", nil, "no program"},
		{" ", nil, "no program"},
		{`"" x`, nil, "no program"},
		{`/a "b`, nil, "closing quotation"},
		{`/a \x`, nil, "bad backslash"},
		{`/a b\`, nil, "bad backslash"},
		{"/a\x00b", nil, "zero byte"},
	} {
		got, err := ParseCommand(c.line)
		if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: got %q, %v, want %q, %q", c.line, got, err, c.want, c.err)
		}
	}
}

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

func FuzzParseCommand(f *testing.F) {
	f.Add(`/a 'b c' "d \" e" f\ g`)
	f.Add("")
	f.Fuzz(func(t *testing.T, line string) {
		words, err := ParseCommand(line)
		if err != nil {
			return
		}
		if len(words) == 0 || words[0] == "" {
			t.Fatalf("no program in %q", words)
		}
		var quoted []string
		for _, w := range words {
			if strings.ContainsRune(w, 0) {
				t.Fatalf("zero byte in %q", words)
			}
			quoted = append(quoted, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w)+`"`)
		}
		again, err := ParseCommand(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(again, words) {
			t.Errorf("%q, quoted anew: %q, %v", words, again, err)
		}
	})
}
