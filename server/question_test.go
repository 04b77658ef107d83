package server

import (
	"strings"
	"testing"
)

// What tools and scripts want asked is taken apart, or refused; nothing of it is lost.
func FuzzParseQuestion(f *testing.F) {
	f.Add("CR_TEXT:R,E:One-time code")
	f.Add("WEB_AUTH:hidden:https://sso.example.org/x:y")
	f.Add("OPEN_URL:https://sso.example.org/x")
	f.Add("WEB_AUTH:")
	f.Fuzz(func(t *testing.T, text string) {
		q, method, ok := parseQuestion(text)
		if !ok {
			return
		}
		kind := map[string]string{"crtext": "CR_TEXT:", "webauth": "WEB_AUTH:", "openurl": "OPEN_URL:"}[method]
		again := kind + strings.Join(q.Flags, ",") + ":" + q.Text
		if method == "openurl" {
			again = kind + q.Text
		}
		if again != text {
			t.Fatalf("%q became %q", text, again)
		}
	})
}
