package server

import (
	"errors"
	"fmt"
	"time"

	"postern/server/datachan"
	"postern/tlsctl"
)

// oldKeyLife is how long the previous key still opens packets once the next one sends: 60 s (S074), less the keeper's
// second.
const oldKeyLife = 59 * time.Second

// keyTimes is what is to become of a client's keys, and when.
type keyTimes struct {
	started time.Time     // when the negotiation of the sending key began
	offered *datachan.Key // opens packets, but the client is not known to have it yet; mostly nil
	waiting *datachan.Key // the next to send with: when the client has sent under it or ids run out, at useAt at the latest; mostly nil
	began   time.Time     // when the negotiation of offered or waiting began
	useAt   time.Time
	retire  time.Time // when keys but the sending one and waiting die; zero: there are none
}

// asked is for which key a successor was asked for last, and when.
type asked struct {
	key *datachan.Key
	at  time.Time
}

var errEnded = errors.New("the session has ended")

// streamWindow is how far behind the newest a packet on a stream may be, where none is late but by its sender's doing.
const streamWindow = 64

// Install implements tlsctl.Owner: a new data key. The first one makes the client a member: the lanes find it from
// here on, and an older session of the same name ends (S050: only now, when the newcomer is authorised).
func (c *client) Install(k tlsctl.KeyMaterial) error {
	live := c.srv.live.Load()
	window := live.replayWindow()
	if c.stream {
		window = streamWindow
	}
	key, err := format(k, window).NewKey(k.ToClient, k.FromClient)
	if err != nil {
		return fmt.Errorf("data key %d: %w", k.ID, err)
	}
	if err := c.takeKey(key, k.Started, time.Now()); err != nil {
		return fmt.Errorf("data key %d: %w", k.ID, err)
	}
	if c.gone.Load() { // ended meanwhile: whoever ended it may have cleared the ring before this key was in it
		c.ring.Clear()
		return errEnded
	}
	if c.member.Load() == nil {
		return c.join(key, k.Cipher, live)
	}
	return nil
}

// format is how packets under a key look.
func format(k tlsctl.KeyMaterial, window int) datachan.Config {
	return datachan.Config{
		ID: datachan.KeyID(k.ID), Peer: datachan.PeerID(k.PeerID), V2: k.V2,
		Cipher: k.Cipher, Digest: k.Digest, Epoch: k.Epoch, Framing: framings[k.Framing], Window: window,
	}
}

// framings are tlsctl's in the data channel's words.
var framings = [...]datachan.Framing{tlsctl.NoFraming: datachan.NoFraming, tlsctl.FramingStub: datachan.Stub, tlsctl.FramingV2: datachan.StubV2}

// keySwitch is when a renegotiated key is sent with, at the latest, after its negotiation began: the client does the
// same (control channel 12.3).
func (l *live) keySwitch() time.Duration {
	d := l.cfg.HandWindow
	if r := l.cfg.Renegotiate; r > 0 && r/2 < d {
		d = r / 2
	}
	return d
}

// takeKey takes a key that was negotiated since started. It opens packets at once. The first one is sent with, too: its
// client has acknowledged our half of the exchange.
func (c *client) takeKey(key *datachan.Key, started time.Time, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.keys
	if t.waiting != nil {
		c.sendWith(t.waiting, t.began, now) // when the client began to negotiate this one, it gave up all before that
	}
	sending := c.ring.Sending()
	for id := range datachan.KeyID(8) {
		if old := c.ring.Receiving(id); old != nil && old != sending {
			c.ring.Retire(id)
		}
	}
	t.retire, t.offered = time.Time{}, nil
	if err := c.ring.Install(key); err != nil {
		return err
	}
	if sending == nil {
		c.sendWith(key, started, now)
		return nil
	}
	c.unheard.Store(key)
	t.offered, t.began = key, started
	return nil
}

// Confirm implements tlsctl.Owner: the client has the key, and it is decided when to send with it.
//
// The client goes on sending with its old key for a while, and so do we, until it has shown that it uses the new one,
// or until a window is over. A stock client does not wait when its old key is itself younger than that, for then it has
// none that is older; nor do we.
func (c *client) Confirm(id tlsctl.KeyID) {
	window, now := c.srv.live.Load().keySwitch(), time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.keys
	key := t.offered
	if key == nil || key.ID() != datachan.KeyID(id) {
		return // the client was faster: it sends with it already
	}
	t.offered = nil
	if useAt := t.began.Add(window); now.Before(useAt) && !now.Before(t.started.Add(window)) {
		t.waiting, t.useAt = key, useAt
		return
	}
	c.sendWith(key, t.began, now)
}

// Withdraw implements tlsctl.Owner: the key is not to be, unless the client has used it, which proves that it has it.
func (c *client) Withdraw(id tlsctl.KeyID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := c.keys.offered
	if key == nil || key.ID() != datachan.KeyID(id) {
		return
	}
	c.keys.offered = nil
	c.unheard.CompareAndSwap(key, nil)
	c.ring.Retire(key.ID())
}

// sendWith begins to send with a key. The one before opens packets for some time still. The caller holds mu.
func (c *client) sendWith(key *datachan.Key, started, now time.Time) {
	if c.ring.Sending() != nil {
		c.keys.retire = now.Add(oldKeyLife)
	}
	c.ring.Use(key.ID())
	c.keys.started, c.keys.waiting, c.keys.offered = started, nil, nil
}

// hear notes the client's first packet under its newest key: it has left the one before behind.
func (c *client) hear(key *datachan.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unheard.CompareAndSwap(key, nil) {
		return
	}
	for id := range datachan.KeyID(8) {
		if old := c.ring.Receiving(id); old != nil && old != key {
			c.outgrown.Store(old) // there is no more than one
		}
	}
	if c.keys.waiting == key || c.keys.offered == key {
		c.sendWith(key, c.keys.began, time.Now())
	}
}

// turnKeys does what is due with the client's keys. The keeper calls it.
func (c *client) turnKeys(live *live, now time.Time) {
	c.mu.Lock()
	t := &c.keys
	sending := c.ring.Sending() // nil when the client has ended meanwhile
	// At full speed the last packet ids would not do until useAt.
	if t.waiting != nil && (!now.Before(t.useAt) || sending != nil && sending.NearEnd()) {
		c.sendWith(t.waiting, t.began, now)
		sending = c.ring.Sending()
	}
	if !t.retire.IsZero() && !now.Before(t.retire) {
		t.retire = time.Time{}
		for id := range datachan.KeyID(8) {
			if k := c.ring.Receiving(id); k != nil && k != sending && k != t.waiting && k != t.offered {
				c.ring.Retire(id)
			}
		}
	}
	turning := t.waiting != nil || t.offered != nil
	c.mu.Unlock()
	if sending == nil || turning || !sending.NearEnd() && !live.spent(sending) {
		return
	}
	if c.asked.key != sending || now.Sub(c.asked.at) >= live.cfg.HandWindow { // one that fails is not tried again at once
		c.asked = asked{sending, now}
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
