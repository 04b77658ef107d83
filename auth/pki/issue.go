package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"strings"
	"time"
)

// Kind is what a certificate may be used for.
type Kind uint8

const (
	Server Kind = 1 << iota // extended key usage serverAuth
	Client                  // clientAuth
)

func (k Kind) String() string {
	switch k {
	case Server:
		return "server"
	case Client:
		return "client"
	case Server | Client:
		return "server+client"
	}
	return "other"
}

// IssueOptions of Server, Client and Renew. The zero value: a new P-256 key, 825 days.
type IssueOptions struct {
	Key  KeyType
	Life time.Duration // cut to the authority's own
	// KeepKey renews the certificate of the same key, which need not be here: for keys that live on the device.
	KeepKey bool
}

// Server issues a certificate for a server, and Client one for a client: a new key, usage and lifetime by policy, the
// common name as given. They return ErrExists when the name is taken, in whatever case of letters.
func (p *PKI) Server(name string, o IssueOptions) (*Record, error) { return p.issue(name, Server, o) }

func (p *PKI) Client(name string, o IssueOptions) (*Record, error) { return p.issue(name, Client, o) }

func (p *PKI) issue(name string, kind Kind, o IssueOptions) (*Record, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	r, err := p.signNew(order{name: name, kind: kind, subject: "/CN=" + name}, o)
	if err != nil {
		return nil, fmt.Errorf("issue %s %s: %w", kind, name, err)
	}
	return r, nil
}

// Renew issues NAME's certificate anew: same subject, usage and alternative names, a new key unless told otherwise.
// The old one goes to renewed/ and stays valid until it expires, so that NAME can connect until the new one has
// arrived; Revoke ends both.
func (p *PKI) Renew(name string, o IssueOptions) (*Record, error) {
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	r, err := p.signNew(order{name: name, renew: true}, o)
	if err != nil {
		return nil, fmt.Errorf("renew %s: %w", name, err)
	}
	return r, nil
}

// An order is what is to be issued.
type order struct {
	name       string // of the files
	kind       Kind
	subject    string // in the index
	rawSubject []byte // of a renewal
	dnsNames   []string
	old        *x509.Certificate // of a renewal
	renew      bool
}

func (p *PKI) signNew(ord order, o IssueOptions) (*Record, error) {
	life, err := lifetime(o.Life, DefaultCertLife)
	if err != nil {
		return nil, err
	}
	ca, signer, err := p.authority()
	if err != nil {
		return nil, err
	}
	var key crypto.Signer // made before the lock is taken: RSA takes its time
	if !o.KeepKey {
		if key, err = o.Key.generate(); err != nil {
			return nil, err
		}
	}
	var r *Record
	err = p.change(func(j *journal) error {
		x, err := p.index()
		if err != nil {
			return err
		}
		if ord.renew {
			err = p.replaceOld(j, x, &ord, o.KeepKey)
		} else {
			err = p.checkFree(x, ord.name)
		}
		if err != nil {
			return err
		}
		var pub crypto.PublicKey
		if key != nil {
			pub = key.Public()
		} else {
			pub = ord.old.PublicKey
		}
		template, err := p.template(x, ca, &ord, pub, life)
		if err != nil {
			return err
		}
		der, err := x509.CreateCertificate(rand.Reader, template, ca, pub, signer)
		if err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		e := &entry{state: 'V', expiry: cert.NotAfter, serial: cert.SerialNumber, subject: ord.subject}
		r = newRecord(e, ord.name, cert)
		r.Current = true
		return p.planFiles(j, x, e, ord.name, key, cert)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// planFiles writes an issued certificate and what belongs to it into the journal.
func (p *PKI) planFiles(j *journal, x *index, e *entry, name string, key crypto.Signer, cert *x509.Certificate) error {
	certPEM := encodeCertificate(cert.Raw)
	files := []struct {
		name string
		data []byte
	}{
		{"certs_by_serial/" + formatSerial(e.serial) + ".pem", certPEM},
		{"issued/" + name + ".crt", certPEM},
	}
	if key != nil {
		keyPEM, err := encodeKey(key, nil)
		if err != nil {
			return err
		}
		// Newer easy-rsa renews from the request.
		req, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: cert.RawSubject}, key)
		if err != nil {
			return err
		}
		files = append(files, []struct {
			name string
			data []byte
		}{
			{"private/" + name + ".key", keyPEM},
			{"reqs/" + name + ".req", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: req})},
		}...)
	}
	for _, f := range files {
		if err := j.write(p.tree, f.name, f.data); err != nil {
			return err
		}
	}
	j.Issue = append(j.Issue, e.String())
	return p.planAttr(j, x, e.subject)
}

// planAttr sets unique_subject = no when a second valid line for subject is to stand in the index, which `openssl ca`
// would refuse to read otherwise.
func (p *PKI) planAttr(j *journal, x *index, subject string) error {
	twice := false
	for e := range x.entries {
		twice = twice || e.state == 'V' && e.subject == subject
	}
	if !twice {
		return nil
	}
	b, err := p.tree.read("index.txt.attr")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(k) == "unique_subject" && strings.TrimSpace(v) == "no" {
			return nil
		}
	}
	return j.write(p.tree, "index.txt.attr", []byte("unique_subject = no\n"))
}

// checkFree refuses names that are taken. Names that differ only in case would share a file on some disks and be
// taken for each other by people.
func (p *PKI) checkFree(x *index, name string) error {
	for _, kind := range []struct{ dir, suffix, what string }{
		{"issued", ".crt", "certificate"}, {"private", ".key", "private key"}, {"reqs", ".req", "request"},
	} {
		names, err := p.tree.names(kind.dir, kind.suffix)
		if err != nil {
			return err
		}
		for _, n := range names {
			if strings.EqualFold(n, name) {
				return fmt.Errorf("%s/%s%s: a %s of that name %w", kind.dir, n, kind.suffix, kind.what, ErrExists)
			}
		}
	}
	now := time.Now()
	for e := range x.entries {
		if cn, _ := commonName(e.subject); e.state == 'V' && e.expiry.After(now) && strings.EqualFold(cn, name) {
			return fmt.Errorf("a valid certificate for %s, serial %s, %w", cn, formatSerial(e.serial), ErrExists)
		}
	}
	return nil
}

// replaceOld takes over what a renewal keeps of the old certificate, and plans where the old one goes.
func (p *PKI) replaceOld(j *journal, x *index, ord *order, keepKey bool) error {
	b, err := p.tree.read("issued/" + ord.name + ".crt")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("issued/%s.crt: %w", ord.name, ErrNoCertificate)
	}
	if err != nil {
		return err
	}
	if ord.old, err = parseCertificate(b); err != nil {
		return fmt.Errorf("read issued/%s.crt: %w", ord.name, err)
	}
	e := x.find(ord.old.SerialNumber)
	switch {
	case e == nil:
		return fmt.Errorf("serial %s is not in index.txt", formatSerial(ord.old.SerialNumber))
	case e.state == 'R':
		return ErrRevoked
	}
	ord.kind = kindOf(ord.old)
	if ord.kind == 0 || ord.old.IsCA {
		return errors.New("it is neither a server's nor a client's certificate")
	}
	ord.subject, ord.rawSubject, ord.dnsNames = e.subject, ord.old.RawSubject, ord.old.DNSNames

	if err := j.write(p.tree, "renewed/issued/"+ord.name+".crt", b); err != nil || keepKey {
		return err
	}
	for _, f := range []string{"private/" + ord.name + ".key", "reqs/" + ord.name + ".req"} {
		old, err := p.tree.read(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := j.write(p.tree, "renewed/"+f, old); err != nil {
			return err
		}
	}
	return nil
}

func (p *PKI) template(x *index, ca *x509.Certificate, ord *order, pub crypto.PublicKey, life time.Duration) (*x509.Certificate, error) {
	var serial *big.Int
	for serial == nil || x.find(serial) != nil {
		var err error
		if serial, err = newSerial(); err != nil {
			return nil, err
		}
	}
	id, err := keyID(pub)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          serial,
		RawSubject:            ord.rawSubject,
		Subject:               pkix.Name{CommonName: ord.name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		SubjectKeyId:          id,
		DNSNames:              ord.dnsNames,
	}
	if t.NotAfter.After(ca.NotAfter) {
		t.NotAfter = ca.NotAfter
	}
	if ord.kind&Server != 0 {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		if _, ok := pub.(*rsa.PublicKey); ok {
			t.KeyUsage |= x509.KeyUsageKeyEncipherment // RSA key exchange of TLS 1.2
		}
		if ord.old == nil && isHostName(ord.name) {
			t.DNSNames = []string{ord.name}
		}
	}
	if ord.kind&Client != 0 {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	return t, nil
}

// kindOf takes the purpose from the extended key usage; anyExtendedKeyUsage is none.
func kindOf(c *x509.Certificate) Kind {
	var k Kind
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageServerAuth:
			k |= Server
		case x509.ExtKeyUsageClientAuth:
			k |= Client
		}
	}
	return k
}

func isHostName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}
