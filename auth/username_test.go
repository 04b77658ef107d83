package auth_test

import (
	"strings"
	"testing"

	"postern/auth"
)

// S044: spellings of one name share one form, and what has none is refused.
func TestCanonicalName(t *testing.T) {
	for _, c := range []struct{ name, want string }{ // want "": refused
		{"alice", "alice"},
		{"Alice", "alice"},
		{"ALICE", "alice"},
		{"ａｌｉｃｅ", "alice"}, // full width
		{"ＡＬＩＣＥ", "alice"},
		{"alice@example.net", "alice@example.net"},
		{`EXAMPLE\alice`, `example\alice`},
		{"müller", "müller"},
		{"MÜLLER", "müller"},
		{"mu\u0308ller", "müller"}, // combining diaeresis
		{"*", "*"},
		{"a:b", "a:b"},
		{"Ωmega", "ωmega"},
		{"\u2126mega", "ωmega"}, // the ohm sign
		{"", ""},
		{" ", ""},
		{"alice ", ""},
		{" alice", ""},
		{"al ice", ""},
		{"al\u00a0ice", ""}, // no-break space
		{"al\u3000ice", ""}, // ideographic space
		{"al\u200bice", ""}, // zero-width space
		{"al\u200dice", ""}, // zero-width joiner
		{"al\u200cice", ""},
		{"al\u2060ice", ""}, // word joiner
		{"al\ufeffice", ""}, // byte order mark
		{"al\u00adice", ""}, // soft hyphen
		{"al\u202eice", ""}, // right-to-left override
		{"al\u200eice", ""},
		{"alice\u034f", ""},
		{"alice\ufe0f", ""}, // variation selector
		{"al\tice", ""},
		{"alice\n", ""},
		{"alice\r\n", ""},
		{"alice\x00", ""},
		{"\x00", ""},
		{"al\x1bice", ""},
		{"al\x7fice", ""},
		{"al\u0085ice", ""},
		{"al\xffice", ""},
		{"al\xc3ice", ""},
		{"alice\u2028", ""},
		{"\ue000", ""},      // private use
		{"ﬁ", ""},           // a ligature
		{"①", ""},           // a compatibility character
		{"aliceא", ""},      // two directions
		{"\u0300alice", ""}, // a combining mark with nothing to combine with
		{strings.Repeat("a", 255), strings.Repeat("a", 255)},
		{strings.Repeat("a", 256), ""},
		{strings.Repeat("ａ", 85), strings.Repeat("a", 85)},
		{strings.Repeat("ａ", 86), ""},
	} {
		got, err := auth.CanonicalName(c.name)
		switch {
		case c.want == "" && err == nil:
			t.Errorf("%q is %q, want it refused", c.name, got)
		case c.want != "" && (err != nil || got != c.want):
			t.Errorf("%q is %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

// A canonical name is its own canonical form.
func FuzzCanonicalName(f *testing.F) {
	for _, name := range []string{"alice", "ALICE", "ａ", "mu\u0308ller", "İ", "ς", "Σ", "\u0345", "א", "", "a b", "\xff"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		canonical, err := auth.CanonicalName(name)
		if err != nil {
			return
		}
		if again, err := auth.CanonicalName(canonical); err != nil || again != canonical {
			t.Fatalf("%q is %q, which is %q, %v", name, canonical, again, err)
		}
		if canonical == "" || len(canonical) > 255 || strings.ContainsAny(canonical, "\x00\n\r \t") {
			t.Fatalf("%q is %q", name, canonical)
		}
	})
}
