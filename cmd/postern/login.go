package main

import (
	"fmt"
	"os"
	"syscall"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/server"
	"postern/server/config"
	"postern/tlsctl"
)

// logins makes the login that a configuration asks for. It is what outlives reloads: guesses are remembered, tokens stay
// good, and codes stay spent.
type logins struct {
	log      zerolog.Logger
	throttle *auth.Throttle
	secret   *auth.TokenSecret // of this process, where no file has one
	totp     *auth.TOTP        // the last there was; nil: none yet
	used     auth.UsedFile     // of spent codes; nil: none
	workers  *tlsctl.Workers   // who computes hashes, and the server's handshakes
}

func newLogins(cfg *config.Config, log zerolog.Logger) *logins {
	return &logins{log: log, throttle: auth.NewThrottle(auth.ThrottleOptions{BadBinds: cfg.LDAPMaxFailures}, log), secret: auth.NewTokenSecret(), workers: server.NewWorkers()}
}

// openUsed opens the file of spent codes, while there are rights to.
func (k *logins) openUsed(cfg *config.Config) (*os.File, error) {
	if cfg.TOTPUsed == "" {
		return nil, nil
	}
	f, err := os.OpenFile(cfg.TOTPUsed, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("auth-totp-used: %w", err)
	}
	k.used = f
	return f, nil
}

// login composes all that decides about a client's login, from the outside in (package auth draws it). What asks
// somebody else than the directory and the user file belongs into backEnds.
func (k *logins) login(cfg *config.Config) (server.Login, error) {
	var l server.Login
	if !cfg.WantLogin() && !cfg.LoginByCert {
		return l, nil
	}
	b, err := k.backEnds(cfg)
	if err != nil {
		return l, err
	}
	l.Watcher, l.Local = b.watcher, b.local
	if cfg.LoginByCert {
		l.Auth = b.alone
		return l, nil
	}
	matching := func(a auth.Authenticator) auth.Authenticator { return a }
	if cfg.LoginMustMatchCert && cfg.VerifyClientCert != config.CertNone {
		matching = auth.MatchCertificate // a login that does not match its certificate is no guess: this goes before
	}
	l.Auth = matching(k.throttle.Limit(b.login))
	if cfg.TOTPFile != "" {
		if err := k.takeTOTP(cfg); err != nil {
			return l, err
		}
		l.Auth = k.totp.Require(l.Auth)
		codes, all := k.totp, !cfg.TOTPOptional
		l.HasFactor = func(user, factor string) bool { return factor == "totp" && (all || codes.Holds(user)) }
		b.epoch = joined(b.epoch, k.totp.Epoch)
	}
	if cfg.TOTPFile != "" || b.voucher != nil { // a script alone gets passwords as they are sent
		l.Auth = auth.Answers(l.Auth)
	}
	if cfg.LoginOptional && b.voucher == nil && cfg.TOTPFile == "" { // a directory, a file and a code want somebody
		l.Auth = auth.Nameless(auth.ScriptedCertificate(), l.Auth)
	}
	if cfg.LDAP != nil && cfg.LDAP.NamedByCert { // around all that goes by the name
		l.Auth = auth.NamedByCertificate(l.Auth)
	}
	if !cfg.GenToken {
		return l, nil
	}
	if cfg.TokenExternal && (b.voucher != nil || cfg.TOTPFile != "") { // a script alone decides about tokens of any state
		l.Auth = auth.ByToken(matching(auth.All(b.external...)), l.Auth)
	}
	if l.Tokens, err = k.tokens(cfg, b); err != nil {
		return l, fmt.Errorf("%s: auth-gen-token: %w", cfg.Path, err)
	}
	return l, nil
}

// backEnds are those that know users and passwords.
type backEnds struct {
	login   auth.Authenticator
	voucher auth.Voucher             // of the same users
	epoch   func(name string) string // of those this machine knows; nil: of none
	alone   auth.Authenticator       // of those who come with a certificate alone; nil: nobody does
	watcher auth.Watcher             // of those who are connected; nil: nobody looks
	local   auth.Watcher             // the same, of local users
	// external must agree to a good token where that is not enough by itself (external-auth).
	external []auth.Authenticator
}

func (k *logins) backEnds(cfg *config.Config) (b backEnds, err error) {
	if cfg.LDAP != nil {
		dir, err := directories(cfg, k.log)
		if err != nil {
			return b, fmt.Errorf("%s: ldap: %w", cfg.Path, err)
		}
		b.login, b.voucher = k.throttle.Spare(dir), dir // before an account is locked there
		b.alone, b.watcher = auth.CertificateAlone(dir), auth.DirectoryOnly(dir)
	}
	if cfg.Users != "" {
		file, err := auth.NewFile(cfg.Users, k.workers, k.log)
		if err != nil {
			return b, fmt.Errorf("%s: auth-users-file: %w", cfg.Path, err)
		}
		b.epoch, b.local = file.Epoch, file
		if b.login == nil {
			b.login, b.voucher = file, file
		} else {
			b.login, b.voucher = auth.FileFirst(file, b.login), auth.VouchFirst(file, b.voucher)
		}
	}
	if b.voucher != nil {
		b.external = append(b.external, auth.Vouched(b.voucher))
	}
	if cfg.Scripts.Commands["auth-user-pass-verify"] != nil || cfg.Management.ClientAuth { // package server asks both
		b.external = append(b.external, auth.Scripted())
		if b.login == nil {
			b.login = auth.Scripted()
		} else {
			b.login = auth.All(b.login, auth.Scripted()) // the script last: it may have the user asked something
		}
	}
	return b, nil
}

// takeTOTP makes k.totp what the configuration says.
func (k *logins) takeTOTP(cfg *config.Config) error {
	o := auth.TOTPOptions{File: cfg.TOTPFile, Optional: cfg.TOTPOptional, Text: cfg.TOTPText, Used: k.used,
		Place: map[config.TOTPPlace]auth.CodePlace{config.TOTPLast: auth.CodeLast, config.TOTPFirst: auth.CodeFirst, config.TOTPApart: auth.CodeApart}[cfg.TOTPPlace]}
	var next *auth.TOTP
	var err error
	if k.totp == nil {
		next, err = auth.NewTOTP(o, k.log)
	} else {
		next, err = k.totp.With(o)
	}
	if err != nil {
		return fmt.Errorf("%s: auth-totp-file: %w", cfg.Path, err)
	}
	k.totp = next
	return nil
}

// tokens makes the tokens that stand for logins at b.
func (k *logins) tokens(cfg *config.Config, b backEnds) (*auth.Tokens, error) {
	o := auth.TokenOptions{Secret: k.secret, Lifetime: cfg.TokenLifetime, Renewal: cfg.TokenRenewal, Shared: cfg.TokenOpenVPN,
		External: cfg.TokenExternal, NamedByCertificate: cfg.LDAP != nil && cfg.LDAP.NamedByCert, MatchCertificate: cfg.LoginMustMatchCert && cfg.VerifyClientCert != config.CertNone, Voucher: b.voucher}
	if cfg.TokenSecret.Set() {
		var err error
		if o.Secret, err = auth.ParseTokenSecret(cfg.TokenSecret.Bytes); err != nil {
			return nil, fmt.Errorf("auth-gen-token-secret %s: %w", cfg.TokenSecret.Name, err)
		}
	}
	if !o.Shared {
		o.Epoch = b.epoch
	}
	return auth.NewTokens(o, k.log)
}

// joined is the epoch of a user of whom two know something; a may be nil.
func joined(a, b func(name string) string) func(name string) string {
	if a == nil {
		return b
	}
	return func(name string) string { return a(name) + "\x00" + b(name) }
}

// directories are those of the configuration.
func directories(cfg *config.Config, log zerolog.Logger) (*auth.Realms, error) {
	var list []auth.LDAPOptions
	for _, l := range cfg.Directories() {
		list = append(list, ldapOptions(l))
	}
	return auth.NewRealms(list, log)
}

func ldapOptions(l *config.LDAP) auth.LDAPOptions {
	o := auth.LDAPOptions{Realm: l.Realm, URLs: l.URLs, Domain: l.Domain, StartTLS: l.StartTLS,
		CA: l.CA.Bytes, Cert: l.Cert.Bytes, Key: l.Key.Bytes, BindDN: l.BindDN, BindPassword: l.BindPassword, BindAs: l.BindAs,
		UserBase: l.UserBase, UserFilter: l.UserFilter, RequireGroups: l.RequireGroups, GroupBase: l.GroupBase, AllGroups: l.AllGroups, DirectOnly: l.DirectGroups,
		Addr4: l.Addr4Attr, Addr6: l.Addr6Attr, Pool: l.PoolAttr, Routes: l.RouteAttr,
		Timeout: l.Timeout, AllowCleartext: l.AllowCleartext}
	for _, g := range l.GroupSearches {
		o.GroupSearches = append(o.GroupSearches, auth.GroupSearch(g))
	}
	return o
}
