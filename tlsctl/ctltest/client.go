// Package ctltest plays the other side of a control channel: a Client that can do whatever stock clients do, a Wire
// that loses, delays, reorders and doubles what they say to each other, and a Server that joins a gate and its
// sessions. The client shares no code with the sessions it tests but the packet format and the wraps.
package ctltest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/tlsctl"
)

// PeerInfo26 is what a stock OpenVPN 2.6 says about itself; PeerInfo24 one of 2.4, which has to ask for its options
// and derives keys the old way.
const (
	PeerInfo26 = "IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\n" +
		"IV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\nIV_PROTO=990\n"
	PeerInfo24 = "IV_VER=2.4.12\nIV_PLAT=linux\nIV_PROTO=2\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM:AES-128-GCM:BF-CBC\n"

	defaultOptions = "V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-client"
)

// Config says what kind of client a Client is. TLS is needed; zero values of the rest make a 2.6 without wrap.
type Config struct {
	TLS *tls.Config
	// Wrap is the client's end of the wrap; nil: none.
	Wrap *tlsctl.ClientWrap
	// CryptV2: the wrap is tls-crypt-v2, so the first packet brings the wrapped key.
	CryptV2 bool
	// Stream: nothing is lost and nothing is sent again, as OpenVPN 3 does over TCP.
	Stream bool
	// MoveZero: from the first renegotiation on key id 0 uses the dynamic wrap too, as OpenVPN 3 does.
	MoveZero bool
	// Steady: a packet is sent again every second, as OpenVPN 3 does; otherwise after 2 s, 4 s, 8 s and so on.
	Steady bool
	// AckOnce: acknowledgements are not repeated, as before 2.6.
	AckOnce bool
	// Login and its user name and password; without Login both are absent.
	Login    bool
	Username string
	Password string
	// Credentials, if set, are asked at each negotiation what takes the place of Username and Password.
	Credentials func() (username, password string)
	PeerInfo    string // "" means PeerInfo26
	Options     string // the OCC string; "" means one of 2.6
	// Exchange, if set, may change the key exchange message before it is sent.
	Exchange func(message []byte) []byte
	// PushRequest is how often a client that was not told to wait asks for its options; 0 means 5 s.
	PushRequest time.Duration

	// What a Profile sets beside the above.

	// SendWindow and ReceiveWindow are how many packets are in flight, and taken from the next expected one on; 0
	// means 6 and 12.
	SendWindow, ReceiveWindow int
	// AckMax is how many acknowledgements go into a packet of their own; 0 means 8.
	AckMax int
	// Chunk is how much TLS goes into a packet; 0 means 1100.
	Chunk int
	// FastResend: a packet goes again when three later ones were acknowledged, as from 2.6 on.
	FastResend bool
	// StreamResend: packets are sent again over a Stream too, as OpenVPN 2 does.
	StreamResend bool
	// Cadence is how long the client waits before each PUSH_REQUEST, the last again and again; it asks even if the
	// server may push unasked. Without it PushRequest counts.
	Cadence []time.Duration
	// PendingCadence takes the place of Cadence once AUTH_PENDING has come, if not 0.
	PendingCadence time.Duration
	// PushWithin is how long the client waits for its options, from the end of the key exchange; 0 means for ever.
	// AUTH_PENDING changes it if the client knows that.
	PushWithin time.Duration
	// OldKey is for how long after the begin of a renegotiation messages are said under the key before, as OpenVPN
	// 3 does.
	OldKey time.Duration
	// LosesOld: nothing that comes under a key is read any more once a renegotiation has begun, as in OpenVPN 2.
	LosesOld bool
	// Joins: a record that comes while the client's own key exchange is not acknowledged spoils the one after it, as
	// in OpenVPN 3.
	Joins bool
	// Refuses are the names of options that the client does not understand; Flags, if not nil, the words of
	// protocol-flags that it does. Getting another is the end of the client.
	Refuses, Flags []string
}

// Refused is an AUTH_FAILED.
type Refused struct{ Text string }

func (r *Refused) Error() string { return r.Text }

// Keys is one negotiated data key.
type Keys struct{ ToServer, ToClient [128]byte }

// A Client is one client of one server. Its methods may be called from any goroutine.
type Client struct {
	cfg  Config
	send func([]byte)
	id   tlsctl.SessionID
	wg   sync.WaitGroup

	mu        sync.Mutex
	changed   sync.Cond
	server    tlsctl.SessionID
	resendWKC bool
	dynamic   *tlsctl.ClientWrap
	moved     bool // a renegotiation has begun
	zeroMoved bool // the last packet of key id 0 came under the dynamic wrap
	channels  map[tlsctl.KeyID]*channel
	newest    *channel // the newest whose key exchange is over
	before    *channel // the one that was newest before
	latest    *channel // the newest that was begun
	pending   bool     // AUTH_PENDING has come
	pushBy    time.Time
	last      tlsctl.KeyID
	exported  [256]byte // for the dynamic wrap; zero: cannot be had
	exporter  bool      // the server chose exported data keys
	keys      map[tlsctl.KeyID]Keys
	keyOrder  []tlsctl.KeyID
	messages  []string
	options   []string // of PUSH_REPLY, once complete
	partial   []string
	pushed    bool
	failures  []error // of negotiations that the server began
	err       error
}

// NewClient returns a client that hands its packets to send, which must not keep them. Close it.
func NewClient(send func(pkt []byte), cfg Config) *Client {
	if cfg.Wrap == nil {
		cfg.Wrap = tlsctl.NewClientWrap(tlsctl.Wrapping{}, time.Now())
	}
	if cfg.PeerInfo == "" {
		cfg.PeerInfo = PeerInfo26
	}
	if cfg.Options == "" {
		cfg.Options = defaultOptions
	}
	if cfg.PushRequest == 0 {
		cfg.PushRequest = 5 * time.Second
	}
	for _, f := range []struct {
		field *int
		value int
	}{{&cfg.SendWindow, 6}, {&cfg.ReceiveWindow, 12}, {&cfg.AckMax, tlsctl.MaxAcks}, {&cfg.Chunk, 1100}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	cfg.TLS = cfg.TLS.Clone()
	cfg.TLS.DynamicRecordSizingDisabled = true // as OpenSSL has it: one write, one record
	c := &Client{
		cfg:      cfg,
		send:     send,
		channels: make(map[tlsctl.KeyID]*channel),
		keys:     make(map[tlsctl.KeyID]Keys),
	}
	c.changed.L = &c.mu
	rand.Read(c.id[:])
	return c
}

// ID is the client's session id.
func (c *Client) ID() tlsctl.SessionID { return c.id }

// Close ends everything without a word to the server.
func (c *Client) Close() {
	c.mu.Lock()
	c.failLocked(net.ErrClosed)
	c.mu.Unlock()
	c.wg.Wait()
}

func (c *Client) failLocked(err error) {
	if c.err == nil {
		c.err = err
	}
	for _, ch := range c.channels {
		ch.stop()
	}
	c.changed.Broadcast()
}

// wait blocks until done or the end of ctx or of the client.
func (c *Client) wait(ctx context.Context, done func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case done():
			return nil
		case c.err != nil:
			return c.err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		c.changed.Wait()
	}
}

// Connect does the whole way from the first packet to the data key: PUSH_REPLY, or *Refused.
func (c *Client) Connect(ctx context.Context) error {
	if err := c.Handshake(ctx); err != nil {
		return err
	}
	return c.Pull(ctx)
}

// Handshake does the first negotiation up to the server's key exchange.
func (c *Client) Handshake(ctx context.Context) error {
	op := tlsctl.OpHardResetClientV2
	if c.cfg.CryptV2 {
		op = tlsctl.OpHardResetClientV3
	}
	c.mu.Lock()
	ch := c.openLocked(0)
	ch.queueLocked(op, nil)
	c.mu.Unlock()
	return c.negotiate(ctx, ch)
}

// Pull waits for PUSH_REPLY, asking for it if the client is of that kind.
func (c *Client) Pull(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if c.cfg.Cadence != nil || protoOf(c.cfg.PeerInfo)&4 == 0 {
		c.wg.Go(func() { c.ask(ctx) })
	}
	c.mu.Lock()
	patience := c.cfg.PushWithin // which the server may have changed already
	c.pushBy = time.Now().Add(patience)
	c.mu.Unlock()
	if patience > 0 {
		c.wg.Go(func() { c.expire(ctx, cancel) })
	}
	return c.wait(ctx, func() bool { return c.pushed })
}

// ask asks for the options until ctx ends.
func (c *Client) ask(ctx context.Context) {
	cadence := c.cfg.Cadence
	if cadence == nil {
		cadence = []time.Duration{0, c.cfg.PushRequest}
	}
	for {
		wait := cadence[0]
		if len(cadence) > 1 {
			cadence = cadence[1:]
		}
		c.mu.Lock()
		if c.pending && c.cfg.PendingCadence > 0 {
			wait = c.cfg.PendingCadence
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			c.Say("PUSH_REQUEST")
		}
	}
}

// ErrNoOptions: the options did not come in time.
var ErrNoOptions = errors.New("no options in time")

// expire ends the wait for the options when it has lasted too long.
func (c *Client) expire(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		c.mu.Lock()
		left := time.Until(c.pushBy)
		c.mu.Unlock()
		if left <= 0 {
			cancel(ErrNoOptions)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(left):
		}
	}
}

// Renegotiate begins a renegotiation and does it to its end; if the server has begun one, that one.
func (c *Client) Renegotiate(ctx context.Context) error {
	c.mu.Lock()
	ch := c.channels[c.last%7+1]
	if ch == nil || ch.done {
		ch = c.openLocked(c.last%7 + 1)
		ch.queueLocked(tlsctl.OpSoftReset, nil)
	} else {
		c.mu.Unlock()
		return c.wait(ctx, func() bool { return ch.done })
	}
	c.mu.Unlock()
	return c.negotiate(ctx, ch)
}

// Leave says goodbye if the server agreed to hear it on the control channel, and reports whether it did. The others say
// it on the data channel.
func (c *Client) Leave() bool {
	if !slices.ContainsFunc(c.Options(), func(o string) bool {
		return slices.Contains(strings.Fields(o), "cc-exit")
	}) {
		return false
	}
	return c.Say("EXIT") == nil
}

// SoftReset sends a soft reset under a key id and does not care what becomes of it.
func (c *Client) SoftReset(key tlsctl.KeyID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transmitLocked(&tlsctl.Packet{Opcode: tlsctl.OpSoftReset, KeyID: key})
}

// AwaitKey waits until the key with a number of n negotiations (1 is the first) is there.
func (c *Client) AwaitKey(ctx context.Context, n int) error {
	return c.wait(ctx, func() bool { return len(c.keyOrder) >= n })
}

// KeyIDs returns the ids of all keys so far, in order.
func (c *Client) KeyIDs() []tlsctl.KeyID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]tlsctl.KeyID(nil), c.keyOrder...)
}

// Key returns the newest key with an id.
func (c *Client) Key(id tlsctl.KeyID) (k Keys, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok = c.keys[id]
	return k, ok
}

// ZeroMoved reports whether the server has followed a client of the MoveZero kind.
func (c *Client) ZeroMoved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.zeroMoved
}
