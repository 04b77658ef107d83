// Package ctltest plays the other side of a control channel: a Client that can do whatever stock clients do, a Wire
// that loses, delays, reorders and doubles what they say to each other, and a Server that joins a gate and its
// sessions. The client shares no code with the sessions it tests but the packet format and the wraps.
package ctltest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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
	PeerInfo string // "" means PeerInfo26
	Options  string // the OCC string; "" means one of 2.6
	// Exchange, if set, may change the key exchange message before it is sent.
	Exchange func(message []byte) []byte
	// PushRequest is how often a client that was not told to wait asks for its options; 0 means 5 s.
	PushRequest time.Duration
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
	if proto := protoOf(c.cfg.PeerInfo); proto&4 == 0 {
		ask, cancel := context.WithCancel(ctx)
		defer cancel()
		c.wg.Go(func() {
			for ask.Err() == nil {
				c.Say("PUSH_REQUEST")
				select {
				case <-ask.Done():
				case <-time.After(c.cfg.PushRequest):
				}
			}
		})
	}
	return c.wait(ctx, func() bool { return c.pushed })
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

// Say sends a message on the newest negotiation.
func (c *Client) Say(message string) error {
	c.mu.Lock()
	ch := c.newest
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

// ZeroMoved reports whether the server has followed a client of the MoveZero kind.
func (c *Client) ZeroMoved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.zeroMoved
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
	c.channels[key] = ch
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
	c.newest, c.last = ch, ch.key
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
			c.heedLocked(ch, string(bytes.TrimSuffix(b[:n], []byte{0})), n)
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

func (c *Client) heedLocked(ch *channel, m string, size int) {
	if strings.IndexByte(m, 0) >= 0 || size > 2048 {
		c.failLocked(fmt.Errorf("a record is not one message: %q", m))
		return
	}
	c.messages = append(c.messages, m)
	switch {
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

// A channel is one negotiation, and the net.Conn of its TLS.
type channel struct {
	c   *Client
	key tlsctl.KeyID

	// Under Client.mu.
	nextOut  tlsctl.PacketID
	nextIn   tlsctl.PacketID
	unacked  []*sent
	held     map[tlsctl.PacketID][]byte // payloads; nil for a reset
	pending  []tlsctl.PacketID
	recent   []tlsctl.PacketID
	in       []byte
	closed   bool
	done     bool // negotiate has ended
	timer    *time.Timer
	ackTimer *time.Timer

	tls    *tls.Conn
	state  tls.ConnectionState
	ours   *exchange
	theirs *exchange
}

type sent struct {
	packet tlsctl.Packet
	at     time.Time
	wait   time.Duration
	flying bool
}

const (
	sendWindow    = 6
	receiveWindow = 12
	chunk         = 1100
)

func newChannel(c *Client, key tlsctl.KeyID) *channel {
	ch := &channel{c: c, key: key, held: make(map[tlsctl.PacketID][]byte)}
	ch.timer = time.AfterFunc(time.Hour, ch.tick)
	ch.ackTimer = time.AfterFunc(time.Hour, ch.ack)
	return ch
}

func (ch *channel) stop() {
	ch.closed = true
	ch.timer.Stop()
	ch.ackTimer.Stop()
}

func (ch *channel) queueLocked(op tlsctl.Opcode, payload []byte) {
	s := &sent{
		packet: tlsctl.Packet{Opcode: op, KeyID: ch.key, ID: ch.nextOut, Payload: bytes.Clone(payload)},
		wait:   2 * time.Second,
	}
	ch.nextOut++
	ch.unacked = append(ch.unacked, s)
	ch.pumpLocked()
}

// pumpLocked sends what is due.
func (ch *channel) pumpLocked() {
	if ch.closed {
		return
	}
	now := time.Now()
	var next time.Time
	for i, s := range ch.unacked {
		if i >= sendWindow {
			break
		}
		if !s.flying || !ch.c.cfg.Stream && !now.Before(s.at) {
			s.flying = true
			s.at = now.Add(s.wait)
			if ch.c.cfg.Steady {
				s.at = now.Add(time.Second)
			}
			s.wait *= 2
			p := s.packet
			p.Acks = ch.takeAcksLocked(4)
			ch.c.transmitLocked(&p)
		}
		if next.IsZero() || s.at.Before(next) {
			next = s.at
		}
	}
	if !next.IsZero() && !ch.c.cfg.Stream {
		ch.timer.Reset(next.Sub(now))
	}
}

func (ch *channel) tick() {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	ch.pumpLocked()
}

// ack acknowledges what nothing has carried.
func (ch *channel) ack() {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	for len(ch.pending) > 0 && !ch.closed {
		ch.c.transmitLocked(&tlsctl.Packet{Opcode: tlsctl.OpAck, KeyID: ch.key, Acks: ch.takeAcksLocked(tlsctl.MaxAcks)})
	}
}

func (ch *channel) takeAcksLocked(max int) []tlsctl.PacketID {
	n := min(len(ch.pending), max)
	acks := append([]tlsctl.PacketID(nil), ch.pending[:n]...)
	ch.pending = ch.pending[n:]
	for _, id := range ch.recent {
		if len(acks) < tlsctl.MaxAcks && !ch.c.cfg.AckOnce && !contains(acks, id) {
			acks = append(acks, id)
		}
	}
	ch.recent = append([]tlsctl.PacketID(nil), acks...)
	return acks[:min(len(acks), max)]
}

func contains(ids []tlsctl.PacketID, id tlsctl.PacketID) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}

func (ch *channel) receiveLocked(p *tlsctl.Packet) {
	for _, id := range p.Acks {
		for i, s := range ch.unacked {
			if s.packet.ID == id && s.flying {
				ch.unacked = append(ch.unacked[:i:i], ch.unacked[i+1:]...)
				break
			}
		}
	}
	if p.Opcode != tlsctl.OpAck && p.ID < ch.nextIn+receiveWindow {
		if !contains(ch.pending, p.ID) {
			ch.pending = append(ch.pending, p.ID)
			ch.ackTimer.Reset(time.Millisecond)
		}
		if _, held := ch.held[p.ID]; p.ID >= ch.nextIn && !held {
			payload := bytes.Clone(p.Payload)
			if p.Opcode != tlsctl.OpControl {
				payload = nil
			}
			ch.held[p.ID] = payload
		}
		for b, ok := ch.held[ch.nextIn]; ok; b, ok = ch.held[ch.nextIn] {
			delete(ch.held, ch.nextIn)
			ch.nextIn++
			ch.in = append(ch.in, b...)
		}
	}
	ch.pumpLocked()
}

// Read implements net.Conn.
func (ch *channel) Read(b []byte) (int, error) {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	for len(ch.in) == 0 {
		if ch.closed {
			return 0, net.ErrClosed
		}
		ch.c.changed.Wait()
	}
	n := copy(b, ch.in)
	ch.in = ch.in[n:]
	return n, nil
}

// Write implements net.Conn.
func (ch *channel) Write(b []byte) (int, error) {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	if ch.closed {
		return 0, net.ErrClosed
	}
	for rest := b; len(rest) > 0; {
		n := min(chunk, len(rest))
		op := tlsctl.OpControl
		if ch.key == 0 && ch.nextOut == 1 && ch.c.resendWKC {
			op = tlsctl.OpControlWKC
		}
		ch.queueLocked(op, rest[:n])
		rest = rest[n:]
	}
	return len(b), nil
}

// Close implements net.Conn.
func (ch *channel) Close() error {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	ch.stop()
	ch.c.changed.Broadcast()
	return nil
}

type noAddr struct{}

func (noAddr) Network() string { return "ctltest" }
func (noAddr) String() string  { return "ctltest" }

func (ch *channel) LocalAddr() net.Addr              { return noAddr{} }
func (ch *channel) RemoteAddr() net.Addr             { return noAddr{} }
func (ch *channel) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (ch *channel) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (ch *channel) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
