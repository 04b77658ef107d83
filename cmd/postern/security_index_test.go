package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// S120: docs/security.md has a line for every row of the requirements, in order. It names tests that exist and carry the
// row's id, or says that there is none and why; and each published mistake leads to rows.
func TestSecurityIndex(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := testSources(t)
	var want []string
	for n := 1; n <= 120; n++ {
		want = append(want, fmt.Sprintf("S%03d", n))
	}
	for n := 1; n <= 44; n++ {
		want = append(want, fmt.Sprintf("F%02d", n))
	}
	reason := regexp.MustCompile(`^not (?:applicable|done(?: with [^:]+)?): .`)
	id, name := regexp.MustCompile(`\b(S\d{3}|F\d{2})\b`), regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	next, mistakes := 0, 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		switch row := strings.TrimSpace(cells[0]); {
		case len(cells) == 3 && id.MatchString(row):
			if next == len(want) || row != want[next] {
				t.Fatalf("%s is out of order: want every row once, and now %v", row, want[min(next, len(want)-1):][0])
			}
			next++
			tests := strings.TrimSpace(cells[2])
			if reason.MatchString(tests) {
				continue
			}
			found := name.FindAllStringSubmatch(tests, -1)
			if len(found) == 0 {
				t.Errorf("%s: no test, and no reason", row)
			}
			for _, m := range found {
				switch texts := sources[m[1]]; {
				case texts == "":
					t.Errorf("%s: there is no %s", row, m[1])
				case !regexp.MustCompile(`\b`+row+`\b`).MatchString(texts) && !strings.Contains(m[1], row):
					t.Errorf("%s: %s does not say that it is for that row", row, m[1])
				}
			}
		case len(cells) == 2 && id.MatchString(cells[1]):
			mistakes++
		}
	}
	if next != len(want) || mistakes < 50 {
		t.Errorf("the page has %d rows and %d published mistakes, want %d rows and at least 50", next, mistakes, len(want))
	}
}

// testSources returns the comment and the text of every test and fuzz target of the repository; of those that share a name,
// all.
func testSources(t *testing.T) map[string]string {
	t.Helper()
	head := regexp.MustCompile(`(?m)^(?://.*\n)*func (?:\([^)]*\) )?(\w+)`)
	sources := make(map[string]string)
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found := head.FindAllSubmatchIndex(b, -1)
		for i, at := range found {
			end := len(b)
			if i+1 < len(found) {
				end = found[i+1][0]
			}
			sources[string(b[at[2]:at[3]])] += string(b[at[0]:end])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources
}
