package tlsctl

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	serverKeyLen   = 128
	wkcTagLen      = sha256.Size
	wkcMin         = wkcTagLen + cryptKeyLen + 2
	wkcMax         = 1024
	metadataMax    = wkcMax - wkcMin // with the type byte
	metadataUser   = 0x00
	metadataStamp  = 0x01
	earlyNegotiate = 0x0f // top byte of the first replay id of a client that can send its wrapped key again
)

// A ServerKey is the tls-crypt-v2 key that only servers know, with the policy for the clients that bring their own
// key wrapped under it. Set the policy before the key goes into a Gate.
type ServerKey struct {
	// ForceCookie refuses clients that cannot send their wrapped key a second time (2.5, OpenVPN 3 up to 3.7).
	// By default they are served, at the price of state before their address is proven, in small numbers.
	ForceCookie bool
	// MaxAge, if not zero, refuses client keys that were made longer ago, and those that do not say when.
	MaxAge time.Duration
	// Refuse, if set, is asked about each client key once its sender has proved its address, and before any TLS. It
	// runs in the packet path: it must not block.
	Refuse func(ClientKey) bool

	raw  []byte
	keys cryptHalf
}

// A ClientKey is what a tls-crypt-v2 client's wrapped key says about it.
type ClientKey struct {
	// ID names the key. It is shown on the wire, so it proves nothing.
	ID ClientKeyID
	// Metadata is one byte of type, then content; may be empty.
	Metadata []byte
}

// ClientKeyID is the authentication tag of a wrapped client key, which no two keys share.
type ClientKeyID [wkcTagLen]byte

func (id ClientKeyID) String() string { return hex.EncodeToString(id[:]) }

// Created returns when the key was made, if it says so.
func (k ClientKey) Created() (time.Time, bool) {
	if len(k.Metadata) < 9 || k.Metadata[0] != metadataStamp {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.BigEndian.Uint64(k.Metadata[1:])), 0), true
}

// NewServerKey takes the 128 bytes of a server key file.
func NewServerKey(raw []byte) (*ServerKey, error) {
	if len(raw) != serverKeyLen {
		return nil, fmt.Errorf("tls-crypt-v2: server key of %d bytes, want %d", len(raw), serverKeyLen)
	}
	k := &ServerKey{raw: slices.Clone(raw)}
	k.keys = newCryptHalf(k.raw)
	return k, nil
}

// permits reports whether a client with such a key may have a session.
func (k *ServerKey) permits(c ClientKey, now time.Time) bool {
	if k.MaxAge > 0 {
		created, ok := c.Created()
		if !ok || now.Sub(created) > k.MaxAge {
			return false
		}
	}
	return k.Refuse == nil || !k.Refuse(c)
}

// splitWKC cuts the wrapped client key off the end of a datagram. Its length is told by an attacker: it must leave
// the whole clear head of the tls-crypt packet before it.
func splitWKC(b []byte) (packet, wkc []byte, err error) {
	if len(b) < cryptHeadLen+wkcMin {
		return nil, nil, errWrap
	}
	n := int(binary.BigEndian.Uint16(b[len(b)-2:]))
	if n < wkcMin || n > wkcMax || n > len(b)-cryptHeadLen {
		return nil, nil, errWrap
	}
	return b[:len(b)-n], b[len(b)-n:], nil
}

// A keyUnwrapper opens wrapped client keys.
//
//	WKc = tag (32) | encrypted: Kc (256), metadata | length of all this (2)
//
// The tag covers the length, then Kc and metadata.
type keyUnwrapper struct {
	siv    *siv
	buffer [wkcMax]byte
}

func newKeyUnwrapper(k *ServerKey) *keyUnwrapper { return &keyUnwrapper{siv: newSIV(k.keys)} }

// unwrap returns what wkc holds, valid until the next call. It leaves wkc as it is.
func (u *keyUnwrapper) unwrap(wkc []byte) (kc []byte, c ClientKey, err error) {
	if len(wkc) < wkcMin || len(wkc) > wkcMax {
		return nil, c, errWrap
	}
	plain := u.buffer[:len(wkc)-wkcTagLen-2]
	copy(plain, wkc[wkcTagLen:])
	if !u.siv.open(wkc[:wkcTagLen], wkc[len(wkc)-2:], plain) {
		return nil, c, errWrap
	}
	c.ID = ClientKeyID(wkc[:wkcTagLen])
	c.Metadata = plain[cryptKeyLen:]
	return plain[:cryptKeyLen], c, nil
}

// wrapClientKey is the other way.
func (k *ServerKey) wrapClientKey(kc, metadata []byte) ([]byte, error) {
	if len(kc) != cryptKeyLen {
		return nil, fmt.Errorf("client key of %d bytes, want %d", len(kc), cryptKeyLen)
	}
	if len(metadata) > metadataMax {
		return nil, errors.New("metadata is too long")
	}
	n := wkcMin + len(metadata)
	length := binary.BigEndian.AppendUint16(nil, uint16(n))
	wkc := make([]byte, wkcTagLen, n)
	wkc = append(wkc, kc...)
	wkc = append(wkc, metadata...)
	newSIV(k.keys).seal(wkc[:wkcTagLen], length, wkc[wkcTagLen:])
	return append(wkc, length...), nil
}

// cryptV2Wrap is tls-crypt under a client's own key, some of whose packets have the wrapped key behind them again.
// That one is never opened here: a session keeps the key it began with.
type cryptV2Wrap struct{ cryptWrap }

func (w *cryptV2Wrap) open(b []byte) (Packet, error) {
	if carriesWKC(b) {
		var err error
		if b, _, err = splitWKC(b); err != nil {
			return Packet{}, err
		}
	}
	p, err := w.openFresh(b)
	if p.Opcode == OpControlWKC {
		p.Opcode = OpControl
	}
	return p, err
}

// carriesWKC reports whether b says that it has a wrapped client key at its end.
func carriesWKC(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	op := Opcode(b[0] >> 3)
	return op == OpHardResetClientV3 || op == OpControlWKC
}
