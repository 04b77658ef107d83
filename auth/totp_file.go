package auth

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// AddTOTP gives a user a new secret in the secrets file at path, and makes the file when there is none. The error is
// fs.ErrExist when the user has one already.
func AddTOTP(path, name string) (TOTPSecret, error) {
	return setTOTP(path, name, func(known bool) error {
		if known {
			return fs.ErrExist
		}
		return nil
	})
}

// RenewTOTP gives a user another secret in place of the one that they have. The error is ErrUnknownUser when there
// is none.
func RenewTOTP(path, name string) (TOTPSecret, error) {
	return setTOTP(path, name, func(known bool) error {
		if !known {
			return ErrUnknownUser
		}
		return nil
	})
}

// RemoveTOTP takes a user's secret away. The error is ErrUnknownUser when there is none.
func RemoveTOTP(path, name string) error {
	canonical, err := CanonicalName(name)
	if err != nil {
		return err
	}
	return editTOTP(path, func(lines []totpLine) ([]totpLine, error) {
		at := slices.IndexFunc(lines, func(l totpLine) bool { return l.name == canonical })
		if at < 0 {
			return nil, fmt.Errorf("user %q: %w", canonical, ErrUnknownUser)
		}
		return slices.Delete(lines, at, at+1), nil
	})
}

// HoldsTOTP reports whether the secrets file at path has a secret of the user.
func HoldsTOTP(path, name string) (bool, error) {
	canonical, err := CanonicalName(name)
	if err != nil {
		return false, err
	}
	text, _, err := readUsersFile(path)
	if err != nil {
		return false, err
	}
	lines, err := parseTOTP(text)
	if err != nil {
		return false, fmt.Errorf("%s:%w", path, err)
	}
	return slices.ContainsFunc(lines, func(l totpLine) bool { return l.name == canonical }), nil
}

func setTOTP(path, name string, may func(known bool) error) (TOTPSecret, error) {
	canonical, err := CanonicalName(name)
	if err != nil {
		return nil, err
	}
	if err := writableName(canonical); err != nil {
		return nil, err
	}
	secret := NewTOTPSecret()
	line := totpLine{text: canonical + ":" + totpEncoding.EncodeToString(secret), name: canonical, secret: secret}
	err = editTOTP(path, func(lines []totpLine) ([]totpLine, error) {
		at := slices.IndexFunc(lines, func(l totpLine) bool { return l.name == canonical })
		if err := may(at >= 0); err != nil {
			return nil, fmt.Errorf("user %q: %w", canonical, err)
		}
		if at < 0 {
			return append(lines, line), nil
		}
		lines[at] = line
		return lines, nil
	})
	if err != nil {
		return nil, err
	}
	return secret, nil
}

func editTOTP(path string, change func([]totpLine) ([]totpLine, error)) error {
	return rewrite(path, func(text []byte) ([]byte, error) {
		lines, err := parseTOTP(text)
		if err != nil {
			return nil, fmt.Errorf("%s:%w", path, err)
		}
		if lines, err = change(lines); err != nil {
			return nil, err
		}
		var out bytes.Buffer
		for _, l := range lines {
			out.WriteString(l.text)
			out.WriteByte('\n')
		}
		return out.Bytes(), nil
	})
}

// A totpLine is one line of the secrets file: "name:BASE32". The name is "" for comments, which begin with '#', and
// empty lines.
type totpLine struct {
	text   string
	name   string
	secret TOTPSecret
}

// parseTOTP reads the text of a secrets file. Errors begin with the number of the line and quote no secret.
func parseTOTP(text []byte) ([]totpLine, error) {
	var lines []totpLine
	held := make(map[string]int) // name -> line
	in := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; in.Scan(); n++ {
		l := totpLine{text: in.Text()}
		if s := strings.TrimSpace(l.text); s != "" && s[0] != '#' {
			if err := l.parse(s); err != nil {
				return nil, fmt.Errorf("%d: %w", n, err)
			}
			if first := held[l.name]; first != 0 {
				return nil, fmt.Errorf("%d: user %q is already on line %d", n, l.name, first)
			}
			held[l.name] = n
		}
		lines = append(lines, l)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("%d: %w", len(lines)+1, err)
	}
	return lines, nil
}

func (l *totpLine) parse(s string) error {
	name, secret, found := strings.Cut(s, ":")
	if !found {
		return errors.New("line is not name:secret")
	}
	canonical, err := CanonicalName(name)
	if err != nil {
		return err
	}
	// As other programs print them: in groups, small letters, padded.
	secret = strings.TrimRight(strings.ToUpper(strings.ReplaceAll(secret, " ", "")), "=")
	b, err := totpEncoding.DecodeString(secret)
	if err != nil || totpEncoding.EncodeToString(b) != secret {
		return fmt.Errorf("user %q: secret is not base32", canonical)
	}
	if len(b) < minTOTPLen || len(b) > maxTOTPLen {
		return fmt.Errorf("user %q: secret is %d bytes, not %d to %d", canonical, len(b), minTOTPLen, maxTOTPLen)
	}
	l.name, l.secret = canonical, b
	return nil
}
