package main

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"

	"postern/tlsctl"
)

// enter connects a session. With -again it does what a stock client does after an attempt that failed: it waits and
// tries again, unless it was refused for good.
func (c *crew) enter(ctx context.Context, id *identity) error {
	for {
		err := c.join(ctx, id)
		if err == nil {
			return nil
		}
		c.mu.Lock()
		c.errors[reason(err)]++
		c.mu.Unlock()
		pause, ok := retryPause(err)
		if !ok || !c.o.again {
			return err
		}
		pauseFor(ctx, pause)
		if ctx.Err() != nil || !c.goesOn() {
			return err
		}
	}
}

// temporary is a refusal that lasts for a while, with what it says about coming again.
var temporary = regexp.MustCompile(`^AUTH_FAILED,TEMP(?:\[([^\]]*)\])?`)

// connectRetry is what a stock client waits between two attempts.
const connectRetry = time.Second

// retryPause is how long a stock client waits after an attempt that ended so; not ok when it makes no other.
func retryPause(err error) (pause time.Duration, ok bool) {
	refused := new(tlsctl.Refused)
	if !errors.As(err, &refused) {
		return connectRetry, true
	}
	m := temporary.FindStringSubmatch(refused.Text)
	if m == nil {
		return 0, false
	}
	for flag := range strings.SplitSeq(m[1], ",") {
		if text, is := strings.CutPrefix(flag, "backoff "); is {
			if n, err := strconv.Atoi(text); err == nil {
				return max(connectRetry, time.Duration(n)*time.Second), true
			}
		}
	}
	return connectRetry, true
}

// reason is an error without what differs from session to session.
func reason(err error) string {
	if refused := new(tlsctl.Refused); errors.As(err, &refused) {
		return temporary.ReplaceAllString(refused.Text, "AUTH_FAILED,TEMP")
	}
	text, _, _ := strings.Cut(err.Error(), ": read udp")
	return text
}
