package tlsctl

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
)

// The client's side of key method 2 (exchange.go): what a Client says and hears.

// newExchange returns a client's message with fresh random bytes.
func (c *Client) newExchange() *exchange {
	x := newExchange(c.cfg.Options)
	rand.Read(x.preMaster[:])
	x.hasLogin, x.username, x.password = c.cfg.Login, c.cfg.Username, Secret(c.cfg.Password)
	x.peerInfo = c.cfg.PeerInfo
	return x
}

// appendClient appends x as a client's message.
func (x *exchange) appendClient(b []byte) []byte {
	b = append(b, 0, 0, 0, 0, keyMethod)
	b = append(b, x.preMaster[:]...)
	b = append(b, x.random1[:]...)
	b = append(b, x.random2[:]...)
	b = appendString(b, x.options)
	if x.hasLogin {
		b = appendString(b, x.username)
		b = appendString(b, string(x.password))
	} else {
		b = append(b, 0, 0, 0, 0)
	}
	return appendString(b, x.peerInfo)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)+1))
	return append(append(b, s...), 0)
}

// parseServerExchange reads a server's message. Nothing in the result refers to b.
func parseServerExchange(b []byte) (*exchange, error) {
	if len(b) < exchangeHead || b[4]&0xf != keyMethod {
		return nil, errors.New("not a server's key exchange")
	}
	x := new(exchange)
	b = b[5:]
	b = b[copy(x.random1[:], b):]
	b = b[copy(x.random2[:], b):]
	options, _, err := cutString(b, maxOptions)
	if err != nil {
		return nil, err
	}
	x.options = string(options)
	return x, nil
}
