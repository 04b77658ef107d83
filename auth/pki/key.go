package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
)

// A KeyType says what key is made. The zero value is ECDSA on P-256, which every OpenVPN since 2.4 takes.
type KeyType struct {
	RSA int // modulus bits; 0: ECDSA P-256
}

// RSA sizes outside these are refused by servers that bound what a verification may cost.
const minRSA, maxRSA = 2048, 8192

func (k KeyType) generate() (crypto.Signer, error) {
	if k.RSA == 0 {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if k.RSA < minRSA || k.RSA > maxRSA {
		return nil, fmt.Errorf("RSA key of %d bits: must be %d to %d", k.RSA, minRSA, maxRSA)
	}
	return rsa.GenerateKey(rand.Reader, k.RSA)
}

// ErrPassphrase is inside the error for an encrypted key when no passphrase, or a wrong one, was given.
var ErrPassphrase = errors.New("no or wrong passphrase")

// parseKey reads the first private key of a PEM file: PKCS #8, PKCS #1 or SEC 1, each plain or encrypted. ask gives
// the passphrase of an encrypted one; nil: it is refused.
func parseKey(b []byte, ask func() ([]byte, error)) (crypto.Signer, error) {
	for {
		var block *pem.Block
		block, b = pem.Decode(b)
		if block == nil {
			return nil, errors.New("no private key in it")
		}
		der := block.Bytes
		encrypted := block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != ""
		if encrypted {
			var err error
			if der, err = decryptBlock(block, ask); err != nil {
				return nil, err
			}
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(der)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(der)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(der)
		default:
			continue // EC PARAMETERS stand before older EC keys
		}
		if err != nil && encrypted {
			return nil, ErrPassphrase // padding that fits by chance
		}
		if err != nil {
			return nil, err
		}
		switch k := key.(type) {
		case *rsa.PrivateKey:
			return k, nil
		case *ecdsa.PrivateKey:
			return k, nil
		case ed25519.PrivateKey:
			return k, nil
		}
		return nil, fmt.Errorf("a %T cannot sign certificates", key)
	}
}

func decryptBlock(block *pem.Block, ask func() ([]byte, error)) ([]byte, error) {
	if ask == nil {
		return nil, fmt.Errorf("it is encrypted: %w", ErrPassphrase)
	}
	pass, err := ask()
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	if block.Type == "ENCRYPTED PRIVATE KEY" {
		return decryptPKCS8(block.Bytes, pass)
	}
	// What OpenSSL wrote before PKCS #8. No integrity, as the deprecation says; the key inside is checked against the
	// certificate.
	der, err := x509.DecryptPEMBlock(block, pass) //nolint:staticcheck // old trees must stay readable
	if err != nil {
		return nil, ErrPassphrase
	}
	return der, nil
}

// encodeKey writes a key as PKCS #8, encrypted when there is a passphrase.
func encodeKey(key crypto.Signer, pass []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if len(pass) == 0 {
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
	}
	if der, err = encryptPKCS8(der, pass); err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}), nil
}

// keyID is the subject key identifier that OpenSSL and so easy-rsa compute: SHA-1 over the public key's bits.
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	}
	sum := sha1.Sum(info.Key.Bytes)
	return sum[:], nil
}

// samePublic reports whether key is the private half of pub.
func samePublic(key crypto.Signer, pub crypto.PublicKey) bool {
	k, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(pub)
}
