package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var dataRows = []row{
	use("data-ciphers", "LIST", "Data ciphers in order of preference: AES-256-GCM, AES-192-GCM, AES-128-GCM, CHACHA20-POLY1305, and for old clients AES-256-CBC, AES-192-CBC, AES-128-CBC with the digest of `auth`. `DEFAULT` stands for AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305, which is the default; `?NAME` is optional. Others are left out.", setDataCiphers),
	use("ncp-ciphers", "LIST", "The old name of `data-ciphers`.", setDataCiphers).as("data-ciphers"),
	use("data-ciphers-fallback", "NAME", "The cipher for clients that do not say which they have, as those with `ncp-disable`; default none, and they are turned away.", setFallback),
	use("cipher", "NAME", "Only a hint, as in OpenVPN 2.6: what is used comes from `data-ciphers`.", setCipher),
	refuse("ncp-disable", "removed from OpenVPN 2.6: remove the line; `data-ciphers-fallback` serves clients that cannot negotiate"),
	use("auth", "DIGEST", "The digest of `tls-auth`: SHA1 (default), SHA224, SHA256, SHA384, SHA512 or MD5. It is also that of CBC data ciphers, with which MD5 is refused; the others need none.", setAuth),
	use("keysize", "BITS", "Ignored where the cipher has that size anyway.", checkKeysize),
	use("compat-mode", "VERSION", "Serve old clients: below 2.5.0 the `cipher` is added to `data-ciphers`.", setCompat),
	use("replay-window", "PACKETS [SECONDS]", "How far behind the newest a packet may be; default 2048. SECONDS is not looked at.", setReplayWindow),
	accept("replay-persist", "FILE", "it is for static keys only"),
	refuse("no-replay", "removed from OpenVPN 2.7: remove the line, packets are always protected against replay"),
	refuse("no-iv", "removed from OpenVPN 2.5: remove the line"),
	accept("mute-replay-warnings", "", "replayed packets are counted, never logged"),
	use("comp-lzo", "[no|yes|adaptive]", "Nothing is ever compressed. Clients with that line are told how to frame their packets.", setCompLZO),
	accept("comp-noadapt", "", "nothing is compressed"),
	use("compress", "[migrate|stub|stub-v2|lzo|lz4|lz4-v2]", "As `migrate`, whatever is written: nothing is compressed, and clients that are set up for it are told to frame their packets without.", setCompress),
	use("allow-compression", "no|asym|yes|stub-only", "As `no`, whatever is written: nothing is compressed.", setAllowCompression),
	refuse("secret", "static keys are not supported, they are broken by design: use `ca`, `cert` and `key`"),
	refuse("allow-deprecated-insecure-static-crypto", "static keys are not supported: remove the line"),
	refuse("test-crypto", "it is a command, not configuration: remove the line"),
}

// dataCiphers are the ciphers that can be used.
var dataCiphers = []string{"AES-256-GCM", "AES-192-GCM", "AES-128-GCM", "CHACHA20-POLY1305", "AES-256-CBC", "AES-192-CBC", "AES-128-CBC"}

const defaultDataCiphers = "AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305"

// knownCipher reports whether OpenVPN has a cipher of this upper-case name, usable here or not. What is no cipher at
// all is a slip of the pen and refused; what is only unavailable is left out of a list.
func knownCipher(name string) bool {
	if name == "NONE" || slices.Contains(dataCiphers, name) {
		return true
	}
	for _, family := range []string{"AES-128-", "AES-192-", "AES-256-", "CAMELLIA-128-", "CAMELLIA-192-", "CAMELLIA-256-", "ARIA-128-", "ARIA-192-", "ARIA-256-", "BF-", "CAST5-", "DES-", "DES-EDE-", "DES-EDE3-", "DESX-", "IDEA-", "RC2-", "RC2-40-", "RC2-64-", "RC5-", "SEED-", "SM4-"} {
		mode, ok := strings.CutPrefix(name, family)
		if ok && slices.Contains([]string{"CBC", "CFB", "CFB1", "CFB8", "OFB", "GCM", "CTR"}, mode) {
			return true
		}
	}
	return false
}

func setDataCiphers(d *draft, l *directive) error {
	const limit = 127
	if len(l.args[0]) > limit {
		return fmt.Errorf("the list has %d bytes, and clients know at most %d: leave some out", len(l.args[0]), limit)
	}
	var usable, dropped []string
	for name := range strings.SplitSeq(l.args[0], ":") {
		name, optional := strings.CutPrefix(name, "?")
		name = strings.ToUpper(name)
		switch {
		case name == "DEFAULT":
			usable = append(usable, strings.Split(defaultDataCiphers, ":")...)
		case slices.Contains(dataCiphers, name):
			usable = append(usable, name)
		case name == "":
		case knownCipher(name) || optional:
			dropped = append(dropped, name)
		default:
			return fmt.Errorf("Unsupported cipher %q: there is no such cipher, write of %s", name, strings.Join(dataCiphers, ":"))
		}
	}
	if len(usable) == 0 {
		return fmt.Errorf("none of these ciphers is available: add one of %s", strings.Join(dataCiphers, ", "))
	}
	if len(dropped) > 0 {
		d.notice(l, "left out, since they are not available: %s", strings.Join(dropped, ", "))
	}
	// Both names set the same list: the last line of either counts.
	d.cfg.DataCiphers = nil
	for _, name := range usable {
		if !slices.Contains(d.cfg.DataCiphers, name) {
			d.cfg.DataCiphers = append(d.cfg.DataCiphers, name)
		}
	}
	return nil
}

func setFallback(d *draft, l *directive) error {
	name := strings.ToUpper(l.args[0])
	switch {
	case slices.Contains(dataCiphers, name):
		d.cfg.CipherFallback = name
	case knownCipher(name):
		d.cfg.CipherFallback = ""
		d.notice(l, "%s is not available: clients that cannot negotiate a cipher are turned away", name)
	default:
		return fmt.Errorf("Unsupported cipher %q: write one of %s, or remove the line", name, strings.Join(dataCiphers, ", "))
	}
	return nil
}

func setCipher(d *draft, l *directive) error {
	d.cipher = strings.ToUpper(l.args[0])
	return nil
}

// finishCiphers fills in DataCiphers, and says what the cipher line did not do.
func (d *draft) finishCiphers() {
	c := d.cfg
	if c.DataCiphers == nil {
		c.DataCiphers = strings.Split(defaultDataCiphers, ":")
	}
	if d.cipher == "" {
		return
	}
	l := d.last["cipher"]
	switch {
	case slices.Contains(c.DataCiphers, d.cipher):
		d.ignore(l, "ciphers are negotiated, and data-ciphers has it")
	case d.compat != [3]int{} && older(d.compat, [3]int{2, 5, 0}) && slices.Contains(dataCiphers, d.cipher):
		c.DataCiphers = append(c.DataCiphers, d.cipher)
		d.notice(l, "added to data-ciphers, as compat-mode asks for")
	case slices.Contains(dataCiphers, d.cipher):
		d.ignore(l, "ciphers are negotiated from data-ciphers, which lacks it: add it there if clients need it")
	default:
		d.ignore(l, "ciphers are negotiated from data-ciphers (%s); %s is not available", strings.Join(c.DataCiphers, ":"), d.cipher)
	}
}

func older(a, b [3]int) bool { return slices.Compare(a[:], b[:]) < 0 }

var digests = map[string]string{
	"MD5": "MD5", "SHA1": "SHA1", "SHA224": "SHA224", "SHA256": "SHA256", "SHA384": "SHA384", "SHA512": "SHA512",
}

func setAuth(d *draft, l *directive) error {
	name := strings.ToUpper(l.args[0])
	if name == "NONE" {
		return errors.New("packets are always authenticated: write `auth SHA256`, or remove the line")
	}
	plain := strings.TrimPrefix(name, "RSA-")
	if rest, ok := strings.CutPrefix(plain, "SHA-"); ok {
		plain = "SHA" + rest
	}
	if rest, ok := strings.CutPrefix(plain, "SHA2-"); ok {
		plain = "SHA" + rest
	}
	if digests[plain] == "" {
		return fmt.Errorf("%q is not a digest that is available: write SHA1, SHA224, SHA256, SHA384, SHA512 or MD5", l.args[0])
	}
	d.cfg.Auth = digests[plain]
	return nil
}

func checkKeysize(d *draft, l *directive) error {
	if !slices.Contains([]string{"128", "192", "256"}, l.args[0]) || d.has("cipher") && !strings.Contains(d.last["cipher"].arg(0), l.args[0]) {
		return errors.New("removed from OpenVPN 2.6: remove the line; the name of a cipher tells the size of its key")
	}
	d.ignore(l, "the name of a cipher tells the size of its key")
	return nil
}

func setCompat(d *draft, l *directive) error {
	var v [3]int
	parts := strings.Split(l.args[0], ".")
	if len(parts) > 3 || len(parts) < 2 {
		return fmt.Errorf("%q is not a version such as 2.4.0", l.args[0])
	}
	for i, p := range parts {
		n, err := number(p, 0, 99)
		if err != nil {
			return fmt.Errorf("%q is not a version such as 2.4.0", l.args[0])
		}
		v[i] = n
	}
	if older(v, [3]int{2, 4, 0}) {
		return errors.New("clients older than 2.4 need ciphers and TLS versions that are not available: write 2.4.0, and update those clients")
	}
	d.compat = v
	d.notice(l, "it does no more than to add `cipher` to data-ciphers where the version is below 2.5.0")
	return nil
}

func setReplayWindow(d *draft, l *directive) error {
	n, err := number(l.args[0], 1, 65536)
	if err != nil {
		return err
	}
	if l.arg(1) != "" {
		if _, err := seconds(l.arg(1), 1); err != nil {
			return err
		}
	}
	d.cfg.ReplayWindow = n
	return nil
}

const noHeader = "nothing is compressed, since that reveals what is sent; clients that are set up for it are told to send packets as they are"

func setCompLZO(d *draft, l *directive) error {
	if err := choice("no", "yes", "adaptive")(d, l); err != nil {
		return err
	}
	d.notice(l, noHeader)
	return nil
}

func setCompress(d *draft, l *directive) error {
	if err := choice("migrate", "stub", "stub-v2", "lzo", "lz4", "lz4-v2")(d, l); err != nil {
		return err
	}
	d.notice(l, noHeader)
	return nil
}

func setAllowCompression(d *draft, l *directive) error {
	if err := choice("no", "asym", "yes", "stub-only")(d, l); err != nil {
		return err
	}
	if l.args[0] != "no" {
		d.notice(l, noHeader)
	}
	return nil
}
