package datachan

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
)

// cbc is the packet format of clients that negotiate no cipher (S072):
//
//	V2: [op|key 1][peer id 3][HMAC 20..64][IV 16][ CBC( packet id 4, payload, padding 1..16 ) ]
//	V1: [op|key 1]           [HMAC 20..64][IV 16][ CBC( packet id 4, payload, padding 1..16 ) ]
//	                                      `------------- authenticated ----------------------'
//
// The header is not authenticated. A client without a peer id sends V1 only, so for it a V2 is a packet that somebody
// gave another header, to make the client seem to float (S077).
//
// Cipher and HMAC objects of the standard library carry state through each packet. For opening there is one of each,
// kept by the key's lock. For sealing there is one of each too, and a mutex: nearly always a key seals in one
// goroutine only, so that is cheaper than objects for everyone who might.
type cbc struct {
	head   Header // of what is sealed
	macLen int
	series

	ivs     cipher.Block
	mu      sync.Mutex // guards what follows
	encrypt cbcMode
	signs   hash.Hash

	decrypt cbcMode // kept by the key's lock
	checks  hash.Hash
}

// A cbcMode can be used for one packet after the other.
type cbcMode interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

// newCBC takes the two slots of each direction apart: the cipher key is the start of the first, the HMAC key, as long
// as the digest, the start of the second.
func newCBC(name, digest string, head Header, toClient, fromClient []byte, window int) (*cbc, error) {
	n := keyLen(name)
	newHash, err := hashByName(digest)
	if err != nil {
		return nil, err
	}
	macLen := newHash().Size()
	c := &cbc{head: head, macLen: macLen, series: newSeries(false, window)}
	c.signs = newMAC(newHash, toClient[slotLen:][:macLen])
	c.checks = newMAC(newHash, fromClient[slotLen:][:macLen])

	if c.ivs, err = newIVs(); err != nil {
		return nil, err
	}
	seals, err := aes.NewCipher(toClient[:n])
	if err != nil {
		return nil, err
	}
	opens, err := aes.NewCipher(fromClient[:n])
	if err != nil {
		return nil, err
	}
	var iv [aes.BlockSize]byte
	var ok1, ok2 bool
	c.encrypt, ok1 = cipher.NewCBCEncrypter(seals, iv[:]).(cbcMode)
	c.decrypt, ok2 = cipher.NewCBCDecrypter(opens, iv[:]).(cbcMode)
	if !ok1 || !ok2 {
		return nil, errors.New("crypto/cipher has no SetIV")
	}
	return c, nil
}

func hashByName(name string) (func() hash.Hash, error) {
	switch strings.ToUpper(name) {
	case "SHA1":
		return sha1.New, nil
	case "SHA224":
		return sha256.New224, nil
	case "SHA256":
		return sha256.New, nil
	case "SHA384":
		return sha512.New384, nil
	case "SHA512":
		return sha512.New, nil
	}
	return nil, fmt.Errorf("unknown digest %q", name)
}

// newMAC returns an HMAC that is ready to be reset: the first time takes memory.
func newMAC(newHash func() hash.Hash, key []byte) hash.Hash {
	mac := hmac.New(newHash, key)
	mac.Reset()
	return mac
}

// newIVs returns what makes IVs out of packet ids. An IV must not be foreseeable and should not repeat; encrypting a
// counter with a key of its own gives both, as in a counter mode generator of random bits, and takes neither a
// system call nor a pool that senders would have to share.
func newIVs() (cipher.Block, error) {
	var key [16]byte
	rand.Read(key[:])
	return aes.NewCipher(key[:])
}

func (c *cbc) headLen() int { return c.head.Len + c.macLen + aes.BlockSize + packetIDLen }
func (c *cbc) tailLen() int { return aes.BlockSize }

// fit leaves room for at least one byte of padding in whole blocks.
func (c *cbc) fit(size int) int {
	blocks := (size - c.head.Len - c.macLen) / aes.BlockSize
	return (blocks-1)*aes.BlockSize - packetIDLen - 1
}

func (c *cbc) seal(dst, payload []byte, id uint64, s *Scratch) int {
	mac := c.head.Len
	iv := mac + c.macLen
	body := iv + aes.BlockSize
	text := body + packetIDLen
	end := text + len(payload)
	padding := aes.BlockSize - (end-body)%aes.BlockSize
	n := end + padding
	room := dst[:n]

	c.head.AppendTo(room[:0])
	clear(room[iv:body])
	binary.BigEndian.PutUint64(room[iv:], id)
	c.ivs.Encrypt(room[iv:body], room[iv:body])
	binary.BigEndian.PutUint32(room[body:], uint32(id))
	copy(room[text:], payload)
	for i := end; i < n; i++ {
		room[i] = byte(padding)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.encrypt.SetIV(room[iv:body])
	c.encrypt.CryptBlocks(room[body:], room[body:])
	c.signs.Reset()
	c.signs.Write(room[iv:])
	c.signs.Sum(room[mac:mac])
	return n
}

// open looks at nothing that was encrypted before the HMAC has proved it genuine.
func (c *cbc) open(h Header, b []byte, s *Scratch) (payload []byte, id uint64, err error) {
	iv := h.Len + c.macLen
	body := iv + aes.BlockSize
	if len(b) < body+aes.BlockSize {
		return nil, 0, ErrShort
	}
	if c.in.beset() || h.Op == OpDataV2 && c.head.Op == OpDataV1 {
		return nil, 0, ErrAuth
	}
	c.checks.Reset()
	c.checks.Write(b[iv:])
	if subtle.ConstantTimeCompare(c.checks.Sum(s.mac[:0]), b[h.Len:iv]) != 1 {
		return nil, 0, c.in.fail()
	}
	text := b[body:]
	if len(text)%aes.BlockSize != 0 {
		return nil, 0, ErrMalformed
	}
	c.decrypt.SetIV(b[iv:body])
	c.decrypt.CryptBlocks(text, text)
	if text, err = unpad(text); err != nil {
		return nil, 0, err
	}
	if len(text) < packetIDLen {
		return nil, 0, ErrMalformed
	}
	id = uint64(binary.BigEndian.Uint32(text))
	payload = text[packetIDLen:]
	return payload, id, c.in.take(id, len(payload))
}

// unpad takes the padding of text off: 1 to 16 bytes, each of which says how many there are. It takes its time with
// wrong ones: text is authentic, so only the peer itself could learn something by them.
func unpad(text []byte) ([]byte, error) {
	n := int(text[len(text)-1])
	if n == 0 || n > aes.BlockSize {
		return nil, ErrMalformed
	}
	end := len(text) - n
	for _, b := range text[end:] {
		if int(b) != n {
			return nil, ErrMalformed
		}
	}
	return text[:end], nil
}
