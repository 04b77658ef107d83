package config

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Every name of OpenVPN 2.4 to 2.7 has a row: what is not known by name cannot be told from a slip of the pen.
func TestEveryDirectiveHasARow(t *testing.T) {
	b, err := os.ReadFile("testdata/directives.txt")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(b)) {
		if rowsByName()[name] == nil {
			t.Errorf("no row for %s", name)
		}
	}
}

func TestRowsAreComplete(t *testing.T) {
	inReader := []string{"config", "cd", "ignore-unknown-option"} // they act while files are read
	seen := map[string]bool{}
	for _, s := range sections {
		for _, r := range s.rows {
			if seen[r.name] {
				t.Errorf("%s has two rows", r.name)
			}
			seen[r.name] = true
			if r.help == "" {
				t.Errorf("%s has no help", r.name)
			}
			if r.stance == uses && r.apply == nil && !slices.Contains(inReader, r.name) {
				t.Errorf("%s is used, but nothing uses it", r.name)
			}
			if r.stance != uses && r.apply != nil {
				t.Errorf("%s has a function that is never called", r.name)
			}
			if r.sets != "" && rowsByName()[r.sets] == nil {
				t.Errorf("%s says the same as %s, which has no row", r.name, r.sets)
			}
		}
	}
}

func TestParameterCounts(t *testing.T) {
	for _, tt := range []struct {
		params    string
		low, high int
	}{
		{"", 0, 0}, {"N", 1, 1}, {"A B", 2, 2}, {"[N]", 0, 1}, {"A [B]", 1, 2}, {"A [B [C]]", 1, 3}, {"[N [a|b]]", 0, 2},
		{"NAME...", 1, 15}, {"A [B...]", 1, 15}, {"...", 0, 15}, {"[A [B]] [c]", 0, 3}, {"[A B|c]", 0, 2},
	} {
		r := row{params: tt.params}
		if low, high := r.counts(); low != tt.low || high != tt.high {
			t.Errorf("%q takes %d to %d, want %d to %d", tt.params, low, high, tt.low, tt.high)
		}
	}
}

func TestSuggestion(t *testing.T) {
	for name, want := range map[string]string{
		"keepalvie": "keepalive", "max-client": "max-clients", "tls_crypt": "tls-crypt", "ldap-uri": "ldap-url", "ldap-password": "ldap-bind-password-file",
		"frobnicate": "remove the line", "<ca>": "inline block",
	} {
		if got := suggestion(name); !strings.Contains(got, want) {
			t.Errorf("suggestion for %s is %q, want %q in it", name, got, want)
		}
	}
}
