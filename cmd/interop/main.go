// Interop runs the tests that docs/compatibility.md names, and prints its tables with how each row went. It fails when a
// test fails, skips itself or does not exist, and when a cell is empty. As root: some of the tests need namespaces.
//
//	go run ./cmd/interop            run and print
//	go run ./cmd/interop -tables    only read the page, and look whether every test exists
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

const page = "docs/compatibility.md"

func main() {
	tables := flag.Bool("tables", false, "only read the page, and look whether every test exists")
	flag.Parse()
	if err := run(*tables); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func run(tablesOnly bool) error {
	f, err := os.Open(page)
	if err != nil {
		return fmt.Errorf("%w: run it from the top of the repository", err)
	}
	defer f.Close()
	found, err := Parse(f)
	if err != nil {
		return fmt.Errorf("%s:%w", page, err)
	}
	packages, err := packagesOf(found.Tests())
	if err != nil {
		return err
	}
	if tablesOnly {
		return nil
	}
	results, err := runTests(packages)
	if err != nil {
		return err
	}
	if bad := found.Print(os.Stdout, results); bad > 0 {
		return fmt.Errorf("%d of the rows do not hold", bad)
	}
	return nil
}

// packagesOf finds in which packages the named tests are, as go list sees their files: nothing is built.
func packagesOf(tests []string) (map[string][]string, error) {
	cmd := exec.Command("go", "list", "-f", "{{range .TestGoFiles}}{{$.ImportPath}} {{$.Dir}}/{{.}}\n{{end}}{{range .XTestGoFiles}}{{$.ImportPath}} {{$.Dir}}/{{.}}\n{{end}}", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	packages := make(map[string][]string)
	missing := slices.Clone(tests)
	for line := range strings.Lines(string(out)) {
		pkg, file, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			name := string(m[1])
			if slices.Contains(tests, name) && !slices.Contains(packages[pkg], name) {
				packages[pkg] = append(packages[pkg], name)
				missing = slices.DeleteFunc(missing, func(m string) bool { return m == name })
			}
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%s names tests that do not exist: %s", page, strings.Join(missing, ", "))
	}
	return packages, nil
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w*)\(`)

// An event is a line of go test -json.
type event struct{ Action, Package, Test, Output string }

func events(r io.Reader, f func(event)) error {
	d := json.NewDecoder(r)
	for {
		var e event
		switch err := d.Decode(&e); err {
		case nil:
			f(e)
		case io.EOF:
			return nil
		default:
			return fmt.Errorf("go test -json: %w", err)
		}
	}
}

// runTests runs the tests of each package and returns how each ended: pass, fail or skip. A test that is in several
// packages passes when it does so in each.
func runTests(packages map[string][]string) (map[string]string, error) {
	results := make(map[string]string)
	names := make([]string, 0, len(packages))
	for p := range packages {
		names = append(names, p)
	}
	slices.Sort(names)
	for _, p := range names {
		fmt.Printf("%s: %d tests\n", p, len(packages[p]))
		cmd := exec.Command("go", "test", "-json", "-count", "1", "-timeout", "30m", "-run", "^("+strings.Join(packages[p], "|")+")$", p)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		output := make(map[string]*strings.Builder)
		err = events(out, func(e event) {
			top, _, sub := strings.Cut(e.Test, "/")
			switch e.Action {
			case "output":
				if output[top] == nil {
					output[top] = new(strings.Builder)
				}
				output[top].WriteString(e.Output)
			case "fail", "skip":
				// A part that was skipped leaves a hole, whatever the whole says.
				results[top] = e.Action
				if e.Action == "fail" && !sub {
					fmt.Print(output[top].String())
				}
			case "pass":
				if !sub && results[top] == "" {
					results[top] = "pass"
				}
			}
		})
		werr := cmd.Wait()
		if err != nil {
			return nil, err
		}
		if _, failed := werr.(*exec.ExitError); werr != nil && !failed {
			return nil, fmt.Errorf("go test %s: %w", p, werr)
		}
	}
	return results, nil
}

// Tables are what a page holds: its tables of behaviours, the last column of which names tests.
type Tables struct{ sections []section }

type section struct {
	title   string
	columns []string
	rows    []row
}

type row struct {
	cells []string
	tests []string
}

// Parse reads the tables whose last column is called tests. The error begins with the line.
func Parse(r io.Reader) (*Tables, error) {
	t := new(Tables)
	title, open := "", false
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			title = heading
		}
		if !strings.HasPrefix(line, "|") {
			open = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !open && cells[len(cells)-1] == "tests":
			t.sections = append(t.sections, section{title: title, columns: cells})
			open = true
			continue
		case !open || strings.Trim(line, "|-: ") == "":
			continue
		}
		s := &t.sections[len(t.sections)-1]
		if len(cells) != len(s.columns) {
			return nil, fmt.Errorf("%d: %d cells below %d columns", n, len(cells), len(s.columns))
		}
		for i, c := range cells {
			if c == "" {
				return nil, fmt.Errorf("%d: nothing under %q: name a test, or say why there is none", n, s.columns[i])
			}
		}
		tests := namesIn(cells[len(cells)-1])
		if len(tests) == 0 {
			return nil, fmt.Errorf("%d: no test for %q", n, cells[0])
		}
		s.rows = append(s.rows, row{cells[:len(cells)-1], tests})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(t.sections) == 0 {
		return nil, fmt.Errorf("1: no table whose last column is called tests")
	}
	return t, nil
}

// namesIn returns the tests that a cell names, each between backticks; what stands behind a slash names a part of one.
func namesIn(cell string) (names []string) {
	for i, s := range strings.Split(cell, "`") {
		if i%2 == 1 && strings.HasPrefix(s, "Test") {
			name, _, _ := strings.Cut(s, "/")
			names = append(names, name)
		}
	}
	return names
}

// Tests returns the names of all tests, each once.
func (t *Tables) Tests() (names []string) {
	for _, s := range t.sections {
		for _, r := range s.rows {
			names = append(names, r.tests...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Print writes the tables with how each row went, and returns how many rows do not hold.
func (t *Tables) Print(w io.Writer, results map[string]string) (bad int) {
	for _, s := range t.sections {
		fmt.Fprintf(w, "\n%s\n", s.title)
		width := make([]int, len(s.columns))
		lines := [][]string{append([]string{""}, s.columns[:len(s.columns)-1]...)}
		for _, r := range s.rows {
			verdict := "ok"
			for _, name := range r.tests {
				if results[name] != "pass" {
					verdict = "FAILS: " + name
				}
			}
			if verdict != "ok" {
				bad++
			}
			lines = append(lines, append([]string{verdict}, r.cells...))
		}
		for _, l := range lines {
			for i, c := range l {
				width[i] = max(width[i], len([]rune(c)))
			}
		}
		for _, l := range lines {
			for i, c := range l {
				fmt.Fprint(w, c, strings.Repeat(" ", width[i]-len([]rune(c))+2))
			}
			fmt.Fprintln(w)
		}
	}
	return bad
}
