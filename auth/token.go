package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// A token is what a client sends in place of its password once it has logged in, always 91 bytes:
//
//	"SESS_ID_AT_" | base64( session id 12 | initial u64 | renewed u64 | HMAC-SHA-256 32 )
//
// The HMAC is over the user name and the 28 bytes before it. Times are Unix seconds, big-endian.
//
// The reference takes bytes 64 to 95 of its secret for the HMAC's key. So do we where the secret is shared with such
// servers. Otherwise (security S048) the key is made from these bytes for one certificate key and one epoch of the
// user's: there is no room in a token for either, and so a token is bound to both all the same. Nor can a token of
// one kind ever pass for the other.
type token struct {
	session [sessionIDLen]byte
	initial uint64 // when the user last logged in fully
	renewed uint64 // when this token was made
}

const (
	tokenPrefix  = "SESS_ID_AT_"
	sessionIDLen = 12
	tokenBody    = sessionIDLen + 8 + 8
	tokenRaw     = tokenBody + sha256.Size
	tokenLen     = len(tokenPrefix) + tokenRaw/3*4
)

// IsToken tells tokens from passwords, by length too: what is cut off is a wrong password.
func IsToken(password []byte) bool {
	return len(password) == tokenLen && bytes.HasPrefix(password, []byte(tokenPrefix))
}

func (t *token) body() []byte {
	b := make([]byte, 0, tokenRaw)
	b = append(b, t.session[:]...)
	b = binary.BigEndian.AppendUint64(b, t.initial)
	return binary.BigEndian.AppendUint64(b, t.renewed)
}

// sign returns t as the client gets it.
func (t *token) sign(key []byte, user string) string {
	body := t.body()
	return tokenPrefix + base64.StdEncoding.EncodeToString(append(body, tokenMAC(key, user, body)...))
}

func tokenMAC(key []byte, user string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(user))
	mac.Write(body)
	return mac.Sum(nil)
}

// openToken reads a token that was made under key for user, or for the empty user.
func openToken(text, key []byte, user string) (t token, emptyUser, ok bool) {
	if !IsToken(text) {
		return token{}, false, false
	}
	var raw [tokenRaw]byte
	n, err := base64.StdEncoding.Strict().Decode(raw[:], text[len(tokenPrefix):])
	if err != nil || n != tokenRaw { // fewer when there are line ends in it, which base64 skips
		return token{}, false, false
	}
	body, mac := raw[:tokenBody], raw[tokenBody:tokenRaw]
	named := hmac.Equal(mac, tokenMAC(key, user, body))
	empty := hmac.Equal(mac, tokenMAC(key, "", body))
	if !named && !empty {
		return token{}, false, false
	}
	copy(t.session[:], body)
	t.initial = binary.BigEndian.Uint64(body[sessionIDLen:])
	t.renewed = binary.BigEndian.Uint64(body[sessionIDLen+8:])
	return t, !named, true
}

// expired tells whether t's times are over, or impossible. Lifetime 0 is for ever.
func (t *token) expired(now time.Time, lifetime, renewal time.Duration) bool {
	at := uint64(max(0, now.Unix()))
	switch {
	case t.initial > t.renewed, t.renewed > at:
		return true
	case at-t.renewed >= seconds(2*renewal):
		return true
	}
	return lifetime > 0 && at-t.initial > seconds(lifetime)
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

// judgeToken runs all the checks that a token must pass. With a session it must also have that session's id.
func judgeToken(text, key []byte, user string, session *[sessionIDLen]byte, now time.Time, lifetime, renewal time.Duration) (token, TokenState) {
	t, emptyUser, ok := openToken(text, key, user)
	if !ok || session != nil && subtle.ConstantTimeCompare(t.session[:], session[:]) == 0 {
		return token{}, TokenInvalid
	}
	switch expired := t.expired(now, lifetime, renewal); {
	case expired && emptyUser:
		return t, TokenExpiredEmptyUser
	case expired:
		return t, TokenExpired
	case emptyUser:
		return t, TokenAuthenticatedEmptyUser
	}
	return t, TokenAuthenticated
}

// A TokenState is what a login's token is worth, in the words that the reference has for an external back end.
type TokenState uint8

const (
	TokenInitial                TokenState = iota // there is none: a password
	TokenInvalid                                  // forged, another user's, another certificate's, revoked, or of another session
	TokenExpired                                  // was good
	TokenExpiredEmptyUser                         // was good for the empty user name, and came with a name that nothing proves
	TokenAuthenticated                            // good
	TokenAuthenticatedEmptyUser                   // good for the empty user name, and came with a name that nothing proves
)

func (s TokenState) String() string {
	switch s {
	case TokenInitial:
		return "Initial"
	case TokenExpired:
		return "Expired"
	case TokenExpiredEmptyUser:
		return "ExpiredEmptyUser"
	case TokenAuthenticated:
		return "Authenticated"
	case TokenAuthenticatedEmptyUser:
		return "AuthenticatedEmptyUser"
	}
	return "Invalid"
}

// A TokenSecret signs tokens. Servers that share one take each other's.
type TokenSecret struct{ key [sha256.Size]byte }

// NewTokenSecret returns a random secret, good for one run of the program.
func NewTokenSecret() *TokenSecret {
	s := new(TokenSecret)
	rand.Read(s.key[:])
	return s
}

const (
	tokenSecretType = "OpenVPN auth-token server key"
	tokenSecretLen  = 128 // as two key slots of the reference, of which it uses a quarter
)

// ParseTokenSecret reads the file of auth-gen-token-secret.
func ParseTokenSecret(text []byte) (*TokenSecret, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("auth-token key: no PEM block")
	case block.Type != tokenSecretType:
		return nil, fmt.Errorf("auth-token key: the PEM block is a %q, not a %q", block.Type, tokenSecretType)
	case len(block.Bytes) != tokenSecretLen:
		return nil, fmt.Errorf("auth-token key: %d bytes, not %d", len(block.Bytes), tokenSecretLen)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("auth-token key: something follows the PEM block")
	}
	defer clear(block.Bytes)
	s := new(TokenSecret)
	copy(s.key[:], block.Bytes[64:])
	return s, nil
}

// bound returns the HMAC key for one certificate key and one epoch. Without a certificate certKey is nil.
func (s *TokenSecret) bound(certKey []byte, epoch string) []byte {
	mac := hmac.New(sha256.New, s.key[:])
	mac.Write([]byte("postern auth-token, bound: 1\x00"))
	mac.Write([]byte{byte(len(certKey))}) // at most 32
	mac.Write(certKey)
	mac.Write([]byte(epoch))
	return mac.Sum(nil)
}

func (*TokenSecret) String() string   { return "[secret]" }
func (*TokenSecret) GoString() string { return "[secret]" }
