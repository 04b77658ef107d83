package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// hostileNames are what a peer might call itself to have the log say or do something else.
var hostileNames = []string{
	"\x1b[31mred\x1b[0m", "\x1b]0;title\a", "a\n2026-11-29 12:00:00 INF client connected client=root", "a\r\nb", "a\x00b", "\x7f",
	"${jndi:ldap://x}", "%n%s%x", "alice\u202etxt.exe", "a\u2066b\u2069", "a\u0085b", "a\u009b31mb", "a\u2028b", "\xff\xfe", "a\u200fb",
	`"},"level":"error","x":{"y":"`, `\u0022`, "client=\"x\" y=z", strings.Repeat("long", 60),
}

// Whatever a peer calls itself is one value in one record, and inert, in both forms of the log (S102).
func TestHostileNamesInTheLog(t *testing.T) {
	for _, form := range []logForm{{json: true, times: true}, {times: true}} {
		for _, name := range hostileNames {
			var out bytes.Buffer
			log := newLogger(&out, form)
			log.Info().Str("client", name).Err(errors.New("login "+name)).Bytes("raw", []byte(name)).Msg("login ended")
			text := out.String()
			if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
				t.Errorf("%q makes the lines %q", name, text)
			}
			if !utf8.ValidString(text) {
				t.Errorf("%q makes bytes that are no text: %q", name, text)
			}
			for _, r := range strings.TrimSuffix(text, "\n") {
				if unicode.IsControl(r) || acts(r) {
					t.Errorf("%q leaves %U in %q", name, r, text)
				}
			}
			if !form.json {
				continue
			}
			var record map[string]any
			if err := json.Unmarshal(out.Bytes(), &record); err != nil {
				t.Errorf("%q: %v: %s", name, err, text)
			}
			if want := strings.ToValidUTF8(name, "\ufffd"); record["client"] != want && utf8.ValidString(name) || record["level"] != "info" || len(record) != 6 {
				t.Errorf("%q became the record %v", name, record)
			}
		}
	}
}

func TestInertLeavesTextAlone(t *testing.T) {
	for _, s := range []string{"", "plain", "Grüße 日本語 😀"} {
		if got := inert([]byte(s)); string(got) != s {
			t.Errorf("%q became %q", s, got)
		}
	}
	line := []byte("Grüße, kein Grund zu kopieren")
	if n := testing.AllocsPerRun(10, func() { inert(line) }); n != 0 {
		t.Errorf("%v allocations where nothing is escaped", n)
	}
}
