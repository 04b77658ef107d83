package auth_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// S055, F20: no password goes to a server whose certificate is not verified.
func TestCertificateVerified(t *testing.T) {
	ca := newCA(t)
	for _, c := range []struct {
		name, want string
		tls        *tls.Config
	}{
		{"good", "", ca.server(t, nil)},
		{"wrong CA", "unknown authority", newCA(t).server(t, nil)},
		{"wrong name", "not 127.0.0.1", ca.server(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} })},
		{"expired", "expired", ca.server(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })},
		{"for clients", "usage", ca.server(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })},
	} {
		for _, starttls := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, StartTLS %v", c.name, starttls), func(t *testing.T) {
				s := &stub{tls: c.tls}
				if starttls {
					s = &stub{}
					s.intercept = upgrade(s, c.tls, nil)
				}
				startStub(t, s)
				o := stubOptions(s)
				o.CA, o.StartTLS = ca.pem, starttls
				_, err := login(newLDAP(t, o), "alice", "secret")
				if c.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				wantBroken(t, err, c.want)
				if n := len(s.requests(ldap.ApplicationBindRequest)); n != 0 {
					t.Errorf("%d binds", n)
				}
			})
		}
	}
}

// upgrade answers StartTLS with success and what else is to follow in the same segment, then serves with TLS.
func upgrade(s *stub, config *tls.Config, injected []byte) func(net.Conn, ber.Tag, int64) bool {
	return func(c net.Conn, op ber.Tag, id int64) bool {
		if _, secured := c.(*tls.Conn); secured || op != ldap.ApplicationExtendedRequest {
			return false
		}
		c.Write(append(encode(id, envelope(result(ldap.ApplicationExtendedResponse, 0, ""))), injected...))
		s.serve(tls.Server(c, config), s.connections())
		c.Close()
		return true
	}
}

// S055: StartTLS that fails, or that somebody has put bytes behind, never ends in clear text.
func TestStartTLSNeverFallsBack(t *testing.T) {
	ca := newCA(t)
	config := ca.server(t, nil)
	answer := func(answer []byte) func(net.Conn, ber.Tag, int64) bool {
		return func(c net.Conn, op ber.Tag, id int64) bool {
			c.Write(answer)
			return true
		}
	}
	for _, c := range []struct {
		name, want string
		intercept  func(s *stub) func(net.Conn, ber.Tag, int64) bool
	}{
		{"refused", "Unavailable", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return answer(encode(1, envelope(result(ldap.ApplicationExtendedResponse, ldap.LDAPResultUnavailable, "no"))))
		}},
		{"unknown", "Protocol Error", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return answer(encode(1, envelope(result(ldap.ApplicationExtendedResponse, ldap.LDAPResultProtocolError, ""))))
		}},
		{"another message's answer", "something else", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return answer(encode(2, envelope(result(ldap.ApplicationExtendedResponse, 0, ""))))
		}},
		{"a bind's answer", "something else", func(*stub) func(net.Conn, ber.Tag, int64) bool { return answer(encode(1, bindResult(0, ""))) }},
		{"no TLS behind it", "TLS", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return answer(encode(1, envelope(result(ldap.ApplicationExtendedResponse, 0, ""))))
		}},
		{"closed", "StartTLS", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return func(c net.Conn, _ ber.Tag, _ int64) bool { c.Close(); return true }
		}},
		{"injected bind answer", "TLS: with", func(s *stub) func(net.Conn, ber.Tag, int64) bool {
			return upgrade(s, config, encode(2, bindResult(0, "")))
		}},
		{"injected byte", "TLS: with", func(s *stub) func(net.Conn, ber.Tag, int64) bool { return upgrade(s, config, []byte{0}) }},
		{"half an answer", "StartTLS", func(*stub) func(net.Conn, ber.Tag, int64) bool {
			return answer(encode(1, envelope(result(ldap.ApplicationExtendedResponse, 0, "")))[:9])
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &stub{}
			s.intercept = c.intercept(s)
			startStub(t, s)
			o := stubOptions(s)
			o.CA, o.StartTLS, o.Timeout = ca.pem, true, 500*time.Millisecond
			_, err := login(newLDAP(t, o), "alice", "secret")
			wantBroken(t, err, c.want)
			if n := len(s.requests(ldap.ApplicationBindRequest)); n != 0 {
				t.Errorf("%d binds", n)
			}
		})
	}
}
