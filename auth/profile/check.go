package profile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLine is how long a line OpenVPN reads; one word may be as long.
const maxLine = 255

// check validates every value that stands in a line of its own. Key material is blocks' business.
func (p *Profile) check() error {
	if err := checkText("name", p.Name, 64); err != nil {
		return err
	}
	if len(p.Remotes) == 0 {
		return errors.New("no remote: the client would not know where to connect")
	}
	if len(p.Remotes) > 64 { // what OpenVPN 2.4 takes
		return fmt.Errorf("%d remotes, 64 are allowed", len(p.Remotes))
	}
	for _, r := range p.Remotes {
		if err := r.check(); err != nil {
			return err
		}
	}
	if p.VerifyName != "" {
		if err := checkText("server name", p.VerifyName, 64); err != nil {
			return err
		}
		if strings.ContainsAny(p.VerifyName, `"\`) {
			return fmt.Errorf("server name %q: quotes and backslashes cannot be written", p.VerifyName)
		}
	}
	if p.CodeText != "" {
		if err := checkText("question for a code", p.CodeText, 100); err != nil {
			return err
		}
		if strings.ContainsAny(p.CodeText, `"\`) {
			return fmt.Errorf("question for a code %q: quotes and backslashes cannot be written", p.CodeText)
		}
		if !p.Login {
			return errors.New("a question for a code, and none for a password")
		}
	}
	for _, c := range p.DataCiphers {
		if !isAlgorithm(c) {
			return fmt.Errorf("data cipher %q is not the name of a cipher", c)
		}
	}
	if n := len(strings.Join(p.DataCiphers, ":")); n > 127 { // OpenVPN's MAX_NCP_CIPHERS_LENGTH
		return fmt.Errorf("list of data ciphers has %d characters, clients take 127", n)
	}
	if p.Auth != "" && !isAlgorithm(p.Auth) {
		return fmt.Errorf("auth %q is not the name of a digest", p.Auth)
	}
	if p.TLSMin != "1.2" && p.TLSMin != "1.3" {
		return fmt.Errorf("lowest TLS version %q: must be 1.2 or 1.3", p.TLSMin)
	}
	if p.MTU != 0 && (p.MTU < 576 || p.MTU > 65535) {
		return fmt.Errorf("MTU %d: must be 576 to 65535", p.MTU)
	}
	for _, c := range p.Comments {
		if err := checkText("comment", c, maxLine-len("# ")); err != nil {
			return err
		}
	}
	return nil
}

var protos = []string{"udp", "udp4", "udp6", "tcp", "tcp4", "tcp6"}

func (r *Remote) check() error {
	if err := CheckHost(r.Host); err != nil {
		return err
	}
	if r.Port == 0 {
		return fmt.Errorf("remote %s: port 0", r.Host)
	}
	if !slices.Contains(protos, r.Proto) {
		return fmt.Errorf("remote %s: protocol %q: must be one of %s", r.Host, r.Proto, strings.Join(protos, ", "))
	}
	return nil
}

// CheckHost reports why host cannot stand in a remote line.
func CheckHost(host string) error {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("remote %q is not an address that clients can reach", host)
		}
		return nil
	}
	if len(host) > 253 {
		return fmt.Errorf("remote host of %d characters: names have 253 at most", len(host))
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("remote %q is neither a host name nor an address", host)
		}
		for _, c := range []byte(label) {
			if !isAlnum(c) && c != '-' && c != '_' {
				if c >= utf8.RuneSelf {
					return fmt.Errorf("remote %q: write international names in their xn-- form", host)
				}
				return fmt.Errorf("remote %q is neither a host name nor an address", host)
			}
		}
	}
	return nil
}

// checkText takes one line of anything that can be printed. The first character matters in a comment only so far
// that it cannot begin a new line.
func checkText(what, s string, most int) error {
	if s == "" || len(s) > most {
		return fmt.Errorf("%s must have 1 to %d bytes, not %d", what, most, len(s))
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s %q is not UTF-8", what, s)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%s %q: %q cannot be written", what, s, r)
		}
	}
	return nil
}

func isAlgorithm(s string) bool {
	for _, c := range []byte(s) {
		if !isAlnum(c) && c != '-' && c != '/' {
			return false
		}
	}
	return s != "" && len(s) <= 32 && isAlnum(s[0])
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
