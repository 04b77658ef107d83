package tlsctl

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// Key method 2: the first plaintext each side sends inside TLS, one record.
//
//	0  zero (4)          read and ignored
//	4  key method (1)    the low four bits are 2
//	5  pre-master (48)   client only
//	   random 1 (32)
//	   random 2 (32)
//	   options, user name, password, peer info
//	                     each u16 length, then as many bytes, the last of them zero; length 0 is "absent"
//
// A client may stop after any of the strings, and what follows the last is ignored.
const (
	keyMethod       = 2
	preMasterSize   = 48
	randomSize      = 32
	maxOptions      = 512      // its zero byte included
	maxUsername     = 255 + 1  // S027
	maxPassword     = 4096 + 1 // room for tokens and challenge answers
	exchangeHead    = 4 + 1 + 2*randomSize
	maxExchangeSize = 16 << 10 // one TLS record
)

// An exchange is one side's key exchange message. A server has no pre-master and no login.
type exchange struct {
	preMaster [preMasterSize]byte
	random1   [randomSize]byte
	random2   [randomSize]byte
	options   string
	hasLogin  bool // a user name or a password was present, if only as an empty string
	username  string
	password  Secret
	peerInfo  string
	// badLogin: user name or password were too long or cut short. The client gets AUTH_FAILED for it, while any other
	// fault ends the negotiation.
	badLogin bool
}

// wipe overwrites all secrets.
func (x *exchange) wipe() {
	clear(x.preMaster[:])
	clear(x.random1[:])
	clear(x.random2[:])
	clear(x.password)
}

// newExchange returns a server's message with fresh random bytes.
func newExchange(options string) *exchange {
	x := &exchange{options: options}
	rand.Read(x.random1[:])
	rand.Read(x.random2[:])
	return x
}

// parseExchange reads a client's message. Nothing in the result refers to b.
func parseExchange(b []byte) (*exchange, error) {
	if len(b) < exchangeHead+preMasterSize {
		return nil, fmt.Errorf("key exchange of %d bytes is too short", len(b))
	}
	if b[4]&0xf != keyMethod {
		return nil, fmt.Errorf("key method %d is not supported", b[4]&0xf)
	}
	x := new(exchange)
	b = b[5:]
	for _, field := range [][]byte{x.preMaster[:], x.random1[:], x.random2[:]} {
		b = b[copy(field, b):]
		if allZero(field) {
			return nil, errors.New("key exchange with all-zero random bytes")
		}
	}
	options, b, err := cutString(b, maxOptions)
	if err != nil {
		return nil, fmt.Errorf("options string: %w", err)
	}
	x.options = string(options)
	// What is wrong with a login is told to the client, so an over-long string is passed over by its length.
	var present bool
	for _, field := range []struct {
		max int
		set func([]byte)
	}{
		{maxUsername, func(v []byte) { x.username = string(v) }},
		{maxPassword, func(v []byte) { x.password = bytes.Clone(v) }},
	} {
		present = len(b) >= 2 && binary.BigEndian.Uint16(b) > 0
		var value []byte
		value, b, err = cutString(b, field.max)
		switch {
		case errors.Is(err, errStringLength):
			x.badLogin = true
		case err != nil:
			return nil, fmt.Errorf("login: %w", err)
		case present:
			field.set(value)
		}
		x.hasLogin = x.hasLogin || present
	}
	info, _, err := cutString(b, 1<<16)
	if err != nil {
		return nil, fmt.Errorf("peer info: %w", err)
	}
	x.peerInfo = string(info)
	return x, nil
}

// appendServer appends x as a server's message.
func (x *exchange) appendServer(b []byte) []byte {
	b = append(b, 0, 0, 0, 0, keyMethod)
	b = append(b, x.random1[:]...)
	b = append(b, x.random2[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(x.options)+1))
	b = append(b, x.options...)
	return append(b, 0, 0, 0, 0, 0, 0, 0) // its zero byte, and no user name, password or peer info
}

// errStringLength: a string is longer than allowed or than what is left.
var errStringLength = errors.New("bad length")

// cutString cuts a string of at most max bytes with its final zero byte off b and returns it without that byte. A
// missing string is an empty one. With errStringLength rest is what follows the string.
func cutString(b []byte, max int) (s, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, nil
	}
	if len(b) < 2 {
		return nil, nil, errStringLength
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if n > len(b) {
		return nil, nil, errStringLength
	}
	s, rest = b[:n], b[n:]
	switch {
	case n > max:
		return nil, rest, errStringLength
	case n == 0:
		return nil, rest, nil
	case bytes.IndexByte(s, 0) != n-1:
		return nil, nil, errors.New("a string needs exactly one zero byte, at its end")
	}
	return s[:n-1], rest, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// cleanName turns control bytes of a name into '_', as OpenVPN does before anything else sees it.
func cleanName(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < 0x20 || c == 0x7f {
			b[i] = '_'
		}
	}
	return string(b)
}
