package tlsctl

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Why CheckRevoked says no.
var (
	ErrRevoked    = errors.New("certificate is revoked")
	ErrCRLExpired = errors.New("revocation list is out of date")
)

// A CRL is one or more revocation lists, verified, ready to be asked. It is not changed once made.
type CRL struct {
	issuers map[string]*issuerCRL // by raw name
}

type issuerCRL struct {
	revoked    map[string]struct{} // by raw serial number
	thisUpdate time.Time
	nextUpdate time.Time // zero: never
}

// ParseCRL reads revocation lists, one in DER or any number in PEM. Each must be signed by one of the authorities. No
// list at all is an error, and so is one that is not understood: an empty file must not open the door.
func ParseCRL(data []byte, authorities []*x509.Certificate) (*CRL, error) {
	crl := &CRL{issuers: make(map[string]*issuerCRL)}
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		if err := crl.add(data, authorities); err != nil {
			return nil, err
		}
		return crl, nil
	}
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "X509 CRL" {
			continue
		}
		if err := crl.add(block.Bytes, authorities); err != nil {
			return nil, err
		}
	}
	if len(crl.issuers) == 0 {
		return nil, errors.New("revocation list: none found")
	}
	return crl, nil
}

func (c *CRL) add(der []byte, authorities []*x509.Certificate) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return fmt.Errorf("revocation list: %w", err)
	}
	if err := signedByOne(list, authorities); err != nil {
		return fmt.Errorf("revocation list of %q: %w", list.Issuer.String(), err)
	}
	for _, e := range list.Extensions {
		if e.Critical {
			// A delta list, or one of some kinds of certificate only: not the whole truth.
			return fmt.Errorf("revocation list of %q: critical extension %v is not supported", list.Issuer.String(), e.Id)
		}
	}
	// One name with several lists is an authority with a renewed key: what any of them revokes is revoked.
	i := c.issuers[string(list.RawIssuer)]
	if i == nil {
		i = &issuerCRL{revoked: make(map[string]struct{}, len(list.RevokedCertificateEntries)),
			thisUpdate: list.ThisUpdate, nextUpdate: list.NextUpdate}
		c.issuers[string(list.RawIssuer)] = i
	}
	if list.ThisUpdate.After(i.thisUpdate) {
		i.thisUpdate, i.nextUpdate = list.ThisUpdate, list.NextUpdate
	}
	for _, e := range list.RevokedCertificateEntries {
		i.revoked[string(e.SerialNumber.Bytes())] = struct{}{}
	}
	return nil
}

func signedByOne(list *x509.RevocationList, authorities []*x509.Certificate) error {
	err := errors.New("its authority is not known")
	for _, a := range authorities {
		if !bytes.Equal(a.RawSubject, list.RawIssuer) {
			continue
		}
		if err = list.CheckSignatureFrom(a); err == nil {
			return nil
		}
	}
	return err
}

// Revoked reports whether a certificate is on the list of its issuer. Issuer and serial number alone count, so a twin
// with other signature bytes is revoked too (S067).
func (c *CRL) Revoked(cert *x509.Certificate) bool {
	i := c.issuers[string(cert.RawIssuer)]
	if i == nil {
		return false
	}
	_, found := i.revoked[string(cert.SerialNumber.Bytes())]
	return found
}

// Check returns ErrRevoked if a certificate of a chain is revoked, ErrCRLExpired if the list of one of its issuers is
// out of date. An issuer without a list is trusted.
func (c *CRL) Check(chain []*x509.Certificate) error {
	for _, cert := range chain {
		if c.Revoked(cert) {
			return fmt.Errorf("%w: serial %x", ErrRevoked, cert.SerialNumber)
		}
	}
	now := time.Now()
	for _, cert := range chain {
		if i := c.issuers[string(cert.RawIssuer)]; i != nil && !i.nextUpdate.IsZero() && now.After(i.nextUpdate) {
			return fmt.Errorf("%w since %s", ErrCRLExpired, i.nextUpdate.Format(time.DateTime))
		}
	}
	return nil
}

// Updated returns when the newest of the lists was made. A server keeps the list it has when a file holds an older
// one.
func (c *CRL) Updated() time.Time {
	var t time.Time
	for _, i := range c.issuers {
		if i.thisUpdate.After(t) {
			t = i.thisUpdate
		}
	}
	return t
}

// NextUpdate returns when the first of the lists is out of date; zero: never.
func (c *CRL) NextUpdate() time.Time {
	var t time.Time
	for _, i := range c.issuers {
		if !i.nextUpdate.IsZero() && (t.IsZero() || i.nextUpdate.Before(t)) {
			t = i.nextUpdate
		}
	}
	return t
}

// Len is how many certificates are revoked.
func (c *CRL) Len() int {
	n := 0
	for _, i := range c.issuers {
		n += len(i.revoked)
	}
	return n
}
