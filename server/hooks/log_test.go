package hooks

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
)

// logged is a log that can be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testLog is a log that is shown when the test has failed.
func testLog(t *testing.T) zerolog.Logger {
	l := &logged{}
	t.Cleanup(func() {
		if t.Failed() && l.String() != "" {
			t.Log(strings.TrimSpace(l.String()))
		}
	})
	return zerolog.New(l)
}
