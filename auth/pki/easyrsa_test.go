package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// easyrsa is Debian's easy-rsa on one tree.
type easyrsa struct {
	t   *testing.T
	dir string
	env []string
}

func newEasyRSA(t *testing.T, dir string, env ...string) *easyrsa {
	t.Helper()
	if testing.Short() {
		t.Skip("runs easy-rsa and openssl")
	}
	return &easyrsa{t: t, dir: dir, env: env}
}

func (e *easyrsa) try(args ...string) (string, error) {
	cmd := exec.Command("/usr/share/easy-rsa/easyrsa", args...)
	cmd.Dir = filepath.Dir(e.dir)
	cmd.Env = append(os.Environ(), "EASYRSA_BATCH=1", "EASYRSA_PKI="+e.dir)
	cmd.Env = append(cmd.Env, e.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (e *easyrsa) run(args ...string) {
	e.t.Helper()
	if out, err := e.try(args...); err != nil {
		e.t.Fatalf("easyrsa %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// verify asks OpenSSL whether a certificate of the tree is good for purpose now.
func verify(t *testing.T, dir, purpose, cert string, more ...string) error {
	t.Helper()
	args := append([]string{"verify", "-purpose", purpose, "-crl_check", "-CAfile", filepath.Join(dir, "ca.crt"),
		"-CRLfile", filepath.Join(dir, "crl.pem")}, more...)
	out, err := exec.Command("openssl", append(args, cert)...).CombinedOutput()
	if err != nil {
		return errors.New(string(out))
	}
	return nil
}

// opensslIndex has `openssl ca` read the whole index, and say what it knows of a serial.
func opensslIndex(t *testing.T, dir, serial string) string {
	t.Helper()
	cmd := exec.Command("openssl", "ca", "-config", "/usr/share/easy-rsa/openssl-easyrsa.cnf", "-status", serial)
	cmd.Env = append(os.Environ(), "EASYRSA_PKI="+dir, "EASYRSA_CERT_EXPIRE=1", "EASYRSA_CRL_DAYS=1", "EASYRSA_DIGEST=sha256",
		"EASYRSA_KEY_SIZE=2048", "EASYRSA_DN=cn_only", "EASYRSA_REQ_CN=x", "EASYRSA_REQ_COUNTRY=x", "EASYRSA_REQ_PROVINCE=x",
		"EASYRSA_REQ_CITY=x", "EASYRSA_REQ_ORG=x", "EASYRSA_REQ_OU=x", "EASYRSA_REQ_EMAIL=x")
	out, _ := cmd.CombinedOutput() // its exit code says nothing
	return string(out)
}

// A tree made by Debian's easy-rsa is adopted: we issue, renew and revoke on it, then easy-rsa does, then we again,
// and everybody reads what the others wrote.
func TestAdoptEasyRSA(t *testing.T) {
	for _, tc := range []struct {
		name string
		env  []string
	}{
		{"rsa", nil},
		{"ec", []string{"EASYRSA_ALGO=ec", "EASYRSA_CURVE=prime256v1"}},
		{"ec-p384", []string{"EASYRSA_ALGO=ec", "EASYRSA_CURVE=secp384r1", "EASYRSA_DIGEST=sha384"}},
		{"ed25519", []string{"EASYRSA_ALGO=ed", "EASYRSA_CURVE=ed25519"}},
		{"org names, counted serials", []string{"EASYRSA_ALGO=ec", "EASYRSA_CURVE=prime256v1", "EASYRSA_DN=org", "EASYRSA_RAND_SN=no"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "pki")
			rsa := newEasyRSA(t, dir, tc.env...)
			rsa.run("init-pki")
			rsa.run("build-ca", "nopass")
			rsa.run("build-server-full", "server", "nopass")
			rsa.run("build-client-full", "alice", "nopass")
			rsa.run("build-client-full", "bob", "nopass")
			rsa.run("revoke", "bob", "keyCompromise")

			p, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if _, err := p.Client("alice", IssueOptions{}); !errors.Is(err, ErrExists) {
				t.Errorf("issuing alice over easy-rsa's: %v, want ErrExists", err)
			}
			for _, name := range []string{"carol", "dave"} {
				if _, err := p.Client(name, IssueOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := p.Renew("alice", IssueOptions{}); err != nil {
				t.Fatal(err)
			}
			oldAlice := filepath.Join(dir, "renewed/issued/alice.crt")
			// bob was revoked by easy-rsa and never put on a list; revoking carol does it.
			revoked, err := p.Revoke("carol", "superseded", 0)
			if err != nil || len(revoked) != 1 {
				t.Fatalf("revoke carol: %v, %v", revoked, err)
			}
			crl := readCRL(t, p)
			if n := len(crl.RevokedCertificateEntries); n != 2 {
				t.Errorf("revocation list has %d entries, want bob and carol", n)
			}
			if got := crl.RevokedCertificateEntries[0].ReasonCode; got != 1 {
				t.Errorf("bob's reason is %d, want 1, key compromise", got)
			}
			for _, cert := range []string{"issued/alice.crt", "issued/dave.crt", "renewed/issued/alice.crt"} {
				if err := verify(t, dir, "sslclient", filepath.Join(dir, cert)); err != nil {
					t.Errorf("%s: %v", cert, err)
				}
			}
			if err := verify(t, dir, "sslserver", filepath.Join(dir, "issued/server.crt")); err != nil {
				t.Error(err)
			}

			// Now easy-rsa again, on what we left.
			rsa.run("build-client-full", "erin", "nopass")
			rsa.run("revoke", "dave")
			rsa.run("gen-crl")
			rsa.run("show-cert", "alice")
			rsa.run("show-expire")
			rsa.run("update-db")
			if tc.env == nil || !strings.Contains(strings.Join(tc.env, " "), "org") {
				if out, err := rsa.try("show-crl"); err != nil {
					t.Errorf("show-crl: %v\n%s", err, out)
				}
			}
			if err := verify(t, dir, "sslclient", filepath.Join(dir, "issued/erin.crt")); err != nil {
				t.Error(err)
			}
			for _, cert := range revokedFiles(t, dir) {
				if err := verify(t, dir, "sslclient", cert); err == nil || !strings.Contains(err.Error(), "certificate revoked") {
					t.Errorf("%s after easy-rsa's gen-crl: %v, want revoked", cert, err)
				}
			}

			// And we, on what easy-rsa left: alice goes with both her certificates.
			revoked, err = p.Revoke("alice", "", 0)
			if err != nil || len(revoked) != 2 {
				t.Fatalf("revoke alice: %v, %v; want two certificates", revoked, err)
			}
			if _, err := os.Stat(oldAlice); !os.IsNotExist(err) {
				t.Errorf("the renewed certificate is still there: %v", err)
			}
			if _, err := p.Revoke("alice", "", 0); !errors.Is(err, ErrRevoked) {
				t.Errorf("revoke alice again: %v, want ErrRevoked", err)
			}
			if n := len(readCRL(t, p).RevokedCertificateEntries); n != 5 {
				t.Errorf("revocation list has %d entries, want bob, carol, dave, alice, alice", n)
			}
			openssl(t, "crl", "-in", filepath.Join(dir, "crl.pem"), "-noout", "-text", "-CAfile", filepath.Join(dir, "ca.crt"))
			list, err := p.List()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				want := "=Valid (V)"
				if r.Status == Revoked {
					want = "=Revoked (R)"
				}
				if got := opensslIndex(t, dir, r.Serial); !strings.Contains(got, want) {
					t.Errorf("openssl ca -status %s (%s): %s, want %s", r.Serial, r.Name, got, want)
				}
			}
			// The name is free again, for easy-rsa too.
			rsa.run("build-client-full", "carol", "nopass")
			if _, err := p.Client("dave", IssueOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// easy-rsa works on a tree that Init made, without init-pki.
func TestEasyRSAContinuesOurs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	rsa := newEasyRSA(t, dir)
	p, err := Init(dir, InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Server("vpn.example.com", IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Client("alice", IssueOptions{Key: KeyType{RSA: 2048}}); err != nil {
		t.Fatal(err)
	}
	rsa.run("build-client-full", "bob", "nopass")
	rsa.run("revoke", "alice")
	rsa.run("gen-crl")
	rsa.run("build-client-full", "alice", "nopass")
	if out, err := rsa.try("--days=3650", "renew", "vpn.example.com", "nopass"); err == nil || !strings.Contains(out, "Renewal not allowed") {
		t.Errorf("easyrsa renew: %v, want only its own rule of 30 days in the way\n%s", err, out)
	}
	if _, err := p.Revoke("bob", "", 0); err != nil {
		t.Fatal(err)
	}
	if n := len(readCRL(t, p).RevokedCertificateEntries); n != 2 {
		t.Errorf("revocation list has %d entries, want alice and bob", n)
	}
}

// A CA key with a passphrase, in every form that OpenSSL and easy-rsa have written one.
func TestAdoptEncryptedKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	rsa := newEasyRSA(t, dir, "EASYRSA_PASSIN=pass:secret", "EASYRSA_PASSOUT=pass:secret")
	rsa.run("init-pki")
	rsa.run("build-ca")
	key := filepath.Join(dir, "private/ca.key")
	made, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(made, []byte("ENCRYPTED")) {
		t.Fatal("easy-rsa's key is not encrypted")
	}
	plain := filepath.Join(t.TempDir(), "plain")
	openssl(t, "pkey", "-in", key, "-passin", "pass:secret", "-out", plain)

	for _, tc := range []struct {
		name string
		args []string
	}{
		{"easy-rsa", nil},
		{"pkcs8 aes128 sha1", []string{"pkcs8", "-topk8", "-v2", "aes128", "-v2prf", "hmacWithSHA1", "-passout", "pass:secret", "-in", plain}},
		{"pkcs8 aes256 sha512", []string{"pkcs8", "-topk8", "-v2", "aes256", "-v2prf", "hmacWithSHA512", "-passout", "pass:secret", "-in", plain}},
		{"pkcs1 aes256", []string{"rsa", "-traditional", "-aes256", "-passout", "pass:secret", "-in", plain}},
		{"pkcs1 plain", []string{"rsa", "-traditional", "-in", plain}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.args != nil {
				openssl(t, append(tc.args, "-out", key)...)
			}
			if !strings.Contains(tc.name, "plain") {
				for _, ask := range []func() ([]byte, error){nil, func() ([]byte, error) { return []byte("wrong"), nil }} {
					p, err := Open(dir, Options{Passphrase: ask})
					if err != nil {
						t.Fatal(err)
					}
					if _, err := p.CRL(0); !errors.Is(err, ErrPassphrase) {
						t.Errorf("without the passphrase: %v, want ErrPassphrase", err)
					}
					p.Close()
				}
			}
			p, err := Open(dir, Options{Passphrase: func() ([]byte, error) { return []byte("secret"), nil }})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if _, err := p.CRL(0); err != nil {
				t.Error(err)
			}
		})
	}
}

// What Init encrypts, OpenSSL decrypts.
func TestInitEncrypted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	p, err := Init(dir, InitOptions{Encrypt: []byte("secret")})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	openssl(t, "pkey", "-in", filepath.Join(dir, "private/ca.key"), "-passin", "pass:secret", "-noout")
	if p, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Client("alice", IssueOptions{}); !errors.Is(err, ErrPassphrase) {
		t.Errorf("issue without the passphrase: %v, want ErrPassphrase", err)
	}
}

func readCRL(t *testing.T, p *PKI) *x509.RevocationList {
	t.Helper()
	crl, err := p.readCRL()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := p.CA()
	if err != nil {
		t.Fatal(err)
	}
	if err := crl.CheckSignatureFrom(ca); err != nil {
		t.Fatal(err)
	}
	return crl
}

func revokedFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "revoked/certs_by_serial/*.crt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("revoked certificates: %v, %v", files, err)
	}
	return files
}
