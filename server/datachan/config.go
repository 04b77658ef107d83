package datachan

import (
	"errors"
	"fmt"
	"strings"
)

// A Config is what both ends have agreed on for a key, but for the secrets.
type Config struct {
	ID   KeyID
	Peer PeerID
	// V2 seals as P_DATA_V2 for Peer, otherwise as P_DATA_V1. Both are opened, unless the format has its reasons: the
	// epoch format is V2 only, and a CBC key without V2 is V1 only.
	V2 bool
	// Cipher is AES-128-GCM, AES-192-GCM, AES-256-GCM, CHACHA20-POLY1305, AES-128-CBC, AES-192-CBC or AES-256-CBC,
	// in any case.
	Cipher string
	// Digest authenticates a CBC cipher: SHA1, SHA224, SHA256, SHA384 or SHA512, in any case. The other ciphers
	// need none and ignore it.
	Digest string
	// Epoch selects the epoch format, for a client that was pushed "protocol-flags aead-epoch". It needs V2 and
	// one of the ciphers without digest.
	Epoch bool
	// Framing is around every payload.
	Framing Framing
	// Window is how many ids the replay window looks back: 0 is DefaultWindow, Sequential none.
	Window int
}

// NewKey makes the server's end of a data key. toClient and fromClient are one direction each of the negotiated
// key block, a cipher and an HMAC slot of 64 bytes; nothing of them is kept, the caller should clear them.
//
// The client's end is the same with toClient and fromClient exchanged.
func (c Config) NewKey(toClient, fromClient []byte) (*Key, error) {
	k, err := c.newKey(toClient, fromClient)
	if err != nil {
		return nil, fmt.Errorf("data key: %w", err)
	}
	return k, nil
}

func (c Config) newKey(toClient, fromClient []byte) (*Key, error) {
	if len(toClient) != directionLen || len(fromClient) != directionLen {
		return nil, fmt.Errorf("%d and %d bytes of key material, want %d each",
			len(toClient), len(fromClient), directionLen)
	}
	if c.ID > 7 || c.Peer > NoPeer {
		return nil, fmt.Errorf("key id %d or peer id %d out of range", c.ID, c.Peer)
	}
	if c.Framing > StubV2 {
		return nil, fmt.Errorf("unknown framing %d", c.Framing)
	}
	if keyLen(strings.ToUpper(c.Cipher)) == 0 {
		return nil, fmt.Errorf("unknown data cipher %q", c.Cipher)
	}
	c.Cipher = strings.ToUpper(c.Cipher)
	f, err := c.newFormat(toClient, fromClient)
	if err != nil {
		return nil, err
	}
	return &Key{
		id:      c.ID,
		format:  f,
		framing: c.Framing,
		print:   newFingerprint(toClient, fromClient),
	}, nil
}

func (c *Config) newFormat(toClient, fromClient []byte) (format, error) {
	head := Header{Op: OpDataV1, Key: c.ID, Peer: NoPeer, Len: headerLenV1}
	if c.V2 {
		head = Header{Op: OpDataV2, Key: c.ID, Peer: c.Peer, Len: headerLenV2}
	}
	switch isCBC := strings.HasSuffix(c.Cipher, "-CBC"); {
	case c.Epoch && isCBC:
		return nil, fmt.Errorf("the epoch format with %s", c.Cipher)
	case c.Epoch && !c.V2:
		return nil, errors.New("the epoch format in P_DATA_V1")
	case c.Epoch:
		return newEpochs(c.Cipher, head, toClient, fromClient, c.Window)
	case isCBC:
		return newCBC(c.Cipher, c.Digest, head, toClient, fromClient, c.Window)
	}
	return newAEAD(c.Cipher, head, toClient, fromClient, c.Window)
}

// NewKey makes a key in the format of OpenVPN 2.4 to 2.6, without framing; see Config.
func NewKey(id KeyID, cipher string, peer PeerID, v2 bool, toClient, fromClient []byte, window int) (*Key, error) {
	return Config{ID: id, Peer: peer, V2: v2, Cipher: cipher, Window: window}.NewKey(toClient, fromClient)
}

// keyLen is how many bytes a cipher is keyed with, 0 for what is no cipher here.
func keyLen(cipher string) int {
	switch cipher {
	case "AES-128-GCM", "AES-128-CBC":
		return 16
	case "AES-192-GCM", "AES-192-CBC":
		return 24
	case "AES-256-GCM", "AES-256-CBC", "CHACHA20-POLY1305":
		return 32
	}
	return 0
}
