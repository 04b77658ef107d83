package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Profiles are served on a socket for its owner alone, which is gone afterwards, and nowhere else (S101).
func TestPprof(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pprof.sock")
	close, err := openPprof("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	answer, err := client.Get("http://postern/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || !strings.Contains(string(b), "goroutine profile") {
		t.Errorf("got %.100q, %v", b, err)
	}
	close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	for _, where := range []string{"127.0.0.1:6060", "unix:", path} {
		if _, err := openPprof(where); err == nil {
			t.Errorf("--pprof %s was taken", where)
		}
	}
}
