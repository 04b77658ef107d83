package tlsctl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

type testAuthority struct {
	cert *x509.Certificate
	key  crypto.Signer
	next int64
}

func newTestAuthority(t testing.TB) *testAuthority { return newTestAuthorityNamed(t, "CA", nil) }

func newTestAuthorityNamed(t testing.TB, name string, parent *testAuthority) *testAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &testAuthority{key: key, next: 100}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	signer, signKey := template, crypto.Signer(key)
	if parent != nil {
		signer, signKey = parent.cert, parent.key
		template.SerialNumber = big.NewInt(2)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signKey)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a client certificate, changed by change before it is signed.
func (a *testAuthority) issue(t testing.TB, cn string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return a.issueFor(t, key, cn, change)
}

func (a *testAuthority) issueFor(t testing.TB, key crypto.Signer, cn string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	a.next++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: cn},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *testAuthority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// The rules for client certificates (S064, S065).
func TestCertRules(t *testing.T) {
	ca, other := newTestAuthority(t), newTestAuthorityNamed(t, "CA", nil)
	sub := newTestAuthorityNamed(t, "Sub", ca)
	rsaKey := func(bits int) crypto.Signer {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	one := func(a *testAuthority, change func(*x509.Certificate)) []*x509.Certificate {
		return []*x509.Certificate{a.issue(t, "alice", change).Leaf}
	}
	forKey := func(k crypto.Signer) []*x509.Certificate {
		return []*x509.Certificate{ca.issueFor(t, k, "alice", nil).Leaf}
	}
	roots := func() *CertRules { return &CertRules{Roots: ca.pool()} }
	good := one(ca, nil)
	print := Fingerprint(sha256.Sum256(good[0].Raw))
	big := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, maxCertSize)}}
	}

	for _, test := range []struct {
		name  string
		rules *CertRules
		sent  []*x509.Certificate
		bad   string // part of the error
		chain int
	}{
		{"good", roots(), good, "", 2},
		{"good with its authority", roots(), []*x509.Certificate{good[0], ca.cert}, "", 2},
		{"by an intermediate that is sent", roots(), append(one(sub, nil), sub.cert), "", 3},
		{"by an intermediate that is not sent", roots(), one(sub, nil), "unknown authority", 0},
		{"by an intermediate that is known", &CertRules{Roots: ca.pool(), Intermediates: sub.pool()}, one(sub, nil), "", 3},
		{"none", roots(), nil, "no certificate", 0},
		{"none, optional", &CertRules{Mode: CertOptional, Roots: ca.pool()}, nil, "", 0},
		{"bad, optional", &CertRules{Mode: CertOptional, Roots: ca.pool()}, one(other, nil), "unknown authority", 0},
		{"another authority of the same name", roots(), one(other, nil), "unknown authority", 0},
		{"expired", roots(), one(ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "expired", 0},
		{"not yet", roots(), one(ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), "expired or is not yet valid", 0},
		{"an authority's", roots(), []*x509.Certificate{ca.cert}, "authority's certificate cannot log in", 0},
		{"a server's", roots(), one(ca, usage(x509.ExtKeyUsageServerAuth)), "incompatible key usage", 0},
		{"both purposes", roots(), one(ca, usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)), "", 2},
		{"any purpose is not enough", roots(), one(ca, usage(x509.ExtKeyUsageAny)), "lacks clientAuth", 0},
		{"no purpose", roots(), one(ca, usage()), "no extended key usage", 0},
		{"no purpose, allowed", &CertRules{Roots: ca.pool(), AnyPurpose: true}, one(ca, usage()), "", 2},
		{"no purpose, remote-cert-tls", &CertRules{Roots: ca.pool(), AnyPurpose: true, RemoteCertTLS: true}, one(ca, usage()), "no extended key usage", 0},
		{"a server's, any purpose allowed", &CertRules{Roots: ca.pool(), AnyPurpose: true}, one(ca, usage(x509.ExtKeyUsageServerAuth)), "incompatible key usage", 0},
		{"key usage encipherment", roots(), one(ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), "neither signature", 0},
		{"no key usage", roots(), one(ca, func(c *x509.Certificate) { c.KeyUsage = 0 }), "", 2},
		{"no key usage, remote-cert-tls", &CertRules{Roots: ca.pool(), RemoteCertTLS: true}, one(ca, func(c *x509.Certificate) { c.KeyUsage = 0 }), "no key usage", 0},
		{"RSA 2048", roots(), forKey(rsaKey(2048)), "", 2},
		{"RSA 1024", roots(), forKey(rsaKey(1024)), "RSA key of 1024 bits", 0},
		{"P-224", roots(), forKey(p224), "curve of 224 bits", 0},
		{"Ed25519", roots(), forKey(ed), "", 2},
		{"eleven", roots(), slicesRepeat(good[0], 11), "11 certificates", 0},
		{"too large", roots(), one(ca, big), "too large", 0},
		{"name", &CertRules{Roots: ca.pool(), Match: NameCommon, Name: "alice"}, good, "", 2},
		{"other name", &CertRules{Roots: ca.pool(), Match: NameCommon, Name: "bob"}, good, "is not", 0},
		{"part of a name", &CertRules{Roots: ca.pool(), Match: NameCommon, Name: "ali"}, good, "is not", 0},
		{"prefix", &CertRules{Roots: ca.pool(), Match: NamePrefix, Name: "ali"}, good, "", 2},
		{"other prefix", &CertRules{Roots: ca.pool(), Match: NamePrefix, Name: "lic"}, good, "is not", 0},
		{"subject", &CertRules{Roots: ca.pool(), Match: NameSubject, Name: "CN=alice"}, good, "", 2},
		{"other subject", &CertRules{Roots: ca.pool(), Match: NameSubject, Name: "alice"}, good, "is not", 0},
		{"fingerprint", &CertRules{Fingerprints: []Fingerprint{print}}, good, "", 1},
		{"fingerprint and authority", &CertRules{Roots: ca.pool(), Fingerprints: []Fingerprint{print}}, good, "", 2},
		{"fingerprint, wrong authority", &CertRules{Roots: sub.pool(), Fingerprints: []Fingerprint{print}}, good, "unknown authority", 0},
		{"not the fingerprint", &CertRules{Roots: ca.pool(), Fingerprints: []Fingerprint{print}}, one(ca, nil), "not listed", 0},
		{"nobody to vouch", &CertRules{}, good, "no authority", 0},
	} {
		chain, err := test.rules.chain(test.sent)
		switch {
		case test.bad == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.bad != "" && (err == nil || !strings.Contains(err.Error(), test.bad)):
			t.Errorf("%s: got %v, want %q", test.name, err, test.bad)
		case len(chain) != test.chain && err == nil:
			t.Errorf("%s: chain of %d, want %d", test.name, len(chain), test.chain)
		}
		if got := test.rules.VerifyConnection(tls.ConnectionState{PeerCertificates: test.sent}); (got == nil) != (err == nil) {
			t.Errorf("%s: VerifyConnection says %v", test.name, got)
		}
	}
}

func usage(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = u }
}

func slicesRepeat(c *x509.Certificate, n int) (s []*x509.Certificate) {
	for range n {
		s = append(s, c)
	}
	return s
}

// One certificate, one name, and none that could be mistaken for another (S066).
func TestCommonName(t *testing.T) {
	ca := newTestAuthority(t)
	attribute := func(tag int, value string) asn1.RawValue { return asn1.RawValue{Tag: tag, Bytes: []byte(value)} }
	cn := []int{2, 5, 4, 3}
	type at struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	type setSET []at
	subject := func(sets ...setSET) func(*x509.Certificate) {
		raw, err := asn1.Marshal(sets)
		if err != nil {
			t.Fatal(err)
		}
		return func(c *x509.Certificate) { c.RawSubject = raw }
	}
	utf8 := func(v string) setSET { return setSET{{cn, attribute(asn1.TagUTF8String, v)}} }
	for _, test := range []struct {
		name    string
		change  func(*x509.Certificate)
		want    string
		subject string
	}{
		{"plain", subject(utf8("alice")), "alice", "CN=alice"},
		{"all that may be", subject(utf8("Al.ice_1@ex-ample+x")), "Al.ice_1@ex-ample+x", "CN=Al.ice_1@ex-ample+x"},
		{"printable string", subject(setSET{{cn, attribute(asn1.TagPrintableString, "alice")}}), "alice", "CN=alice"},
		{"64", subject(utf8(strings.Repeat("a", 64))), strings.Repeat("a", 64), "CN=" + strings.Repeat("a", 64)},
		{"65", subject(utf8(strings.Repeat("a", 65))), "", "CN=" + strings.Repeat("a", 65)},
		{"order and fields", subject(setSET{{[]int{2, 5, 4, 6}, attribute(asn1.TagPrintableString, "KG")}},
			setSET{{[]int{2, 5, 4, 10}, attribute(asn1.TagUTF8String, "Test")}}, utf8("client1"),
			setSET{{[]int{1, 2, 840, 113549, 1, 9, 1}, attribute(asn1.TagIA5String, "a@b")}}),
			"client1", "C=KG, O=Test, CN=client1, emailAddress=a@b"},
		// DER sorts the members of a set.
		{"one set of two", subject(setSET{{cn, attribute(asn1.TagUTF8String, "alice")}, {[]int{2, 5, 4, 11}, attribute(asn1.TagUTF8String, "x")}}),
			"alice", "OU=x + CN=alice"},
		{"two", subject(utf8("alice"), utf8("bob")), "", "CN=alice, CN=bob"},
		{"two in a set", subject(setSET{{cn, attribute(asn1.TagUTF8String, "alice")}, {cn, attribute(asn1.TagUTF8String, "bob")}}), "", "CN=bob + CN=alice"},
		{"none", subject(setSET{{[]int{2, 5, 4, 10}, attribute(asn1.TagUTF8String, "Test")}}), "", "O=Test"},
		{"empty", subject(utf8("")), "", "CN="},
		{"zero byte", subject(utf8("alice\x00.evil")), "", "CN=alice_.evil"},
		{"newline", subject(utf8("alice\n")), "", "CN=alice_"},
		{"path", subject(utf8("../x")), "", "CN=../x"},
		{"space", subject(utf8("alice b")), "", "CN=alice b"},
		{"not ASCII", subject(utf8("älice")), "", "CN=älice"},
		{"not UTF-8", subject(utf8("\xffalice")), "", ""},
		{"BMPString", subject(setSET{{cn, attribute(30, "\x00a")}}), "", "CN=0061"},
	} {
		template := &x509.Certificate{}
		test.change(template)
		got, err := CommonName(template)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v, want %q", test.name, got, err, test.want)
		}
		if s := Subject(template); test.subject != "" && s != test.subject {
			t.Errorf("%s: subject %q, want %q", test.name, s, test.subject)
		}
	}
	// And through a certificate that is one.
	if got, err := CommonName(ca.issue(t, "alice", nil).Leaf); got != "alice" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// revocationList makes a list signed by a.
func (a *testAuthority) revocationList(t testing.TB, next time.Time, serials ...*big.Int) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Revocation goes by issuer and serial number (S067), and lists that cannot be trusted are none (S068, F23).
func TestCRL(t *testing.T) {
	ca, other := newTestAuthority(t), newTestAuthorityNamed(t, "Other", nil)
	twin := newTestAuthorityNamed(t, "CA", nil) // the same name, another key
	bad, good := ca.issue(t, "bad", nil).Leaf, ca.issue(t, "good", nil).Leaf
	elsewhere := other.issue(t, "elsewhere", func(c *x509.Certificate) { c.SerialNumber = bad.SerialNumber }).Leaf
	later := time.Now().Add(time.Hour)
	authorities := []*x509.Certificate{ca.cert, other.cert}
	der := ca.revocationList(t, later, bad.SerialNumber)
	text := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})

	for name, data := range map[string][]byte{"DER": der, "PEM": text, "PEM with text": append([]byte("Certificate revocation list\n"), text...)} {
		crl, err := ParseCRL(data, authorities)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !crl.Revoked(bad) || crl.Revoked(good) || crl.Revoked(elsewhere) || crl.Len() != 1 {
			t.Errorf("%s: revoked %v %v %v", name, crl.Revoked(bad), crl.Revoked(good), crl.Revoked(elsewhere))
		}
		if err := crl.Check([]*x509.Certificate{bad, ca.cert}); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s: check says %v", name, err)
		}
		if err := crl.Check([]*x509.Certificate{good, ca.cert}); err != nil {
			t.Errorf("%s: check says %v", name, err)
		}
		if !crl.NextUpdate().Equal(later.UTC().Truncate(time.Second)) {
			t.Errorf("%s: next update %v", name, crl.NextUpdate())
		}
	}

	// The same certificate under another signature is the same certificate.
	altered := *bad
	altered.Raw, altered.Signature = append(bytes.Clone(bad.Raw), 0), nil
	crl, err := ParseCRL(der, authorities)
	if err != nil {
		t.Fatal(err)
	}
	if !crl.Revoked(&altered) {
		t.Error("a twin of a revoked certificate passes")
	}

	// Two authorities in one file.
	both := append(bytes.Clone(text), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: other.revocationList(t, later, elsewhere.SerialNumber)})...)
	if crl, err = ParseCRL(both, authorities); err != nil || !crl.Revoked(bad) || !crl.Revoked(elsewhere) {
		t.Errorf("two lists: %v", err)
	}

	expired, err := ParseCRL(ca.revocationList(t, time.Now().Add(-time.Minute)), authorities)
	if err != nil {
		t.Fatal(err)
	}
	if err := expired.Check([]*x509.Certificate{good, ca.cert}); !errors.Is(err, ErrCRLExpired) {
		t.Errorf("an expired list says %v", err)
	}
	if err := expired.Check([]*x509.Certificate{elsewhere, other.cert}); err != nil {
		t.Errorf("an expired list of another authority says %v", err)
	}

	for name, data := range map[string][]byte{
		"empty":             nil,
		"no list":           []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
		"truncated":         der[:len(der)-1],
		"another's":         newTestAuthorityNamed(t, "Stranger", nil).revocationList(t, later),
		"forged":            twin.revocationList(t, later),
		"altered":           alter(der, bad.SerialNumber.Bytes()),
		"one good, one not": append(bytes.Clone(text), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: twin.revocationList(t, later)})...),
	} {
		if _, err := ParseCRL(data, authorities); err == nil {
			t.Errorf("%s: taken", name)
		}
	}

	var rules CertRules
	if err := rules.CheckRevoked([]*x509.Certificate{bad}); err != nil {
		t.Errorf("without a list: %v", err)
	}
	rules.CRL.Store(crl)
	if err := rules.CheckRevoked([]*x509.Certificate{bad}); !errors.Is(err, ErrRevoked) {
		t.Errorf("with a list: %v", err)
	}
}

// alter changes the last byte of the first occurrence of serial.
func alter(der, serial []byte) []byte {
	der = bytes.Clone(der)
	der[bytes.LastIndex(der, serial)+len(serial)-1] ^= 1
	return der
}

func FuzzCRL(f *testing.F) {
	ca := newTestAuthority(f)
	f.Add(ca.revocationList(f, time.Now().Add(time.Hour), big.NewInt(7)))
	f.Add([]byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		crl, err := ParseCRL(b, []*x509.Certificate{ca.cert})
		if err == nil {
			crl.Check([]*x509.Certificate{ca.cert})
		}
	})
}

// Whatever a certificate's subject is, what is made of it is one line of text, and a name only where all rules hold.
func FuzzSubject(f *testing.F) {
	for _, n := range []pkix.Name{
		{CommonName: "alice"},
		{Country: []string{"KG"}, Province: []string{"NA"}, Organization: []string{"Test"}, CommonName: "alice@example.org"},
		{CommonName: "-\x00\n"},
		{ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "a"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "b"}}},
	} {
		raw, err := asn1.Marshal(n.ToRDNSequence())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, raw []byte) {
		cert := &x509.Certificate{RawSubject: raw}
		if s := Subject(cert); strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.HasPrefix(s, "-") {
			t.Errorf("%x is %q", raw, s)
		}
		name, err := CommonName(cert)
		if _, bad := acceptable(name, "name"); err == nil && bad != nil {
			t.Errorf("%x is of %q", raw, name)
		}
		if err != nil && name != "" {
			t.Errorf("%x is of %q and %v", raw, name, err)
		}
	})
}
