package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// Whoever reads a durable file at any moment finds the old contents or the new, whole; its mode stays, and nothing is
// left beside it (S111).
func TestStateFileIsReplacedWhole(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "ipp.txt")
	if err := os.WriteFile(name, []byte("old\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("ipp.txt", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	f, err := openStateFile(filepath.Join(dir, "link"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := f.Load(); err != nil || string(b) != "old\n" {
		t.Fatalf("loaded %q, %v", b, err)
	}
	content := func(n int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%04d\n", n), 1+n%50*200) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 200 {
			if err := f.Save(content(n)); err != nil {
				t.Errorf("save: %v", err)
			}
		}
	}()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscanf(string(b), "%d", &n); err == nil && !bytes.Equal(b, content(n)) {
			t.Fatalf("read %d bytes of state %d, which has %d", len(b), n, len(content(n)))
		}
	}
	if b, err := f.Load(); err != nil || !bytes.Equal(b, content(199)) {
		t.Errorf("loaded %d bytes, %v", len(b), err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("%d files, want the file and the link", len(entries))
	}
}

// Where nothing but the file itself may be written, as after privileges were dropped, it is written in place.
func TestStateFileWithoutRightsToItsDirectory(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "ipp.txt")
	f, err := openStateFile(name, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o755)
	if os.Geteuid() == 0 { // root may write anywhere, unless this thread is somebody else for the file system
		runtime.LockOSThread()
		if err := syscall.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Setfsuid(0); err == nil {
				runtime.UnlockOSThread()
			}
		}()
	}
	if probe, err := os.Create(filepath.Join(dir, "probe")); err == nil {
		probe.Close()
		t.Fatal("the directory can be written: this shows nothing")
	}
	for _, text := range []string{strings.Repeat("long\n", 1000), "short\n"} {
		if err := f.Save([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if b, err := f.Load(); err != nil || string(b) != text {
			t.Errorf("loaded %q, %v", b, err)
		}
	}
}
