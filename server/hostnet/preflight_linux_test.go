package hostnet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckTUN(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "tun")
	if err := checkTUN(missing); !errors.Is(err, ErrNoTUN) || !strings.Contains(err.Error(), "modprobe tun") {
		t.Errorf("no device: %v", err)
	}
	if err := checkTUN(dir); !errors.Is(err, ErrNoTUN) {
		t.Errorf("a directory in its place: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkTUN(file); err != nil {
		t.Errorf("can be opened: %v", err)
	}
}
