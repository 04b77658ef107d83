package tlsctl

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"fmt"
	"hash"
	"slices"
	"strings"
)

// An AuthKey is a tls-auth key as one server uses it: a static key file, the direction and the digest.
type AuthKey struct {
	static  []byte
	send    []byte
	receive []byte
	digest  func() hash.Hash
	size    int
}

// NewAuthKey takes a static key of 256 bytes (or 128, without direction). direction is 0 or 1 as in the key-direction
// directive, and -1 when there is none and both ways use one key. digest is the name given to the auth directive,
// in any case; an empty one is SHA1.
func NewAuthKey(key []byte, direction int, digest string) (*AuthKey, error) {
	k := &AuthKey{static: slices.Clone(key)}
	var err error
	if k.digest, err = digestByName(digest); err != nil {
		return nil, fmt.Errorf("tls-auth: %w", err)
	}
	k.size = k.digest().Size()

	switch {
	case len(key) != 256 && len(key) != 128:
		return nil, fmt.Errorf("tls-auth: key of %d bytes, want 256", len(key))
	case len(key) == 128 && direction != -1:
		return nil, fmt.Errorf("tls-auth: a key of 128 bytes has no directions")
	}
	first := k.static[64:][:k.size]
	switch direction {
	case -1:
		k.send, k.receive = first, first
	case 0:
		k.send, k.receive = first, k.static[192:][:k.size]
	case 1:
		k.send, k.receive = k.static[192:][:k.size], first
	default:
		return nil, fmt.Errorf("tls-auth: key direction %d, want 0 or 1", direction)
	}
	return k, nil
}

func digestByName(name string) (func() hash.Hash, error) {
	switch strings.ToUpper(name) {
	case "", "SHA1", "SHA-1", "SHA":
		return sha1.New, nil
	case "MD5":
		return md5.New, nil
	case "SHA224", "SHA-224", "SHA2-224":
		return sha256.New224, nil
	case "SHA256", "SHA-256", "SHA2-256":
		return sha256.New, nil
	case "SHA384", "SHA-384", "SHA2-384":
		return sha512.New384, nil
	case "SHA512", "SHA-512", "SHA2-512":
		return sha512.New, nil
	case "SHA512-224", "SHA-512/224", "SHA2-512/224":
		return sha512.New512_224, nil
	case "SHA512-256", "SHA-512/256", "SHA2-512/256":
		return sha512.New512_256, nil
	case "SHA3-224":
		return func() hash.Hash { return sha3.New224() }, nil
	case "SHA3-256":
		return func() hash.Hash { return sha3.New256() }, nil
	case "SHA3-384":
		return func() hash.Hash { return sha3.New384() }, nil
	case "SHA3-512":
		return func() hash.Hash { return sha3.New512() }, nil
	}
	return nil, fmt.Errorf("unknown digest %q", name)
}

// newWrap returns the wrap of one session.
func (k *AuthKey) newWrap(c sendCounter) *authWrap {
	return &authWrap{
		key:      k,
		sender:   hmac.New(k.digest, k.send),
		receiver: hmac.New(k.digest, k.receive),
		counter:  c,
	}
}

// reversed is the same key in the other end's hands.
func (k *AuthKey) reversed() *AuthKey {
	r := *k
	r.send, r.receive = k.receive, k.send
	return &r
}

// authWrap is tls-auth: a static key signs every packet.
//
//	on the wire   head (9)   HMAC (h)   replay id (8)   body
//	under HMAC                          replay id (8)   head (9)   body
type authWrap struct {
	key      *AuthKey
	sender   hash.Hash
	receiver hash.Hash
	counter  sendCounter
	window   replayWindow
	acks     [MaxAcks]PacketID
	sum      [64]byte
}

func (w *authWrap) seal(dst []byte, p *Packet) []byte {
	start := len(dst)
	dst = p.appendHead(dst)
	head := dst[start:]
	mac := len(dst)
	dst = append(dst, w.sum[:w.key.size]...) // room
	number := len(dst)
	dst = w.counter.appendNext(dst)
	body := len(dst)
	dst = p.appendBody(dst)

	w.sender.Reset()
	w.sender.Write(dst[number:body])
	w.sender.Write(head)
	w.sender.Write(dst[body:])
	copy(dst[mac:], w.sender.Sum(w.sum[:0]))
	return dst
}

func (w *authWrap) open(b []byte) (Packet, error) {
	p, r, err := w.openAny(b)
	if err == nil && !w.window.accept(r) {
		err = errReplay
	}
	return p, err
}

// openAny is open without the replay check.
func (w *authWrap) openAny(b []byte) (p Packet, r replayID, err error) {
	number := headLen + w.key.size
	body := number + replayIDLen
	if len(b) < body || carriesWKC(b) {
		return p, r, errWrap
	}
	w.receiver.Reset()
	w.receiver.Write(b[number:body])
	w.receiver.Write(b[:headLen])
	w.receiver.Write(b[body:])
	if !sameSecret(w.receiver.Sum(w.sum[:0]), b[headLen:number]) {
		return p, r, errWrap
	}
	return openBody(b[:headLen], b[number:body], b[body:], &w.acks)
}

func (w *authWrap) overhead() int     { return w.key.size + replayIDLen }
func (w *authWrap) staticKey() []byte { return w.key.static }

// openBody parses what a wrap has found authentic.
func openBody(head, number, body []byte, acks *[MaxAcks]PacketID) (p Packet, r replayID, err error) {
	r = parseReplayID(number)
	if r.id == 0 {
		return p, r, errWrap
	}
	p = parseHead(head)
	return p, r, p.parseBody(body, acks)
}
