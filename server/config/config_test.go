package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// machine is a file system in memory, by absolute name.
type machine map[string]string

func (m machine) Abs(name string) string                 { return filepath.Join("/etc/openvpn", name) }
func (m machine) Lstat(name string) (fs.FileInfo, error) { return m.Stat(name) }

func (m machine) Stat(name string) (fs.FileInfo, error) {
	one := fstest.MapFS{}
	if text, ok := m[name]; ok {
		mode := fs.FileMode(0o600)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		one["it"] = &fstest.MapFile{Data: []byte(text), Mode: mode}
	}
	for other := range m {
		if strings.HasPrefix(other, strings.TrimSuffix(name, "/")+"/") {
			one["it"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
		}
	}
	return one.Stat("it")
}

func (m machine) ReadDir(name string) (names []string, err error) {
	for path := range m {
		if dir, file := filepath.Split(path); filepath.Clean(dir) == name {
			names = append(names, file)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m machine) ReadFile(name string, limit int, plain bool) ([]byte, fs.FileInfo, error) {
	info, err := m.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	return []byte(m[name]), info, nil
}

// identity is a self-signed certificate and its key.
type identity struct{ cert, key string }

func newIdentity(notAfter time.Time) identity {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "server"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return identity{pemText("CERTIFICATE", der), pemText("PRIVATE KEY", keyDER)}
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

var (
	serverIdentity = sync.OnceValue(func() identity { return newIdentity(time.Now().Add(24 * time.Hour)) })
	otherIdentity  = sync.OnceValue(func() identity { return newIdentity(time.Now().Add(24 * time.Hour)) })
	oldIdentity    = sync.OnceValue(func() identity { return newIdentity(time.Now().Add(-time.Minute)) })
	revocations    = sync.OnceValue(func() string {
		id := serverIdentity()
		certDER, _ := pem.Decode([]byte(id.cert))
		keyDER, _ := pem.Decode([]byte(id.key))
		cert, err := x509.ParseCertificate(certDER.Bytes)
		if err != nil {
			panic(err)
		}
		key, err := x509.ParsePKCS8PrivateKey(keyDER.Bytes)
		if err != nil {
			panic(err)
		}
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}, cert, key.(*ecdsa.PrivateKey))
		if err != nil {
			panic(err)
		}
		return pemText("X509 CRL", der)
	})
)

const (
	staticKeyText = "#\n# 2048 bit OpenVPN static key\n#\n-----BEGIN OpenVPN Static key V1-----\n00\n-----END OpenVPN Static key V1-----\n"
	tokenKeyText  = "-----BEGIN OpenVPN auth-token server key-----\nAA==\n-----END OpenVPN auth-token server key-----\n"
	v2KeyText     = "-----BEGIN OpenVPN tls-crypt-v2 server key-----\nAA==\n-----END OpenVPN tls-crypt-v2 server key-----\n"
)

// newMachine has in /etc/openvpn what the configurations of the tests name.
func newMachine() machine {
	id, m := serverIdentity(), machine{}
	for name, text := range map[string]string{
		"ca.crt": id.cert, "server.crt": id.cert, "server.key": id.key, "crl.pem": revocations(), "dh.pem": "",
		"ta.key": staticKeyText, "tc.key": staticKeyText, "v2.key": v2KeyText, "junk": "hello\n",
		"other.key": otherIdentity().key, "old.crt": oldIdentity().cert, "old.key": oldIdentity().key,
		"encrypted.key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
		"ccd/DEFAULT":   "", "empty": "", "password": "open sesame\n", "two-lines": "a\nb\n", "users": "", "totp": "", "token.key": tokenKeyText,
		"loop.conf": "config loop.conf\n", "hook.sh": "#!/bin/sh\n",
	} {
		m["/etc/openvpn/"+name] = text
	}
	m["/var/log/openvpn/x"] = ""
	m["/run/openvpn/x"] = ""
	return m
}

// minimal is the least that can be served, without its network.
const minimal = "ca ca.crt\ncert server.crt\nkey server.key\n"

// basic is the least that can be served.
const basic = minimal + "server 10.9.0.0 255.255.255.0\nkeepalive 10 60\ntopology subnet\n"

func loadText(text string, extra ...[]string) (*Config, *Report, error) {
	return load(newMachine(), "/etc/openvpn", "/etc/openvpn/server.conf", []byte(text), extra)
}

// mustLoad loads a configuration that can be served.
func mustLoad(t *testing.T, text string, extra ...[]string) (*Config, *Report) {
	t.Helper()
	c, r, err := loadText(text, extra...)
	if err != nil {
		t.Fatalf("load:\n%v\nof\n%s", err, text)
	}
	return c, r
}

// why returns what the report says about the last line of a directive.
func why(r *Report, directive string) string {
	s := "(not in the report)"
	for _, e := range r.Entries {
		if e.Directive == directive {
			s = fmt.Sprintf("%s %s", e.Verdict, e.Why)
		}
	}
	return s
}
