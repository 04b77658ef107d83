package main

import (
	"fmt"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/server/config"
)

// newAuthenticator builds the login the configuration asks for; nil when clients need none.
func newAuthenticator(cfg *config.Config, throttle *auth.Throttle, log zerolog.Logger) (auth.Authenticator, error) {
	if !cfg.WantLogin() {
		return nil, nil
	}
	var a auth.Authenticator
	if l := cfg.LDAP; l != nil {
		dir, err := auth.NewLDAP(auth.LDAPOptions{URLs: l.URLs, StartTLS: l.StartTLS, CA: l.CA.Bytes, BindDN: l.BindDN,
			BindPassword: l.BindPassword, UserBase: l.UserBase, UserFilter: l.UserFilter, RequireGroups: l.RequireGroups,
			Timeout: l.Timeout, AllowCleartext: l.AllowCleartext}, log)
		if err != nil {
			return nil, fmt.Errorf("%s: ldap: %w", cfg.Path, err)
		}
		a = throttle.Spare(dir) // before an account is locked there
	}
	if cfg.Users != "" {
		file, err := auth.NewFile(cfg.Users, log)
		if err != nil {
			return nil, fmt.Errorf("%s: auth-users-file: %w", cfg.Path, err)
		}
		if a == nil {
			a = file
		} else {
			a = auth.FileFirst(file, a)
		}
	}
	a = throttle.Limit(a) // a login that does not match its certificate is no guess: MatchCertificate goes before
	if cfg.LoginMustMatchCert && cfg.VerifyClientCert != config.CertNone {
		a = auth.MatchCertificate(a)
	}
	return a, nil
}
