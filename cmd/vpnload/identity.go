package main

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"

	"postern/tlsctl"
)

// An identity is who a session is.
type identity struct {
	number         int
	stream         bool
	tls            *tls.Config
	user, password string
	peerInfo       string
	wrap           func() *tlsctl.ClientWrap // a new one for each connection
}

// identities makes those of all sessions.
func identities(o *options) ([]*identity, error) {
	certs, logins, err := certificates(o)
	if err != nil {
		return nil, err
	}
	wraps, err := wraps(o)
	if err != nil {
		return nil, err
	}
	base := tls.Config{
		// A load generator sends nothing that is worth keeping from the wrong server, and must not pay for knowing.
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS12, MaxVersion: o.tlsMax,
		// As OpenSSL 3.0, with which most clients come.
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256},
		// One write is one record, as OpenSSL has it.
		DynamicRecordSizingDisabled: true,
	}
	list := make([]*identity, o.sessions)
	for i := range list {
		id := &identity{number: i, wrap: wraps[i%len(wraps)], peerInfo: peerInfo(o.ciphers[i%len(o.ciphers)])}
		switch {
		case o.proto == "tcp", o.proto == "mixed" && i%2 == 1:
			id.stream = true
		}
		id.tls = base.Clone()
		if len(certs) > 0 {
			id.tls.Certificates = []tls.Certificate{certs[i%len(certs)]}
		}
		switch {
		case len(logins) > 0 && logins[i%len(logins)][0] != "":
			id.user, id.password = logins[i%len(logins)][0], logins[i%len(logins)][1]
		case o.user != "":
			id.user, id.password = numbered(o.user, i), numbered(o.password, i)
		}
		list[i] = id
	}
	return list, nil
}

// numbered puts the session's number in the place of %d.
func numbered(s string, n int) string { return strings.ReplaceAll(s, "%d", fmt.Sprint(n)) }

// peerInfo is tlsctl's with other ciphers; "epoch" among them announces the epoch data format.
func peerInfo(ciphers string) string {
	proto := 990
	var names []string
	for name := range strings.SplitSeq(ciphers, ":") {
		if name == "epoch" {
			proto |= tlsctl.FeatureEpoch
			continue
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		names = []string{"AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"}
	}
	return fmt.Sprintf("IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\nIV_CIPHERS=%s\nIV_PROTO=%d\n", strings.Join(names, ":"), proto)
}

// certificates reads the sessions' certificates, or issues them.
func certificates(o *options) (certs []tls.Certificate, logins [][2]string, err error) {
	switch {
	case o.list != "":
		return readList(o.list)
	case o.caKey != "":
		certs, err = issue(o)
		return certs, nil, err
	case o.cert != "":
		c, err := tls.LoadX509KeyPair(o.cert, o.key)
		return []tls.Certificate{c}, nil, err
	}
	return nil, nil, nil
}

// readList reads a file of lines "certificate key [user password]".
func readList(name string) (certs []tls.Certificate, logins [][2]string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		if len(fields) != 2 && len(fields) != 4 {
			return nil, nil, fmt.Errorf("%s:%d: want: certificate key [user password]", name, n)
		}
		c, err := tls.LoadX509KeyPair(fields[0], fields[1])
		if err != nil {
			return nil, nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		var login [2]string
		copy(login[:], fields[2:])
		certs, logins = append(certs, c), append(logins, login)
	}
	if err := lines.Err(); err != nil {
		return nil, nil, err
	}
	if len(certs) == 0 {
		return nil, nil, fmt.Errorf("%s: nobody in it", name)
	}
	return certs, logins, nil
}

// issue makes a certificate for each session, all on one key: it is the server that is measured.
func issue(o *options) ([]tls.Certificate, error) {
	ca, err := readCertificate(o.ca)
	if err != nil {
		return nil, fmt.Errorf("-ca: %w", err)
	}
	signer, err := readKey(o.caKey)
	if err != nil {
		return nil, fmt.Errorf("-ca-key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certs := make([]tls.Certificate, o.sessions)
	for i := range certs {
		serial := make([]byte, 16)
		rand.Read(serial)
		serial[0] &= 0x7f
		template := &x509.Certificate{
			SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: numbered(o.name, i)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), signer)
		if err != nil {
			return nil, fmt.Errorf("issue: %w", err)
		}
		certs[i] = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	return certs, nil
}

func readCertificate(name string) (*x509.Certificate, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, fmt.Errorf("%s: no certificate in it", name)
}

func readKey(name string) (crypto.Signer, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if s, ok := key.(crypto.Signer); ok {
				return s, nil
			}
		}
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%s: no unencrypted private key in it", name)
}

// wraps are the ways that sessions take turns to wrap their control channels in.
func wraps(o *options) (all []func() *tlsctl.ClientWrap, err error) {
	if o.tlsAuth != "" {
		file, direction, _ := strings.Cut(o.tlsAuth, ":")
		key, err := staticKey(file)
		if err != nil {
			return nil, fmt.Errorf("-tls-auth: %w", err)
		}
		dir := -1
		switch direction { // the client's; the wrap wants the server's
		case "0":
			dir = 1
		case "1":
			dir = 0
		case "":
		default:
			return nil, errors.New("-tls-auth: the direction is 0 or 1")
		}
		digest := o.digest
		if digest == "" {
			digest = "SHA1"
		}
		k, err := tlsctl.NewAuthKey(key, dir, digest)
		if err != nil {
			return nil, fmt.Errorf("-tls-auth: %w", err)
		}
		all = append(all, func() *tlsctl.ClientWrap { return tlsctl.NewClientWrap(tlsctl.Wrapping{Auth: k}, time.Now()) })
	}
	if o.tlsCrypt != "" {
		key, err := staticKey(o.tlsCrypt)
		if err != nil {
			return nil, fmt.Errorf("-tls-crypt: %w", err)
		}
		k, err := tlsctl.NewCryptKey(key)
		if err != nil {
			return nil, fmt.Errorf("-tls-crypt: %w", err)
		}
		all = append(all, func() *tlsctl.ClientWrap { return tlsctl.NewClientWrap(tlsctl.Wrapping{Crypt: k}, time.Now()) })
	}
	if o.tlsCryptV2 != "" {
		text, err := os.ReadFile(o.tlsCryptV2)
		if err != nil {
			return nil, fmt.Errorf("-tls-crypt-v2: %w", err)
		}
		kc, wkc, err := tlsctl.ParseClientKeyV2(text)
		if err != nil {
			return nil, fmt.Errorf("-tls-crypt-v2: %w", err)
		}
		if _, err := tlsctl.NewClientWrapV2(kc, wkc, true, time.Now()); err != nil {
			return nil, fmt.Errorf("-tls-crypt-v2: %w", err)
		}
		all = append(all, func() *tlsctl.ClientWrap {
			w, _ := tlsctl.NewClientWrapV2(kc, wkc, true, time.Now()) // the same has just worked
			return w
		})
	}
	if len(all) == 0 {
		all = append(all, func() *tlsctl.ClientWrap { return nil })
	}
	return all, nil
}

func staticKey(name string) ([]byte, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return tlsctl.ParseStaticKey(text)
}
