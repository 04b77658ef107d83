package tlsctl

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
)

// What configurations want of certificates beyond the usual; each is refused when it is not there (S066, S118).
func TestCertWants(t *testing.T) {
	ca := newTestAuthority(t)
	leaf := ca.issue(t, "", func(c *x509.Certificate) {
		c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, Value: "u123"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "alice"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "one"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "two"},
		}
		c.EmailAddresses = []string{"alice@example.org"}
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3, 4}}
	}).Leaf
	chain := []*x509.Certificate{leaf, ca.cert}
	for _, c := range []struct {
		field, want, err string
	}{
		{"", "alice", ""}, {"CN", "alice", ""}, {"UID", "u123", ""}, {"ext:subjectAltName", "alice@example.org", ""},
		{"OU", "", "more than one OU"}, {"emailAddress", "", "no emailAddress"}, {"nonsense", "", "no field"},
	} {
		w := CertWants{NameField: c.field}
		got, err := w.Identity(leaf)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("name by %q: %q, %v", c.field, got, err)
		}
	}
	foreign := ca.issue(t, "Jürgen", nil).Leaf
	if _, err := new(CertWants).Identity(foreign); err == nil || !strings.Contains(err.Error(), "holds 'ü'") {
		t.Errorf("a letter outside the list: %v", err)
	}
	sum := sha256.Sum256(ca.cert.Raw)
	other := sum
	other[0] ^= 1
	for _, c := range []struct {
		name string
		w    CertWants
		err  string
	}{
		{"nothing", CertWants{}, ""},
		{"a key usage", CertWants{KeyUsages: []uint8{0x20, 0x80}}, ""},
		{"any key usage", CertWants{KeyUsages: []uint8{0}}, ""},
		{"another key usage", CertWants{KeyUsages: []uint8{0x20, 0xa0}}, "key usages"},
		{"extended", CertWants{ExtendedUsage: asn1.ObjectIdentifier{1, 2, 3, 4}}, ""},
		{"extended, a known one", CertWants{ExtendedUsage: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}}, ""},
		{"another extended", CertWants{ExtendedUsage: asn1.ObjectIdentifier{1, 2, 3, 5}}, "1.2.3.5"},
		{"issuer", CertWants{Issuers: []CertHash{{crypto.SHA256, other[:]}, {crypto.SHA256, sum[:]}}}, ""},
		{"another issuer", CertWants{Issuers: []CertHash{{crypto.SHA256, other[:]}}}, "pinned"},
	} {
		err := c.w.check(chain)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	w := CertWants{Issuers: []CertHash{{crypto.SHA256, sum[:]}}}
	if err := w.check(chain[:1]); err == nil {
		t.Error("a chain without issuer passes")
	}
}
