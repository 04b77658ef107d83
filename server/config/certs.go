package config

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// nameFields are what x509-username-field may name.
var nameFields = []string{"CN", "UID", "emailAddress", "serialNumber", "OU", "SN", "GN", "name", "title", "initials", "ext:subjectAltName"}

func setNameField(d *draft, l *directive) error {
	field := l.args[0]
	if i := slices.IndexFunc(nameFields, func(f string) bool { return strings.EqualFold(f, field) }); i >= 0 {
		field = nameFields[i] // OpenVPN up to 2.4 took lower case
	} else {
		return fmt.Errorf("%q cannot name a client: take one of %s", field, strings.Join(nameFields, ", "))
	}
	d.cfg.X509NameField = field
	return nil
}

func setCertKU(d *draft, l *directive) error {
	d.cfg.RemoteCertKU = nil
	for _, word := range l.args {
		n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(word), "0x"), 16, 8)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a set of key usages: two hexadecimal digits, as 80 for digitalSignature or a0 for that and keyEncipherment", word)
		}
		d.cfg.RemoteCertKU = append(d.cfg.RemoteCertKU, uint8(n))
	}
	if len(l.args) == 0 {
		d.cfg.RemoteCertKU = []uint8{0}
	}
	return nil
}

// extendedUsages are the names that OpenSSL has for those that clients' certificates carry.
var extendedUsages = map[string]string{
	"TLS Web Client Authentication": "1.3.6.1.5.5.7.3.2", "clientAuth": "1.3.6.1.5.5.7.3.2",
	"TLS Web Server Authentication": "1.3.6.1.5.5.7.3.1", "serverAuth": "1.3.6.1.5.5.7.3.1",
	"E-mail Protection": "1.3.6.1.5.5.7.3.4", "emailProtection": "1.3.6.1.5.5.7.3.4",
	"IPSec End System": "1.3.6.1.5.5.7.3.5", "IPSec User": "1.3.6.1.5.5.7.3.7", "ipsecIKE": "1.3.6.1.5.5.7.3.17",
	"Microsoft Smartcard Login": "1.3.6.1.4.1.311.20.2.2", "msSmartcardLogin": "1.3.6.1.4.1.311.20.2.2",
}

func setCertEKU(d *draft, l *directive) error {
	text := l.args[0]
	if oid := extendedUsages[text]; oid != "" {
		text = oid
	}
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseInt(part, 10, 31)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is not an extended key usage: write its number, as 1.3.6.1.5.5.7.3.2 for clients", l.args[0])
		}
		oid = append(oid, int(n))
	}
	if len(oid) < 2 {
		return fmt.Errorf("%q is not an extended key usage: write its number, as 1.3.6.1.5.5.7.3.2 for clients", l.args[0])
	}
	if slices.Equal(oid, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}) {
		return errors.New("certificates of servers cannot log in: write 1.3.6.1.5.5.7.3.2, or `remote-cert-tls client`")
	}
	d.cfg.RemoteCertEKU = oid
	return nil
}

func setVerifyHash(d *draft, l *directive) error {
	hash, size := crypto.SHA1, 20
	switch strings.ToUpper(l.arg(1)) {
	case "", "SHA1":
	case "SHA256":
		hash, size = crypto.SHA256, 32
	default:
		return fmt.Errorf("%q is neither SHA1 nor SHA256", l.arg(1))
	}
	prints := l.args[:min(len(l.args), 1)]
	if l.isBlock {
		hash, size, prints = crypto.SHA256, 32, nil
		for text := range bytes.Lines(l.block) {
			words, err := Words(string(text))
			if err != nil {
				return err
			}
			prints = append(prints, words[:min(len(words), 1)]...)
		}
	}
	d.cfg.IssuerHashes = nil
	for _, p := range prints {
		sum, err := hex.DecodeString(strings.ReplaceAll(p, ":", ""))
		if err != nil || len(sum) != size {
			return fmt.Errorf("%q is not a fingerprint of %d bytes, as openssl x509 -fingerprint prints them", p, size)
		}
		d.cfg.IssuerHashes = append(d.cfg.IssuerHashes, CertHash{hash, sum})
	}
	if len(prints) == 0 {
		return errors.New("no fingerprint: write the CA's, as openssl x509 -fingerprint prints it")
	}
	if hash == crypto.SHA1 {
		d.notice(l, "SHA-1 is weak: write the fingerprint of `openssl x509 -fingerprint -sha256`, and SHA256 behind it")
	}
	return nil
}

func setCAPath(d *draft, l *directive) error {
	if l.args[0] == "" {
		return errors.New("the directory's name must not be empty")
	}
	d.caPath = l.args[0]
	return nil
}

// hashedName is how openssl rehash names certificates and, with an r, revocation lists.
var hashedName = regexp.MustCompile(`^[0-9a-f]{8}\.(r?)[0-9]+$`)

// readCAPath reads the directory of capath: its certificates join those of ca, its revocation lists are in force
// unless crl-verify names others.
func (d *draft) readCAPath() {
	if d.caPath == "" {
		return
	}
	l, c := d.last["capath"], d.cfg
	path := d.caPath
	d.settleDirectory("capath", &path)
	if l.entry.Verdict == Refused {
		return
	}
	names, err := d.files.ReadDir(path)
	if err != nil {
		d.refuse(l, "cannot be read: %s", reason(err))
		return
	}
	var certs, lists []byte
	for _, name := range names {
		m := hashedName.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		b, _, err := d.files.ReadFile(filepath.Join(path, name), maxMaterial, false)
		if err != nil {
			d.refuse(l, "%s cannot be read: %s", name, reason(err))
			return
		}
		into, check := &certs, checkCertificates
		if m[1] != "" {
			into, check = &lists, checkCRL
		}
		if err := check(d, l, b); err != nil {
			d.refuse(l, "%s: %v", name, err)
			return
		}
		*into = append(append(*into, b...), '\n')
	}
	if len(certs) == 0 {
		d.refuse(l, "there is no certificate in %s by a name such as 1a2b3c4d.0: run openssl rehash there, or name one file with `ca`", path)
		return
	}
	c.CA = Material{Name: joinNames(c.CA.Name, path), Bytes: slices.Concat(c.CA.Bytes, []byte("\n"), certs)}
	if len(lists) > 0 && !d.has("crl-verify") {
		c.CRL = Material{Name: "[" + path + "]", Bytes: lists}
	}
}

func joinNames(a, b string) string {
	if a == "" {
		return b
	}
	return a + " and " + b
}

// frequency is for N SECONDS.
func frequency(field func(*Config) *Frequency) func(*draft, *directive) error {
	return func(d *draft, l *directive) error {
		n, err := number(l.args[0], 1, maxSeconds)
		if err != nil {
			return err
		}
		s, err := number(l.args[1], 1, 1<<20)
		if err == nil {
			*field(d.cfg) = Frequency{n, time.Duration(s) * time.Second}
		}
		return err
	}
}
