package config

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

func setAskpass(d *draft, l *directive) error {
	if l.arg(0) == "" || l.arg(0) == "stdin" {
		return errors.New("nobody is there to type the password: write it into a file of mode 0600, and name that")
	}
	return setMaterial(d, l)
}

// readAskpass reads the password of the private key.
func (d *draft) readAskpass() {
	l := d.material["askpass"]
	if l == nil {
		return
	}
	path := d.locate(l, l.args[0])
	b, info, err := d.files.ReadFile(path, 4096, true)
	if err != nil {
		d.refuse(l, "%s cannot be read: %s", path, reason(err))
		return
	}
	if !d.checkSecret(l, path, info) {
		return
	}
	password, _, _ := bytes.Cut(b, []byte("\n"))
	d.keyPassword = append([]byte{}, bytes.TrimSuffix(password, []byte("\r"))...)
}

// openKey decrypts a private key, if it is encrypted.
func (d *draft) openKey(key *Material) error {
	for block, rest := pem.Decode(key.Bytes); block != nil; block, rest = pem.Decode(rest) {
		//lint:ignore SA1019 people have such keys, and the file is as private as its password's
		legacy := x509.IsEncryptedPEMBlock(block)
		if !legacy && block.Type != "ENCRYPTED PRIVATE KEY" {
			continue
		}
		if d.keyPassword == nil {
			return errors.New("the key is encrypted, and nobody is there to ask: name a file with the password with `askpass FILE`, or decrypt the key with openssl pkey, and let only root read it")
		}
		plain := &pem.Block{Type: "PRIVATE KEY"}
		var err error
		if legacy {
			plain.Type = block.Type
			plain.Bytes, err = x509.DecryptPEMBlock(block, d.keyPassword)
		} else {
			plain.Bytes, err = decryptPKCS8(block.Bytes, d.keyPassword)
		}
		if err != nil {
			return fmt.Errorf("the key cannot be decrypted with the password of askpass: %w", err)
		}
		key.Bytes = pem.EncodeToMemory(plain)
		return nil
	}
	return nil
}

// readPKCS12 takes certificate, key and CA out of one file.
func (d *draft) readPKCS12() {
	l, c := d.material["pkcs12"], d.cfg
	if l == nil || l.entry.Verdict == Refused {
		return
	}
	var m Material
	d.readInto(l, &m, func(*draft, *directive, []byte) error { return nil })
	if l.entry.Verdict == Refused {
		return
	}
	if l.isBlock {
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(m.Bytes)), ""))
		if err != nil {
			d.refuse(l, "the block is not base64: %v", err)
			return
		}
		m.Bytes = b
	}
	key, cert, others, err := pkcs12.DecodeChain(m.Bytes, string(d.keyPassword))
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && d.keyPassword == nil:
		d.refuse(l, "it has a password: name a file with it with `askpass FILE`")
		return
	case err != nil:
		d.refuse(l, "cannot be read: %v", err)
		return
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		d.refuse(l, "its key cannot be used: %v", err)
		return
	}
	var chain []byte
	for _, o := range others {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Raw})...)
	}
	c.Key = Material{Name: m.Name, Bytes: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
	c.Cert = Material{Name: m.Name, Bytes: slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), chain)}
	if err := checkCertificates(d, l, c.Cert.Bytes); err != nil {
		d.refuse(l, "%v", err)
	}
	if !c.CA.Set() && len(others) > 0 {
		c.CA = Material{Name: m.Name, Bytes: chain}
	}
	if !c.CA.Set() && !d.has("ca") && !d.has("peer-fingerprint") && c.VerifyClientCert != CertNone {
		d.refuse(l, "there is no certificate of a CA in it: add `ca FILE`")
	}
}

// What an encrypted PKCS #8 key is made of (RFC 5958, RFC 8018: PBES2 with PBKDF2).
type (
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbes2Params struct{ Derivation, Cipher pkix.AlgorithmIdentifier }
	pbkdf2Parms struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		Digest     pkix.AlgorithmIdentifier `asn1:"optional"`
	}
)

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
)

var pbkdf2Digests = map[string]func() hash.Hash{
	"": sha1.New, "1.2.840.113549.2.7": sha1.New, "1.2.840.113549.2.9": sha256.New, "1.2.840.113549.2.11": sha512.New,
}

var pbes2Ciphers = map[string]struct {
	key  int
	open func([]byte) (cipher.Block, error)
}{
	"2.16.840.1.101.3.4.1.2": {16, aes.NewCipher}, "2.16.840.1.101.3.4.1.22": {24, aes.NewCipher}, "2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
	"1.2.840.113549.3.7": {24, des.NewTripleDESCipher},
}

// maxIterations bounds the work that a key file can ask for.
const maxIterations = 10_000_000

// decryptPKCS8 decrypts a key as openssl encrypts it.
func decryptPKCS8(der, password []byte) ([]byte, error) {
	var key encryptedKey
	if rest, err := asn1.Unmarshal(der, &key); err != nil || len(rest) > 0 {
		return nil, errors.New("it is not an encrypted PKCS #8 key")
	}
	convert := errors.New("it is encrypted in a way that is not known here: write it anew with openssl pkcs8 -topk8")
	if !key.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, convert
	}
	var scheme pbes2Params
	if _, err := asn1.Unmarshal(key.Algorithm.Parameters.FullBytes, &scheme); err != nil || !scheme.Derivation.Algorithm.Equal(oidPBKDF2) {
		return nil, convert
	}
	var derive pbkdf2Parms
	if _, err := asn1.Unmarshal(scheme.Derivation.Parameters.FullBytes, &derive); err != nil {
		return nil, convert
	}
	digest := pbkdf2Digests[derive.Digest.Algorithm.String()]
	kind, known := pbes2Ciphers[scheme.Cipher.Algorithm.String()]
	var iv []byte
	if _, err := asn1.Unmarshal(scheme.Cipher.Parameters.FullBytes, &iv); err != nil || digest == nil || !known ||
		derive.Iterations < 1 || derive.Iterations > maxIterations {
		return nil, convert
	}
	secret, err := pbkdf2.Key(digest, string(password), derive.Salt, derive.Iterations, kind.key)
	if err != nil {
		return nil, err
	}
	block, err := kind.open(secret)
	if err != nil {
		return nil, err
	}
	size := block.BlockSize()
	if len(iv) != size || len(key.Data) == 0 || len(key.Data)%size != 0 {
		return nil, convert
	}
	plain := make([]byte, len(key.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, key.Data)
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > size || !bytes.Equal(plain[len(plain)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errors.New("wrong password")
	}
	plain = plain[:len(plain)-pad]
	if _, err := x509.ParsePKCS8PrivateKey(plain); err != nil {
		return nil, errors.New("wrong password")
	}
	return plain, nil
}
