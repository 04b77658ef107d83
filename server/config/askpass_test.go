package config

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The forms in which openssl encrypts keys, of today and of ten years ago; and a password that is wrong.
func TestAskpass(t *testing.T) {
	want, _ := pem.Decode([]byte(readFile(t, "testdata/keys/plain.key")))
	plain, err := x509.ParseECPrivateKey(want.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"aes256", "des3", "sha1", "legacy"} {
		text := readFile(t, "testdata/keys/"+name+".key")
		d := &draft{keyPassword: []byte("secret")}
		m := Material{Name: name, Bytes: []byte(text)}
		if err := d.openKey(&m); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		block, _ := pem.Decode(m.Bytes)
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			k, err8 := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err8 != nil || !plain.Equal(k) {
				t.Errorf("%s: another key: %v, %v", name, err, err8)
			}
		} else if !plain.Equal(key) {
			t.Errorf("%s: another key", name)
		}
		d.keyPassword = []byte("wrong")
		if err := d.openKey(&Material{Bytes: []byte(text)}); err == nil || !strings.Contains(err.Error(), "password of askpass") {
			t.Errorf("%s with a wrong password: %v", name, err)
		}
	}
}

func FuzzDecryptPKCS8(f *testing.F) {
	for _, name := range []string{"aes256", "des3", "sha1"} {
		b, err := os.ReadFile("testdata/keys/" + name + ".key")
		if err != nil {
			f.Fatal(err)
		}
		block, _ := pem.Decode(b)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		if len(der) > 1<<10 {
			return
		}
		_, _ = decryptPKCS8(der, []byte("secret"))
	})
}

// One file with certificate, key and CA, by name with a password and inline without.
func TestPKCS12(t *testing.T) {
	id := serverIdentity()
	certBlock, _ := pem.Decode([]byte(id.cert))
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	keyBlock, _ := pem.Decode([]byte(id.key))
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		key, err = x509.ParseECPrivateKey(keyBlock.Bytes)
	}
	if err != nil {
		t.Fatal(err)
	}
	pack := func(password string) string {
		b, err := pkcs12.Modern.Encode(key, cert, []*x509.Certificate{cert}, password)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	m := newMachine()
	m["/etc/openvpn/server.p12"], m["/etc/openvpn/pass"] = pack("secret"), "secret\n"
	const rest = "server 10.9.0.0 255.255.255.0\ntopology subnet\nkeepalive 10 60\n"
	for _, text := range []string{
		"pkcs12 server.p12\naskpass pass\n" + rest,
		"<pkcs12>\n" + base64.StdEncoding.EncodeToString([]byte(pack(""))) + "\n</pkcs12>\n" + rest,
	} {
		c, _, err := load(m, "/etc/openvpn", "/etc/openvpn/server.conf", []byte(text), nil)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if !strings.Contains(string(c.Cert.Bytes), "BEGIN CERTIFICATE") || !strings.Contains(string(c.Key.Bytes), "PRIVATE KEY") || !c.CA.Set() {
			t.Errorf("cert %v, key %v, ca %v", c.Cert, c.Key, c.CA)
		}
	}
	_, _, err = load(m, "/etc/openvpn", "/etc/openvpn/server.conf", []byte("pkcs12 server.p12\n"+rest), nil)
	if err == nil || !strings.Contains(err.Error(), "server.conf:1: pkcs12: it has a password") || strings.Contains(err.Error(), "\n") {
		t.Errorf("without its password: %v", err)
	}
}

// capath takes what openssl rehash has named, certificates and lists, and nothing else.
func TestCAPath(t *testing.T) {
	id := serverIdentity()
	m := newMachine()
	m["/etc/openvpn/cas/0a1b2c3d.0"], m["/etc/openvpn/cas/0a1b2c3d.r0"], m["/etc/openvpn/cas/README"] = id.cert, revocations(), "not a certificate"
	text := strings.Replace(basic, "ca ca.crt\n", "capath cas\n", 1)
	c, _, err := load(m, "/etc/openvpn", "/etc/openvpn/server.conf", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(c.CA.Bytes), "BEGIN CERTIFICATE"); n != 1 || string(c.CRL.Bytes) != revocations()+"\n" {
		t.Errorf("%d certificates, list %v", n, c.CRL)
	}
	m["/etc/openvpn/cas/0a1b2c3d.1"] = "rubbish"
	if _, _, err := load(m, "/etc/openvpn", "/etc/openvpn/server.conf", []byte(text), nil); err == nil || !strings.Contains(err.Error(), "0a1b2c3d.1") {
		t.Errorf("with a broken file: %v", err)
	}
}
