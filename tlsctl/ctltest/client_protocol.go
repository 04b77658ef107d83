package ctltest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/tlsctl"
)

// Deliver takes a packet of the server. It may overwrite it.
func (c *Client) Deliver(pkt []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	p, err := c.openPacketLocked(pkt)
	if err != nil || len(p.Acks) > 0 && p.Remote != c.id {
		return
	}
	ch := c.channels[p.KeyID]
	switch {
	case c.server.IsZero() && p.Opcode == tlsctl.OpHardResetServerV2:
		c.server = p.Session
		c.resendWKC = bytes.Equal(p.Payload, []byte{0, 1, 0, 2, 0, 1})
	case p.Session != c.server:
		return
	}
	if p.Opcode == tlsctl.OpSoftReset && p.KeyID == c.last%7+1 && c.newest != nil && (ch == nil || ch.done && ch.key != c.last) {
		ch = c.openLocked(p.KeyID)
		ch.queueLocked(tlsctl.OpSoftReset, nil)
		c.wg.Go(func() {
			if err := c.negotiate(context.Background(), ch); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.failures = append(c.failures, err)
			}
		})
	}
	if ch == nil {
		return
	}
	ch.receiveLocked(&p)
	c.changed.Broadcast()
}

func (c *Client) openPacketLocked(pkt []byte) (tlsctl.Packet, error) {
	if c.dynamic == nil || len(pkt) == 0 || pkt[0]&7 == 0 && !(c.cfg.MoveZero && c.moved) {
		return c.cfg.Wrap.Open(pkt)
	}
	spare := bytes.Clone(pkt)
	p, err := c.dynamic.Open(pkt)
	if spare[0]&7 == 0 {
		c.zeroMoved = err == nil
		if err != nil {
			return c.cfg.Wrap.Open(spare)
		}
	}
	return p, err
}

func (c *Client) transmitLocked(p *tlsctl.Packet) {
	p.Session, p.Remote = c.id, c.server
	w := c.cfg.Wrap
	if c.dynamic != nil && (p.KeyID != 0 || c.cfg.MoveZero && c.moved) {
		w = c.dynamic
	}
	c.send(w.Seal(nil, p))
}

func (c *Client) openLocked(key tlsctl.KeyID) *channel {
	ch := newChannel(c, key)
	if old := c.channels[key]; old != nil {
		old.stop()
	}
	c.channels[key], c.latest = ch, ch
	c.moved = c.moved || key != 0
	return ch
}

// negotiate does TLS and the key exchange on a channel whose reset is on its way.
func (c *Client) negotiate(ctx context.Context, ch *channel) error {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		ch.done = true
		c.changed.Broadcast()
	}()
	if err := c.wait(ctx, func() bool { return ch.nextIn > 0 && len(ch.unacked) == 0 }); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	conn := tls.Client(ch, c.cfg.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { ch.Close() })
	defer stop()
	ours := newExchange(&c.cfg)
	message := ours.append(nil)
	if c.cfg.Exchange != nil {
		message = c.cfg.Exchange(message)
	}
	if _, err := conn.Write(message); err != nil {
		return fmt.Errorf("send key exchange: %w", err)
	}
	b := make([]byte, 16<<10)
	n, err := conn.Read(b)
	if err != nil {
		return fmt.Errorf("read key exchange: %w", err)
	}
	theirs, err := parseExchange(b[:n])
	if err != nil {
		return fmt.Errorf("read key exchange: %w", err)
	}

	state := conn.ConnectionState()
	c.mu.Lock()
	defer c.mu.Unlock()
	ch.tls, ch.ours, ch.theirs, ch.state = conn, ours, theirs, state
	ch.awaiting = len(ch.unacked) > 0
	c.before, c.newest, c.last = c.newest, ch, ch.key
	if ch.key == 0 {
		if e, err := state.ExportKeyingMaterial("EXPORTER-OpenVPN-dynamic-tls-crypt", nil, 256); err == nil {
			c.exported = [256]byte(e)
		}
	}
	if c.pushed {
		if err := c.deriveLocked(ch); err != nil {
			return err
		}
	}
	c.wg.Go(func() { c.read(ch) })
	c.changed.Broadcast()
	return nil
}

// read reads messages until the TLS session ends. Like OpenVPN 2 it takes a record for a message.
func (c *Client) read(ch *channel) {
	b := make([]byte, 16<<10)
	for {
		n, err := ch.tls.Read(b)
		if n > 0 {
			c.mu.Lock()
			c.takeLocked(ch, b[:n])
			c.changed.Broadcast()
			c.mu.Unlock()
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
				c.mu.Lock()
				c.failLocked(fmt.Errorf("tls: %w", err))
				c.mu.Unlock()
			}
			return
		}
	}
}

// takeLocked takes one record.
func (c *Client) takeLocked(ch *channel, record []byte) {
	switch {
	case c.cfg.LosesOld && ch != c.latest:
		return
	case c.cfg.Joins && ch.awaiting:
		ch.joined = append(ch.joined, record...)
		return
	}
	if ch.joined != nil {
		record, ch.joined = append(ch.joined, record...), nil
	}
	c.heedLocked(ch, string(bytes.TrimSuffix(record, []byte{0})), len(record))
}

func (c *Client) heedLocked(ch *channel, m string, size int) {
	if strings.IndexByte(m, 0) >= 0 && c.cfg.Joins {
		return // not a text: thrown away
	}
	if strings.IndexByte(m, 0) >= 0 || size > 2048 {
		c.failLocked(fmt.Errorf("a record is not one message: %q", m))
		return
	}
	c.messages = append(c.messages, m)
	word, rest, _ := strings.Cut(m, ",")
	switch {
	case word == "AUTH_PENDING":
		c.pending = true
		if seconds, ok := strings.CutPrefix(rest, "timeout "); ok && protoOf(c.cfg.PeerInfo)&tlsctl.FeaturePendingTime != 0 {
			n, _ := strconv.Atoi(seconds)
			c.pushBy = c.pushBy.Add(time.Duration(n)*time.Second - c.cfg.PushWithin)
			c.cfg.PushWithin = time.Duration(n) * time.Second
		}
	case word == "PUSH_UPDATE":
		if protoOf(c.cfg.PeerInfo)&tlsctl.FeaturePushUpdate == 0 {
			c.failLocked(fmt.Errorf("unknown message %q", m))
		}
	case m == "AUTH_FAILED" || strings.HasPrefix(m, "AUTH_FAILED,"):
		c.failLocked(&Refused{m})
	case m == "PUSH_REPLY" || strings.HasPrefix(m, "PUSH_REPLY,"):
		more := false
		for option := range strings.SplitSeq(strings.TrimPrefix(strings.TrimPrefix(m, "PUSH_REPLY"), ","), ",") {
			switch {
			case option == "push-continuation 2":
				more = true
			case option != "push-continuation 1" && option != "":
				c.partial = append(c.partial, option)
			}
		}
		if more || c.pushed {
			return
		}
		c.options = c.partial
		c.takeOptionsLocked()
		if err := c.deriveLocked(ch); err != nil {
			c.failLocked(err)
			return
		}
		c.pushed = true
	}
}

func (c *Client) takeOptionsLocked() {
	for _, o := range c.options {
		words := strings.Fields(o)
		if len(words) == 0 {
			continue
		}
		if slices.Contains(c.cfg.Refuses, words[0]) || c.cfg.Flags != nil && words[0] == "protocol-flags" &&
			slices.ContainsFunc(words[1:], func(w string) bool { return !slices.Contains(c.cfg.Flags, w) }) {
			c.failLocked(fmt.Errorf("unknown option %q", o))
		}
		for _, w := range words[1:] {
			switch {
			case words[0] == "protocol-flags" && w == "tls-ekm", words[0] == "key-derivation" && w == "tls-ekm":
				c.exporter = true
			case words[0] == "protocol-flags" && w == "dyn-tls-crypt":
				c.dynamic = c.cfg.Wrap.Dynamic(c.exported, time.Now())
			}
		}
	}
}

func (c *Client) deriveLocked(ch *channel) error {
	var block []byte
	if c.exporter {
		var err error
		if block, err = ch.state.ExportKeyingMaterial("EXPORTER-OpenVPN-datakeys", nil, 256); err != nil {
			return err
		}
	} else {
		block = derive(ch.ours, ch.theirs, c.id, c.server)
	}
	c.keys[ch.key] = Keys{ToServer: [128]byte(block[:128]), ToClient: [128]byte(block[128:])}
	c.keyOrder = append(c.keyOrder, ch.key)
	return nil
}
