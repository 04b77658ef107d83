package management

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// escape makes a value safe for one line of output: whatever could end a line for any reader, move a terminal's
// cursor or turn text around becomes a hexadecimal escape (S097). All else stays as it is, also what is no UTF-8, since
// a password must reach the tool unchanged.
func escape(s string) string {
	if strings.IndexFunc(s, unsafeRune) < 0 {
		return s
	}
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			// Readers that take bytes for Latin-1 see C1 controls here.
			if s[0] < 0xa0 {
				fmt.Fprintf(&b, `\x%02x`, s[0])
			} else {
				b.WriteByte(s[0])
			}
		case r == utf8.RuneError || !unsafeRune(r):
			b.WriteString(s[:n])
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[n:]
	}
	return b.String()
}

// unsafeRune reports what may not be written as it is. Broken UTF-8 is looked at closer.
func unsafeRune(r rune) bool {
	switch {
	case r < ' ', r >= 0x7f && r < 0xa0: // C0, DEL, C1
		return true
	case r == 0x2028, r == 0x2029: // line and paragraph separator
		return true
	case r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // direction
		return true
	}
	return r == utf8.RuneError
}

// shown is a value as a log line shows it: escaped, at most 256 bytes (S102).
func shown(s string) string {
	const limit = 256
	s = strings.ToValidUTF8(escape(s), "?")
	if len(s) <= limit {
		return s
	}
	cut := limit - len("...")
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// variableName makes a name of an environment variable out of any string.
func variableName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-', r == '.':
			return r
		}
		return '_'
	}, s)
}
