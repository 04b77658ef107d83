package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// dialTime is the most it may take to connect, and again to set up TLS (security S058).
const dialTime = 3 * time.Second

// An endpoint is where and how to reach one directory server. Immutable.
type endpoint struct {
	url      string // as configured, for errors and logs
	host     string
	port     string
	tls      *tls.Config // nil only for clear text
	starttls bool
	loopback bool // clear text, and allowed only because the server is on this machine
}

func parseEndpoint(text string, o *LDAPOptions, t *trust) (*endpoint, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("ldap URL: %w", err)
	}
	host, port := u.Hostname(), u.Port()
	switch {
	case u.Scheme != "ldap" && u.Scheme != "ldaps":
		return nil, fmt.Errorf("ldap URL %q begins neither with ldap:// nor with ldaps://", text)
	case host == "":
		return nil, fmt.Errorf("ldap URL %q names no host", text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("ldap URL %q: only scheme, host and port are taken from it", text)
	}
	if port == "" {
		port = map[string]string{"ldap": "389", "ldaps": "636"}[u.Scheme]
	} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("ldap URL %q: bad port", text)
	}
	e := &endpoint{url: text, host: host, port: port, starttls: o.StartTLS && u.Scheme == "ldap"}
	if u.Scheme == "ldaps" || e.starttls {
		e.tls = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, RootCAs: t.roots, Certificates: t.own}
		return e, nil
	}
	if !o.AllowCleartext {
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("ldap URL %q would send passwords in clear text: use ldaps:// or StartTLS", text)
		}
		e.loopback = true
	}
	return e, nil
}

// trust is what TLS with a directory needs besides the server's name.
type trust struct {
	roots *x509.CertPool    // nil: the system's
	own   []tls.Certificate // that we show when asked
}

func newTrust(o *LDAPOptions) (*trust, error) {
	t := new(trust)
	if o.CA != nil {
		t.roots = x509.NewCertPool()
		if !t.roots.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("ldap CA: no certificate in it")
		}
	}
	if o.Cert != nil {
		pair, err := tls.X509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("ldap client certificate: %w", err)
		}
		t.own = []tls.Certificate{pair}
	}
	return t, nil
}

// A directoryConn is one connection, of one goroutine, to a directory server. When the context it was dialled with is
// done it breaks, and whatever waits on it returns.
type directoryConn struct {
	ldap    *ldap.Conn
	bound   string   // whom it is bound as
	wire    net.Conn // below TLS
	answers *answerConn
	timeout time.Duration
	stop    func() bool
}

// dial connects to e, sets up TLS unless e is clear text, and verifies host name and CA. There is no fallback.
func (e *endpoint) dial(ctx context.Context, timeout time.Duration) (*directoryConn, error) {
	wire, err := e.connect(ctx, timeout)
	if err != nil {
		return nil, err
	}
	c := &directoryConn{wire: wire, timeout: timeout}
	c.lend(ctx)
	top := wire
	switch {
	case e.tls != nil:
		if top, err = e.secure(ctx, wire, timeout); err != nil {
			c.stop()
			wire.Close()
			return nil, err
		}
	case e.loopback:
		if addr, ok := wire.RemoteAddr().(*net.TCPAddr); !ok || !addr.IP.IsLoopback() {
			c.stop()
			wire.Close()
			return nil, inStep(stepConnect, fmt.Errorf("%s is not on this machine, and clear text is not allowed", wire.RemoteAddr()))
		}
	}
	c.answers = &answerConn{Conn: top}
	c.ldap = ldap.NewConn(c.answers, e.tls != nil)
	c.ldap.Start()
	return c, nil
}

// connect tries the host's addresses in turn, all of them in dialTime.
func (e *endpoint) connect(ctx context.Context, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, min(dialTime, timeout))
	defer cancel()
	if tracing(ctx) {
		addrs, err := net.DefaultResolver.LookupHost(ctx, e.host)
		if err != nil {
			return nil, inStep(stepResolve, err)
		}
		trace(ctx, stepResolve, "%s is %s", e.host, strings.Join(addrs, ", "))
	}
	began := time.Now()
	wire, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(e.host, e.port))
	if err != nil {
		return nil, inStep(stepConnect, err)
	}
	trace(ctx, stepConnect, "%v, in %v", wire.RemoteAddr(), time.Since(began).Round(time.Microsecond))
	return wire, nil
}

// secure asks for TLS where that is needed and does the handshake.
func (e *endpoint) secure(ctx context.Context, wire net.Conn, timeout time.Duration) (net.Conn, error) {
	if e.starttls {
		if err := startTLS(wire, timeout); err != nil {
			return nil, inStep(stepStartTLS, err)
		}
		trace(ctx, stepStartTLS, "the server takes it")
	}
	shaking, cancel := context.WithTimeout(ctx, min(dialTime, timeout))
	defer cancel()
	secured := tls.Client(wire, e.tls)
	if err := secured.HandshakeContext(shaking); err != nil {
		return nil, inStep(stepTLS, fmt.Errorf("with %s: %w", e.tls.ServerName, err))
	}
	if tracing(ctx) {
		traceTLS(ctx, e.tls.ServerName, secured.ConnectionState())
	}
	return secured, nil
}

// startTLS is here and not the library's because that one reads ahead, and forgets what it has read when TLS begins.
// This one takes the answer and not a byte more. What anyone slipped in behind it goes to the handshake, which fails
// (security S055).
func startTLS(wire net.Conn, timeout time.Duration) error {
	if err := wire.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	const id, oid = 1, "1.3.6.1.4.1.1466.20037"
	request := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	request.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationExtendedRequest, nil, "")
	op.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, oid, ""))
	request.AppendChild(op)
	if _, err := wire.Write(request.Bytes()); err != nil {
		return err
	}
	msg, err := readMessage(wire, maxValue)
	if err != nil {
		return err
	}
	kind, err := checkMessage(msg)
	if err != nil {
		return err
	}
	answer, err := ber.DecodePacketErr(msg)
	if err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	if got, ok := answer.Children[0].Value.(int64); !ok || got != id || kind != opExtendedResponse {
		return errors.New("answer to something else")
	}
	if err := ldap.GetLDAPError(answer); err != nil {
		return err
	}
	return wire.SetDeadline(time.Time{})
}

// lend breaks the connection when ctx is done, until stop is called.
func (c *directoryConn) lend(ctx context.Context) {
	wire := c.wire
	c.stop = context.AfterFunc(ctx, func() { wire.Close() })
}

// step gives the next operation its time, and says what may answer it.
func (c *directoryConn) step(ops ...uint) error {
	c.answers.expect(ops...)
	return c.answers.explain(c.wire.SetDeadline(time.Now().Add(c.timeout)))
}

// rest takes the connection back from who it was lent to. It reports false when it cannot be used any more.
func (c *directoryConn) rest() bool {
	if !c.stop() || c.ldap.IsClosing() {
		return false
	}
	c.answers.expect() // whatever a directory says unasked ends the connection
	return c.wire.SetDeadline(time.Time{}) == nil
}

// close also waits until the library's goroutines have let go of the connection. It may be called twice.
func (c *directoryConn) close() {
	c.stop()
	c.wire.Close() // first, so that nothing below can wait for the directory
	c.ldap.Close()
}
