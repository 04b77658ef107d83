package tlsctl

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// The file formats are those of `openvpn --genkey`.
const (
	staticKeyHead = "-----BEGIN OpenVPN Static key V1-----"
	staticKeyFoot = "-----END OpenVPN Static key V1-----"

	serverKeyV2Type  = "OpenVPN tls-crypt-v2 server key"
	clientKeyV2Type  = "OpenVPN tls-crypt-v2 client key"
	authTokenKeyType = "OpenVPN auth-token server key"

	authTokenKeyLen = 128
)

// ParseStaticKey reads a static key file, of tls-auth or tls-crypt: 256 bytes, or 128 where only one key was made.
// Text before and after the key is ignored.
func ParseStaticKey(text []byte) ([]byte, error) {
	inside := false
	var digits []byte
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case !inside:
			inside = bytes.HasPrefix(line, []byte(staticKeyHead))
		case bytes.HasPrefix(line, []byte(staticKeyFoot)):
			key := make([]byte, hex.DecodedLen(len(digits)))
			if _, err := hex.Decode(key, digits); err != nil {
				return nil, fmt.Errorf("static key: %w", err)
			}
			if len(key) != 256 && len(key) != 128 {
				return nil, fmt.Errorf("static key: %d bytes, want 256", len(key))
			}
			return key, nil
		case bytes.HasPrefix(line, []byte("-")):
			return nil, errors.New("static key: the end line is missing")
		default:
			for _, c := range bytes.Fields(line) {
				digits = append(digits, c...)
			}
			if len(digits) > 2*256 {
				return nil, errors.New("static key: more than 256 bytes")
			}
		}
	}
	if !inside {
		return nil, errors.New("static key: the begin line is missing")
	}
	return nil, errors.New("static key: the end line is missing")
}

// ParseServerKeyV2 reads a tls-crypt-v2 server key file and returns what NewServerKey takes.
func ParseServerKeyV2(text []byte) ([]byte, error) {
	raw, err := parsePEM(text, serverKeyV2Type)
	if err != nil {
		return nil, err
	}
	if len(raw) != serverKeyLen {
		return nil, fmt.Errorf("%s: %d bytes, want %d", serverKeyV2Type, len(raw), serverKeyLen)
	}
	return raw, nil
}

// ParseClientKeyV2 reads a tls-crypt-v2 client key file: the client's key, and the same wrapped for the server.
func ParseClientKeyV2(text []byte) (kc, wkc []byte, err error) {
	raw, err := parsePEM(text, clientKeyV2Type)
	if err != nil {
		return nil, nil, err
	}
	if len(raw) < cryptKeyLen+wkcMin || len(raw) > cryptKeyLen+wkcMax {
		return nil, nil, fmt.Errorf("%s: %d bytes", clientKeyV2Type, len(raw))
	}
	kc, wkc = raw[:cryptKeyLen:cryptKeyLen], raw[cryptKeyLen:]
	if int(binary.BigEndian.Uint16(wkc[len(wkc)-2:])) != len(wkc) {
		return nil, nil, fmt.Errorf("%s: its inner length is wrong", clientKeyV2Type)
	}
	return kc, wkc, nil
}

func parsePEM(text []byte, name string) ([]byte, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, fmt.Errorf("%s: none found", name)
		}
		if block.Type == name {
			return block.Bytes, nil
		}
	}
}

// GenerateStaticKey makes a new key for tls-auth or tls-crypt, as the text of its file.
func GenerateStaticKey() []byte {
	var b bytes.Buffer
	b.WriteString("#\n# 2048 bit OpenVPN static key\n#\n" + staticKeyHead + "\n")
	key := randomBytes(256)
	for i := 0; i < len(key); i += 16 {
		fmt.Fprintf(&b, "%x\n", key[i:i+16])
	}
	b.WriteString(staticKeyFoot + "\n")
	return b.Bytes()
}

// GenerateServerKeyV2 makes a new tls-crypt-v2 server key, as the text of its file.
func GenerateServerKeyV2() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: serverKeyV2Type, Bytes: randomBytes(serverKeyLen)})
}

// GenerateClientKey makes a new client key wrapped under k, as the text of its file. metadata is for the operator
// to recognise the client by, at most 733 bytes; when nil the key carries now, the time of its creation, instead.
func (k *ServerKey) GenerateClientKey(metadata []byte, now time.Time) ([]byte, error) {
	var typed []byte
	if metadata == nil {
		typed = binary.BigEndian.AppendUint64([]byte{metadataStamp}, uint64(now.Unix()))
	} else {
		typed = append([]byte{metadataUser}, metadata...)
	}
	if len(typed) > metadataMax {
		return nil, fmt.Errorf("tls-crypt-v2 client key: metadata of %d bytes, at most %d fit", len(metadata), metadataMax-1)
	}
	kc := randomBytes(cryptKeyLen)
	wkc, err := k.wrapClientKey(kc, typed)
	if err != nil {
		return nil, fmt.Errorf("tls-crypt-v2 client key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: clientKeyV2Type, Bytes: append(kc, wkc...)}), nil
}

// GenerateAuthTokenKey makes a new key for signing login tokens, as the text of its file.
func GenerateAuthTokenKey() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: authTokenKeyType, Bytes: randomBytes(authTokenKeyLen)})
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
