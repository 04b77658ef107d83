package profile

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// A block is <tag>, text, </tag>, after the line before.
type block struct {
	before, tag string
	text        []byte
}

// blocks decodes all key material and encodes it anew.
func (p *Profile) blocks() ([]block, error) {
	ca, err := certificates(p.CA)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	all := []block{{tag: "ca", text: ca}}
	if len(p.Cert) > 0 || len(p.Key) > 0 {
		cert, err := certificates(p.Cert)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		key, err := privateKey(p.Key, cert)
		if err != nil {
			return nil, fmt.Errorf("private key: %w", err)
		}
		all = append(all, block{tag: "cert", text: cert}, block{tag: "key", text: key})
	} else if !p.Login {
		return nil, errors.New("neither a certificate nor a login: nobody could connect with it")
	}
	wrap := block{}
	switch p.Wrap {
	case NoWrap:
		if len(p.WrapKey) > 0 {
			return nil, errors.New("a key for the control channel, and nothing to use it for")
		}
		return all, nil
	case TLSAuth:
		wrap.tag, wrap.before = "tls-auth", "key-direction 1"
	case TLSAuth0:
		wrap.tag, wrap.before = "tls-auth", "key-direction 0"
	case TLSAuthAny:
		wrap.tag = "tls-auth"
	case TLSCrypt:
		wrap.tag = "tls-crypt"
	case TLSCryptV2:
		wrap.tag = "tls-crypt-v2"
		wrap.text, err = clientKeyV2(p.WrapKey)
	default:
		return nil, fmt.Errorf("unknown wrap %d", p.Wrap)
	}
	if p.Wrap != TLSCryptV2 {
		wrap.text, err = staticKey(p.WrapKey)
	}
	if err != nil {
		return nil, fmt.Errorf("%s key: %w", wrap.tag, err)
	}
	return append(all, wrap), nil
}

func certificates(b []byte) ([]byte, error) {
	var out bytes.Buffer
	for {
		var blk *pem.Block
		if blk, b = pem.Decode(b); blk == nil {
			break
		}
		if blk.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%q among the certificates", blk.Type)
		}
		if _, err := x509.ParseCertificate(blk.Bytes); err != nil {
			return nil, err
		}
		pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: blk.Bytes})
	}
	if out.Len() == 0 {
		return nil, errors.New("none found")
	}
	return out.Bytes(), nil
}

var keyTypes = []string{"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"}

// privateKey takes the first private key, which must belong to the first of certs unless it is encrypted.
func privateKey(b, certs []byte) ([]byte, error) {
	for {
		var blk *pem.Block
		if blk, b = pem.Decode(b); blk == nil {
			return nil, errors.New("none found")
		}
		if blk.Type == "EC PARAMETERS" { // stands before older EC keys and is in the key as well
			continue
		}
		if !slices.Contains(keyTypes, blk.Type) {
			return nil, fmt.Errorf("%q is not a private key", blk.Type)
		}
		clean := &pem.Block{Type: blk.Type, Bytes: blk.Bytes}
		if len(blk.Headers) == 0 && blk.Type != "ENCRYPTED PRIVATE KEY" {
			text := pem.EncodeToMemory(clean)
			if _, err := tls.X509KeyPair(certs, text); err != nil {
				return nil, err
			}
			return text, nil
		}
		if blk.Type != "ENCRYPTED PRIVATE KEY" {
			info := blk.Headers["DEK-Info"]
			if len(blk.Headers) != 2 || blk.Headers["Proc-Type"] != "4,ENCRYPTED" || !isDEKInfo(info) {
				return nil, errors.New("unknown headers")
			}
			clean.Headers = map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": info}
		}
		return pem.EncodeToMemory(clean), nil
	}
}

// isDEKInfo recognises "AES-256-CBC,00112233...".
func isDEKInfo(s string) bool {
	cipher, iv, ok := bytes.Cut([]byte(s), []byte(","))
	_, err := hex.DecodeString(string(iv))
	return ok && err == nil && isAlgorithm(string(cipher))
}

const (
	staticHead = "-----BEGIN OpenVPN Static key V1-----"
	staticFoot = "-----END OpenVPN Static key V1-----"
)

// staticKey takes the hexadecimal digits of a static key and nothing else.
func staticKey(b []byte) ([]byte, error) {
	_, rest, ok := bytes.Cut(b, []byte(staticHead))
	body, _, ok2 := bytes.Cut(rest, []byte(staticFoot))
	if !ok || !ok2 {
		return nil, errors.New("no OpenVPN static key in it")
	}
	key, err := hex.DecodeString(string(bytes.Join(bytes.Fields(body), nil)))
	if err != nil {
		return nil, err
	}
	if len(key) != 256 {
		return nil, fmt.Errorf("%d bytes, want 256", len(key))
	}
	var out bytes.Buffer
	fmt.Fprintln(&out, staticHead)
	for line := range slices.Chunk(key, 16) {
		fmt.Fprintf(&out, "%x\n", line)
	}
	fmt.Fprintln(&out, staticFoot)
	return out.Bytes(), nil
}

const clientKeyV2Type = "OpenVPN tls-crypt-v2 client key"

func clientKeyV2(b []byte) ([]byte, error) {
	blk, _ := pem.Decode(b)
	if blk == nil || blk.Type != clientKeyV2Type {
		return nil, errors.New("no tls-crypt-v2 client key in it")
	}
	// The key and the same wrapped for the server, with metadata or without.
	if n := len(blk.Bytes); n < 256+290 || n > 256+1024 {
		return nil, fmt.Errorf("%d bytes, want 546 to 1280", n)
	}
	return pem.EncodeToMemory(&pem.Block{Type: clientKeyV2Type, Bytes: blk.Bytes}), nil
}
