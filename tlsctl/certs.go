package tlsctl

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// CertMode says what a client must show. The zero value is the strict one.
type CertMode int

const (
	CertRequired CertMode = iota
	CertOptional          // a certificate that is shown must be good
	CertNone              // none is asked for
)

// NameMatch is how CertRules.Name is compared.
type NameMatch int

const (
	NameAny     NameMatch = iota // not at all
	NameSubject                  // with the whole subject, as Subject writes it
	NameCommon                   // with the common name
	NamePrefix                   // with the beginning of the common name
)

// Fingerprint is the SHA-256 hash of a certificate.
type Fingerprint [sha256.Size]byte

// Bounds of what a client may show (S065).
const (
	maxCerts     = 10
	maxCertSize  = 16 << 10
	maxChainSize = 32 << 10
	minRSA       = 2048
	maxRSA       = 8192
)

// CertRules are the rules for client certificates. Only the CRL may change while they are in use.
type CertRules struct {
	Mode CertMode
	// Roots are the authorities; without them only Fingerprints decide.
	Roots *x509.CertPool
	// Intermediates help to build chains for clients that send a leaf alone.
	Intermediates *x509.CertPool
	// RemoteCertTLS: a key usage must be present too.
	RemoteCertTLS bool
	// AnyPurpose takes certificates without any extended key usage, as OpenVPN does without remote-cert-tls. By
	// default clientAuth must be present (S064).
	AnyPurpose bool
	Match      NameMatch
	Name       string
	Wants      CertWants
	// Fingerprints, if any, are the only certificates to be let in.
	Fingerprints []Fingerprint
	// CRL, if set, is asked by CheckRevoked. It may be exchanged at any time.
	CRL atomic.Pointer[CRL]
}

// VerifyConnection applies all rules but revocation, and is made to be a tls.Config's. It needs ClientAuth to be such
// that TLS does not verify by itself.
//
// Revocation is a second step, CheckRevoked, after TLS: a TLS 1.3 client refused by an alert waits a minute before it
// believes it, one refused by AUTH_FAILED knows at once.
func (r *CertRules) VerifyConnection(cs tls.ConnectionState) error {
	_, err := r.chain(cs.PeerCertificates)
	return err
}

// CheckRevoked reports whether a chain may be used now: ErrRevoked if a certificate of it is revoked, ErrCRLExpired if
// that cannot be known any more.
func (r *CertRules) CheckRevoked(chain []*x509.Certificate) error {
	crl := r.CRL.Load()
	if crl == nil {
		return nil
	}
	return crl.Check(chain)
}

// apply sets up a configuration. verified is called with the chain of each client that passes.
func (r *CertRules) apply(c *tls.Config, verified func([]*x509.Certificate)) {
	c.ClientCAs = r.Roots
	switch r.Mode {
	case CertNone:
		c.ClientAuth = tls.NoClientCert
	case CertOptional:
		c.ClientAuth = tls.RequestClientCert
	default:
		c.ClientAuth = tls.RequireAnyClientCert
	}
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		chain, err := r.chain(cs.PeerCertificates)
		if err == nil {
			verified(chain)
		}
		return err
	}
}

// chain judges what a client sent, leaf first, and returns the verified chain.
func (r *CertRules) chain(sent []*x509.Certificate) ([]*x509.Certificate, error) {
	if len(sent) == 0 {
		if r.Mode == CertRequired {
			return nil, errors.New("client sent no certificate")
		}
		return nil, nil
	}
	// Sizes and keys first: building a chain out of hostile certificates is what costs.
	if err := checkSizes(sent); err != nil {
		return nil, err
	}
	leaf := sent[0]
	if len(r.Fingerprints) > 0 && !slices.Contains(r.Fingerprints, Fingerprint(sha256.Sum256(leaf.Raw))) {
		return nil, errors.New("certificate fingerprint is not listed")
	}
	chain := sent[:1]
	switch {
	case r.Roots != nil:
		var err error
		if chain, err = r.build(sent); err != nil {
			return nil, err
		}
	case len(r.Fingerprints) == 0:
		return nil, errors.New("no authority is configured that could vouch for a client")
	}
	if err := r.purpose(leaf); err != nil {
		return nil, err
	}
	if err := r.Wants.check(chain); err != nil {
		return nil, err
	}
	return chain, r.name(leaf)
}

// build verifies signatures, validity and constraints up to a root.
func (r *CertRules) build(sent []*x509.Certificate) ([]*x509.Certificate, error) {
	between := x509.NewCertPool()
	if r.Intermediates != nil {
		between = r.Intermediates.Clone()
	}
	for _, c := range sent[1:] {
		between.AddCert(c)
	}
	// x509 takes a certificate without extended key usage for any purpose; purpose looks at the leaf's again.
	chains, err := sent[0].Verify(x509.VerifyOptions{
		Roots:         r.Roots,
		Intermediates: between,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	return chains[0], nil
}

func (r *CertRules) purpose(leaf *x509.Certificate) error {
	extended := len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0
	switch {
	case leaf.IsCA && leaf.BasicConstraintsValid:
		return errors.New("an authority's certificate cannot log in")
	case extended && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return errors.New("certificate is not for clients: extended key usage lacks clientAuth")
	case !extended && (!r.AnyPurpose || r.RemoteCertTLS):
		return errors.New("certificate has no extended key usage; clientAuth is needed")
	case leaf.KeyUsage == 0 && r.RemoteCertTLS:
		return errors.New("certificate has no key usage")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyAgreement) == 0:
		return errors.New("certificate is not for clients: key usage allows neither signature nor key agreement")
	}
	return nil
}

func (r *CertRules) name(leaf *x509.Certificate) error {
	var got string
	switch r.Match {
	case NameAny:
		return nil
	case NameSubject:
		got = Subject(leaf)
	default:
		cn, err := r.Wants.Identity(leaf)
		if err != nil {
			return err
		}
		got = cn
	}
	if got == r.Name || r.Match == NamePrefix && strings.HasPrefix(got, r.Name) {
		return nil
	}
	return fmt.Errorf("certificate name %.64q is not %q", got, r.Name)
}

func checkSizes(sent []*x509.Certificate) error {
	if len(sent) > maxCerts {
		return fmt.Errorf("client sent %d certificates, more than %d", len(sent), maxCerts)
	}
	total := 0
	for _, c := range sent {
		total += len(c.Raw)
		if len(c.Raw) > maxCertSize || total > maxChainSize {
			return errors.New("client certificates are too large")
		}
		switch key := c.PublicKey.(type) {
		case *rsa.PublicKey:
			if n := key.N.BitLen(); n < minRSA || n > maxRSA {
				return fmt.Errorf("certificate has an RSA key of %d bits, outside %d to %d", n, minRSA, maxRSA)
			}
		case *ecdsa.PublicKey:
			if n := key.Curve.Params().BitSize; n < 256 {
				return fmt.Errorf("certificate has a key on a curve of %d bits", n)
			}
		case ed25519.PublicKey:
		default:
			return errors.New("certificate has a key of an unknown kind")
		}
	}
	return nil
}

// sameChain reports whether two chains are made of the same certificates.
func sameChain(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, func(x, y *x509.Certificate) bool { return bytes.Equal(x.Raw, y.Raw) })
}
