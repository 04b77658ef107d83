package auth_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// A stub is a directory that answers as scripted and records what it was asked. What the script leaves out is
// answered like by a friendly directory: one entry, every bind succeeds, WhoAmI is whom the connection is bound as.
type stub struct {
	URL string

	tls       *tls.Config                                 // nil: clear text
	entries   []stubEntry                                 // found by every search below the base
	tree      []stubEntry                                 // or, if not nil: what searches are really made in; guarded by mu
	bind      func(dn, password string) *ber.Packet       // nil result: success
	whoami    func(boundAs string) *ber.Packet            // result as by extended(); nil function: "dn:" + boundAs
	intercept func(c net.Conn, op ber.Tag, id int64) bool // true: it has dealt with the request, or broken it off

	listener net.Listener
	running  sync.WaitGroup

	mu       sync.Mutex
	conns    int
	open     []net.Conn
	closed   bool
	asked    []stubRequest
	received int // bytes, over all connections
}

type stubEntry struct {
	dn         string
	attributes map[string][]string
}

type stubRequest struct {
	conn     int
	op       ber.Tag
	dn       string // of a bind, or the base of a search
	password string
	filter   *ber.Packet
	deref    int64  // of a search: how aliases are treated
	name     string // of an extended request
}

const (
	aliceDN   = "uid=alice,ou=people,dc=example,dc=net"
	serviceDN = "cn=postern,ou=services,dc=example,dc=net"
)

func startStub(t *testing.T, s *stub) *stub {
	t.Helper()
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.entries == nil {
		s.entries = []stubEntry{{dn: aliceDN, attributes: map[string][]string{"uid": {"alice"}}}}
	}
	s.URL = "ldap://" + s.listener.Addr().String()
	if s.tls != nil {
		s.URL = "ldaps://" + s.listener.Addr().String()
	}
	s.running.Go(func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			n := s.conns
			if s.open = append(s.open, c); s.closed {
				c.Close()
			}
			s.mu.Unlock()
			s.running.Go(func() {
				defer c.Close()
				top := net.Conn(&counted{Conn: c, s: s})
				if s.tls != nil {
					top = tls.Server(top, s.tls)
				}
				s.serve(top, n)
			})
		}
	})
	t.Cleanup(func() {
		s.listener.Close()
		s.mu.Lock()
		s.closed = true
		for _, c := range s.open {
			c.Close()
		}
		s.mu.Unlock()
		s.running.Wait()
	})
	return s
}

// counted counts what arrives.
type counted struct {
	net.Conn
	s *stub
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.s.mu.Lock()
	c.s.received += n
	c.s.mu.Unlock()
	return n, err
}

func (s *stub) serve(c net.Conn, n int) {
	var boundAs string
	for {
		msg, err := ber.ReadPacket(c)
		if err != nil || len(msg.Children) < 2 {
			return
		}
		id, op := msg.Children[0].Value.(int64), msg.Children[1]
		r := stubRequest{conn: n, op: op.Tag}
		switch op.Tag {
		case ldap.ApplicationBindRequest:
			r.dn, r.password = op.Children[1].Value.(string), op.Children[2].Data.String()
		case ldap.ApplicationSearchRequest:
			r.dn, r.filter, r.deref = op.Children[0].Value.(string), op.Children[6], op.Children[2].Value.(int64)
		case ldap.ApplicationExtendedRequest:
			r.name = op.Children[0].Data.String()
		}
		s.mu.Lock()
		s.asked = append(s.asked, r)
		s.mu.Unlock()
		if s.intercept != nil && s.intercept(c, op.Tag, id) {
			continue
		}
		switch op.Tag {
		case ldap.ApplicationBindRequest:
			answer := (*ber.Packet)(nil)
			if s.bind != nil {
				answer = s.bind(r.dn, r.password)
			}
			if answer == nil {
				boundAs = r.dn
				answer = envelope(result(ldap.ApplicationBindResponse, 0, ""))
			}
			send(c, id, answer)
		case ldap.ApplicationSearchRequest:
			if s.tree != nil {
				s.mu.Lock()
				found, code := s.find(op)
				s.mu.Unlock()
				for _, e := range found {
					send(c, id, envelope(e.packet()))
				}
				send(c, id, envelope(result(ldap.ApplicationSearchResultDone, code, "")))
				continue
			}
			if r.dn == "ou=people,dc=example,dc=net" {
				for _, e := range s.entries {
					send(c, id, envelope(e.packet()))
				}
			}
			send(c, id, envelope(result(ldap.ApplicationSearchResultDone, 0, "")))
		case ldap.ApplicationExtendedRequest:
			answer := extended(0, "dn:"+boundAs)
			if s.whoami != nil {
				answer = s.whoami(boundAs)
			}
			send(c, id, answer)
		case ldap.ApplicationUnbindRequest:
			return
		}
	}
}

// requests returns what was asked so far, only those of one kind.
func (s *stub) requests(op ber.Tag) []stubRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []stubRequest
	for _, r := range s.asked {
		if r.op == op {
			list = append(list, r)
		}
	}
	return list
}

// userBinds returns the binds that carried a user's password.
func (s *stub) userBinds() []stubRequest {
	var list []stubRequest
	for _, r := range s.requests(ldap.ApplicationBindRequest) {
		if r.dn != serviceDN {
			list = append(list, r)
		}
	}
	return list
}

func (s *stub) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// Building answers. An answer's message id is filled in by send.

func envelope(op *ber.Packet, controls ...*ber.Packet) *ber.Packet {
	p := ber.NewSequence("")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, 0, ""))
	p.AppendChild(op)
	if len(controls) > 0 {
		list := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")
		for _, c := range controls {
			list.AppendChild(c)
		}
		p.AppendChild(list)
	}
	return p
}

func encode(id int64, answer *ber.Packet) []byte {
	p := ber.NewSequence("")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	for _, child := range answer.Children[1:] {
		p.AppendChild(child)
	}
	return p.Bytes()
}

func send(c io.Writer, id int64, answer *ber.Packet) { c.Write(encode(id, answer)) }

func result(op ber.Tag, code int64, message string) *ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, op, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
	p.AppendChild(octets(""))
	p.AppendChild(octets(message))
	return p
}

func bindResult(code int64, message string, controls ...*ber.Packet) *ber.Packet {
	return envelope(result(ldap.ApplicationBindResponse, code, message), controls...)
}

func extended(code int64, value string) *ber.Packet {
	p := result(ldap.ApplicationExtendedResponse, code, "")
	p.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 11, value, ""))
	return envelope(p)
}

// policyError is a password policy control that says this is the matter.
func policyError(code int64) *ber.Packet {
	value := ber.NewSequence("")
	value.AppendChild(ber.NewInteger(ber.ClassContext, ber.TypePrimitive, 1, code, ""))
	p := ber.NewSequence("")
	p.AppendChild(octets(ldap.ControlTypeBeheraPasswordPolicy))
	p.AppendChild(octets(string(value.Bytes())))
	return p
}

func octets(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}

func (e stubEntry) packet() *ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
	p.AppendChild(octets(e.dn))
	list := ber.NewSequence("")
	for name, values := range e.attributes {
		attribute := ber.NewSequence("")
		attribute.AppendChild(octets(name))
		set := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		for _, v := range values {
			set.AppendChild(octets(v))
		}
		attribute.AppendChild(set)
		list.AppendChild(attribute)
	}
	p.AppendChild(list)
	return p
}

// testCA signs certificates for stubs.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newCA(t *testing.T) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return &testCA{cert: cert, key: key, pem: out.Bytes()}
}

// server returns a certificate for 127.0.0.1, after change.
func (ca *testCA) server(t *testing.T, change func(*x509.Certificate)) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(cert)
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
