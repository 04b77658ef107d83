package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// A TOTPSecret is what a user's authenticator app and we know of: RFC 6238 with what every app takes for granted,
// SHA-1, six digits, 30 seconds.
type TOTPSecret []byte

const (
	codeLen    = 6
	codeTime   = 30 // seconds that a code is shown
	totpLen    = 20 // bytes of a new secret; RFC 4226 wants at least 16
	minTOTPLen = 16
	maxTOTPLen = 64
)

var totpEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// NewTOTPSecret returns a random secret.
func NewTOTPSecret() TOTPSecret {
	s := make(TOTPSecret, totpLen)
	rand.Read(s)
	return s
}

// code returns the code of one step of time: RFC 4226 section 5.3.
func (s TOTPSecret) code(step int64) [codeLen]byte {
	mac := hmac.New(sha1.New, s)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(step)))
	sum := mac.Sum(nil)
	n := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&0xf:]) & 0x7fffffff
	var code [codeLen]byte
	for i := range code {
		code[codeLen-1-i] = '0' + byte(n%10)
		n /= 10
	}
	return code
}

// Code returns the code that an app shows at t.
func (s TOTPSecret) Code(t time.Time) string {
	c := s.code(stepOf(t))
	return string(c[:])
}

// match returns which step the code is of: that of now, or one before or after for clocks that differ. Which of them
// it is takes no telling time.
func (s TOTPSecret) match(code []byte, now int64) (step int64, ok bool) {
	for at := now - 1; at <= now+1; at++ {
		c := s.code(at)
		if subtle.ConstantTimeCompare(c[:], code) == 1 {
			step, ok = at, true
		}
	}
	return step, ok
}

func stepOf(t time.Time) int64 { return t.Unix() / codeTime }

// URL returns s in the form that authenticator apps read out of a QR code.
func (s TOTPSecret) URL(issuer, name string) string {
	// Apps do not agree about '+', but they all take %20 for a space.
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	label := escape(name)
	q := fmt.Sprintf("secret=%s&algorithm=SHA1&digits=%d&period=%d", totpEncoding.EncodeToString(s), codeLen, codeTime)
	if issuer != "" {
		label = escape(issuer) + ":" + label
		q += "&issuer=" + escape(issuer)
	}
	return "otpauth://totp/" + label + "?" + q
}

func (TOTPSecret) String() string   { return "[secret]" }
func (TOTPSecret) GoString() string { return "[secret]" }
