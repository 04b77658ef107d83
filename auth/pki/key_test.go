package pki

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Keys in every form OpenSSL writes are read, and the certificates made with them are good.
func TestParseKeyForms(t *testing.T) {
	if testing.Short() {
		t.Skip("runs openssl")
	}
	for _, tc := range []struct {
		name string
		args []string
	}{
		{"sec1 with parameters", []string{"ecparam", "-name", "prime256v1", "-genkey"}},
		{"sec1", []string{"ecparam", "-name", "secp384r1", "-genkey", "-noout"}},
		{"pkcs8 ec", []string{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"}},
		{"pkcs8 rsa", []string{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}},
		{"pkcs1", []string{"genrsa", "-traditional", "2048"}},
		{"ed25519", []string{"genpkey", "-algorithm", "ED25519"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := exec.Command("openssl", tc.args...).Output()
			if err != nil {
				t.Fatal(err)
			}
			key, err := parseKey(out, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, caPEM, err := selfSign(key, "CA", DefaultCALife)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(t.TempDir(), "ca.crt")
			if err := os.WriteFile(name, caPEM, 0o600); err != nil {
				t.Fatal(err)
			}
			openssl(t, "verify", "-x509_strict", "-CAfile", name, name)
		})
	}
	if _, err := parseKey([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), nil); err == nil {
		t.Error("a certificate was taken for a key")
	}
}

func FuzzEncryptedKey(f *testing.F) {
	key, err := KeyType{}.generate()
	if err != nil {
		f.Fatal(err)
	}
	text, err := encodeKey(key, []byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(text)
	// One round instead of ours, so that the fuzzer gets somewhere.
	f.Add(bytes.Replace(block.Bytes, []byte{2, 3, 9, 0x27, 0xc0}, []byte{2, 3, 0, 0, 1}, 1))
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		if len(der) > 2000 {
			return
		}
		var k encryptedKey
		if plain, err := decryptPKCS8(der, []byte("secret")); err == nil && len(plain) >= len(der) {
			t.Fatalf("%d bytes became %d: %v", len(der), len(plain), k)
		}
	})
}
