package pki

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is X.520's upper bound for a common name.
const maxName = 64

// CheckName reports why name cannot be given to a new certificate: it becomes a common name, a file name and the
// name a login must match, so only A-Z a-z 0-9 . _ @ + - are taken, never replaced, 1 to 64 of them, neither "." nor
// "-" first. DEFAULT is OpenVPN's fallback client file, and ca is the authority's own key file.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("name is empty")
	case len(name) > maxName:
		return fmt.Errorf("name is %d characters long, %d are allowed", len(name), maxName)
	case name[0] == '.' || name[0] == '-':
		return fmt.Errorf("name %q starts with %q", name, name[:1])
	case strings.EqualFold(name, "DEFAULT") || strings.EqualFold(name, "ca"):
		return fmt.Errorf("name %q is reserved", name)
	}
	for _, r := range name {
		if !nameRune(r) {
			return fmt.Errorf("name %q: %q is not one of A-Z a-z 0-9 . _ @ + -", name, r)
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._@+-", r)
}

// checkFileName is for what is in the tree already: easy-rsa takes names that CheckName does not, and they must be
// revocable all the same. It only keeps the name inside its directory.
func checkFileName(name string) error {
	if name == "" || len(name) > 200 || name[0] == '.' || strings.EqualFold(name, "ca") || !utf8.ValidString(name) {
		return fmt.Errorf("%q is not the name of a certificate", name)
	}
	for _, r := range name {
		if r == '/' || r == '\\' || !unicode.IsPrint(r) {
			return fmt.Errorf("%q is not the name of a certificate", name)
		}
	}
	return nil
}

// checkCommonName is for the authority's own name, which is no file and no login.
func checkCommonName(cn string) error {
	if cn == "" || len(cn) > maxName {
		return fmt.Errorf("common name must have 1 to %d characters", maxName)
	}
	for _, r := range cn {
		if r < ' ' || r > '~' || r == '/' || r == '\\' {
			return fmt.Errorf("common name %q: %q is not allowed", cn, r)
		}
	}
	return nil
}
