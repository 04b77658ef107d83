package tlsctl

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A negotiation is one TLS handshake and key exchange, under one key id. While it lasts it has a goroutine of its own
// in negotiate, whose fields Run leaves alone; then it only carries messages, and Run does that.
type negotiation struct {
	// Immutable.
	key     KeyID
	first   bool
	started time.Time
	cfg     *Config // of now: TLS, Certs and WantLogin
	conn    *conn
	tls     *tls.Conn

	told sync.Once // our half of the exchange is on its way

	// Of the goroutine in negotiate, and Run's when it has ended. theirs and ours are wiped then.
	chain  []*x509.Certificate
	state  tls.ConnectionState
	asked  time.Time // when the login came
	theirs *exchange
	ours   *exchange
	hello  *Hello
	grant  *Grant

	// Run's.
	installed bool // the owner has the key
	rel       *reliable
	deadline  time.Time               // to be decided by
	question  *question               // that the client may answer; nil: none is open
	cancel    context.CancelCauseFunc // set once the goroutine runs
	heard     bool                    // the client has sent something under this key id
	fed       int                     // TLS bytes of the client so far
	packets   int                     // its packets so far
	lastByte  time.Time
	messages  inbound
	readable  bool // the key exchange is over: Run reads the messages
	over      bool // negotiate has ended, for better or worse
	dead      bool // to be forgotten once what is queued was sent
}

// A TLSError is a TLS session that failed.
type TLSError struct{ Err error }

func (e *TLSError) Error() string { return "tls: " + e.Err.Error() }
func (e *TLSError) Unwrap() error { return e.Err }

// panics counts the panics that sessions survived.
var panics atomic.Uint64

// Panics is how many panics have ended a session, and nothing but that session, since the program started.
func Panics() uint64 { return panics.Load() }

// A panicError is a panic that was survived.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %T", e.value) }

// survive turns a recovered panic into an error. The stack is logged, the value is not: it may hold peer bytes.
func (s *Session) survive(value any) error {
	panics.Add(1)
	s.log.Error().Bytes("stack", debug.Stack()).Msg("session ended by a panic")
	return &panicError{value}
}

// negotiate does one negotiation from its first TLS byte to the decision, and reports to Run. What it returns is nil
// if the client was admitted, a *Denial if it is to hear that it was not, or why the negotiation failed.
func (s *Session) negotiate(ctx context.Context, n *negotiation) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.survive(p)
		}
	}()
	stop := context.AfterFunc(ctx, func() { n.conn.fail(context.Cause(ctx)) })
	defer stop()

	n.conn.work(n.cfg.Workers)
	defer n.conn.rest()
	if err := n.tls.Handshake(); err != nil {
		return tlsFailure(err)
	}
	n.state = n.tls.ConnectionState()
	if err := n.readExchange(); err != nil {
		return err
	}
	n.conn.rest()
	n.asked = time.Now()
	n.ours = newExchange(mirrorOptions(n.theirs.options))

	// The first time ours goes out at once, as the client's timer runs and the decision may take long. Later a client
	// may send with the new key as soon as it has our half, so that one waits until the key is there.
	if n.first {
		if err := s.tell(n); err != nil {
			return err
		}
	}
	if err := s.decide(ctx, n); err != nil {
		if denied := new(Denial); !n.first && errors.As(err, &denied) {
			_ = s.tell(n) // or the client would take the refusal for our half
		}
		return err
	}
	if !n.first {
		if err := s.installNow(ctx, n); err != nil {
			return err
		}
		if err := s.tell(n); err != nil {
			return err
		}
	}
	// An OpenVPN 3 client that finds a second record behind our exchange takes both for one broken message: nothing
	// more is sent before that is acknowledged.
	return n.conn.flushed()
}

// tell sends our half of the exchange, once. From then on the client's messages are read.
func (s *Session) tell(n *negotiation) (err error) {
	n.told.Do(func() {
		if _, err = n.tls.Write(n.ours.appendServer(nil)); err != nil {
			err = tlsFailure(err)
			return
		}
		n.conn.poll()
		s.order(func(time.Time) {
			n.readable = true
			s.readMessages(n)
		})
	})
	return err
}

// installNow has Run hand over the key of a negotiation that was decided, and waits for it.
func (s *Session) installNow(ctx context.Context, n *negotiation) error {
	result := make(chan error, 1)
	s.order(func(time.Time) {
		if s.leaving != nil || s.ended {
			result <- context.Canceled
			return
		}
		result <- s.install(n)
	})
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func tlsFailure(err error) error {
	if errors.Is(err, ErrHandshakeTimeout) || errors.Is(err, ErrLimit) || errors.Is(err, context.Canceled) {
		return err // our own doing
	}
	return &TLSError{err}
}

// alerted reports whether a negotiation that failed for err has an alert for its client, which has not acknowledged it.
func (n *negotiation) alerted(err error) bool {
	var failed *TLSError
	return errors.As(err, &failed) && !n.conn.idle()
}

// exchangeBuffers are for readExchange: as large as the largest there may be, and in use for one call.
var exchangeBuffers = sync.Pool{New: func() any { return new([maxExchangeSize]byte) }}

// readExchange reads the client's key exchange, which is one record.
func (n *negotiation) readExchange() error {
	buffer := exchangeBuffers.Get().(*[maxExchangeSize]byte)
	b := buffer[:]
	defer func() {
		clear(b) // the password is in it
		exchangeBuffers.Put(buffer)
	}()
	size, err := n.tls.Read(b)
	if err != nil {
		return fmt.Errorf("read key exchange: %w", tlsFailure(err))
	}
	if n.theirs, err = parseExchange(b[:size]); err != nil {
		return fmt.Errorf("read key exchange: %w", err)
	}
	return nil
}

// decide brings together all that a client needs to be let in: its certificate, its login, the server's policy. It is
// the only place that fills in a grant, and does so only when each of them has said yes to this negotiation.
func (s *Session) decide(ctx context.Context, n *negotiation) error {
	x := n.theirs
	defer clear(x.password)
	h := &Hello{
		First:       n.first,
		KeyID:       n.key,
		Chain:       n.chain,
		TLSVersion:  n.state.Version,
		Username:    cleanName(x.username),
		Password:    x.password,
		HasLogin:    x.hasLogin,
		Peer:        ParsePeerInfo(x.peerInfo),
		Options:     x.options,
		SessionName: s.name,
	}
	n.hello = h
	if err := n.cfg.judgeCertificate(h); err != nil {
		return err
	}
	switch kind := optionValue(x.options, "dev-type"); {
	case kind == "tap" && !n.cfg.Tap:
		return &Denial{Public: "this server takes tun clients only: write dev tun in the profile"}
	case kind == "tun" && n.cfg.Tap:
		return &Denial{Public: "this server takes tap clients only: write dev tap in the profile"}
	}
	switch {
	case x.badLogin:
		return &Denial{Public: "user name or password is too long"}
	case n.cfg.WantLogin && !x.hasLogin:
		return &Denial{Public: "user name and password required"}
	case !n.first && !s.identity.same(h, s.terms.tokenUser):
		return &Denial{Err: errors.New("client changed its identity at a renegotiation")}
	}
	if err := s.agreeOnCipher(h); err != nil {
		return err
	}
	during, over := context.WithCancel(ctx)
	h.ask = func(caller context.Context, q Question) (Secret, error) { return s.ask(caller, during, n, q) }
	defer over()
	grant, err := s.owner.Admit(ctx, h)
	if denied := new(Denial); errors.As(err, &denied) {
		return denied
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return &Denial{Temporary: true, Public: "temporary failure, try again later", Err: err}
	case grant == nil:
		return &Denial{Err: errors.New("admitted without a grant")}
	}
	n.grant = grant
	return nil
}

func (c *Config) judgeCertificate(h *Hello) error {
	if len(h.Chain) == 0 {
		return nil // TLS has asked for one, if one is needed
	}
	var wants CertWants
	if c.Certs != nil {
		if err := c.Certs.CheckRevoked(h.Chain); err != nil {
			return &Denial{Public: "certificate revoked", Err: err}
		}
		wants = c.Certs.Wants
	}
	var err error
	if h.CommonName, err = wants.Identity(h.Chain[0]); err != nil {
		return &Denial{Public: "certificate name not acceptable", Err: err}
	}
	return nil
}

// agreeOnCipher chooses the data cipher at the first negotiation; it holds for the session.
func (s *Session) agreeOnCipher(h *Hello) error {
	if !h.First {
		h.Cipher = s.identity.Cipher
		return nil
	}
	var ok bool
	if h.Cipher, ok = chooseCipher(s.cfg.Ciphers, s.cfg.CipherFallback, h.Peer, h.Options); !ok {
		return &Denial{
			Public: "Data channel cipher negotiation failed (no shared cipher)",
			Err:    fmt.Errorf("no shared data cipher: client has %q", h.Peer.Ciphers()),
		}
	}
	return nil
}

// same reports whether a later hello comes from whom the first came from. tokenUser is the name that the client was
// told to go by, if any. A password may have become a token meanwhile, and whose that is the owner sees.
func (first *Hello) same(h *Hello, tokenUser string) bool {
	named := h.Username == first.Username || tokenUser != "" && h.Username == tokenUser
	return named && first.CommonName == h.CommonName && sameChain(first.Chain, h.Chain)
}

// tlsConfig returns the configuration of one negotiation, which notes its verified chain.
func (n *negotiation) tlsConfig() *tls.Config {
	c := n.cfg.TLS.Clone()
	c.SessionTicketsDisabled = true      // one holds the client's certificate, and no client ever comes back with it
	c.DynamicRecordSizingDisabled = true // one message is one record
	if c.CipherSuites == nil {
		c.CipherSuites = strongSuites
	}
	if n.cfg.Certs != nil {
		n.cfg.Certs.apply(c, func(chain []*x509.Certificate) { n.chain = chain })
		return c
	}
	next := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if n.chain = cs.PeerCertificates; len(cs.VerifiedChains) > 0 {
			n.chain = cs.VerifiedChains[0]
		}
		if next != nil {
			return next(cs)
		}
		return nil
	}
	return c
}

// strongSuites are what TLS 1.2 may use: ephemeral keys and AEAD only (S063). TLS 1.3 has nothing else.
var strongSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}
