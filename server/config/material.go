package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

const maxMaterial = 64 << 20 // room for a long revocation list

// readMaterial reads the files that hold keys, certificates and lists, and looks whether they are what they should be.
func (d *draft) readMaterial() {
	c := d.cfg
	d.readAskpass()
	for _, m := range []struct {
		name  string
		into  *Material
		check func(d *draft, l *directive, b []byte) error
	}{
		{"ca", &c.CA, checkCertificates},
		{"cert", &c.Cert, checkCertificates},
		{"key", &c.Key, checkPrivateKey},
		{"extra-certs", &c.ExtraCerts, checkCertificates},
		{"tls-auth", &c.TLSAuth, holds("OpenVPN Static key V1", "openvpn --genkey tls-auth FILE or `postern key tls-auth`")},
		{"tls-crypt", &c.TLSCrypt, holds("OpenVPN Static key V1", "openvpn --genkey tls-crypt FILE or `postern key tls-crypt`")},
		{"tls-crypt-v2", &c.TLSCryptV2, holds("OpenVPN tls-crypt-v2 server key", "openvpn --genkey tls-crypt-v2-server FILE or `postern key tls-crypt-v2-server`")},
		{"auth-gen-token-secret", &c.TokenSecret, holds("OpenVPN auth-token server key", "openvpn --genkey auth-token FILE or `postern key auth-token`")},
	} {
		if l := d.material[m.name]; l != nil {
			d.readInto(l, m.into, m.check)
		}
	}
	d.readCAPath()
	d.readPKCS12()
	d.checkPair()
	if l := d.material["crl-verify"]; l != nil {
		if c.CRLDir && !l.isBlock {
			c.CRL.Name = l.args[0]
			d.settleDirectory("crl-verify", &c.CRL.Name)
		} else {
			d.readInto(l, &c.CRL, checkCRL)
		}
	}
	d.readDirectories()
	d.findSecret("auth-users-file", &c.Users, "postern user add")
	d.findSecret("auth-totp-file", &c.TOTPFile, "postern user totp")
}

// findSecret finds a file of secrets that is read while serving; remedy makes one.
func (d *draft) findSecret(name string, path *string, remedy string) {
	l := d.material[name]
	if l == nil {
		return
	}
	*path = d.locate(l, l.args[0])
	info, err := d.files.Lstat(*path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.refuse(l, "there is no file %s: make it with `%s`", *path, remedy)
	case err != nil:
		d.refuse(l, "cannot be read: %s", reason(err))
	case !info.Mode().IsRegular():
		d.refuse(l, "%s: %v", *path, errLink)
	default:
		d.checkSecret(l, *path, info)
	}
}

// readInto reads what l names, or holds, and checks it.
func (d *draft) readInto(l *directive, into *Material, check func(*draft, *directive, []byte) error) {
	if l.isBlock {
		*into = Material{Name: "[inline]", Bytes: l.block}
	} else {
		path := d.locate(l, l.args[0])
		b, info, err := d.files.ReadFile(path, maxMaterial, false)
		if errors.Is(err, fs.ErrNotExist) {
			d.refuse(l, "there is no file %s: create it, or correct the name", path)
			return
		}
		if err != nil {
			d.refuse(l, "cannot be read: %s", reason(err))
			return
		}
		*into = Material{Name: path, Bytes: b}
		if l.name == "auth-gen-token-secret" && !d.checkSecret(l, path, info) { // whoever has it is anybody (S048)
			return
		}
		private := l.name == "key" || l.name == "ldap-tls-key" || strings.HasPrefix(l.name, "tls-")
		if private && info.Mode()&0o077 != 0 {
			d.notice(l, "%s is group or others accessible: chmod 600 %s", path, path)
		}
	}
	if l.name == "key" {
		if err := d.openKey(into); err != nil {
			d.refuse(l, "%v", err)
			return
		}
	}
	if err := check(d, l, into.Bytes); err != nil {
		d.refuse(l, "%v", err)
	}
}

// checkSecret refuses a secret that others can reach (S108).
func (d *draft) checkSecret(l *directive, path string, info fs.FileInfo) bool {
	if mode := info.Mode(); mode&0o027 != 0 {
		d.refuse(l, "others can read or change %s (mode %04o): chmod 600 %s", path, mode.Perm(), path)
		return false
	}
	dir := filepath.Dir(path)
	if info, err := d.files.Stat(dir); err == nil && info.Mode()&0o002 != 0 {
		d.refuse(l, "everybody can write to the directory %s and replace the file: put it elsewhere", dir)
		return false
	}
	return true
}

// readPassword reads the password of the account that searches the directory. Messages tell only the file's name.
func (d *draft) readPassword(l *directive) (password string) {
	path := d.locate(l, l.args[0])
	b, info, err := d.files.ReadFile(path, 4096, true)
	if err != nil {
		d.refuse(l, "%s cannot be read: %s", path, reason(err))
		return ""
	}
	if !d.checkSecret(l, path, info) {
		return ""
	}
	password = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case password == "":
		d.refuse(l, "%s is empty: write the password into it, or remove ldap-bind-dn for an anonymous search", path)
	case strings.ContainsAny(password, "\r\n\x00"):
		d.refuse(l, "%s has more than one line: only the password belongs into it", path)
	}
	return password
}

// holds checks that a file holds a PEM-like block of this type; remedy makes one.
func holds(kind, remedy string) func(*draft, *directive, []byte) error {
	return func(_ *draft, _ *directive, b []byte) error {
		if !bytes.Contains(b, []byte("-----BEGIN "+kind+"-----")) {
			return fmt.Errorf("there is no %s in it: make one with %s", kind, remedy)
		}
		return nil
	}
}

// checkCertificates wants at least one certificate, and all of them readable.
func checkCertificates(d *draft, l *directive, b []byte) error {
	found := 0
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil && l.name == "cert":
			return fmt.Errorf("the certificate cannot be read: %w; issue it anew", err)
		case err != nil:
			d.notice(l, "a certificate in it cannot be read: %v", err)
			continue
		case time.Now().After(cert.NotAfter) && l.name == "cert" && found == 0:
			return fmt.Errorf("the certificate has expired on %s: renew it", cert.NotAfter.Format(time.DateOnly))
		case time.Now().After(cert.NotAfter):
			d.notice(l, "the certificate %q has expired on %s", cert.Subject, cert.NotAfter.Format(time.DateOnly))
		}
		found++
	}
	if found == 0 {
		return errors.New("there is no certificate in it (-----BEGIN CERTIFICATE-----): is it the right file?")
	}
	return nil
}

func checkPrivateKey(_ *draft, _ *directive, b []byte) error {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil
		}
	}
	return errors.New("there is no private key in it (-----BEGIN PRIVATE KEY-----): is it the right file?")
}

func checkCRL(_ *draft, _ *directive, b []byte) error {
	found := 0
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		if _, err := x509.ParseRevocationList(block.Bytes); err != nil {
			return fmt.Errorf("the list cannot be read: %w; issue it anew", err)
		}
		found++
	}
	if found == 0 {
		return errors.New("there is no revocation list in it (-----BEGIN X509 CRL-----): is it the right file?")
	}
	return nil
}

// checkPair tells whether certificate and key belong together.
func (d *draft) checkPair() {
	c := d.cfg
	if !c.Cert.Set() || !c.Key.Set() || d.anyRefused("cert", "key") {
		return
	}
	if _, err := tls.X509KeyPair(c.Cert.Bytes, c.Key.Bytes); err != nil {
		d.refuse(d.material["key"], "does not go with cert at %s: %v", d.material["cert"].place(), err)
	}
}
