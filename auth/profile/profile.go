// Package profile writes .ovpn files: everything one client needs, in one file, that OpenVPN 2.4 to 2.7, OpenVPN
// Connect, NetworkManager and the mobile apps import without asking for more.
//
// Nothing is copied through. Every value is checked for the place it goes to, and certificates and keys are decoded
// and written anew, so that no name, host or key file can add a directive or end its block early (security S092).
package profile

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// A Profile is one client's file. Write says what is missing or wrong.
type Profile struct {
	Name    string   // whose it is; for the heading
	Remotes []Remote // tried in this order

	CA        []byte // PEM, one or more certificates
	Cert, Key []byte // PEM; both empty when the server asks for no certificate

	Wrap    Wrap
	WrapKey []byte // contents of the key file: the static key, or the client's tls-crypt-v2 key

	Login           bool     // the server asks for a user name and password
	CodeText        string   // what the user is asked for beside them, a one-time code; empty: for nothing
	VerifyName      string   // common name of the server's certificate; empty: any server of the CA
	DataCiphers     []string // in order of preference; empty: the client's own
	Auth            string   // digest of tls-auth and CBC ciphers; empty: the client's default, SHA1
	TLSMin          string   // 1.2 or 1.3; empty: 1.2
	MTU             int      // of the tunnel; 0: 1500, which needs no line
	Tap             bool     // Ethernet frames, for a server with dev tap
	BlockOutsideDNS bool     // on Windows, ask no resolver but the tunnel's

	Comments []string // lines for the people who open the file, below the heading
}

// A Remote is one address of the server.
type Remote struct {
	Host  string // name, IPv4 or IPv6 address
	Port  uint16
	Proto string // udp, tcp, or with 4 or 6 behind it
}

// Wrap is the protection around the control channel.
type Wrap uint8

const (
	NoWrap     Wrap = iota
	TLSAuth         // with key direction 1, the server having 0
	TLSAuth0        // with key direction 0, the server having 1
	TLSAuthAny      // with no direction, the server having none
	TLSCrypt
	TLSCryptV2
)

// Write writes p to w, whole or not at all.
func Write(w io.Writer, p Profile) error {
	var b bytes.Buffer
	if err := p.write(&b); err != nil {
		return fmt.Errorf("profile of %q: %w", p.Name, err)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (p *Profile) write(b *bytes.Buffer) error {
	if p.TLSMin == "" {
		p.TLSMin = "1.2"
	}
	blocks, err := p.blocks()
	if err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return err
	}
	line := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }

	line("# OpenVPN profile of %s", p.Name)
	if len(p.Key) > 0 {
		line("# It holds a private key: whoever has this file can act as %s. Keep it to yourself.", p.Name)
	}
	for _, c := range p.Comments {
		line("# %s", c)
	}
	if p.Wrap == TLSCryptV2 {
		line("# Needs OpenVPN 2.5 or newer, for tls-crypt-v2.")
	}

	line("\nclient")
	if p.Tap {
		line("dev tap")
	} else {
		line("dev tun")
	}
	if p.MTU != 0 && p.MTU != 1500 {
		line("tun-mtu %d", p.MTU)
	}
	for _, r := range p.Remotes {
		line("remote %s %d %s", r.Host, r.Port, r.Proto)
	}
	line("resolv-retry infinite")
	line("nobind")
	line("persist-key")
	line("persist-tun")
	if p.allUDP() {
		line("explicit-exit-notify 1")
	}

	line("\n# Only this server, and only with a server's certificate.")
	line("remote-cert-tls server")
	if p.VerifyName != "" {
		line("verify-x509-name %s name", quote(p.VerifyName))
	}
	line("tls-version-min %s", p.TLSMin)

	if len(p.DataCiphers) > 0 || p.Auth != "" {
		line("")
	}
	if len(p.DataCiphers) > 0 {
		line("# OpenVPN 2.4 and NetworkManager go by cipher, everybody else by data-ciphers.")
		line("ignore-unknown-option data-ciphers")
		line("data-ciphers %s", strings.Join(p.DataCiphers, ":"))
		line("cipher %s", p.cipher())
	}
	if p.Auth != "" {
		line("auth %s", p.Auth)
	}

	// No auth-nocache: without the password at hand the client would ask for it again at every renegotiation.
	if p.Login {
		line("\n# Asks for user name and password when connecting.")
		line("auth-user-pass")
	}
	if p.CodeText != "" {
		line("# And for the code that an authenticator app shows.")
		line("static-challenge %s 1", quote(p.CodeText))
	}
	if len(p.Cert) == 0 {
		line("\n# OpenVPN Connect asks for a certificate unless told that there is none.")
		line("setenv CLIENT_CERT 0")
	}
	if p.BlockOutsideDNS {
		line("\n# Windows only: ask no other resolver than the tunnel's. Other systems say that they do not know it.")
		line("setenv opt block-outside-dns")
	}
	line("\nverb 3\n")

	for _, blk := range blocks {
		if blk.before != "" {
			line("%s", blk.before)
		}
		line("<%s>", blk.tag)
		b.Write(blk.text)
		line("</%s>", blk.tag)
	}
	return nil
}

// allUDP: with TCP among the remotes OpenVPN 2.4 refuses explicit-exit-notify, and TCP tells the server by itself.
func (p *Profile) allUDP() bool {
	for _, r := range p.Remotes {
		if !strings.HasPrefix(r.Proto, "udp") {
			return false
		}
	}
	return true
}

// cipher is the one that clients without a list get: the first that OpenVPN 2.4 knows.
func (p *Profile) cipher() string {
	for _, c := range p.DataCiphers {
		if !strings.HasPrefix(c, "CHACHA20") {
			return c
		}
	}
	return p.DataCiphers[0]
}

// quote makes one word of s, which check has found free of quotes and backslashes.
func quote(s string) string {
	if strings.ContainsAny(s, " #;'") {
		return `"` + s + `"`
	}
	return s
}
