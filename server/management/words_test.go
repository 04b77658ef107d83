package management_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"postern/server/management"
)

// What is quoted comes back as it was, and nothing makes the splitter stumble.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"", "a b", `"a b" 'c d' e`, `a\ b \"c\\`, `"`, `'`, `\`, "a # b", "a ;b", `""`, `''x`, "\ta\t", `a"b`, "a'b'", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := management.Words(s)
		if err != nil {
			return
		}
		quoted := make([]string, len(list))
		for i, w := range list {
			quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
		}
		again, err := management.Words(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(again, list) {
			t.Errorf("%q is %q, quoted %q: %v", s, list, again, err)
		}
	})
}

// S097: whatever a value is, it stays on its line for every reader, and a password of printable characters arrives.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "alice", "pässwörd€", "a\r\n>CLIENT:ENV,END\r\n", "\u2028\u2029\u0085", "\xff\xe4\x85", "\u202egnp.exe", "a\\x0a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := management.Escape(s)
		for _, r := range got {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r == '\u202e' {
				t.Fatalf("%q became %q", s, got)
			}
		}
		for i := range len(got) {
			if c := got[i]; c >= 0x80 && c < 0xa0 && !utf8.ValidString(got) && utf8.ValidString(s) {
				t.Fatalf("%q became %q: no UTF-8 any more", s, got)
			}
		}
		if again := management.Escape(got); again != got {
			t.Errorf("%q became %q and then %q", s, got, again)
		}
		if line := management.Shown(s); len(line) > 256 || !utf8.ValidString(line) {
			t.Errorf("%q is shown as %d bytes", s, len(line))
		}
	})
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"alice":                  "alice",
		"pässwörd €":             "pässwörd €",
		"a\r\n>CLIENT:ENV,END":   `a\x0d\x0a>CLIENT:ENV,END`,
		"\x00\x1b[2J\x7f":        `\x00\x1b[2J\x7f`,
		"\u0085\u2028\u202e":     `\u0085\u2028\u202e`,
		"latin \xe4 and \x85":    "latin \xe4 and \\x85",
		"the sign \ufffd itself": "the sign \ufffd itself",
	} {
		if got := management.Escape(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
