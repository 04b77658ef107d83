package main

import (
	"os"
	"strings"
	"testing"
)

// The page as it stands names only tests that exist, and leaves no cell empty.
func TestPage(t *testing.T) {
	t.Chdir("../..")
	if err := run(true); err != nil {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	const good = "## Some\n\n| behaviour | 2.6 | tests |\n|---|---|---|\n| connects | client | `TestA`, `TestB/part` |\n\n| other | table |\n|---|---|\n| a | |\n"
	tables, err := Parse(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(tables.Tests(), " "); got != "TestA TestB" {
		t.Errorf("tests %q", got)
	}
	var out strings.Builder
	if bad := tables.Print(&out, map[string]string{"TestA": "pass", "TestB": "pass"}); bad != 0 || !strings.Contains(out.String(), "ok  connects") && !strings.Contains(out.String(), "ok") {
		t.Errorf("%d bad rows:\n%s", bad, out.String())
	}
	for _, result := range []string{"fail", "skip", ""} {
		if bad := tables.Print(&out, map[string]string{"TestA": "pass", "TestB": result}); bad != 1 {
			t.Errorf("%d bad rows when a test's result is %q", bad, result)
		}
	}
	for name, text := range map[string]string{
		"no table":      "# nothing\n",
		"an empty cell": "| behaviour | 2.6 | tests |\n|---|---|---|\n| connects | | `TestA` |\n",
		"no test":       "| behaviour | 2.6 | tests |\n|---|---|---|\n| connects | client | some |\n",
		"cells lack":    "| behaviour | 2.6 | tests |\n|---|---|---|\n| connects | `TestA` |\n",
	} {
		if _, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("a page with %s was taken", name)
		}
	}
}

// A test that the page invents is found out.
func TestMissingTest(t *testing.T) {
	t.Chdir("../..")
	if _, err := os.Stat(page); err != nil {
		t.Fatal(err)
	}
	if _, err := packagesOf([]string{"TestPage", "TestThatNobodyWrote"}); err == nil || !strings.Contains(err.Error(), "TestThatNobodyWrote") || strings.Contains(err.Error(), "TestPage,") {
		t.Errorf("got %v", err)
	}
}
