package datachan

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	nonceLen    = 12
	tagLen      = 16
	packetIDLen = 4
	implicitLen = nonceLen - packetIDLen
)

// aead is the packet format of OpenVPN 2.4 to 2.6:
//
//	V2: [op|key 1][peer id 3][packet id 4][tag 16][ciphertext]
//	    `-------- authenticated --------'
//	V1: [op|key 1]           [packet id 4][tag 16][ciphertext]
//	                         `----------'
//	nonce: packet id 4, implicit iv 8
//
// crypto/cipher has the tag behind the ciphertext. Sealing leaves it there and then copies it forward; the next
// packet of a train is written over what remains. Opening lends the tag the 16 bytes behind the packet.
type aead struct {
	head           Header // of what is sealed
	seals, opens   cipher.AEAD
	sealIV, openIV [implicitLen]byte
	series
}

// newAEAD takes the two slots of each direction apart: the cipher key is the start of the first, the implicit
// part of the nonce the start of the second.
func newAEAD(name string, head Header, toClient, fromClient []byte, window int) (*aead, error) {
	n := keyLen(name)
	a := &aead{head: head, series: newSeries(isGCM(name), window)}
	copy(a.sealIV[:], toClient[slotLen:])
	copy(a.openIV[:], fromClient[slotLen:])
	var err error
	if a.seals, err = newAEADCipher(name, toClient[:n]); err != nil {
		return nil, err
	}
	if a.opens, err = newAEADCipher(name, fromClient[:n]); err != nil {
		return nil, err
	}
	return a, nil
}

func isGCM(name string) bool { return strings.HasSuffix(name, "-GCM") }

func newAEADCipher(name string, key []byte) (cipher.AEAD, error) {
	if !isGCM(name) {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (a *aead) headLen() int     { return a.head.Len + packetIDLen + tagLen }
func (a *aead) tailLen() int     { return tagLen }
func (a *aead) fit(size int) int { return size - a.headLen() }

func (a *aead) seal(dst, payload []byte, id uint64, s *Scratch) int {
	tag := a.head.Len + packetIDLen
	body := tag + tagLen
	n := body + len(payload)
	room := dst[:n+tagLen]

	binary.BigEndian.AppendUint32(a.head.AppendTo(room[:0]), uint32(id))
	binary.BigEndian.PutUint32(s.nonce[:], uint32(id))
	copy(s.nonce[packetIDLen:], a.sealIV[:])
	a.seals.Seal(room[body:body], s.nonce[:], payload, associated(a.head, room))
	copy(room[tag:body], room[n:])
	return n
}

func (a *aead) open(h Header, b []byte, s *Scratch) (payload []byte, id uint64, err error) {
	tag := h.Len + packetIDLen
	body := tag + tagLen
	if len(b) <= body {
		return nil, 0, ErrShort
	}
	if a.in.beset() {
		return nil, 0, ErrAuth
	}
	copy(s.nonce[:], b[h.Len:tag])
	copy(s.nonce[packetIDLen:], a.openIV[:])

	lent := b[len(b) : len(b)+tagLen]
	copy(s.lent[:], lent)
	copy(lent, b[tag:body])
	payload, err = a.opens.Open(b[body:body], s.nonce[:], b[body:len(b)+tagLen], associated(h, b))
	copy(lent, s.lent[:])
	if err != nil {
		return nil, 0, a.in.fail()
	}
	id = uint64(binary.BigEndian.Uint32(b[h.Len:]))
	return payload, id, a.in.take(id, len(payload))
}

// associated is the part of the packet that is authenticated and not encrypted.
func associated(h Header, b []byte) []byte {
	if h.Op == OpDataV1 {
		return b[h.Len : h.Len+packetIDLen]
	}
	return b[:h.Len+packetIDLen]
}
