package datachan

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
)

const secretLen = 32

// An epochKey is what one direction is encrypted with for one epoch.
type epochKey struct {
	epoch uint32
	aead  cipher.AEAD
	iv    [nonceLen]byte
}

// nonce writes the nonce of a packet to b: the epoch's iv, with the packet id laid over its start.
func (k *epochKey) nonce(b *[nonceLen]byte, id uint64) []byte {
	binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(k.iv[:])^id)
	copy(b[8:], k.iv[8:])
	return b[:]
}

// A chain derives one direction's keys, epoch after epoch:
//
//	secret 1  ->  secret 2  ->  secret 3  ...      the first is the start of the cipher slot
//	   |             |             |
//	key, iv       key, iv       key, iv
//
// It goes forward only: what it holds tells nothing of the epochs before.
type chain struct {
	cipher string
	keyLen int
	epoch  uint32 // whose secret this is
	secret [secretLen]byte
}

// newChain begins with epoch 1.
func newChain(cipher string, slot []byte) (*chain, error) {
	n := keyLen(cipher)
	if _, err := newAEADCipher(cipher, slot[:n]); err != nil {
		return nil, err
	}
	return &chain{cipher: cipher, keyLen: n, epoch: 1, secret: [secretLen]byte(slot)}, nil
}

// key returns the key of an epoch that the chain has not come to yet, and moves the chain on to the next one.
func (c *chain) key(epoch uint32) epochKey {
	for c.epoch < epoch {
		c.step()
	}
	k := epochKey{epoch: c.epoch}
	var err error
	if k.aead, err = newAEADCipher(c.cipher, expandLabel(c.secret[:], "data_key", c.keyLen)); err != nil {
		panic("datachan: " + err.Error()) // newChain has tried a key of this length
	}
	copy(k.iv[:], expandLabel(c.secret[:], "data_iv", nonceLen))
	c.step()
	return k
}

func (c *chain) step() {
	copy(c.secret[:], expandLabel(c.secret[:], "datakey upd", secretLen))
	c.epoch++
}

// expandLabel is HKDF-Expand-Label of TLS 1.3 (RFC 8446, 7.1) with "ovpn " for "tls13 " and without a context.
func expandLabel(secret []byte, label string, n int) []byte {
	const prefix = "ovpn "
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len(prefix)+len(label)))
	info = append(info, prefix...)
	info = append(info, label...)
	info = append(info, 0)
	out, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		panic("datachan: " + err.Error()) // only for thousands of bytes
	}
	return out
}
