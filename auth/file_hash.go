package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// A passwordHash is one hash of the user file, parsed. Immutable.
type passwordHash interface {
	// matches takes as long for a wrong password as for the right one. Some 50 ms and, for argon2id, memory.
	matches(password []byte) bool
	// String is the hash as it is in the file.
	String() string
}

// parseHash reads a bcrypt hash or an argon2id PHC string. Costs beyond what one login may cost the server are an
// error.
func parseHash(s string) (passwordHash, error) {
	switch {
	case strings.HasPrefix(s, "$argon2id$"):
		return parseArgon2id(s)
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		return parseBcrypt(s)
	}
	return nil, errors.New("hash is neither bcrypt ($2b$) nor argon2id ($argon2id$)")
}

type bcryptHash []byte

// maxBcryptCost costs about a second.
const maxBcryptCost = 14

func parseBcrypt(s string) (passwordHash, error) {
	const length = len("$2b$10$") + 22 + 31 // salt and hash, base64
	if len(s) != length {
		return nil, fmt.Errorf("bcrypt hash is %d bytes long, not %d", len(s), length)
	}
	cost, err := bcrypt.Cost([]byte(s))
	if err != nil {
		return nil, fmt.Errorf("bcrypt hash: %w", err)
	}
	if cost > maxBcryptCost {
		return nil, fmt.Errorf("bcrypt cost %d, at most %d", cost, maxBcryptCost)
	}
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	if strings.Trim(s[len("$2b$10$"):], alphabet) != "" {
		return nil, errors.New("bcrypt hash has a character that is not base64")
	}
	return bcryptHash(s), nil
}

func (h bcryptHash) matches(password []byte) bool {
	return bcrypt.CompareHashAndPassword(h, password) == nil
}

func (h bcryptHash) String() string { return string(h) }

// An argon2idHash is a PHC string: $argon2id$v=19$m=<KiB>,t=<passes>,p=<lanes>$<salt>$<hash>, base64 without padding.
type argon2idHash struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
	salt   []byte
	sum    []byte
}

// Limits of what a line of the user file may make one login cost.
const (
	maxArgonMemory = 256 << 10 // KiB
	maxArgonPasses = 16
	maxArgonLanes  = 16
)

func parseArgon2id(s string) (passwordHash, error) {
	field := strings.Split(s, "$") // "", argon2id, v, costs, salt, hash
	if len(field) != 6 {
		return nil, errors.New("argon2id hash does not have five parts")
	}
	if field[2] != "v=19" {
		return nil, fmt.Errorf("argon2id version %q, only v=19 is known", field[2])
	}
	cost := strings.Split(field[3], ",")
	if len(cost) != 3 {
		return nil, fmt.Errorf("argon2id costs %q are not m=,t=,p=", field[3])
	}
	var m, t, p uint32
	for i, c := range []struct {
		prefix   string
		value    *uint32
		min, max uint32
	}{{"m=", &m, 8, maxArgonMemory}, {"t=", &t, 1, maxArgonPasses}, {"p=", &p, 1, maxArgonLanes}} {
		digits, found := strings.CutPrefix(cost[i], c.prefix)
		v, err := strconv.ParseUint(digits, 10, 32)
		if !found || err != nil {
			return nil, fmt.Errorf("argon2id costs %q are not m=,t=,p=", field[3])
		}
		if uint32(v) < c.min || uint32(v) > c.max {
			return nil, fmt.Errorf("argon2id cost %s is not within %d and %d", cost[i], c.min, c.max)
		}
		*c.value = uint32(v)
	}
	h := &argon2idHash{memory: m, passes: t, lanes: uint8(p)}
	var err error
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(field[4]); err != nil {
		return nil, fmt.Errorf("argon2id salt: %w", err)
	}
	if h.sum, err = base64.RawStdEncoding.Strict().DecodeString(field[5]); err != nil {
		return nil, fmt.Errorf("argon2id hash: %w", err)
	}
	if len(h.salt) < 8 || len(h.salt) > 64 {
		return nil, fmt.Errorf("argon2id salt is %d bytes, not 8 to 64", len(h.salt))
	}
	if len(h.sum) < 16 || len(h.sum) > 64 {
		return nil, fmt.Errorf("argon2id hash is %d bytes, not 16 to 64", len(h.sum))
	}
	return h, nil
}

func (h *argon2idHash) matches(password []byte) bool {
	sum := argon2.IDKey(password, h.salt, h.passes, h.memory, h.lanes, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

func (h *argon2idHash) String() string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", h.memory, h.passes, h.lanes, b64(h.salt), b64(h.sum))
}

// newHash returns password as the user file keeps it: argon2id with the first of OWASP's equivalent settings.
func newHash(password []byte) *argon2idHash {
	h := &argon2idHash{memory: 46 << 10, passes: 1, lanes: 1, salt: make([]byte, 16)}
	rand.Read(h.salt)
	h.sum = argon2.IDKey(password, h.salt, h.passes, h.memory, h.lanes, 32)
	return h
}
