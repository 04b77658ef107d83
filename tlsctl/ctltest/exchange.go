package ctltest

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"hash"
	"strconv"
	"strings"

	"postern/tlsctl"
)

// exchange is one side's key exchange message.
type exchange struct {
	preMaster, random1, random2 []byte
	strings                     [4]*string // options, user name, password, peer info; nil is absent
}

func newExchange(cfg *Config) *exchange {
	random := make([]byte, 48+32+32)
	rand.Read(random)
	x := &exchange{preMaster: random[:48], random1: random[48:80], random2: random[80:]}
	x.strings[0] = &cfg.Options
	if cfg.Login {
		user, password := cfg.Username, cfg.Password
		if cfg.Credentials != nil {
			user, password = cfg.Credentials()
		}
		x.strings[1], x.strings[2] = &user, &password
	}
	x.strings[3] = &cfg.PeerInfo
	return x
}

func (x *exchange) append(b []byte) []byte {
	b = append(b, 0, 0, 0, 0, 2)
	b = append(b, x.preMaster...)
	b = append(b, x.random1...)
	b = append(b, x.random2...)
	for _, s := range x.strings {
		if s == nil {
			b = append(b, 0, 0)
			continue
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(*s)+1))
		b = append(append(b, *s...), 0)
	}
	return b
}

// parseExchange reads a server's message, which must be exactly as a stock server writes it.
func parseExchange(b []byte) (*exchange, error) {
	if len(b) < 71 || string(b[:5]) != "\x00\x00\x00\x00\x02" {
		return nil, errors.New("malformed")
	}
	n := int(binary.BigEndian.Uint16(b[69:]))
	if n < 1 || n > 512 || len(b) != 71+n+6 || b[70+n] != 0 || string(b[71+n:]) != "\x00\x00\x00\x00\x00\x00" {
		return nil, errors.New("malformed strings")
	}
	options := string(b[71 : 70+n])
	return &exchange{random1: b[5:37], random2: b[37:69], strings: [4]*string{&options}}, nil
}

// derive makes the key block the way that all clients can.
func derive(client, server *exchange, clientID, serverID tlsctl.SessionID) []byte {
	master := prf(client.preMaster, concat([]byte("OpenVPN master secret"), client.random1, server.random1), 48)
	return prf(master, concat([]byte("OpenVPN key expansion"), client.random2, server.random2, clientID[:], serverID[:]), 256)
}

func concat(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func prf(secret, seed []byte, n int) []byte {
	half := (len(secret) + 1) / 2
	out := make([]byte, n)
	for i, h := range []func() hash.Hash{md5.New, sha1.New} {
		key := secret[:half]
		if i == 1 {
			key = secret[len(secret)-half:]
		}
		a, stream := seed, []byte(nil)
		for len(stream) < n {
			a = sum(h, key, a)
			stream = append(stream, sum(h, key, concat(a, seed))...)
		}
		for j := range out {
			out[j] ^= stream[j]
		}
	}
	return out
}

func sum(h func() hash.Hash, key, b []byte) []byte {
	m := hmac.New(h, key)
	m.Write(b)
	return m.Sum(nil)
}

// protoOf finds IV_PROTO in a peer info.
func protoOf(info string) int {
	for line := range strings.SplitSeq(info, "\n") {
		if v, ok := strings.CutPrefix(line, "IV_PROTO="); ok {
			n, _ := strconv.Atoi(v)
			return n
		}
	}
	return 0
}
