package pki

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// Encrypted PKCS #8 keys (RFC 8018): PBES2 with PBKDF2 and AES-CBC, which is what OpenSSL writes when told to, or
// triple DES, which is what easy-rsa 3.1 ends up with: its build-ca goes through `openssl req`, and that has a default of
// its own.
//
//	SEQUENCE {
//	  SEQUENCE { pbes2, SEQUENCE {
//	    SEQUENCE { pbkdf2, SEQUENCE { salt, iterations, [keyLength], [SEQUENCE { hmacWithSHA256, NULL }] } }
//	    SEQUENCE { aes256-CBC, iv } } }
//	  OCTET STRING ciphertext }
type encryptedKey struct {
	Algorithm struct {
		ID     asn1.ObjectIdentifier
		Params struct {
			KDF    pkix.AlgorithmIdentifier
			Cipher pkix.AlgorithmIdentifier
		}
	}
	Data []byte
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidHMACSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidHMACSHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}
	oidDES3CBC    = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
	oidAES128CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES192CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// ourIterations is what PBKDF2 with SHA-256 should have today; maxIterations keeps a strange file from taking minutes.
const ourIterations, maxIterations = 600_000, 4_000_000

func decryptPKCS8(der, pass []byte) ([]byte, error) {
	var k encryptedKey
	if rest, err := asn1.Unmarshal(der, &k); err != nil || len(rest) != 0 || !k.Algorithm.ID.Equal(oidPBES2) {
		return nil, errors.New("its encryption is not PBES2; convert it with: openssl pkcs8 -topk8 -v2 aes256")
	}
	block, err := k.cipher(pass)
	if err != nil {
		return nil, err
	}
	var iv []byte
	if _, err := asn1.Unmarshal(k.Algorithm.Params.Cipher.Parameters.FullBytes, &iv); err != nil || len(iv) != block.BlockSize() {
		return nil, errors.New("malformed encryption parameters")
	}
	if len(k.Data) == 0 || len(k.Data)%block.BlockSize() != 0 {
		return nil, errors.New("encrypted data is cut short")
	}
	plain := make([]byte, len(k.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, k.Data)
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > block.BlockSize() {
		return nil, ErrPassphrase
	}
	for _, b := range plain[len(plain)-pad:] {
		if int(b) != pad {
			return nil, ErrPassphrase
		}
	}
	return plain[:len(plain)-pad], nil
}

// cipher is the block cipher under the key that pass yields.
func (k *encryptedKey) cipher(pass []byte) (cipher.Block, error) {
	params := k.Algorithm.Params
	if !params.KDF.Algorithm.Equal(oidPBKDF2) {
		return nil, errors.New("its key derivation is not PBKDF2; convert it with: openssl pkcs8 -topk8 -v2 aes256")
	}
	var kdf pbkdf2Params
	if rest, err := asn1.Unmarshal(params.KDF.Parameters.FullBytes, &kdf); err != nil || len(rest) != 0 {
		return nil, errors.New("malformed encryption parameters")
	}
	if kdf.Iterations < 1 || kdf.Iterations > maxIterations {
		return nil, fmt.Errorf("%d iterations of PBKDF2", kdf.Iterations)
	}
	var prf func() hash.Hash
	switch id := kdf.PRF.Algorithm; {
	case id == nil || id.Equal(oidHMACSHA1):
		prf = sha1.New
	case id.Equal(oidHMACSHA256):
		prf = sha256.New
	case id.Equal(oidHMACSHA512):
		prf = sha512.New
	default:
		return nil, fmt.Errorf("PBKDF2 with unknown digest %s", id)
	}
	size, newCipher := 0, aes.NewCipher
	switch id := params.Cipher.Algorithm; {
	case id.Equal(oidAES128CBC):
		size = 16
	case id.Equal(oidAES192CBC):
		size = 24
	case id.Equal(oidAES256CBC):
		size = 32
	case id.Equal(oidDES3CBC):
		size, newCipher = 24, des.NewTripleDESCipher
	default:
		return nil, fmt.Errorf("its cipher %s is neither AES-CBC nor triple DES; convert it with: openssl pkcs8 -topk8 -v2 aes256", id)
	}
	key, err := pbkdf2.Key(prf, string(pass), kdf.Salt, kdf.Iterations, size)
	if err != nil {
		return nil, err
	}
	return newCipher(key)
}

func encryptPKCS8(der, pass []byte) ([]byte, error) {
	random := make([]byte, 16+aes.BlockSize)
	rand.Read(random)
	salt, iv := random[:16], random[16:]
	null := asn1.RawValue{FullBytes: []byte{5, 0}}
	kdf, err := asn1.Marshal(struct {
		Salt       []byte
		Iterations int
		PRF        pkix.AlgorithmIdentifier
	}{salt, ourIterations, pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256, Parameters: null}})
	if err != nil {
		return nil, err
	}
	ivDER, err := asn1.Marshal(iv)
	if err != nil {
		return nil, err
	}
	var k encryptedKey
	k.Algorithm.ID = oidPBES2
	k.Algorithm.Params.KDF = pkix.AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: asn1.RawValue{FullBytes: kdf}}
	k.Algorithm.Params.Cipher = pkix.AlgorithmIdentifier{Algorithm: oidAES256CBC, Parameters: asn1.RawValue{FullBytes: ivDER}}
	block, err := k.cipher(pass)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(der)%aes.BlockSize
	plain := append([]byte(nil), der...)
	for range pad {
		plain = append(plain, byte(pad))
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(plain, plain)
	k.Data = plain
	return asn1.Marshal(k)
}
