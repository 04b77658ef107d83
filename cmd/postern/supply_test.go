package main

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxModules is how many direct modules there may be, besides the Go project's own (S110).
const maxModules = 12

// tableOf lists the first column of the table under a heading of docs/dependencies.md.
func tableOf(t *testing.T, heading string) (names []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/dependencies.md has no %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}

// S110, S071: the modules of others are those that docs/dependencies.md accounts for, and not too many; unsafe is in the
// files it lists, which are for Linux alone; nothing needs a C compiler, and nothing is loaded at run time.
func TestS110Supply(t *testing.T) {
	out, err := exec.Command("go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatalf("go mod edit: %v", err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace, Exclude []any
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	if len(mod.Replace)+len(mod.Exclude) > 0 {
		t.Errorf("go.mod replaces or excludes modules: %v %v", mod.Replace, mod.Exclude)
	}
	var direct []string
	foreign := 0
	for _, r := range mod.Require {
		if r.Indirect {
			continue
		}
		direct = append(direct, r.Path)
		if !strings.HasPrefix(r.Path, "golang.org/x/") {
			foreign++
		}
	}
	slices.Sort(direct)
	if want := tableOf(t, "Modules"); !slices.Equal(direct, want) {
		t.Errorf("go.mod has\n%v\nand docs/dependencies.md\n%v", direct, want)
	}
	if foreign > maxModules {
		t.Errorf("%d direct modules of others, at most %d may be", foreign, maxModules)
	}

	if got, want := filesWithUnsafe(t), tableOf(t, "Files with unsafe"); !slices.Equal(got, want) {
		t.Errorf("unsafe is in\n%v\nand docs/dependencies.md has\n%v", got, want)
	} else {
		for _, name := range got {
			if !strings.HasSuffix(name, "_linux.go") {
				t.Errorf("%s imports unsafe and is for every system", name)
			}
		}
	}

	list := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,CgoFiles,Imports", "postern/cmd/postern")
	list.Env = append(os.Environ(), "CGO_ENABLED=1") // cgo would be left out otherwise
	if out, err = list.Output(); err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath        string
			Standard          bool
			CgoFiles, Imports []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Standard {
			continue // net and os/user do without
		}
		if len(p.CgoFiles) > 0 {
			t.Errorf("%s needs a C compiler: %v", p.ImportPath, p.CgoFiles)
		}
		if slices.Contains(p.Imports, "plugin") {
			t.Errorf("%s loads plugins", p.ImportPath)
		}
	}
}

// filesWithUnsafe lists the files of the program that import unsafe; what tests and measures it is none of it.
func filesWithUnsafe(t *testing.T) (names []string) {
	t.Helper()
	for _, dir := range []string{"auth", "cmd/postern", "server", "tlsctl", "tun"} {
		err := filepath.WalkDir("../../"+dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, imp := range f.Imports {
				if imp.Path.Value == `"unsafe"` {
					names = append(names, strings.TrimPrefix(path, "../../"))
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	return names
}
