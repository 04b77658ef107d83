package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func newPKI(t *testing.T) *PKI {
	t.Helper()
	p, err := Init(filepath.Join(t.TempDir(), "pki"), InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func (p *PKI) cert(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseCertificate(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Everything we issue satisfies OpenSSL in strict mode, and nothing can be used for the other side's job.
func TestIssue(t *testing.T) {
	if testing.Short() {
		t.Skip("runs openssl")
	}
	for _, tc := range []struct {
		name string
		key  KeyType
	}{{"ec", KeyType{}}, {"rsa", KeyType{RSA: 2048}}} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "pki")
			p, err := Init(dir, InitOptions{Key: tc.key})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if _, err := p.Server("vpn.example.com", IssueOptions{Key: tc.key}); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Client("a+b@example.com", IssueOptions{Key: tc.key}); err != nil {
				t.Fatal(err)
			}
			server, client := filepath.Join(dir, "issued/vpn.example.com.crt"), filepath.Join(dir, "issued/a+b@example.com.crt")
			for _, v := range []struct {
				purpose, file string
				good          bool
			}{{"sslserver", server, true}, {"sslclient", client, true}, {"sslclient", server, false}, {"sslserver", client, false}} {
				if err := verify(t, dir, v.purpose, v.file, "-x509_strict"); (err == nil) != v.good {
					t.Errorf("%s as %s: %v", v.file, v.purpose, err)
				}
			}
			c := p.cert(t, "issued/vpn.example.com.crt")
			if want := x509.KeyUsageDigitalSignature; tc.key.RSA == 0 && c.KeyUsage != want {
				t.Errorf("key usage of the server is %b, want %b", c.KeyUsage, want)
			}
			if c.Subject.CommonName != "vpn.example.com" || !slices.Equal(c.DNSNames, []string{"vpn.example.com"}) {
				t.Errorf("server is named %s, %q", c.Subject.CommonName, c.DNSNames)
			}
			if life := c.NotAfter.Sub(time.Now()).Round(day); life != DefaultCertLife {
				t.Errorf("lifetime is %v, want %v", life, DefaultCertLife)
			}
			openssl(t, "crl", "-in", filepath.Join(dir, "crl.pem"), "-CAfile", filepath.Join(dir, "ca.crt"), "-noout")
			openssl(t, "req", "-in", filepath.Join(dir, "reqs/vpn.example.com.req"), "-verify", "-noout")
			list, err := p.List()
			if err != nil || len(list) != 2 {
				t.Fatalf("list: %v, %v", list, err)
			}
			for i, kind := range []Kind{Server, Client} {
				if r := list[i]; r.Kind != kind || r.Status != Valid || !r.Current || !strings.Contains(opensslIndex(t, dir, r.Serial), "=Valid (V)") {
					t.Errorf("listed as %+v", r)
				}
			}
		})
	}
}

// S094: unique random serials of 127 bits; S108: nothing that others can read.
func TestSerialsAndModes(t *testing.T) {
	p := newPKI(t)
	seen := map[string]bool{}
	widest := new(big.Int)
	for i := range 20 {
		r, err := p.Client(fmt.Sprintf("c%d", i), IssueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n, err := parseSerial(r.Serial)
		if err != nil || n.Sign() <= 0 || n.BitLen() > 127 || seen[r.Serial] {
			t.Errorf("serial %s", r.Serial)
		}
		seen[r.Serial] = true
		widest.Or(widest, n)
	}
	if widest.BitLen() < 120 {
		t.Errorf("all serials fit in %d bits", widest.BitLen())
	}
	if _, err := p.Revoke("c1", "", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Renew("c2", IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; err == nil && fi.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", path, fi.Mode().Perm(), want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// S066 and S088: names come from an allow-list, and two that differ only in case cannot both exist.
func TestNames(t *testing.T) {
	p := newPKI(t)
	if _, err := p.Client("Alice", IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"", ".", "..", "../../etc/passwd", ".hidden", "-x", "a/b", "a b", "a\nb", "a\x00", "a\tb", "ä", "a/CN=b", `a"b`, "DEFAULT", "default", "ca",
		"CA", strings.Repeat("x", 65), "alice", "ALICE", "Alice",
	} {
		if r, err := p.Client(name, IssueOptions{}); err == nil {
			t.Errorf("%q was issued: %+v", name, r)
		}
	}
	for _, name := range []string{"a", "a.b_c@d+e-f", strings.Repeat("x", 64)} {
		if _, err := p.Client(name, IssueOptions{}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "..", "../issued/a", "a/b", ".hidden", "ca", "x\n"} {
		if _, err := p.Revoke(name, "", 0); err == nil || errors.Is(err, ErrNoCertificate) {
			t.Errorf("revoke %q: %v, want it refused as a name", name, err)
		}
		if _, err := p.Load(name); err == nil || errors.Is(err, ErrNoCertificate) {
			t.Errorf("load %q: %v, want it refused as a name", name, err)
		}
	}
	if _, err := p.Revoke("nobody", "", 0); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("revoke nobody: %v, want ErrNoCertificate", err)
	}
}

// A renewal keeps who it is and changes the key; with KeepKey it keeps the key, even where only the device has it.
// Revoking the name ends them all.
func TestRenew(t *testing.T) {
	p := newPKI(t)
	if _, err := p.Server("vpn", IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	first := p.cert(t, "issued/vpn.crt")
	if _, err := p.Renew("vpn", IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	second := p.cert(t, "issued/vpn.crt")
	if !bytes.Equal(first.RawSubject, second.RawSubject) || !slices.Equal(first.DNSNames, second.DNSNames) || kindOf(second) != Server {
		t.Errorf("renewed %v %q %v", second.Subject, second.DNSNames, kindOf(second))
	}
	if first.PublicKey.(*ecdsa.PublicKey).Equal(second.PublicKey) {
		t.Error("renewed with the old key")
	}
	if b, err := p.Load("vpn"); err != nil {
		t.Error(err)
	} else if key, err := parseKey(b.Key, nil); err != nil || !samePublic(key, second.PublicKey) {
		t.Errorf("private/vpn.key does not belong to the new certificate: %v", err)
	}
	if old := p.cert(t, "renewed/issued/vpn.crt"); !old.Equal(first) {
		t.Error("renewed/ does not hold the old certificate")
	}

	if err := os.Remove(filepath.Join(p.dir, "private/vpn.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Load("vpn"); !errors.Is(err, ErrNoKey) {
		t.Errorf("load without the key: %v, want ErrNoKey", err)
	}
	if _, err := p.Renew("vpn", IssueOptions{KeepKey: true}); err != nil {
		t.Fatal(err)
	}
	if third := p.cert(t, "issued/vpn.crt"); !second.PublicKey.(*ecdsa.PublicKey).Equal(third.PublicKey) {
		t.Error("KeepKey changed the key")
	}
	revoked, err := p.Revoke("vpn", "", 0)
	if err != nil || len(revoked) != 3 {
		t.Fatalf("revoked %v, %v; want three certificates", revoked, err)
	}
	if n := len(readCRL(t, p).RevokedCertificateEntries); n != 3 {
		t.Errorf("revocation list has %d entries, want 3", n)
	}
	if _, err := p.Renew("vpn", IssueOptions{}); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("renew what is revoked: %v, want ErrNoCertificate", err)
	}
}

// Two machines with one common name in an adopted tree: revoking one leaves the other.
func TestRevokeSharedCommonName(t *testing.T) {
	p := newPKI(t)
	if _, err := p.Client("shared", IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"issued/shared.crt", "private/shared.key", "reqs/shared.req"} {
		if err := os.Rename(filepath.Join(p.dir, f), filepath.Join(p.dir, strings.Replace(f, "shared", "laptop", 1))); err != nil {
			t.Fatal(err)
		}
	}
	// Only easy-rsa issues a second one; take the index as it would be.
	if _, err := p.Client("desktop", IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(p.dir, "index.txt")
	b, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(index, bytes.Replace(b, []byte("/CN=desktop"), []byte("/CN=shared"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if revoked, err := p.Revoke("laptop", "", 0); err != nil || len(revoked) != 1 {
		t.Fatalf("revoke laptop: %v, %v", revoked, err)
	}
	if _, err := p.Load("desktop"); err != nil {
		t.Errorf("desktop went with laptop: %v", err)
	}
}

func TestLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := Init(filepath.Join(t.TempDir(), "pki"), InitOptions{Life: 100 * day})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		r, err := p.Client("alice", IssueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if ca, _ := p.CA(); !r.NotAfter.Equal(ca.NotAfter) {
			t.Errorf("alice outlives the authority: %v", r.NotAfter)
		}
		if _, err := p.Client("bob", IssueOptions{Life: 10 * day}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Client("carol", IssueOptions{Life: -day}); err == nil {
			t.Error("a negative lifetime was taken")
		}
		time.Sleep(11 * day)
		list, err := p.List()
		if err != nil || list[0].Status != Valid || list[1].Status != Expired {
			t.Errorf("after eleven days: %+v, %v", list, err)
		}
		if _, err := p.Load("bob"); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("load bob: %v, want expired", err)
		}
		if _, err := p.Renew("bob", IssueOptions{Life: 5 * day}); err != nil {
			t.Errorf("renew what expired: %v", err)
		}
		next, err := p.CRL(0)
		if err != nil || next.Sub(time.Now()).Round(time.Minute) != DefaultCRLLife {
			t.Errorf("revocation list until %v, %v", next, err)
		}
		first := readCRL(t, p).Number
		if _, err := p.CRL(0); err != nil {
			t.Fatal(err)
		}
		if second := readCRL(t, p).Number; second.Cmp(first) <= 0 {
			t.Errorf("revocation list %v follows %v", second, first)
		}
		time.Sleep(100 * day)
		if _, err := p.Client("dave", IssueOptions{}); err == nil || !strings.Contains(err.Error(), "authority's certificate expired") {
			t.Errorf("issue by an expired authority: %v", err)
		}
	})
}

func TestInitRefusesToReplace(t *testing.T) {
	p := newPKI(t)
	before, err := os.ReadFile(filepath.Join(p.dir, "private/ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(p.dir, InitOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("Init over an authority: %v, want ErrExists", err)
	}
	if after, _ := os.ReadFile(filepath.Join(p.dir, "private/ca.key")); !bytes.Equal(before, after) {
		t.Error("Init replaced the CA key")
	}
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if _, err := Open(dir, Options{}); !errors.Is(err, ErrNoCA) {
			t.Errorf("Open %s: %v, want ErrNoCA", dir, err)
		}
	}
}

// S108: a CA key that others can read is not used, and one that is not there says so.
func TestCAKeyFile(t *testing.T) {
	dir := newPKI(t).dir
	key := filepath.Join(dir, "private/ca.key")
	try := func() error {
		p, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		_, err = p.CRL(0)
		return err
	}
	for _, mode := range []fs.FileMode{0o644, 0o660, 0o602} {
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		if err := try(); err == nil || !strings.Contains(err.Error(), "chmod") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	// On a stick, behind a link, as easy-rsa allows.
	away := filepath.Join(t.TempDir(), "ca.key")
	if err := errors.Join(os.Rename(key, away), os.Symlink(away, key)); err != nil {
		t.Fatal(err)
	}
	if err := try(); err != nil {
		t.Errorf("behind a link: %v", err)
	}
	if err := os.Remove(away); err != nil {
		t.Fatal(err)
	}
	if err := try(); !errors.Is(err, ErrNoKey) {
		t.Errorf("taken away: %v, want ErrNoKey", err)
	}
	other := newPKI(t)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(other.dir, "private/ca.key"), key); err != nil {
		t.Fatal(err)
	}
	if err := try(); err == nil || !strings.Contains(err.Error(), "not the key of ca.crt") {
		t.Errorf("another authority's key: %v", err)
	}
}

// The server that reads crl.pem may have dropped to a user of its own: mode and owner stay, and a link is not quietly
// replaced, which would leave the server with the old list.
func TestCRLFileKeepsMode(t *testing.T) {
	p := newPKI(t)
	crl := filepath.Join(p.dir, "crl.pem")
	if err := os.Chmod(crl, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := p.CRL(0); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(crl); err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("mode of crl.pem: %v, %v", fi.Mode(), err)
	}
	away := filepath.Join(t.TempDir(), "crl.pem")
	if err := errors.Join(os.Rename(crl, away), os.Symlink(away, crl)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.CRL(0); err == nil {
		t.Error("the link to the revocation list was replaced")
	}
}

// Several processes at once: every answer holds, nobody's line is lost.
func TestConcurrentIssue(t *testing.T) {
	dir := newPKI(t).dir
	const workers, each = 4, 6
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[string]int{}
	for w := range workers {
		wg.Go(func() {
			p, err := Open(dir, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer p.Close()
			for i := range each {
				for _, name := range []string{fmt.Sprintf("w%d-%d", w, i), fmt.Sprintf("all-%d", i)} {
					_, err := p.Client(name, IssueOptions{})
					if err != nil && !errors.Is(err, ErrExists) {
						t.Errorf("%s: %v", name, err)
					}
					if err == nil {
						mu.Lock()
						won[name]++
						mu.Unlock()
					}
				}
				if _, err := p.Revoke(fmt.Sprintf("w%d-%d", w, i), "", 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	p, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	list, err := p.List()
	if err != nil || len(list) != len(won) || len(won) != workers*each+each {
		t.Fatalf("%d certificates for %d answers, %v", len(list), len(won), err)
	}
	for _, r := range list {
		if won[r.Name] != 1 {
			t.Errorf("%s was issued %d times", r.Name, won[r.Name])
		}
	}
	if n := len(readCRL(t, p).RevokedCertificateEntries); n != workers*each {
		t.Errorf("revocation list has %d entries, want %d", n, workers*each)
	}
}
