package tlsctl

import (
	"fmt"
	"time"
)

// A ClientWrap is the client's end of a session's wrap. The server has no use for it; a Client and whoever else plays
// one does. Not safe for concurrent use.
type ClientWrap struct {
	wrap wrapper
	wkc  []byte
}

// NewClientWrap returns the other end of w, which has no CryptV2: its keys and direction are the server's.
func NewClientWrap(w Wrapping, now time.Time) *ClientWrap {
	c := sendCounter{stamp: uint32(now.Unix())}
	switch {
	case w.Auth != nil:
		return &ClientWrap{wrap: w.Auth.reversed().newWrap(c)}
	case w.Crypt != nil:
		return &ClientWrap{wrap: w.Crypt.reversed().newWrap(c)}
	}
	return &ClientWrap{wrap: &plainWrap{}}
}

// NewClientWrapV2 returns the wrap of a tls-crypt-v2 client with the key from its file. early says that the client
// can send its wrapped key twice, as those from 2.6 and OpenVPN 3.8 on.
func NewClientWrapV2(kc, wkc []byte, early bool, now time.Time) (*ClientWrap, error) {
	k, err := NewCryptKey(kc)
	if err != nil {
		return nil, fmt.Errorf("client key: %w", err)
	}
	c := sendCounter{stamp: uint32(now.Unix())}
	if early {
		c.last = earlyNegotiate << 24
	}
	return &ClientWrap{wrap: k.reversed().newWrap(c), wkc: wkc}, nil
}

// Dynamic returns the wrap that both ends change to at a renegotiation, if they agreed on it; exported is keying
// material of the first TLS session.
func (c *ClientWrap) Dynamic(exported [256]byte, now time.Time) *ClientWrap {
	key := dynamicKey(exported, c.wrap.staticKey())
	return &ClientWrap{wrap: key.reversed().newWrap(sendCounter{stamp: uint32(now.Unix())})}
}

// Seal appends p, wrapped, to dst, with the wrapped key behind it where the opcode says so.
func (c *ClientWrap) Seal(dst []byte, p *Packet) []byte {
	start := len(dst)
	dst = c.wrap.seal(dst, p)
	if carriesWKC(dst[start:]) {
		dst = append(dst, c.wkc...)
	}
	return dst
}

// Open unwraps a packet of the server. It overwrites b, and the packet's slices are valid as long as b is and until
// the next Open.
func (c *ClientWrap) Open(b []byte) (Packet, error) { return c.wrap.open(b) }
