package server

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"postern/server/config"
	"postern/tlsctl"
)

// credentials is the TLS side of a configuration: what we show, whom we believe, how packets are wrapped.
type credentials struct {
	tls     *tls.Config
	rules   *tlsctl.CertRules // without a revocation list: sessions keep their rules, the list must be of today
	crl     atomic.Pointer[tlsctl.CRL]
	crlSum  [sha256.Size]byte // of the file it came from; the keeper's once it runs
	crlSeen crlStamp          // the keeper's: the file it looked at last
	wrap    tlsctl.Wrapping
	anchors []*x509.Certificate // the CAs, which sign revocation lists
}

// loadCredentials parses the configuration's key material. Errors name the file.
func loadCredentials(cfg *config.Config) (*credentials, error) {
	cert, err := tls.X509KeyPair(slices.Concat(cfg.Cert.Bytes, []byte("\n"), cfg.ExtraCerts.Bytes), cfg.Key.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cert %s and key %s: %w", cfg.Cert.Name, cfg.Key.Name, err)
	}
	if end := cert.Leaf.NotAfter; time.Now().After(end) {
		return nil, fmt.Errorf("cert %s expired on %s: renew it", cfg.Cert.Name, end.Format(time.DateOnly)) // S070
	}
	roots := x509.NewCertPool()
	var anchors []*x509.Certificate
	for rest := cfg.CA.Bytes; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		ca, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("ca %s: %w", cfg.CA.Name, err)
		}
		roots.AddCert(ca)
		anchors = append(anchors, ca)
	}
	if len(anchors) == 0 && len(cfg.PeerFingerprints) == 0 && cfg.VerifyClientCert != config.CertNone {
		return nil, fmt.Errorf("ca %s: no certificate in it", cfg.CA.Name)
	}
	c := &credentials{anchors: anchors}
	c.rules = &tlsctl.CertRules{Mode: tlsctl.CertMode(cfg.VerifyClientCert), RemoteCertTLS: cfg.RemoteCertTLS, Name: cfg.VerifyX509Name}
	if len(anchors) > 0 {
		c.rules.Roots = roots
	}
	switch cfg.VerifyX509Type {
	case "":
	case "subject":
		c.rules.Match = tlsctl.NameSubject
	case "name":
		c.rules.Match = tlsctl.NameCommon
	case "name-prefix":
		c.rules.Match = tlsctl.NamePrefix
	default:
		return nil, fmt.Errorf("verify-x509-name type %q", cfg.VerifyX509Type)
	}
	c.rules.Wants = tlsctl.CertWants{NameField: cfg.X509NameField, KeyUsages: cfg.RemoteCertKU, ExtendedUsage: cfg.RemoteCertEKU}
	for _, h := range cfg.IssuerHashes {
		c.rules.Wants.Issuers = append(c.rules.Wants.Issuers, tlsctl.CertHash(h))
	}
	for _, f := range cfg.PeerFingerprints {
		if len(f) != len(tlsctl.Fingerprint{}) {
			return nil, fmt.Errorf("peer-fingerprint of %d bytes, want SHA-256", len(f))
		}
		c.rules.Fingerprints = append(c.rules.Fingerprints, tlsctl.Fingerprint(f))
	}
	if cfg.CRL.Set() && !cfg.CRLDir {
		crl, err := tlsctl.ParseCRL(cfg.CRL.Bytes, anchors)
		if err != nil {
			return nil, fmt.Errorf("crl-verify %s: %w", cfg.CRL.Name, err) // F23: at start with none, refuse
		}
		c.crl.Store(crl)
		c.crlSum = sha256.Sum256(cfg.CRL.Bytes)
	}
	c.tls = &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: max(cfg.TLSMin, tls.VersionTLS12), MaxVersion: cfg.TLSMax,
		CipherSuites: cfg.CipherSuites,
	}
	for _, id := range cfg.Curves {
		c.tls.CurvePreferences = append(c.tls.CurvePreferences, tls.CurveID(id))
	}
	if c.wrap, err = loadWrap(cfg); err != nil {
		return nil, err
	}
	return c, nil
}

func loadWrap(cfg *config.Config) (w tlsctl.Wrapping, err error) {
	static := func(m config.Material) ([]byte, error) {
		key, err := tlsctl.ParseStaticKey(m.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		return key, nil
	}
	if cfg.TLSAuth.Set() {
		key, err := static(cfg.TLSAuth)
		if err != nil {
			return w, fmt.Errorf("tls-auth %w", err)
		}
		if w.Auth, err = tlsctl.NewAuthKey(key, cfg.TLSAuthDirection, cfg.Auth); err != nil {
			return w, fmt.Errorf("tls-auth %s: %w", cfg.TLSAuth.Name, err)
		}
	}
	if cfg.TLSCrypt.Set() {
		key, err := static(cfg.TLSCrypt)
		if err != nil {
			return w, fmt.Errorf("tls-crypt %w", err)
		}
		if w.Crypt, err = tlsctl.NewCryptKey(key); err != nil {
			return w, fmt.Errorf("tls-crypt %s: %w", cfg.TLSCrypt.Name, err)
		}
	}
	if cfg.TLSCryptV2.Set() {
		raw, err := tlsctl.ParseServerKeyV2(cfg.TLSCryptV2.Bytes)
		if err != nil {
			return w, fmt.Errorf("tls-crypt-v2 %s: %w", cfg.TLSCryptV2.Name, err)
		}
		if w.CryptV2, err = tlsctl.NewServerKey(raw); err != nil {
			return w, fmt.Errorf("tls-crypt-v2 %s: %w", cfg.TLSCryptV2.Name, err)
		}
		w.CryptV2.ForceCookie, w.CryptV2.MaxAge = cfg.ForceCookie, cfg.TLSCryptV2MaxAge
	}
	if w.Auth != nil && w.Crypt != nil {
		return w, errors.New("tls-auth and tls-crypt exclude each other")
	}
	return w, nil
}
