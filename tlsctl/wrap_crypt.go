package tlsctl

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"time"
)

const (
	cryptKeyLen  = 256 // the static key of tls-crypt, and the Kc of tls-crypt-v2
	cryptTagLen  = sha256.Size
	cryptHeadLen = headLen + replayIDLen + cryptTagLen // what is in clear before a tls-crypt body
)

// A CryptKey is a tls-crypt key in a server's hands.
type CryptKey struct {
	static  []byte
	send    cryptHalf
	receive cryptHalf
}

// cryptHalf is the keys of one direction.
type cryptHalf struct {
	block cipher.Block // AES-256; may be shared
	mac   []byte
}

// NewCryptKey takes a static key of 256 bytes.
func NewCryptKey(key []byte) (*CryptKey, error) {
	if len(key) != cryptKeyLen {
		return nil, fmt.Errorf("tls-crypt: key of %d bytes, want %d", len(key), cryptKeyLen)
	}
	k := &CryptKey{static: slices.Clone(key)}
	k.send = newCryptHalf(k.static)
	k.receive = newCryptHalf(k.static[128:])
	return k, nil
}

// newCryptHalf uses the first 32 of each 64 bytes.
func newCryptHalf(key []byte) cryptHalf {
	block, err := aes.NewCipher(key[:32])
	if err != nil {
		panic(err) // only for a length that is not 32
	}
	return cryptHalf{block: block, mac: key[64:96]}
}

// newWrap returns the wrap of one session.
func (k *CryptKey) newWrap(c sendCounter) *cryptWrap {
	return &cryptWrap{
		key:      k,
		sender:   newSIV(k.send),
		receiver: newSIV(k.receive),
		counter:  c,
	}
}

// reversed is the same key in the other end's hands.
func (k *CryptKey) reversed() *CryptKey {
	return &CryptKey{static: k.static, send: k.receive, receive: k.send}
}

// cryptWrap is tls-crypt: every body is encrypted under an IV made from its own MAC.
//
//	0      9               17         49
//	| head | replay id (8) | tag (32) | ciphertext
//	 \____ in clear ______/
type cryptWrap struct {
	key      *CryptKey
	sender   *siv
	receiver *siv
	counter  sendCounter
	window   replayWindow
	acks     [MaxAcks]PacketID
}

func (w *cryptWrap) seal(dst []byte, p *Packet) []byte {
	start := len(dst)
	dst = p.appendHead(dst)
	dst = w.counter.appendNext(dst)
	tag := len(dst)
	dst = append(dst, w.sender.tag[:]...) // room
	body := len(dst)
	dst = p.appendBody(dst)
	w.sender.seal(dst[tag:body], dst[start:tag], dst[body:])
	return dst
}

func (w *cryptWrap) open(b []byte) (Packet, error) {
	if carriesWKC(b) {
		return Packet{}, errWrap
	}
	return w.openFresh(b)
}

// openFresh opens a packet with nothing behind it.
func (w *cryptWrap) openFresh(b []byte) (Packet, error) {
	p, r, err := w.openAny(b)
	if err == nil && !w.window.accept(r) {
		err = errReplay
	}
	return p, err
}

// openAny is openFresh without the replay check.
func (w *cryptWrap) openAny(b []byte) (p Packet, r replayID, err error) {
	const tag = headLen + replayIDLen
	if len(b) < cryptHeadLen {
		return p, r, errWrap
	}
	if !w.receiver.open(b[tag:cryptHeadLen], b[:tag], b[cryptHeadLen:]) {
		return p, r, errWrap
	}
	return openBody(b[:headLen], b[headLen:tag], b[cryptHeadLen:], &w.acks)
}

func (w *cryptWrap) overhead() int     { return replayIDLen + cryptTagLen }
func (w *cryptWrap) staticKey() []byte { return w.key.static }

// dynamicWrap is the wrap of renegotiations when both ends agreed to derive one: tls-crypt under exported, keying
// material of the first TLS session, mixed with the session's original static key if it has one.
func dynamicWrap(exported [256]byte, original []byte) wrapper {
	return dynamicKey(exported, original).newWrap(sendCounter{stamp: uint32(time.Now().Unix())})
}

func dynamicKey(exported [256]byte, original []byte) *CryptKey {
	subtle.XORBytes(exported[:], exported[:], original)
	key, err := NewCryptKey(exported[:])
	if err != nil {
		panic(err) // only for a length that is not 256
	}
	clear(exported[:])
	return key
}

// siv is AES-256-CTR under an IV that is the start of the plaintext's own HMAC-SHA256. It holds its scratch, so that
// a packet costs no allocation (crypto/cipher's CTR makes a new stream for each).
type siv struct {
	block  cipher.Block
	mac    hash.Hash
	tag    [cryptTagLen]byte
	count  [aes.BlockSize]byte
	stream [aes.BlockSize]byte
}

func newSIV(h cryptHalf) *siv {
	return &siv{block: h.block, mac: hmac.New(sha256.New, h.mac)}
}

// seal encrypts body in place and writes its tag, which covers head too.
func (s *siv) seal(tag, head, body []byte) {
	copy(tag, s.sum(head, body))
	s.xor(tag, body)
}

// open decrypts body in place and reports whether tag is that of head and the result.
func (s *siv) open(tag, head, body []byte) bool {
	s.xor(tag, body)
	return sameSecret(s.sum(head, body), tag)
}

func (s *siv) sum(head, body []byte) []byte {
	s.mac.Reset()
	s.mac.Write(head)
	s.mac.Write(body)
	return s.mac.Sum(s.tag[:0])
}

func (s *siv) xor(tag, body []byte) {
	copy(s.count[:], tag)
	for len(body) > 0 {
		s.block.Encrypt(s.stream[:], s.count[:])
		body = body[subtle.XORBytes(body, body, s.stream[:]):]
		low := binary.BigEndian.Uint64(s.count[8:]) + 1
		binary.BigEndian.PutUint64(s.count[8:], low)
		if low == 0 {
			binary.BigEndian.PutUint64(s.count[:], binary.BigEndian.Uint64(s.count[:])+1)
		}
	}
}
