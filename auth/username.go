package auth

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/text/secure/precis"
)

// maxName is the longest user name in bytes, before and after it is made canonical (security S027).
const maxName = 255

// CanonicalName returns the one form of a user name that is compared, counted, logged and looked up
// (security S044): PRECIS UsernameCaseMapped of RFC 8265, so "Alice", "ALICE" and "Ａｌｉｃｅ" are all "alice".
// Names that have no such form (empty, spaces, zero-width and control characters, mixed directions, too long) are an
// error.
func CanonicalName(name string) (string, error) {
	if name == "" {
		return "", errors.New("no user name")
	}
	if len(name) > maxName {
		return "", fmt.Errorf("user name is %d bytes long, at most %d", len(name), maxName)
	}
	// Case mapping may yield what normalisation changes again, so the profile is applied until it rests
	// (RFC 8264 section 7). What does not rest has no canonical form.
	for range 4 {
		next, err := precis.UsernameCaseMapped.String(name)
		if err != nil {
			return "", fmt.Errorf("user name has no canonical form: %w", err)
		}
		if len(next) == 0 || len(next) > maxName {
			return "", fmt.Errorf("canonical user name is %d bytes long, not 1 to %d", len(next), maxName)
		}
		if next == name {
			return name, nil
		}
		name = next
	}
	return "", errors.New("user name has no stable canonical form")
}

// credentials returns the canonical name in r, or a *Denied when no back end may be asked about r at all
// (security S044, S051). Every back end calls it first, so that none depends on being wrapped rightly.
func credentials(r *Request) (name string, err error) {
	// An LDAP server takes a bind without a password for an anonymous one and says yes, and some stop reading a
	// password at a zero byte.
	if len(r.Password) == 0 {
		return "", &Denied{Reason: "empty password", Public: publicEmptyPassword}
	}
	if bytes.IndexByte(r.Password, 0) >= 0 {
		return "", &Denied{Reason: "password contains a zero byte", Public: PublicRefusal}
	}
	name, err = CanonicalName(r.Username)
	if err != nil {
		return "", &Denied{Reason: err.Error(), Public: PublicRefusal}
	}
	return name, nil
}

// What a client may read besides PublicRefusal: neither depends on whether the user exists.
const (
	publicEmptyPassword = "empty password"
	publicOtherLogin    = "login name does not match the certificate"
)
