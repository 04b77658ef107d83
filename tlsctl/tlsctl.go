package tlsctl

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/rs/zerolog"
)

// Config is what all sessions of a server share. It is not changed once a session or gate has it.
type Config struct {
	// TLS is the server's configuration. A session uses a copy of it without tickets and without dynamic record
	// sizing, which no OpenVPN client can take.
	TLS *tls.Config
	// Certs are the rules for client certificates. They replace ClientAuth, ClientCAs and VerifyConnection of TLS;
	// nil leaves these to TLS alone.
	Certs *CertRules
	// Wrap is how control packets are protected.
	Wrap Wrapping
	// Ciphers are the data ciphers in order of preference (canonical names); CipherFallback, if set, serves
	// clients that cannot negotiate.
	Ciphers        []string
	CipherFallback string
	// TunMTU is pushed to clients that announce IV_MTU.
	TunMTU int
	// MaxPacket bounds the UDP payload of a control packet we send; 0 means 1200.
	MaxPacket int
	Timing    Timing
	// Workers are who computes the TLS handshakes; nil: all may at once.
	Workers *Workers
	// WantLogin: a user name and password are required; without them the client gets AUTH_FAILED.
	WantLogin bool
	// Tap says that clients carry Ethernet frames. Whoever says that it does otherwise is refused.
	Tap bool
	// Digest authenticates the packets of CBC data ciphers, as in "SHA256"; "" means SHA1, as it does to clients.
	Digest string
	// Epoch has the epoch data format agreed on with clients that know it.
	Epoch bool
	// CompressMigrate has clients that are set up for compression frame their packets without it, by a push to each.
	CompressMigrate bool
	// Current, if set, returns the configuration of the moment, and a renegotiation goes by its TLS, Certs and
	// WantLogin. All else stays as the session began with it.
	Current func() *Config
	Log     zerolog.Logger
}

// Timing holds the control channel's timers. Zero means the default; Renegotiate < 0 means never.
type Timing struct {
	HandWindow  time.Duration // 60 s: first packet to authorised
	TLSTimeout  time.Duration // 2 s: first retransmission
	Renegotiate time.Duration // 3600 s: the server begins a renegotiation (jittered down by up to 10 %)
	Transition  time.Duration // 3600 s: how long the old key goes on receiving
	FirstByte   time.Duration // 10 s: from the start of a session to its first TLS byte
	Progress    time.Duration // 15 s: the longest a first TLS handshake may stand still
	// RefusalDelay, 2 s, is when a refusal is sent, counted from the login's arrival, so that its time tells
	// nothing about its reason; one that takes longer goes out at a multiple of it. Negative: at once.
	RefusalDelay time.Duration
	// Linger, 5 s, is how long a session that was refused or has said goodbye goes on acknowledging.
	Linger time.Duration
	// Farewell, 2 s, is how long Shutdown waits for its message to be acknowledged.
	Farewell time.Duration
}

// An Owner is the server's side of one session. Its methods are called from the session's goroutines.
type Owner interface {
	// Send sends one control packet to the client. It must not block and must not keep pkt.
	Send(pkt []byte)
	// Admit decides about a login. It may block until ctx ends, and is called once per negotiation (Hello.First
	// tells which). A *Denial becomes AUTH_FAILED; any other error means "try again later".
	Admit(ctx context.Context, h *Hello) (*Grant, error)
	// Install takes a new data key, only after Admit has agreed. The secrets in k are overwritten when it has returned.
	// It opens packets at once: the client may send with it as soon as it has our half of the exchange.
	Install(k KeyMaterial) error
	// Confirm says that the client has what it needs for the key of that id, so that it can be sent with.
	Confirm(id KeyID)
	// Withdraw says that the negotiation of that key failed after all, before it was confirmed.
	Withdraw(id KeyID)
	// Established is called once, when the first PUSH_REPLY has been handed to the reliability layer.
	Established()
	// Leaving is called once, before Run returns: as soon as it is certain that the session ends, and why. Its data
	// keys must be dead when Leaving returns, while Run may go on for some seconds until its last words arrived.
	Leaving(reason error)
}

// A Hello is what a client has shown of itself when it asks to be let in.
type Hello struct {
	First       bool // false at a renegotiation
	KeyID       KeyID
	Chain       []*x509.Certificate // verified chain, leaf first; empty without a certificate
	CommonName  string              // of the leaf, by the rules of CommonName; empty without a certificate
	TLSVersion  uint16
	Username    string // control bytes replaced by '_'
	Password    Secret // wiped by the session after Admit has returned
	HasLogin    bool   // the client sent a user name or password
	Peer        PeerInfo
	Cipher      string // the data cipher agreed on
	Options     string // the client's OCC string
	SessionName string // the session's name in log lines

	ask func(context.Context, Question) (Secret, error)
}

// A Grant is what an admitted client gets. Every negotiation must be agreed to, but all save Token is used of the
// first one's alone.
type Grant struct {
	// Push is the list of options in order, without what the session adds by itself behind it: peer-id, auth-token,
	// cipher, protocol-flags or key-derivation, tun-mtu, and the framing of CompressMigrate.
	Push   []string
	PeerID uint32
	// Token, if not empty, is what the client is to send in place of its password from now on: with PUSH_REPLY, or
	// at once after a renegotiation. Session.RenewToken hands out others in between.
	Token string
	// TokenUser, if not empty, is the user name to send with the token. The client is told if it sent another, and in
	// later negotiations either is good.
	TokenUser string
}

// A Denial is a definite no. Public is sent as AUTH_FAILED,Public, unless one of the other forms is asked for.
type Denial struct {
	Public string
	// Temporary asks a client that understands it to come again by itself: AUTH_FAILED,TEMP:Public.
	Temporary bool
	// Backoff is how long such a client waits before it comes again, and Advance where to: "no" the same address, "addr"
	// the next one of this server, "remote" the next server of its list. Zero leaves it to the client.
	Backoff time.Duration
	Advance string
	// Session says that it was the token that is not good any more, not the user: AUTH_FAILED,SESSION: Public.
	Session bool
	// Challenge, if not empty, is a dynamic challenge, "CRV1:...", in place of Public: the client asks its user and
	// comes again with the answer. It goes out at once, not after Timing.RefusalDelay.
	Challenge string
	Err       error // the reason, for the log
}

func (d *Denial) Error() string {
	if d.Err != nil {
		return d.Err.Error()
	}
	return d.Public
}
func (d *Denial) Unwrap() error { return d.Err }

// KeyMaterial is one negotiated data key, and how packets under it look.
type KeyMaterial struct {
	ID         KeyID
	Cipher     string // canonical upper-case name
	Digest     string // of CBC ciphers, otherwise ""
	ToClient   Secret // 128 bytes: cipher slot 64, hmac slot 64
	FromClient Secret
	PeerID     uint32
	V2         bool // the client sends and takes P_DATA_V2
	Epoch      bool // the epoch data format was agreed on
	Framing    Framing
	Started    time.Time
}

// Framing is what a client with a compression option puts around each payload to say that it is not compressed.
type Framing uint8

const (
	NoFraming   Framing = iota
	FramingStub         // "comp-lzo no": the byte fa in front
	FramingV2           // "compress stub-v2": nothing, but 50 00 in front of what begins with 50
)

// An Opening is a client that has proved its address (or came over a stream) and may have a session.
//
// Its first packet, if it has one, is the wrapped packet that brought the cookie: an acknowledgement, message 1, or the
// client's reset once more. Our reset is done then, but the client's may still want its acknowledgement. Without
// first our reset is still to be sent; if that is not over a stream the address is not proven yet, and nothing may be
// sent twice before the client has acknowledged it.
type Opening struct {
	From   netip.AddrPort
	Client SessionID
	Server SessionID
	Stream bool // over TCP: no cookie was used, our reset is still to be sent
	// Metadata is what the client's tls-crypt-v2 key says about itself: one byte of type, then content; nil without.
	Metadata []byte
	first    []byte
	wrap     wrapper
}

// Secret is bytes that must not be printed.
type Secret []byte

func (Secret) String() string   { return "[secret]" }
func (Secret) GoString() string { return "[secret]" }
