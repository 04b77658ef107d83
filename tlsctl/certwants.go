package tlsctl

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// CertWants are rules that some configurations add to the usual ones. The zero value wants nothing more.
type CertWants struct {
	// NameField is what names a certificate's owner in place of the common name: the short name of a subject field,
	// or "ext:subjectAltName" for the mail address there (x509-username-field).
	NameField string
	// KeyUsages, if any: one of these sets of bits must be there whole, as remote-cert-ku counts them: 0x80 is
	// digitalSignature, 0x01 encipherOnly. A zero takes any key usage, but there must be one.
	KeyUsages []uint8
	// ExtendedUsage, if any, must be among the extended key usages, beside clientAuth (remote-cert-eku).
	ExtendedUsage asn1.ObjectIdentifier
	// Issuers, if any: the certificate that issued the client's must have one of these hashes (verify-hash).
	Issuers []CertHash
}

// CertHash is the hash of a certificate.
type CertHash struct {
	Hash crypto.Hash
	Sum  []byte
}

// check judges a verified chain.
func (w *CertWants) check(chain []*x509.Certificate) error {
	leaf := chain[0]
	if len(w.KeyUsages) > 0 && !slices.ContainsFunc(w.KeyUsages, func(want uint8) bool {
		has := keyUsageBits(leaf.KeyUsage)
		return leaf.KeyUsage != 0 && has&want == want
	}) {
		return errors.New("certificate has none of the key usages that are wanted")
	}
	if w.ExtendedUsage != nil && !hasExtendedUsage(leaf, w.ExtendedUsage) {
		return fmt.Errorf("certificate lacks the extended key usage %v", w.ExtendedUsage)
	}
	if len(w.Issuers) == 0 {
		return nil
	}
	if len(chain) < 2 {
		return errors.New("certificate has no issuer that could be compared")
	}
	if !slices.ContainsFunc(w.Issuers, func(want CertHash) bool {
		h := want.Hash.New()
		h.Write(chain[1].Raw)
		return bytes.Equal(h.Sum(nil), want.Sum)
	}) {
		return errors.New("certificate's issuer is not the one that is pinned")
	}
	return nil
}

// keyUsageBits has the first eight bits of a key usage in the order of the extension: the first is the highest.
func keyUsageBits(u x509.KeyUsage) (bits uint8) {
	for i := range 8 {
		if u>>i&1 == 1 {
			bits |= 0x80 >> i
		}
	}
	return bits
}

var oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}

// hasExtendedUsage looks into the extension itself: x509 sorts the usages that it knows from those it does not.
func hasExtendedUsage(c *x509.Certificate, want asn1.ObjectIdentifier) bool {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidExtKeyUsage) {
			continue
		}
		var list []asn1.ObjectIdentifier
		if rest, err := asn1.Unmarshal(e.Value, &list); err != nil || len(rest) > 0 {
			return false
		}
		return slices.ContainsFunc(list, want.Equal)
	}
	return false
}

// Identity returns the one name by which a certificate identifies its owner: by default its CommonName, otherwise what
// NameField says, by the same rules and without falling back to another field (S066).
func (w *CertWants) Identity(cert *x509.Certificate) (string, error) {
	switch w.NameField {
	case "", "CN":
		return CommonName(cert)
	case "ext:subjectAltName":
		switch len(cert.EmailAddresses) {
		case 0:
			return "", errors.New("certificate has no mail address in its subjectAltName")
		case 1:
			return acceptable(cert.EmailAddresses[0], "mail address")
		}
		return "", errors.New("certificate has more than one mail address in its subjectAltName")
	}
	for oid, name := range attributeNames {
		if name == w.NameField {
			return subjectField(cert, oid, name)
		}
	}
	return "", fmt.Errorf("certificates have no field %q", w.NameField)
}

// subjectField returns the one value of a field of the subject.
func subjectField(cert *x509.Certificate, oid, what string) (string, error) {
	names, err := subjectOf(cert)
	if err != nil {
		return "", err
	}
	value, found := "", 0
	for _, set := range names {
		for _, a := range set {
			if a.Type.String() != oid {
				continue
			}
			if found++; found > 1 {
				return "", fmt.Errorf("certificate has more than one %s", what)
			}
			if value, err = a.text(); err != nil {
				return "", fmt.Errorf("certificate's %s: %w", what, err)
			}
		}
	}
	if found == 0 {
		return "", fmt.Errorf("certificate has no %s", what)
	}
	return acceptable(value, what)
}

// acceptable holds a name against S066's allow-list.
func acceptable(name, what string) (string, error) {
	switch {
	case name == "":
		return "", fmt.Errorf("certificate's %s is empty", what)
	case len(name) > maxCommonName:
		return "", fmt.Errorf("certificate's %s is longer than %d bytes", what, maxCommonName)
	}
	for _, c := range name {
		if !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("._@+-", c)) {
			return "", fmt.Errorf("certificate's %s holds %q", what, c)
		}
	}
	return name, nil
}
