package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Lifetimes when none are given; certificates and revocation list as easy-rsa 3 has them.
const (
	DefaultCALife   = 3650 * day
	DefaultCertLife = 825 * day
	DefaultCRLLife  = 180 * day

	day = 24 * time.Hour
	// backdate lets a client whose clock is a little behind accept what was issued a moment ago.
	backdate = time.Hour
)

var (
	ErrNoCA          = errors.New("no certificate authority")
	ErrExists        = errors.New("exists already")
	ErrNoCertificate = errors.New("no such certificate")
	ErrNoKey         = errors.New("no private key")
	ErrRevoked       = errors.New("revoked already")
)

// easyrsaConf is what `easyrsa init-pki` would have put there; without it easy-rsa could not go on from Init.
//
//go:embed openssl-easyrsa.cnf
var easyrsaConf []byte

// A PKI is one certificate authority. Its methods may be called from any goroutine, and by several processes.
type PKI struct {
	dir  string
	tree *tree
	ask  func() ([]byte, error)

	mu     sync.Mutex
	signer crypto.Signer // the CA key, once it was needed
}

// Options of Open and Init.
type Options struct {
	// Passphrase gives the passphrase of an encrypted CA key when the key is needed. Nil: such a key is an error.
	Passphrase func() ([]byte, error)
}

// InitOptions say what authority Init makes. The zero value makes "Postern CA", P-256, ten years.
type InitOptions struct {
	Options
	CommonName string
	Key        KeyType
	Life       time.Duration
	CRLLife    time.Duration
	Encrypt    []byte // passphrase that the CA key is encrypted with; empty: it is not
}

// Init makes a certificate authority in dir, which is created when missing and may be one that `easyrsa init-pki`
// left. It returns ErrExists when there is an authority already.
func Init(dir string, o InitOptions) (*PKI, error) {
	if o.CommonName == "" {
		o.CommonName = "Postern CA"
	}
	if err := checkCommonName(o.CommonName); err != nil {
		return nil, err
	}
	life, err := lifetime(o.Life, DefaultCALife)
	if err != nil {
		return nil, err
	}
	crlLife, err := lifetime(o.CRLLife, DefaultCRLLife)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	p, err := open(dir, o.Options)
	if err != nil {
		return nil, err
	}
	if err := p.init(o, life, crlLife); err != nil {
		p.Close()
		return nil, fmt.Errorf("create certificate authority in %s: %w", dir, err)
	}
	return p, nil
}

// Open opens the authority in dir, made by Init or by easy-rsa, and finishes what a crash may have interrupted. The CA
// key is not read before it is needed, so that List works where it is kept away.
func Open(dir string, o Options) (*PKI, error) {
	p, err := open(dir, o)
	if err != nil {
		return nil, err
	}
	if _, err := p.CA(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func open(dir string, o Options) (*PKI, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoCA)
	}
	if err != nil {
		return nil, err
	}
	p := &PKI{dir: dir, tree: &tree{root: root}, ask: o.Passphrase}
	if err := p.settle(); err != nil {
		root.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return p, nil
}

// Close releases the directory. The tree is complete at any time, whether it is called or not.
func (p *PKI) Close() error { return p.tree.root.Close() }

// Dir is the directory's absolute path.
func (p *PKI) Dir() string { return p.dir }

// settle finishes an interrupted change, for those who only read. Without one it takes no lock, so a tree that may
// not be written can be read.
func (p *PKI) settle() error {
	if !p.tree.exists(journalName) {
		return nil
	}
	return p.change(func(*journal) error { return nil })
}

// change locks the tree, finishes what was interrupted, lets plan fill a journal, and commits it.
func (p *PKI) change(plan func(*journal) error) error {
	unlock, err := p.tree.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.tree.recover(); err != nil {
		return err
	}
	var j journal
	if err := plan(&j); err != nil {
		return err
	}
	if len(j.Issue) == 0 && len(j.Revoke) == 0 && len(j.Files) == 0 {
		return nil
	}
	return j.commit(p.tree)
}

func (p *PKI) init(o InitOptions, life, crlLife time.Duration) error {
	key, err := o.Key.generate()
	if err != nil {
		return err
	}
	keyPEM, err := encodeKey(key, o.Encrypt)
	if err != nil {
		return err
	}
	ca, caPEM, err := selfSign(key, o.CommonName, life)
	if err != nil {
		return err
	}
	crl, err := signCRL(ca, key, &index{}, nil, crlLife)
	if err != nil {
		return err
	}
	p.signer = key
	for _, dir := range []string{"private", "reqs", "issued", "certs_by_serial",
		"revoked/certs_by_serial", "revoked/private_by_serial", "revoked/reqs_by_serial"} {
		if err := p.tree.root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return p.change(func(j *journal) error {
		for _, name := range []string{"ca.crt", "private/ca.key", "index.txt"} {
			if fi, err := p.tree.root.Lstat(name); err == nil && (name != "index.txt" || fi.Size() > 0) {
				return fmt.Errorf("%s %w", name, ErrExists)
			}
		}
		for _, f := range []struct {
			name string
			data []byte
		}{
			{"private/ca.key", keyPEM},
			{"index.txt", nil},
			{"index.txt.attr", []byte("unique_subject = no\n")},
			{"serial", []byte("01\n")},
			{"openssl-easyrsa.cnf", easyrsaConf},
			{"crl.pem", crl},
			{"ca.crt", caPEM},
		} {
			if err := j.write(p.tree, f.name, f.data); err != nil {
				return err
			}
		}
		return nil
	})
}

// CA is the authority's certificate.
func (p *PKI) CA() (*x509.Certificate, error) {
	b, err := p.tree.read("ca.crt")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", p.dir, ErrNoCA)
	}
	if err != nil {
		return nil, err
	}
	ca, err := parseCertificate(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(p.dir, "ca.crt"), err)
	}
	if !ca.IsCA {
		return nil, fmt.Errorf("%s is not the certificate of an authority", filepath.Join(p.dir, "ca.crt"))
	}
	return ca, nil
}

// authority is the CA certificate and its key, asking for a passphrase the first time.
func (p *PKI) authority() (*x509.Certificate, crypto.Signer, error) {
	ca, err := p.CA()
	if err != nil {
		return nil, nil, err
	}
	if time.Now().After(ca.NotAfter) {
		return nil, nil, fmt.Errorf("the authority's certificate expired on %s", ca.NotAfter.UTC().Format(time.DateOnly))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.signer == nil {
		if p.signer, err = p.readCAKey(); err != nil {
			return nil, nil, err
		}
	}
	if !samePublic(p.signer, ca.PublicKey) {
		return nil, nil, fmt.Errorf("private/ca.key in %s is not the key of ca.crt", p.dir)
	}
	return ca, p.signer, nil
}

// readCAKey opens the key by its path, not beneath the directory: keeping it on a removable disk behind a link is a
// habit that easy-rsa allows.
func (p *PKI) readCAKey() (crypto.Signer, error) {
	name := filepath.Join(p.dir, "private", "ca.key")
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not here; nothing can be issued or revoked without it: %w", name, ErrNoKey)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o027 != 0 {
		return nil, fmt.Errorf("%s can be read or written by others (mode %04o): chmod 600 it", name, fi.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer clear(b)
	key, err := parseKey(b, p.ask)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return key, nil
}

// maxKeyFile is far more than any key; the file may be a pipe without end.
const maxKeyFile = 1 << 20

func selfSign(key crypto.Signer, cn string, life time.Duration) (*x509.Certificate, []byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: cn},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs clients and servers, never another authority
		SubjectKeyId:          id,
		AuthorityKeyId:        id,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(der)
	return ca, encodeCertificate(der), err
}

// newSerial is 127 random bits: sixteen octets at most, never negative, never zero.
func newSerial() (*big.Int, error) {
	for {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
		if err != nil || n.Sign() > 0 {
			return n, err
		}
	}
}

func lifetime(given, otherwise time.Duration) (time.Duration, error) {
	switch {
	case given == 0:
		return otherwise, nil
	case given < 0 || given > 100*365*day:
		return 0, fmt.Errorf("lifetime of %d days", given/day)
	}
	return given, nil
}

// parseCertificate reads the first certificate of a PEM file; easy-rsa's have it in words before.
func parseCertificate(b []byte) (*x509.Certificate, error) {
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			return nil, errors.New("no certificate in it")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
		b = rest
	}
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: bytes.Clone(der)})
}
