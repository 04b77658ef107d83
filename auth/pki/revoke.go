package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"slices"
	"strings"
	"time"
)

// reasons are RFC 5280's codes, by the names that index.txt and `easyrsa revoke` use.
var reasons = map[string]int{
	"unspecified": 0, "keyCompromise": 1, "CACompromise": 2, "affiliationChanged": 3, "superseded": 4,
	"cessationOfOperation": 5, "certificateHold": 6,
}

// Revoke ends every valid certificate of name, the current one and those that a renewal replaced, and signs a new
// revocation list that lives for crlLife. When it returns, both are on disk. Reason is a name from RFC 5280 or "".
//
// A name whose certificates are all revoked gives ErrRevoked, after the list has been brought up to date with the
// index: easy-rsa leaves that to a second command.
func (p *PKI) Revoke(name, reason string, crlLife time.Duration) ([]Record, error) {
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	if _, ok := reasons[reason]; !ok && reason != "" {
		return nil, fmt.Errorf("revoke %s: unknown reason %q", name, reason)
	}
	revoked, err := p.revoke(name, reason, crlLife)
	if err != nil {
		return nil, fmt.Errorf("revoke %s: %w", name, err)
	}
	return revoked, nil
}

func (p *PKI) revoke(name, reason string, crlLife time.Duration) ([]Record, error) {
	life, err := lifetime(crlLife, DefaultCRLLife)
	if err != nil {
		return nil, err
	}
	ca, signer, err := p.authority()
	if err != nil {
		return nil, err
	}
	var gone []Record
	var before bool
	err = p.change(func(j *journal) error {
		x, err := p.index()
		if err != nil {
			return err
		}
		targets, seen, err := p.certificatesOf(x, name)
		if err != nil {
			return err
		}
		if !seen {
			return ErrNoCertificate
		}
		now := time.Now()
		for _, e := range targets {
			j.Revoke = append(j.Revoke, revocation{Serial: formatSerial(e.serial), At: now, Reason: reason})
			r := newRecord(e, name, nil)
			r.Status, r.Revoked, r.Reason = Revoked, now.UTC().Truncate(time.Second), reason
			gone = append(gone, *r)
		}
		before = len(targets) == 0
		if err := p.planArchive(j, name, targets); err != nil {
			return err
		}
		if err := j.changeIndex(x); err != nil {
			return err
		}
		return p.planCRL(j, x, ca, signer, life)
	})
	if err == nil && before {
		err = ErrRevoked
	}
	return gone, err
}

// certificatesOf finds what Revoke must end: the certificate in issued/NAME.crt, the one in renewed/, and whatever
// else in the index has NAME as its common name, unless it is the current certificate of another file (several
// machines may share a common name). seen: there is, or was, at least one.
func (p *PKI) certificatesOf(x *index, name string) (targets []*entry, seen bool, err error) {
	add := func(e *entry) {
		seen = true
		if e.state != 'R' && !slices.Contains(targets, e) {
			targets = append(targets, e)
		}
	}
	for _, file := range []string{"issued/" + name + ".crt", "renewed/issued/" + name + ".crt"} {
		b, err := p.tree.read(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		cert, err := parseCertificate(b)
		if err != nil {
			return nil, false, fmt.Errorf("read %s: %w", file, err)
		}
		e := x.find(cert.SerialNumber)
		if e == nil {
			return nil, false, fmt.Errorf("%s: serial %s is not in index.txt", file, formatSerial(cert.SerialNumber))
		}
		add(e)
	}
	files, err := p.current()
	if err != nil {
		return nil, false, err
	}
	now := time.Now()
	for e := range x.entries {
		file, current := files[formatSerial(e.serial)]
		if cn, _ := commonName(e.subject); cn != name || current && file != name {
			continue
		}
		seen = true
		if e.expiry.After(now) {
			add(e)
		}
	}
	return targets, seen, nil
}

// planArchive moves the files of what is revoked where easy-rsa would.
func (p *PKI) planArchive(j *journal, name string, targets []*entry) error {
	for _, e := range targets {
		serial := formatSerial(e.serial)
		archived := "revoked/certs_by_serial/" + serial + ".crt"
		copied := false
		for _, dir := range []string{"", "renewed/"} {
			b, err := p.tree.read(dir + "issued/" + name + ".crt")
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if cert, err := parseCertificate(b); err != nil || cert.SerialNumber.Cmp(e.serial) != 0 {
				continue
			}
			copied = true
			moves := [][2]string{
				{dir + "issued/" + name + ".crt", archived},
				{dir + "private/" + name + ".key", "revoked/private_by_serial/" + serial + ".key"},
				{dir + "reqs/" + name + ".req", "revoked/reqs_by_serial/" + serial + ".req"},
			}
			for _, suffix := range []string{".p12", ".p7b", ".p8", ".p1"} {
				moves = append(moves,
					[2]string{dir + "issued/" + name + suffix, "revoked/certs_by_serial/" + serial + suffix},
					[2]string{dir + "private/" + name + suffix, "revoked/private_by_serial/" + serial + suffix})
			}
			for _, m := range moves {
				if err := j.move(p.tree, m[0], m[1]); err != nil {
					return err
				}
			}
			if dir == "" {
				if err := j.remove(p.tree, name+".creds"); err != nil {
					return err
				}
			}
		}
		byserial := "certs_by_serial/" + serial + ".pem"
		if copied {
			if err := j.remove(p.tree, byserial); err != nil {
				return err
			}
		} else if err := j.move(p.tree, byserial, archived); err != nil {
			return err
		}
	}
	return nil
}

// CRL signs the revocation list anew from the index and returns when it is to be renewed next.
func (p *PKI) CRL(life time.Duration) (nextUpdate time.Time, err error) {
	if life, err = lifetime(life, DefaultCRLLife); err != nil {
		return time.Time{}, err
	}
	ca, signer, err := p.authority()
	if err != nil {
		return time.Time{}, err
	}
	err = p.change(func(j *journal) error {
		x, err := p.index()
		if err != nil {
			return err
		}
		return p.planCRL(j, x, ca, signer, life)
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("renew revocation list: %w", err)
	}
	return p.CRLExpiry()
}

// CRLExpiry is when the revocation list on disk expires; the error is fs.ErrNotExist when there is none.
func (p *PKI) CRLExpiry() (time.Time, error) {
	crl, err := p.readCRL()
	if err != nil {
		return time.Time{}, err
	}
	return crl.NextUpdate, nil
}

func (p *PKI) readCRL() (*x509.RevocationList, error) {
	b, err := p.tree.read("crl.pem")
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "X509 CRL" {
		return nil, errors.New("crl.pem holds no revocation list")
	}
	return x509.ParseRevocationList(block.Bytes)
}

func (p *PKI) planCRL(j *journal, x *index, ca *x509.Certificate, signer crypto.Signer, life time.Duration) error {
	// Whatever stands there now is replaced; only its number matters, and it may have none.
	var number *big.Int
	if old, err := p.readCRL(); err == nil {
		number = old.Number
	}
	crl, err := signCRL(ca, signer, x, number, life)
	if err != nil {
		return fmt.Errorf("sign revocation list: %w", err)
	}
	return j.write(p.tree, "crl.pem", crl)
}

func signCRL(ca *x509.Certificate, signer crypto.Signer, x *index, last *big.Int, life time.Duration) ([]byte, error) {
	now := time.Now()
	// Numbers must grow. easy-rsa's lists have none, so counting alone could fall back; the clock does not.
	number := big.NewInt(now.Unix())
	if last != nil && last.Cmp(number) >= 0 {
		number.Add(last, big.NewInt(1))
	}
	template := &x509.RevocationList{
		Number:     number,
		ThisUpdate: now,
		NextUpdate: now.Add(life),
	}
	for e := range x.entries {
		if e.state != 'R' {
			continue
		}
		reason, _, _ := strings.Cut(e.reason, ",")
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: e.serial, RevocationTime: e.revoked, ReasonCode: reasons[reason],
		})
	}
	issuer, err := crlIssuer(ca)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, issuer, signer)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}

// crlIssuer adds what authorities of easy-rsa 2's days lack and Go insists on. Without a key usage extension every
// use is allowed.
func crlIssuer(ca *x509.Certificate) (*x509.Certificate, error) {
	issuer := *ca
	if issuer.KeyUsage == 0 {
		issuer.KeyUsage = x509.KeyUsageCRLSign
	}
	if len(issuer.SubjectKeyId) == 0 {
		id, err := keyID(ca.PublicKey)
		if err != nil {
			return nil, err
		}
		issuer.SubjectKeyId = id
	}
	return &issuer, nil
}
