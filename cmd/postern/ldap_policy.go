package main

import (
	"fmt"
	"time"

	"postern/auth"
	"postern/server"
	"postern/server/config"
)

// policyTest is which policy follows for a user whom the directory lets in, or why none does.
type policyTest struct {
	remarks         []string
	problem, remedy string // "" when there is one
}

// testPolicy chooses as the server does. Which units the user's certificate has is not known: both answers are told.
func testPolicy(cfg *config.Config, who *auth.Identity) (t policyTest, err error) {
	if len(cfg.Policies) == 0 {
		return t, nil
	}
	of := server.Subject{Name: who.Name, Login: who}
	without, err := server.PolicyFor(cfg, &of)
	if err != nil {
		return t, err
	}
	for _, p := range cfg.Policies {
		for _, m := range p.Match {
			of.Units = append(of.Units, m.Units...)
		}
	}
	with, err := server.PolicyFor(cfg, &of)
	if err != nil {
		return t, err
	}
	if with == nil {
		t.problem = "no policy matches"
		t.remedy = "Put the user into a group of a policy's match line, or add a match line; the groups above are those that count."
		return t, nil
	}
	for _, p := range []*config.Policy{with, without} {
		if p == nil {
			continue
		}
		if !p.Open(time.Now()) {
			t.problem = "connections are not allowed at this hour"
			t.remedy = fmt.Sprintf("Wait, or change the hours lines of the policy %s.", p.Name)
			return t, nil
		}
		if has, err := hasFactor(cfg, p, who.Name); err != nil {
			return t, err
		} else if !has {
			t.problem = "the policy wants a one-time code, and the user has no secret"
			t.remedy = fmt.Sprintf("Make one: postern user totp --file %s %s", cfg.TOTPFile, who.Name)
			return t, nil
		}
		pool := p.Pool
		if who.Pool != "" {
			pool = who.Pool
		}
		if !hasPool(cfg, pool) {
			t.problem = fmt.Sprintf("there is no pool %q", pool)
			t.remedy = "Correct the attribute that ldap-pool-attribute names in the user's entry, or add the pool to the configuration."
			return t, nil
		}
		text := fmt.Sprintf("%s, pool %s", p.Name, pool)
		if p != without {
			text += ", with a certificate of the unit that it asks for (cert-ou)"
		}
		if t.remarks = append(t.remarks, text); with == without {
			break
		}
	}
	if without == nil {
		t.remarks = append(t.remarks, "none with another certificate: the login is refused")
	}
	return t, nil
}

// hasFactor reports whether a user can prove what a policy wants besides the password.
func hasFactor(cfg *config.Config, p *config.Policy, user string) (bool, error) {
	if p.Factor == "" || !cfg.TOTPOptional { // where codes are for all, the login has seen to it
		return true, nil
	}
	return auth.HoldsTOTP(cfg.TOTPFile, user)
}

func hasPool(cfg *config.Config, name string) bool {
	for _, p := range cfg.AllPools() {
		if p.Name == name {
			return true
		}
	}
	return false
}
