package ctltest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"postern/tlsctl"
)

// Say sends a message on the newest negotiation.
func (c *Client) Say(message string) error {
	c.mu.Lock()
	ch := c.newest
	if c.before != nil && time.Since(ch.began) < c.cfg.OldKey {
		ch = c.before
	}
	c.mu.Unlock()
	if ch == nil {
		return errors.New("not connected")
	}
	return c.SayOn(ch.key, append([]byte(message), 0))
}

// SayOn writes bytes into the TLS session of a key id, as one record if they fit into one.
func (c *Client) SayOn(key tlsctl.KeyID, b []byte) error {
	c.mu.Lock()
	ch := c.channels[key]
	c.mu.Unlock()
	if ch == nil || ch.tls == nil {
		return fmt.Errorf("no TLS under key id %d", key)
	}
	_, err := ch.tls.Write(b)
	return err
}

// Messages returns all messages of the server so far.
func (c *Client) Messages() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.messages...)
}

// AwaitMessage waits for a message that begins with prefix.
func (c *Client) AwaitMessage(ctx context.Context, prefix string) (found string, err error) {
	err = c.wait(ctx, func() bool {
		for _, m := range c.messages {
			if strings.HasPrefix(m, prefix) {
				found = m
				return true
			}
		}
		return false
	})
	return found, err
}

// Options returns the options of PUSH_REPLY.
func (c *Client) Options() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.options...)
}

// Failures returns how negotiations ended that the server began and that failed.
func (c *Client) Failures() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]error(nil), c.failures...)
}

// Token returns the newest auth-token, and the name that was pushed with one; "" without.
func (c *Client) Token() (token, user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.messages {
		if !strings.HasPrefix(m, "PUSH_REPLY,") {
			continue
		}
		for option := range strings.SplitSeq(m, ",") {
			if t, ok := strings.CutPrefix(option, "auth-token "); ok {
				token = t
			}
			if u, ok := strings.CutPrefix(option, "auth-token-user "); ok {
				if name, err := base64.StdEncoding.DecodeString(u); err == nil {
					user = string(name)
				}
			}
		}
	}
	return token, user
}
