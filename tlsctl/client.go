package tlsctl

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ClientPeerInfo is what a Client says about itself unless it is told otherwise: what 2.6 can do, with the ciphers
// that everybody has.
const ClientPeerInfo = "IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\n" +
	"IV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\nIV_PROTO=990\n"

const clientOptions = "V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-client"

// A ClientConfig says what a Client is. TLS is needed, the zero values of the rest make a 2.6 without wrap and login.
// It may be shared, but for Wrap.
type ClientConfig struct {
	TLS  *tls.Config
	Wrap *ClientWrap // this client's alone; nil: none
	// Login says that there is a user name and a password.
	Login              bool
	Username, Password string
	PeerInfo           string // "": ClientPeerInfo
	Options            string // the OCC string; "": one of 2.6
	Digest             string // of CBC ciphers; "": SHA1
}

// A ClientOwner is who a Client works for. Its methods are called from Deliver, from timers and from the goroutines
// that negotiate.
type ClientOwner interface {
	// Send sends one control packet to the server. It must not keep pkt, nor call the Client.
	Send(pkt []byte)
	// Install takes a new data key. Its secrets are overwritten when it has returned.
	Install(k KeyMaterial) error
	// Heed is told what the server says once the client is connected. The string is the owner's.
	Heed(message string)
	// Renegotiated is told how a negotiation ended that the server had begun.
	Renegotiated(err error)
}

// A Refused is an AUTH_FAILED.
type Refused struct{ Text string }

func (r *Refused) Error() string { return r.Text }

// A Client is the other end of a Session: the control channel of one client, on the same layers. It serves those who
// play many clients at once; connected and idle it has neither a goroutine nor a timer.
//
//	Deliver --> wrap --> reliable --> conn --> TLS      Connect, Renegotiate: a goroutine while they last
//	                                   `-----> TLS --> messages, once they are over
type Client struct {
	cfg   ClientConfig
	owner ClientOwner
	id    SessionID
	done  chan struct{} // closed when the client has ended
	wg    sync.WaitGroup

	mu       sync.Mutex
	server   SessionID
	again    bool                 // the server wants the wrapped key once more
	dynamic  *ClientWrap          // of renegotiations, once agreed on
	live     []*clientNegotiation // oldest first; the newest key exchanges last
	last     KeyID                // of the newest that is over
	busy     bool                 // a negotiation is under way
	terms    clientTerms
	exported keyBlock // for the dynamic wrap, until the options have come
	timer    *time.Timer
	buffer   []byte
	acks     [MaxAcks]PacketID
	err      error // why it ended
}

// clientTerms are what the server's options have settled.
type clientTerms struct {
	options  []string
	partial  []string
	pushed   bool
	cipher   string
	digest   string
	peer     uint32
	v2       bool
	exporter bool
	dynamic  bool
	exit     bool
	epoch    bool
}

// A clientNegotiation is one TLS session of a Client.
type clientNegotiation struct {
	key     KeyID
	started time.Time
	conn    *conn
	begun   chan struct{} // closed when both resets have arrived

	rel      *reliable // these under Client.mu
	open     bool      // begun is closed
	readable bool      // the key exchange is over: Deliver reads messages

	tls      *tls.Conn // of the goroutine that negotiates, then of whoever has reading
	reading  sync.Mutex
	messages inbound
}

var (
	errBusy = errors.New("a negotiation is under way")
	errPush = errors.New("the server's options cannot be used")
)

// NewClient prepares a client and starts nothing.
func NewClient(cfg ClientConfig, owner ClientOwner) *Client {
	if cfg.Wrap == nil {
		cfg.Wrap = NewClientWrap(Wrapping{}, time.Now())
	}
	if cfg.PeerInfo == "" {
		cfg.PeerInfo = ClientPeerInfo
	}
	if cfg.Options == "" {
		cfg.Options = clientOptions
	}
	if cfg.Digest == "" {
		cfg.Digest = "SHA1"
	}
	c := &Client{cfg: cfg, owner: owner, done: make(chan struct{})}
	rand.Read(c.id[:])
	c.timer = time.AfterFunc(time.Hour, c.tick)
	c.timer.Stop()
	return c
}

// Options returns the options of PUSH_REPLY; nil before Connect has returned.
func (c *Client) Options() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.terms.options
}

// Connect does the whole way from the first packet to the first data key. A refusal is a *Refused.
func (c *Client) Connect(ctx context.Context) error {
	op := OpHardResetClientV2
	if c.cfg.Wrap.wkc != nil {
		op = OpHardResetClientV3
	}
	c.mu.Lock()
	n, err := c.beginLocked(0, op)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.negotiate(ctx, n)
}

// Renegotiate begins a renegotiation and does it to its end.
func (c *Client) Renegotiate(ctx context.Context) error {
	c.mu.Lock()
	n, err := c.beginLocked(c.last.next(), OpSoftReset)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.negotiate(ctx, n)
}

// Exit says goodbye if the server hears that on the control channel, and reports whether it does.
func (c *Client) Exit() bool {
	c.mu.Lock()
	var n *clientNegotiation
	for _, m := range c.live {
		if m.readable {
			n = m
		}
	}
	ok := n != nil && c.terms.exit && c.err == nil
	c.mu.Unlock()
	if !ok {
		return false
	}
	_, err := n.tls.Write(Message("EXIT").record())
	return err == nil
}

// Close ends everything without a word to the server and waits for what is under way.
func (c *Client) Close() {
	c.mu.Lock()
	c.failLocked(net.ErrClosed)
	c.mu.Unlock()
	c.wg.Wait()
}

// Ended is closed when the client has failed or was closed, and Err says why.
func (c *Client) Ended() <-chan struct{} { return c.done }

// Err says why the client ended, nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.timer.Stop()
	for _, n := range c.live {
		n.conn.fail(err)
	}
	close(c.done)
}

// beginLocked opens a negotiation.
func (c *Client) beginLocked(key KeyID, op Opcode) (*clientNegotiation, error) {
	switch {
	case c.err != nil:
		return nil, c.err
	case c.busy:
		return nil, errBusy
	}
	c.busy = true
	n := &clientNegotiation{key: key, started: time.Now(), rel: newReliable(0, 2*time.Second), begun: make(chan struct{})}
	n.conn = newConn(c.pump)
	n.rel.queue(op, nil)
	// Beside the new one only the one before goes on.
	c.live = append(slices.DeleteFunc(c.live, func(o *clientNegotiation) bool { return o.key != c.last }), n)
	c.pumpLocked()
	return n, nil
}

func (c *Client) pump() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pumpLocked()
}

// pumpLocked sends what is due and sets the timer for what will be.
func (c *Client) pumpLocked() {
	if c.err != nil {
		return
	}
	now := time.Now()
	var wake time.Time
	for _, n := range c.live {
		chunk := c.chunk(n.key)
		if c.again && n.key == 0 && n.rel.nextID == 1 {
			n.conn.takeFirst(n.rel, OpControlWKC, max(chunk-len(c.cfg.Wrap.wkc), 64))
		}
		n.conn.take(n.rel, chunk)
		out, next := n.rel.due(now)
		for _, o := range out {
			c.sendLocked(&Packet{Opcode: o.op, KeyID: n.key, Acks: n.rel.takeAcks(messageAcks), ID: o.id, Payload: o.payload})
		}
		for n.rel.pendingAcks() {
			c.sendLocked(&Packet{Opcode: OpAck, KeyID: n.key, Acks: n.rel.takeAcks(MaxAcks)})
		}
		if n.rel.exhausted(now) {
			c.failLocked(ErrSilent)
			return
		}
		if !next.IsZero() && (wake.IsZero() || next.Before(wake)) {
			wake = next
		}
	}
	if wake.IsZero() {
		c.timer.Stop()
	} else {
		c.timer.Reset(wake.Sub(now))
	}
}

func (c *Client) tick() { c.pump() }

// chunk is how much TLS one packet carries under a key.
func (c *Client) chunk(key KeyID) int {
	const body = 1 + 4*messageAcks + sessionIDLen + 4
	return defaultPacket - headLen - c.wrapOf(key).wrap.overhead() - body
}

func (c *Client) wrapOf(key KeyID) *ClientWrap {
	if c.dynamic != nil && key != 0 {
		return c.dynamic
	}
	return c.cfg.Wrap
}

func (c *Client) sendLocked(p *Packet) {
	p.Session, p.Remote = c.id, c.server
	c.buffer = c.wrapOf(p.KeyID).Seal(c.buffer[:0], p)
	c.owner.Send(c.buffer)
}

// takeFirst moves one packet of what was written, under an opcode of its own.
func (c *conn) takeFirst(r *reliable, op Opcode, chunk int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := min(chunk, len(c.out)); n > 0 {
		r.queue(op, c.out[:n])
		c.out = c.out[n:]
	}
}

// Deliver takes a control packet of the server, and overwrites it. Any goroutine.
func (c *Client) Deliver(pkt []byte) {
	c.mu.Lock()
	n := c.takeLocked(pkt)
	c.mu.Unlock()
	if n != nil {
		c.readMessages(n)
	}
}

// takeLocked takes a packet, and returns the negotiation that has messages to read.
func (c *Client) takeLocked(pkt []byte) *clientNegotiation {
	if c.err != nil || len(pkt) < headLen {
		return nil
	}
	p, err := c.wrapOf(KeyID(pkt[0] & 7)).Open(pkt)
	if err != nil || len(p.Acks) > 0 && p.Remote != c.id {
		return nil
	}
	switch {
	case c.server.IsZero() && p.Opcode == OpHardResetServerV2:
		c.server = p.Session
		c.again = bytes.Equal(p.Payload, resendWKC)
	case p.Session != c.server:
		return nil
	}
	i := slices.IndexFunc(c.live, func(n *clientNegotiation) bool { return n.key == p.KeyID })
	if i < 0 {
		if p.Opcode != OpSoftReset || p.KeyID != c.last.next() {
			return nil
		}
		n, err := c.beginLocked(p.KeyID, OpSoftReset)
		if err != nil {
			return nil
		}
		c.wg.Go(func() { c.owner.Renegotiated(c.negotiate(context.Background(), n)) })
		i = len(c.live) - 1
	}
	n := c.live[i]
	for _, id := range p.Acks {
		n.rel.acked(id)
	}
	fed := false
	if p.Opcode != OpAck {
		n.rel.receive(p.ID, p.Opcode, p.Payload)
		for b, ok := n.rel.next(); ok; b, ok = n.rel.next() {
			n.conn.feed(b)
			fed = true
		}
	}
	if !n.open && n.rel.nextIn > 0 && n.rel.outstanding() == 0 {
		n.open = true
		close(n.begun)
	}
	c.pumpLocked()
	if fed && n.readable {
		return n
	}
	return nil
}

// negotiate does one negotiation, from the resets to the data key; the first one up to the server's options.
func (c *Client) negotiate(ctx context.Context, n *clientNegotiation) (err error) {
	stop := context.AfterFunc(ctx, func() { n.conn.fail(context.Cause(ctx)) })
	defer stop()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.busy = false
		if err != nil {
			c.live = slices.DeleteFunc(c.live, func(o *clientNegotiation) bool { return o == n })
		}
	}()
	select {
	case <-n.begun:
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return fmt.Errorf("reset: %w", context.Cause(ctx))
	}
	n.tls = tls.Client(n.conn, c.cfg.TLS)
	if err := n.tls.Handshake(); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	state := n.tls.ConnectionState()
	ours := c.newExchange()
	defer ours.wipe()
	if _, err := n.tls.Write(ours.appendClient(nil)); err != nil {
		return fmt.Errorf("send key exchange: %w", err)
	}
	b := make([]byte, 4<<10)
	size, err := n.tls.Read(b)
	if err != nil {
		return fmt.Errorf("read key exchange: %w", err)
	}
	theirs, err := parseServerExchange(b[:size])
	if err != nil {
		return fmt.Errorf("read key exchange: %w", err)
	}
	defer theirs.wipe()
	if n.key == 0 {
		c.exported, _ = exportKeys(&state, exportDynamic) // of TLS 1.2 without extended master secret there is none
		if err := c.awaitOptions(n, b); err != nil {
			return err
		}
	}
	if err := c.install(n, &state, ours, theirs); err != nil {
		return err
	}
	n.conn.poll()
	c.mu.Lock()
	n.readable, c.last = true, n.key
	c.mu.Unlock()
	c.readMessages(n)
	return nil
}

// awaitOptions reads messages until the whole of PUSH_REPLY has come, asking for it where the server would not send it
// unasked.
func (c *Client) awaitOptions(n *clientNegotiation, b []byte) error {
	if !ParsePeerInfo(c.cfg.PeerInfo).Can(FeatureRequestPush) {
		if _, err := n.tls.Write(Message("PUSH_REQUEST").record()); err != nil {
			return fmt.Errorf("ask for options: %w", err)
		}
	}
	for {
		var failed error
		size, err := n.tls.Read(b)
		n.messages.add(b[:size], func(m []byte) {
			if failed == nil {
				failed = c.takeOptions(string(m))
			}
		}, func([]byte) { failed = errPush })
		switch {
		case failed != nil:
			return failed
		case c.terms.pushed:
			return nil
		case err != nil:
			return fmt.Errorf("read options: %w", err)
		}
	}
}

// takeOptions takes a message of the time before the client is connected.
func (c *Client) takeOptions(m string) error {
	if m == "AUTH_FAILED" || strings.HasPrefix(m, "AUTH_FAILED,") {
		return &Refused{m}
	}
	list, ok := strings.CutPrefix(m, pushReply)
	if !ok {
		return nil // AUTH_PENDING and the like
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.terms
	more := false
	for o := range strings.SplitSeq(strings.TrimPrefix(list, ","), ",") {
		switch o {
		case "push-continuation 2":
			more = true
		case "push-continuation 1", "":
		default:
			t.partial = append(t.partial, o)
		}
	}
	if more {
		return nil
	}
	t.options, t.pushed, t.digest = t.partial, true, c.cfg.Digest
	return c.heedOptionsLocked()
}

func (c *Client) heedOptionsLocked() error {
	t := &c.terms
	for _, o := range t.options {
		words := strings.Fields(o)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "cipher":
			t.cipher = strings.ToUpper(words[1])
		case "peer-id":
			id, err := strconv.ParseUint(words[1], 10, 24)
			if err != nil {
				return fmt.Errorf("%w: %q", errPush, o)
			}
			t.peer, t.v2 = uint32(id), true
		case "key-derivation", "protocol-flags":
			t.exporter = t.exporter || slices.Contains(words, "tls-ekm")
			t.dynamic = t.dynamic || slices.Contains(words, "dyn-tls-crypt")
			t.exit = t.exit || slices.Contains(words, "cc-exit")
			t.epoch = t.epoch || slices.Contains(words, "aead-epoch")
		}
	}
	if t.cipher == "" {
		return fmt.Errorf("%w: no cipher among them", errPush)
	}
	if !strings.HasSuffix(t.cipher, "-CBC") {
		t.digest = ""
	}
	if t.dynamic {
		if c.exported == nil {
			return fmt.Errorf("%w: this TLS session exports no keys", errPush)
		}
		c.dynamic = c.cfg.Wrap.Dynamic([keyBlockSize]byte(c.exported), time.Now())
	}
	clear(c.exported)
	c.exported = nil
	return nil
}

func (c *Client) install(n *clientNegotiation, state *tls.ConnectionState, ours, theirs *exchange) error {
	c.mu.Lock()
	t, server := c.terms, c.server
	c.mu.Unlock()
	var keys keyBlock
	var err error
	if t.exporter {
		keys, err = exportKeys(state, exportDataKeys)
	} else {
		keys, err = deriveKeys(ours, theirs, c.id, server)
	}
	if err != nil {
		return fmt.Errorf("derive data keys: %w", err)
	}
	defer clear(keys)
	return c.owner.Install(KeyMaterial{ID: n.key, Cipher: t.cipher, Digest: t.digest, ToClient: keys.toClient(), FromClient: keys.fromClient(),
		PeerID: t.peer, V2: t.v2, Epoch: t.epoch, Started: n.started})
}

// readMessages reads what there is of the server's messages.
func (c *Client) readMessages(n *clientNegotiation) {
	n.reading.Lock()
	defer n.reading.Unlock()
	var b [2048]byte
	for {
		size, err := n.tls.Read(b[:])
		n.messages.add(b[:size], func(m []byte) { c.owner.Heed(string(m)) }, func([]byte) {})
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		default:
			c.mu.Lock()
			if n.key == c.last { // an older TLS session may end as it likes
				c.failLocked(fmt.Errorf("tls: %w", err))
			}
			c.mu.Unlock()
			return
		}
	}
}
