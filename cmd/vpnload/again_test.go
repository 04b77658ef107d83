package main

import (
	"context"
	"testing"
	"time"

	"postern/tlsctl"
)

func TestRetryPause(t *testing.T) {
	for _, c := range []struct {
		err    error
		pause  time.Duration
		again  bool
		reason string
	}{
		{context.DeadlineExceeded, connectRetry, true, "context deadline exceeded"},
		{&tlsctl.Refused{Text: "AUTH_FAILED,TEMP[backoff 7]:later"}, 7 * time.Second, true, "AUTH_FAILED,TEMP:later"},
		{&tlsctl.Refused{Text: "AUTH_FAILED,TEMP[backoff 9,advance remote]:full"}, 9 * time.Second, true, "AUTH_FAILED,TEMP:full"},
		{&tlsctl.Refused{Text: "AUTH_FAILED,TEMP"}, connectRetry, true, "AUTH_FAILED,TEMP"},
		{&tlsctl.Refused{Text: "AUTH_FAILED,TEMP[backoff x]"}, connectRetry, true, "AUTH_FAILED,TEMP"},
		{&tlsctl.Refused{Text: "AUTH_FAILED,wrong"}, 0, false, "AUTH_FAILED,wrong"},
		{&tlsctl.Refused{Text: "AUTH_FAILED"}, 0, false, "AUTH_FAILED"},
	} {
		if pause, again := retryPause(c.err); pause != c.pause || again != c.again {
			t.Errorf("%v: again %v in %v, want %v in %v", c.err, again, pause, c.again, c.pause)
		}
		if got := reason(c.err); got != c.reason {
			t.Errorf("%v is counted as %q, want %q", c.err, got, c.reason)
		}
	}
}
