package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

const ownLogin = "use `ldap-url` or `auth-users-file` for logins"

var loginRows = []row{
	use("auth-user-pass-verify", "COMMAND via-env|via-file", "Run at each login, with name and password in the environment or in a file; lets the user in with exit status 0, or later with 2. With a directory or user file too, both must agree.", setPasswordScript),
	use("auth-user-pass-optional", "", "Have `auth-user-pass-verify` and management clients judge clients that send neither user name nor password, too. A directory, a user file and one-time codes refuse them.", switchOn(func(c *Config) *bool { return &c.LoginOptional })),
	use("username-as-common-name", "", "Know clients by their login: for client files, addresses and the status. Needs a login.", switchOn(func(c *Config) *bool { return &c.UsernameAsCN })),
	use("auth-gen-token", "[LIFETIME [RENEWAL]] [external-auth]", "Give clients that have logged in a token to send in place of the password from then on. It is good for LIFETIME seconds after the password (default, 0, and at most 43200, 12 hours) and renewed every RENEWAL seconds (default `reneg-sec`). With `external-auth` a token lets nobody in by itself: the back ends are asked each time; while they cannot be asked, who is connected with a good token stays.", setGenToken),
	use("auth-gen-token-secret", "FILE", "The key that signs tokens, made with `postern key auth-token`; default one that ends with the process. Servers with the same key take each other's tokens. Refused when others can read it.", setMaterial).inline(),
	refuse("auth-user-pass", "it is for clients: remove the line; "+ownLogin),
	accept("auth-retry", "none|nointeract|interact", "clients only"),
	accept("static-challenge", "TEXT ECHO [FORMAT]", "clients only"),
	use("plugin", "FILE [ARGUMENT...]", "`plugin .../openvpn-auth-ldap.so FILE` reads that plugin's file and does its work; `postern check` tells what becomes of each line there. Nothing is loaded into the server: other plugins are refused.", setPlugin).each(),
	use("script-security", "0|1|2|3 [execve]", "What scripts may do: 2 they may run, 3 and may get passwords in their environment. Default 1: none run.", setScriptSecurity),
	scriptUse("up", "Run when the device has its addresses, before routes are set and privileges are dropped. The server does not start when it fails."),
	scriptUse("down", "Run when the server has ended and the device is closed, without the privileges that were dropped."),
	use("down-pre", "", "Run `down` before the device is closed.", switchOn(func(c *Config) *bool { return &c.Scripts.DownPre })),
	accept("up-restart", "", "the device stays up when the server reloads"),
	scriptUse("route-up", "Run when routes are set, before privileges are dropped."),
	refuse("ipchange", "not possible in a server: remove the line"),
	scriptUse("route-pre-down", "Run when the server has ended, before its routes are removed, if it has any, and before `down`."),
	accept("msg-channel", "N", "Windows only"),
	accept("dns", "...", "it acts where it stands; to reach clients write `push \"dns ...\"`"),
	accept("dns-updown", "...", "clients only"),
}

// maxTokenLife is the longest life of a token (security S048).
const maxTokenLife = 12 * time.Hour

func setGenToken(d *draft, l *directive) error {
	c := d.cfg
	c.GenToken, c.TokenLifetime, c.TokenRenewal, c.TokenExternal = true, 0, 0, false
	times := []*time.Duration{&c.TokenLifetime, &c.TokenRenewal}
	for _, arg := range l.args {
		if arg == "external-auth" {
			c.TokenExternal = true
			continue
		}
		if len(times) == 0 || c.TokenExternal {
			return fmt.Errorf("%q is not `external-auth`", arg)
		}
		var err error
		if *times[0], err = seconds(arg, 2-len(times)); err != nil {
			return err
		}
		times = times[1:]
	}
	return nil
}

// checkTokens looks at what tokens need.
func (d *draft) checkTokens() {
	c := d.cfg
	if !c.GenToken {
		for _, name := range []string{"auth-gen-token-secret", "auth-gen-token-format"} {
			if l := d.last[name]; l != nil {
				d.notice(l, "it says nothing without auth-gen-token")
			}
		}
		return
	}
	l := d.last["auth-gen-token"]
	switch {
	case c.TokenRenewal == 0 && c.Renegotiate == 0:
		d.refuse(l, "with reneg-sec 0 it must be said when tokens are renewed: write for example `auth-gen-token 0 3600`")
	case c.TokenRenewal == 0:
		c.TokenRenewal = c.Renegotiate
	case c.TokenRenewal < 2*c.HandWindow:
		d.refuse(l, "tokens that are renewed every %d seconds may end while a client comes again: write at least twice hand-window, %d", c.TokenRenewal/time.Second, 2*c.HandWindow/time.Second)
	}
	if c.TokenLifetime > maxTokenLife {
		d.notice(l, "a password is good for 12 hours at most: %d seconds is more", c.TokenLifetime/time.Second)
	}
	if c.TokenOpenVPN {
		d.notice(d.last["auth-gen-token-format"], "such a token is not bound to its client's certificate, and goes on when the password has changed")
		if !d.has("auth-gen-token-secret") {
			d.refuse(d.last["auth-gen-token-format"], "no server of OpenVPN knows a key that ends with the process: add auth-gen-token-secret, or remove the line")
		}
	}
}

func setTokenFormat(d *draft, l *directive) error {
	d.cfg.TokenOpenVPN = l.args[0] == "openvpn"
	return choice("postern", "openvpn")(d, l)
}

// TOTPPlace is where in a password the one-time code is.
type TOTPPlace uint8

const (
	TOTPLast TOTPPlace = iota
	TOTPFirst
	TOTPApart
)

func setTOTP(d *draft, l *directive) error {
	d.cfg.TOTPOptional = l.args[0] == "optional"
	return choice("required", "optional")(d, l)
}

func setTOTPPlace(d *draft, l *directive) error {
	d.cfg.TOTPPlace = map[string]TOTPPlace{"first": TOTPFirst, "apart": TOTPApart}[l.args[0]]
	return choice("last", "first", "apart")(d, l)
}

// setTOTPText takes a text that profiles and messages to clients can hold.
func setTOTPText(d *draft, l *directive) error {
	text := l.args[0]
	switch {
	case text == "" || len(text) > 100:
		return errors.New("the text must have 1 to 100 bytes")
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' || r == '"' || r == '\\' }):
		return errors.New("profiles cannot hold quotes, backslashes and control characters: leave them out")
	}
	d.cfg.TOTPText = text
	return nil
}

// totpExtras are the directives that say how codes are asked for, and nothing without auth-totp-file.
var totpExtras = []string{"auth-totp", "auth-totp-place", "auth-totp-text", "auth-totp-used"}

// checkTOTP looks at what one-time codes need.
func (d *draft) checkTOTP() {
	if !d.has("auth-totp-file") {
		for _, name := range totpExtras {
			if d.has(name) {
				d.refuse(d.last[name], "there are no codes to use it with: add auth-totp-file")
			}
		}
		return
	}
	if c := d.cfg; c.TOTPOptional && !c.LoginMustMatchCert && c.LDAP != nil && strings.Count(c.LDAP.UserFilter, "%u") > 1 {
		d.refuse(d.last["auth-totp"], "ldap-user-filter finds a user by several names, of which one alone has a secret: write required, or login-must-match-cert yes")
	}
	switch l := d.last["auth-totp-file"]; {
	case !d.wantsLogin():
		d.refuse(l, "a code comes with a password: add a login (ldap-url or auth-users-file)")
	case !d.cfg.GenToken && d.cfg.Renegotiate > 0:
		d.notice(l, "at each renegotiation (reneg-sec) everybody is asked for another code: add auth-gen-token")
	}
}
