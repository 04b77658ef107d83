package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/auth"
	"postern/auth/slapdtest"
	"postern/server/config"
)

// postern ldap test walks through a login against a real directory, and says what is wrong with one that fails.
func TestLDAPTest(t *testing.T) {
	if testing.Short() {
		t.Skip("starts slapd")
	}
	s := slapdtest.Run(t, slapdtest.Options{})
	dir, _ := site(t)
	if err := os.WriteFile(filepath.Join(dir, "bind-secret"), []byte(slapdtest.BindPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(user, password string, more ...string) (string, error) {
		t.Helper()
		cfg, _, err := config.Load(writeConf(t, dir, append([]string{
			"ldap-url " + s.URLTLS, "ldap-tls-ca " + s.CAFile, "ldap-bind-dn " + slapdtest.BindDN, "ldap-bind-password-file bind-secret",
			"ldap-user-base " + slapdtest.UserBase, "ldap-require-group " + slapdtest.Division, "ldap-require-group " + slapdtest.UsersGroup,
		}, more...)...))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		var secret []byte
		if password != "" {
			secret = []byte(password)
		}
		err = testLDAP(t.Context(), &out, cfg, user, secret)
		if strings.Contains(out.String(), "-secret") || strings.Contains(out.String(), "wrong-password") {
			t.Errorf("a password is in\n%s", out.String())
		}
		return out.String(), err
	}
	grouped := []string{"pool people", "network 10.99.0.0/24", "end",
		"policy laptops", "match ldap-group " + slapdtest.UsersGroup + " cert-ou Laptops", "pool people", "end",
		"policy inner", "match ldap-group " + slapdtest.Department, "pool people", "end"}
	// Closed all the time but for a minute of another day, and for codes that nobody has.
	closed := (time.Now().Weekday() + 2) % 7
	hours := "hours " + strings.ToLower(closed.String()[:3]) + " 00:00-00:01 UTC"
	terms := func(line string) []string {
		return []string{"pool people", "network 10.99.0.0/24", "end", "policy all", "match any", "pool people", line, "end", "auth-totp-file totp", "auth-totp optional"}
	}
	if _, err := auth.AddTOTP(filepath.Join(dir, "totp"), "alice"); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/ldap.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		user, password, want string
		more                 []string
		in                   bool
	}{
		{"heidi", "heidi-secret", "OK: heidi may connect", nil, true},
		{"heidi", "heidi-secret", "through cn=team,ou=groups,dc=example,dc=net, then cn=department,ou=groups,dc=example,dc=net", nil, true},
		{"heidi", "", "with the right password; none was tried", nil, true},
		{"heidi", "heidi-secret", "the client's certificate must be for heidi", nil, true},
		{"alice", "wrong-password", "FAILED: the password is wrong", nil, false},
		{"zoe", "", "FAILED: no entry has this name", nil, false},
		{"bob", "bob-secret", "FAILED: the user is in none of the required groups", nil, false},
		{"erin", "erin-secret", "FAILED: the password must be changed first", nil, false},
		{"alice", "", "FAILED: the CA of the server's certificate is not known", []string{"ldap-tls-ca pki/ca.crt"}, false},
		{"alice", "", "FAILED: the base of the search does not exist", []string{"ldap-user-base ou=nowhere,dc=example,dc=net"}, false},
		{"heidi", "", "policy                      inner, pool people\n", grouped, true},
		{"alice", "", "policy                      laptops, pool people, with a certificate of the unit", grouped, true},
		{"alice", "", "none with another certificate: the login is refused", grouped, true},
		{"heidi", "", "FAILED: connections are not allowed at this hour\n", terms(hours), false},
		{"heidi", "", "FAILED: the policy wants a one-time code, and the user has no secret\n", terms("factor totp"), false},
		{"alice", "", "OK: alice may connect", terms("factor totp"), true},
		{"heidi", "", `FAILED: there is no pool "Hall"`, append(slices.Clone(grouped), "ldap-pool-attribute sn"), false},
		{"heidi", "", "FAILED: no policy matches", []string{"pool people", "network 10.99.0.0/24", "end", "policy none", "match user zoe", "pool people", "end"}, false},
	} {
		out, err := run(c.user, c.password, c.more...)
		if !strings.Contains(out, c.want) || (err == nil) != c.in {
			t.Errorf("%s: %v, want %q in\n%s", c.user, err, c.want, out)
		}
		if _, problem, ok := strings.Cut(out, "FAILED: "); ok {
			problem, _, _ = strings.Cut(problem, "\n")
			if problem, _, _ = strings.Cut(problem, `"`); !strings.Contains(string(page), problem) {
				t.Errorf("docs/ldap.md has no line for %q", problem)
			}
		}
	}
}
