package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// Status is what became of a certificate.
type Status string

const (
	Valid   Status = "valid"
	Expired Status = "expired"
	Revoked Status = "revoked"
)

// A Record is one certificate of the authority.
type Record struct {
	Name     string // common name; the subject where there is not exactly one
	File     string // NAME of issued/NAME.crt; "" when it is not the current certificate of any
	Serial   string // upper-case hexadecimal
	Kind     Kind   // 0 when the certificate itself is not here any more
	Status   Status
	NotAfter time.Time
	Revoked  time.Time // of revoked ones
	Reason   string
	Current  bool // in issued/; false: replaced by a renewal, or revoked
}

func newRecord(e *entry, file string, cert *x509.Certificate) *Record {
	r := &Record{File: file, Serial: formatSerial(e.serial), NotAfter: e.expiry, Revoked: e.revoked, Reason: e.reason}
	var ok bool
	if r.Name, ok = commonName(e.subject); !ok {
		r.Name = e.subject
	}
	switch {
	case e.state == 'R':
		r.Status = Revoked
	case e.state == 'E' || time.Now().After(e.expiry):
		r.Status = Expired
	default:
		r.Status = Valid
	}
	if cert != nil {
		r.Kind = kindOf(cert)
	}
	return r
}

// List is every certificate in the index, in the order they were issued.
func (p *PKI) List() ([]Record, error) {
	if err := p.settle(); err != nil {
		return nil, err
	}
	x, err := p.index()
	if err != nil {
		return nil, err
	}
	files, err := p.current()
	if err != nil {
		return nil, err
	}
	var list []Record
	for e := range x.entries {
		serial := formatSerial(e.serial)
		file, current := files[serial]
		var cert *x509.Certificate
		for _, name := range []string{
			"certs_by_serial/" + serial + ".pem", "issued/" + file + ".crt", "revoked/certs_by_serial/" + serial + ".crt",
		} {
			if b, err := p.tree.read(name); err == nil {
				cert, _ = parseCertificate(b) // the list comes from the index; without the file only the kind is unknown
				break
			}
		}
		r := newRecord(e, file, cert)
		r.Current = current
		list = append(list, *r)
	}
	return list, nil
}

// current maps serial numbers to NAME for each issued/NAME.crt.
func (p *PKI) current() (map[string]string, error) {
	names, err := p.tree.names("issued", ".crt")
	if err != nil {
		return nil, err
	}
	files := make(map[string]string, len(names))
	for _, name := range names {
		b, err := p.tree.read("issued/" + name + ".crt")
		if errors.Is(err, fs.ErrNotExist) {
			continue // revoked since the directory was read
		}
		if err != nil {
			return nil, err
		}
		cert, err := parseCertificate(b)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", filepath.Join(p.dir, "issued", name+".crt"), err)
		}
		files[formatSerial(cert.SerialNumber)] = name
	}
	return files, nil
}

func (p *PKI) index() (*index, error) {
	b, err := p.tree.read("index.txt")
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(p.dir, "index.txt"), err)
	}
	return x, nil
}

// A Bundle is what a profile needs of the authority.
type Bundle struct {
	CA, Cert, Key []byte // PEM; the key may be encrypted
	Leaf          *x509.Certificate
}

// Load returns NAME's current certificate and key. The error is ErrNoCertificate, or ErrNoKey when the private key has
// been taken away; a revoked or expired certificate is an error too.
func (p *PKI) Load(name string) (*Bundle, error) {
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	if err := p.settle(); err != nil {
		return nil, err
	}
	var b Bundle
	var err error
	if b.CA, err = p.tree.read("ca.crt"); err != nil {
		return nil, err
	}
	crt := filepath.Join(p.dir, "issued", name+".crt")
	if b.Cert, err = p.tree.read("issued/" + name + ".crt"); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", crt, ErrNoCertificate)
	} else if err != nil {
		return nil, err
	}
	if b.Leaf, err = parseCertificate(b.Cert); err != nil {
		return nil, fmt.Errorf("read %s: %w", crt, err)
	}
	x, err := p.index()
	if err != nil {
		return nil, err
	}
	if e := x.find(b.Leaf.SerialNumber); e != nil && e.state == 'R' {
		return nil, fmt.Errorf("%s: %w", crt, ErrRevoked)
	}
	if time.Now().After(b.Leaf.NotAfter) {
		return nil, fmt.Errorf("%s expired on %s", crt, b.Leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	b.Cert = encodeCertificate(b.Leaf.Raw)
	if b.Key, err = p.tree.read("private/" + name + ".key"); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", filepath.Join(p.dir, "private", name+".key"), ErrNoKey)
	} else if err != nil {
		return nil, err
	}
	return &b, nil
}

// RefusedNames are the names of the certificates in an index.txt that have not been revoked and have not expired, and by
// which nobody can log in: easy-rsa issues names that CheckName does not take. Servers' are among them.
func RefusedNames(indexFile []byte) ([]string, error) {
	x, err := parseIndex(indexFile)
	if err != nil {
		return nil, err
	}
	var names []string
	for e := range x.entries {
		if r := newRecord(e, "", nil); r.Status == Valid && CheckName(r.Name) != nil && !slices.Contains(names, r.Name) {
			names = append(names, r.Name)
		}
	}
	return names, nil
}
