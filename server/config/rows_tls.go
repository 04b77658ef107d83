package config

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

var tlsRows = []row{
	use("tls-server", "", "TLS, in the server's role. Implied by `server` and `server-ipv6`.", func(d *draft, _ *directive) error { d.tlsServer = true; return nil }),
	refuse("tls-client", "this is a client's file, or the line is one too many: Postern is a server"),
	refuse("client", "this is a client's file: Postern is a server"),
	refuse("pull", "only clients pull: remove the line"),
	accept("pull-filter", "accept|ignore|reject TEXT", "clients only"),
	accept("route-nopull", "", "clients only"),
	accept("allow-pull-fqdn", "", "clients only"),
	use("ca", "FILE", "Certificates of the CA that clients' certificates must come from.", setMaterial).inline(),
	use("cert", "FILE", "The server's certificate, with intermediate ones behind it.", setMaterial).inline(),
	use("key", "FILE", "The private key of `cert`; if it is encrypted, `askpass` names the password's file. Nobody but the owner should be able to read it.", setMaterial).inline(),
	use("extra-certs", "FILE", "More intermediate certificates to send along.", setMaterial).inline(),
	use("pkcs12", "FILE", "Certificate, key and CA in one file, in place of `cert`, `key` and, where there is no such line, `ca`. The password is that of `askpass`, or empty. A block holds it in base64.", setMaterial).inline(),
	use("capath", "DIR", "A directory with certificates of CAs, in files HASH.0, HASH.1, ..., and with their revocation lists in files HASH.r0, ... Read at the start and at a reload.", setCAPath),
	accept("dh", "FILE|none", "key exchange is always ECDHE, which needs no such file").inline(),
	use("crl-verify", "FILE|DIR [dir]", "Certificates that are revoked: a list in FILE, read again when it changes, or with `dir` a directory with files named by serial number.", setCRL).inline(),
	use("verify-client-cert", "[none|optional|require]", "Whether clients need a certificate; default require. `none` and `optional` need a login.", setCertMode),
	refuse("client-cert-not-required", "removed from OpenVPN 2.5: write `verify-client-cert none`"),
	use("tls-auth", "FILE [0|1]", "Sign control packets with this key. The number is the direction: 0 here, 1 in profiles, or none in both.", setTLSAuth).inline(),
	use("key-direction", "0|1", "The direction of an inline `tls-auth`.", setKeyDirection),
	use("tls-crypt", "FILE", "Encrypt control packets with this key.", setMaterial).inline(),
	use("tls-crypt-v2", "FILE [allow-noncookie|force-cookie]", "Encrypt control packets with keys of the clients' own, made with this server key. `force-cookie` keeps clients out that need the server to remember them before they have proved their address.", setTLSCryptV2).inline(),
	scriptUse("tls-crypt-v2-verify", "Run for the first packet of a client, with what its tls-crypt-v2 key says about itself. Nothing is answered when it fails."),
	use("tls-crypt-v2-max-age", "DAYS", "Refuse keys of clients that were made longer ago, and those that do not tell.", func(d *draft, l *directive) error {
		n, err := number(l.args[0], 1, 36500)
		d.cfg.TLSCryptV2MaxAge = time.Duration(n) * 24 * time.Hour
		return err
	}),
	use("tls-version-min", "VERSION [or-highest]", "The lowest TLS version: 1.2 (default) or 1.3.", setTLSMin),
	use("tls-version-max", "VERSION", "The highest TLS version: 1.2 or 1.3; default any.", setTLSMax),
	use("tls-cipher", "LIST", "Cipher suites for TLS 1.2, by OpenSSL's or IANA's names. Those with ECDHE and AES-GCM or ChaCha20-Poly1305 can be used, others are left out.", setTLSCipher),
	use("tls-ciphersuites", "LIST", "Cipher suites for TLS 1.3. All three are always offered; a list without any of them is refused.", setTLSCiphersuites),
	use("tls-groups", "LIST", "Key exchange groups: X25519MLKEM768, X25519, secp256r1, secp384r1, secp521r1.", setGroups),
	use("ecdh-curve", "NAME", "Same as `tls-groups` with one name.", setGroups).as("tls-groups"),
	use("tls-cert-profile", "legacy|preferred|insecure", "How weak certificates may be. The rules of `preferred` always hold.", setCertProfile),
	use("remote-cert-tls", "client", "Take only certificates that were issued for clients (extended key usage). Write it.", setRemoteCert),
	use("remote-cert-ku", "[HEX...]", "Take only certificates with all of one of these sets of key usages, as 80 for digitalSignature; without any, all that have a key usage.", setCertKU),
	use("remote-cert-eku", "OID", "Take only certificates with this extended key usage, which clientAuth must stand beside.", setCertEKU),
	refuse("ns-cert-type", "an extension no longer issued: write `remote-cert-tls client`"),
	use("verify-x509-name", "NAME [subject|name|name-prefix]", "Take only certificates with this name: the whole subject (default), the common name, or its beginning.", setX509Name),
	use("x509-username-field", "FIELD", "The field of the certificate that names the client: CN (default), another field of the subject such as UID or emailAddress, or ext:subjectAltName for the mail address there.", setNameField),
	accept("x509-track", "ATTRIBUTE", "scripts get the fields of the subject; other attributes are not told"),
	use("peer-fingerprint", "FINGERPRINT...", "SHA-256 fingerprints of the certificates that may come in, instead of a CA; a block has one on each line.", addFingerprints).each().inline(),
	use("verify-hash", "FINGERPRINT [ALGORITHM]", "Take only certificates of the CA with this fingerprint: SHA1 (default) or SHA256. A block has one on each line.", setVerifyHash).inline(),
	scriptUse("tls-verify", "Run for each certificate of a client's chain, the CA's first. Refuses the client when it fails."),
	use("tls-export-cert", "DIR", "Give `tls-verify` the certificates as files in DIR, too.", word(func(c *Config) *string { return &c.Scripts.ExportCert })),
	accept("tls-exit", "", "one client's failed handshake never ends a server"),
	use("tls-timeout", "SECONDS", "When a control packet is first sent again; default 2.", interval(1, func(c *Config) *time.Duration { return &c.TLSTimeout })),
	use("hand-window", "SECONDS", "How long a handshake with login may take; default 60.", interval(1, func(c *Config) *time.Duration { return &c.HandWindow })),
	use("tran-window", "SECONDS", "How long an old key goes on after a renegotiation; default 3600.", interval(1, func(c *Config) *time.Duration { return &c.TranWindow })),
	use("reneg-sec", "MAX [MIN]", "Renegotiate keys after MAX seconds at most (default 3600, 0 never) and MIN at least (default 90 % of MAX).", setReneg),
	use("reneg-bytes", "N", "Renegotiate keys after N bytes; default only by time.", renegCount(func(c *Config) *int64 { return &c.RenegotiateBytes })),
	use("reneg-pkts", "N", "Renegotiate keys after N packets; default only by time.", renegCount(func(c *Config) *int64 { return &c.RenegotiatePackets })),
	accept("single-session", "", "nobody takes over a session from outside: who comes anew logs in first"),
	use("askpass", "[FILE]", "The file whose first line is the password of `key` or `pkcs12`. Nobody is there to be asked: FILE is needed.", setAskpass),
	accept("auth-nocache", "", "passwords are never kept"),
	accept("engine", "[NAME]", "cryptography is built in and has no engines"),
	accept("providers", "NAME...", "cryptography is built in; ciphers of the `legacy` provider are not available").each(),
	accept("use-prediction-resistance", "", "the kernel's random numbers are used"),
	accept("prng", "...", "the kernel's random numbers are used"),
	refuse("pkcs11-providers", "keys on tokens are not supported: write `cert` and `key`"),
	refuse("pkcs11-id", "keys on tokens are not supported: write `cert` and `key`"),
	refuse("pkcs11-id-management", "keys on tokens are not supported: write `cert` and `key`"),
	refuse("pkcs11-pin-cache", "keys on tokens are not supported: write `cert` and `key`"),
	refuse("pkcs11-protected-authentication", "keys on tokens are not supported: write `cert` and `key`"),
	refuse("pkcs11-private-mode", "keys on tokens are not supported: write `cert` and `key`"),
	refuse("pkcs11-cert-private", "keys on tokens are not supported: write `cert` and `key`"),
	refuse("cryptoapicert", "keys of Windows are not supported: write `cert` and `key`"),
	refuse("management-external-key", "keys elsewhere are not supported: write `key`"),
	refuse("management-external-cert", "certificates elsewhere are not supported: write `cert`"),
	accept("keying-material-exporter", "LABEL LENGTH", "it only adds a variable for plugins, and none run"),
	use("force-tls-key-material-export", "", "Refuse clients that cannot derive data keys with TLS's exporter (before OpenVPN 2.6).", switchOn(func(c *Config) *bool { return &c.ForceExporter })),
	accept("push-peer-info", "", "clients only"),
	refuse("no-name-remapping", "removed from OpenVPN 2.5: remove the line"),
	refuse("compat-names", "removed from OpenVPN 2.5: remove the line"),
}

// setMaterial remembers the line; its file is read when all lines are known.
func setMaterial(d *draft, l *directive) error {
	if !l.isBlock && l.args[0] == "" {
		return errors.New("the file name must not be empty")
	}
	d.material[l.name] = l
	return nil
}

func setCRL(d *draft, l *directive) error {
	d.cfg.CRLDir = l.arg(1) == "dir"
	if l.arg(1) != "" && !d.cfg.CRLDir {
		return fmt.Errorf("%q is not `dir`", l.arg(1))
	}
	return setMaterial(d, l)
}

func setCertMode(d *draft, l *directive) error {
	switch l.arg(0) {
	case "", "require":
		d.cfg.VerifyClientCert = CertRequire
	case "optional":
		d.cfg.VerifyClientCert = CertOptional
	case "none":
		d.cfg.VerifyClientCert = CertNone
	default:
		return fmt.Errorf("%q is not one of: none, optional, require", l.args[0])
	}
	return nil
}

func setTLSAuth(d *draft, l *directive) error {
	if s := l.arg(1); s != "" {
		n, err := number(s, 0, 1)
		if err != nil {
			return fmt.Errorf("the direction is 0 or 1: %w", err)
		}
		d.keyDirection = n
	}
	return setMaterial(d, l)
}

func setKeyDirection(d *draft, l *directive) (err error) {
	d.keyDirection, err = number(l.args[0], 0, 1)
	return err
}

func setTLSCryptV2(d *draft, l *directive) error {
	switch l.arg(1) {
	case "", "allow-noncookie":
		d.cfg.ForceCookie = false
	case "force-cookie":
		d.cfg.ForceCookie = true
	default:
		return fmt.Errorf("%q is neither allow-noncookie nor force-cookie", l.arg(1))
	}
	return setMaterial(d, l)
}

var tlsVersions = map[string]uint16{
	"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13,
}

func setTLSMin(d *draft, l *directive) error {
	v, ok := tlsVersions[l.args[0]]
	switch {
	case l.arg(1) != "" && l.arg(1) != "or-highest":
		return fmt.Errorf("%q is not `or-highest`", l.arg(1))
	case !ok && l.arg(1) == "or-highest":
		v = tls.VersionTLS13
		d.notice(l, "1.3 is the highest")
	case !ok:
		return fmt.Errorf("unknown TLS version %q: write 1.2 or 1.3", l.args[0])
	case v < tls.VersionTLS12:
		v = tls.VersionTLS12
		d.notice(l, "TLS 1.2 is the lowest that is spoken, which every client since OpenVPN 2.3.3 can")
	}
	d.cfg.TLSMin = v
	return nil
}

func setTLSMax(d *draft, l *directive) error {
	v, ok := tlsVersions[l.args[0]]
	if !ok || v < tls.VersionTLS12 {
		return fmt.Errorf("%q is not a TLS version that is spoken: write 1.2 or 1.3", l.args[0])
	}
	d.cfg.TLSMax = v
	return nil
}

func setTLSCipher(d *draft, l *directive) error {
	ids, dropped := suiteIDs(l.args[0])
	if len(ids) == 0 {
		return errors.New("none of these cipher suites can be used: take ECDHE with AES-GCM or CHACHA20-POLY1305, or remove the line")
	}
	if len(dropped) > 0 {
		d.notice(l, "left out, since only ECDHE with AES-GCM or CHACHA20-POLY1305 is offered: %s", strings.Join(dropped, ", "))
	}
	d.cfg.CipherSuites = ids
	return nil
}

func setTLSCiphersuites(d *draft, l *directive) error {
	named := 0
	for name := range strings.SplitSeq(l.args[0], ":") {
		if slices.Contains(suites13, strings.ReplaceAll(name, "-", "_")) {
			named++
		}
	}
	if named == 0 {
		return fmt.Errorf("none of these can be used: take of %s", strings.Join(suites13, ":"))
	}
	if named < len(suites13) {
		d.notice(l, "all three suites of TLS 1.3 are offered: %s", strings.Join(suites13, ", "))
	}
	return nil
}

func setGroups(d *draft, l *directive) error {
	ids, dropped := curveIDs(l.args[0])
	if len(ids) == 0 {
		return errors.New("none of these groups can be used: take of X25519MLKEM768:X25519:secp256r1:secp384r1:secp521r1")
	}
	if len(dropped) > 0 {
		d.notice(l, "left out, since they are not available: %s", strings.Join(dropped, ", "))
	}
	d.cfg.Curves = ids
	return nil
}

func setCertProfile(d *draft, l *directive) error {
	switch l.args[0] {
	case "preferred":
	case "legacy", "insecure":
		d.notice(l, "the rules of `preferred` hold: at least RSA with 2048 bits and SHA-256")
	case "suiteb":
		return errors.New("suiteb is not supported yet: write preferred, and issue ECDSA certificates")
	default:
		return fmt.Errorf("%q is no profile: write preferred", l.args[0])
	}
	return nil
}

func setRemoteCert(d *draft, l *directive) error {
	if l.args[0] != "client" {
		return errors.New("the other side of a server are clients: write `remote-cert-tls client`")
	}
	d.cfg.RemoteCertTLS = true
	return nil
}

func setX509Name(d *draft, l *directive) error {
	kind := "subject"
	if len(l.args) > 1 {
		kind = l.args[1]
	}
	if !slices.Contains([]string{"subject", "name", "name-prefix"}, kind) {
		return fmt.Errorf("%q is not one of: subject, name, name-prefix", kind)
	}
	if l.args[0] == "" {
		return errors.New("the name must not be empty")
	}
	d.cfg.VerifyX509Name, d.cfg.VerifyX509Type = l.args[0], kind
	return nil
}

func addFingerprints(d *draft, l *directive) error {
	prints := l.args
	if l.isBlock {
		prints = nil
		for text := range bytes.Lines(l.block) {
			words, err := Words(string(text))
			if err != nil {
				return err
			}
			if len(words) > 0 {
				prints = append(prints, words[0])
			}
		}
	}
	if len(prints) == 0 {
		return errors.New("no fingerprint: write one SHA-256 fingerprint on each line, as openssl x509 -fingerprint -sha256 prints it")
	}
	for _, p := range prints {
		sum, err := hex.DecodeString(strings.ReplaceAll(p, ":", ""))
		if err != nil || len(sum) != 32 {
			return fmt.Errorf("%q is not a SHA-256 fingerprint: 32 bytes in hexadecimal, as openssl x509 -fingerprint -sha256 prints them", p)
		}
		d.cfg.PeerFingerprints = append(d.cfg.PeerFingerprints, sum)
	}
	return nil
}

func setReneg(d *draft, l *directive) error {
	most, err := seconds(l.args[0], 0)
	if err != nil {
		return err
	}
	var least time.Duration
	if s := l.arg(1); s != "" {
		if least, err = seconds(s, 0); err != nil {
			return err
		}
		if least > most {
			return errors.New("the second parameter is the minimum and must not be above the first")
		}
	}
	d.cfg.Renegotiate, d.cfg.RenegotiateMin = most, least
	return nil
}

func renegCount(field func(*Config) *int64) func(*draft, *directive) error {
	return func(d *draft, l *directive) error {
		n, err := number(l.args[0], 0, 1<<62)
		if err == nil {
			*field(d.cfg) = int64(n)
		}
		return err
	}
}
