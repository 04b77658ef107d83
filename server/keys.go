package server

import (
	"errors"
	"fmt"
	"time"

	"postern/server/datachan"
	"postern/tlsctl"
)

// oldKeyLife is how long the previous key still opens packets once the next one sends (S074).
const oldKeyLife = 60 * time.Second

// Install implements tlsctl.Owner: a new data key. The first one makes the client a member: the lanes find it from
// here on, and an older session of the same name ends (S050: only now, when the newcomer is authorised).
func (c *client) Install(k tlsctl.KeyMaterial) error {
	live := c.srv.live.Load()
	key, err := datachan.NewKey(datachan.KeyID(k.ID), k.Cipher, datachan.PeerID(k.PeerID), k.V2, k.ToClient, k.FromClient, live.replayWindow())
	if err != nil {
		return fmt.Errorf("data key %d: %w", k.ID, err)
	}
	// Key ids come round again: only the key that sends now may live beside the new one.
	for id := range datachan.KeyID(8) {
		if old := c.ring.Receiving(id); old != nil && (id == key.ID() || old != c.ring.Sending()) {
			c.ring.Retire(id)
		}
	}
	if err := c.ring.Install(key); err != nil {
		return fmt.Errorf("data key %d: %w", k.ID, err)
	}
	if c.gone.Load() { // ended meanwhile: whoever ended it may have cleared the ring before this key was in it
		c.ring.Clear()
		return errors.New("the session has ended")
	}
	if c.member.Load() == nil {
		c.ring.Use(key.ID())
		return c.join(k, live)
	}
	c.mu.Lock()
	c.useAt = k.Started.Add(live.keySwitch())
	c.retireAt = time.Time{}
	c.mu.Unlock()
	c.confirm.Store(key)
	return nil
}

// keySwitch is when a renegotiated key is sent with, at the latest, after its negotiation began: the client does the
// same (control channel 12.3).
func (l *live) keySwitch() time.Duration {
	d := l.cfg.HandWindow
	if r := l.cfg.Renegotiate; r > 0 && r/2 < d {
		d = r / 2
	}
	return d
}

// useKey begins to send with a renegotiated key: the client has it, or time is up.
func (c *client) useKey(key *datachan.Key) {
	if !c.confirm.CompareAndSwap(key, nil) {
		return
	}
	c.ring.Use(key.ID())
	c.mu.Lock()
	c.retireAt = time.Now().Add(oldKeyLife)
	c.mu.Unlock()
}

// turnKeys does what is due with the client's keys. The keeper calls it.
func (c *client) turnKeys(now time.Time) {
	c.mu.Lock()
	useAt, retireAt := c.useAt, c.retireAt
	retire := !retireAt.IsZero() && now.After(retireAt)
	if retire {
		c.retireAt = time.Time{}
	}
	c.mu.Unlock()
	if key := c.confirm.Load(); key != nil && now.After(useAt) {
		c.useKey(key)
	}
	sending := c.ring.Sending()
	if retire {
		for id := range datachan.KeyID(8) {
			if k := c.ring.Receiving(id); k != nil && k != sending && k != c.confirm.Load() {
				c.ring.Retire(id)
			}
		}
	}
	if sending != nil && (sending.NearEnd() || c.srv.live.Load().spent(sending)) && c.confirm.Load() == nil {
		c.session.Renegotiate()
	}
}

// spent reports whether a key has carried what reneg-bytes or reneg-pkts allow.
func (l *live) spent(k *datachan.Key) bool {
	if l.cfg.RenegotiateBytes == 0 && l.cfg.RenegotiatePackets == 0 {
		return false
	}
	packets, bytes := k.Usage()
	return l.cfg.RenegotiateBytes > 0 && bytes >= uint64(l.cfg.RenegotiateBytes) ||
		l.cfg.RenegotiatePackets > 0 && packets >= uint64(l.cfg.RenegotiatePackets)
}
