package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The unit that README.md has administrators install is as closed as it should be, and systemd understands every line of
// it; so of the one that takes OpenVPN's place (S106).
func TestUnits(t *testing.T) {
	if testing.Short() {
		t.Skip("asks systemd-analyze: not with -short")
	}
	for _, unit := range []struct{ file, threshold string }{
		{"postern@.service", "25"},
		{"postern-server@.service", "100"}, // it starts as root, as the one in whose place it is
	} {
		b, err := os.ReadFile("../../deploy/" + unit.file)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		// The program is not installed here; any that can be run will do.
		text := strings.ReplaceAll(string(b), "/usr/local/bin/postern", "/bin/true")
		path := filepath.Join(dir, strings.Replace(unit.file, "@", "@test", 1))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold="+unit.threshold, path).CombinedOutput()
		if err != nil {
			t.Errorf("%s: systemd-analyze security: %v\n%s", unit.file, err, out)
		} else {
			t.Log(regexp.MustCompile(`Overall exposure.*`).FindString(string(out)))
		}
		// It complains of other units of the machine, too.
		out, _ = exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, filepath.Base(path)) {
				t.Errorf("systemd-analyze verify: %s", line)
			}
		}
	}
}
