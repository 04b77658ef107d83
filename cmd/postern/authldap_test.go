package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/server/config"
)

// A pluginDir is checkDir with the plugin's file, and what else it names.
func pluginDir(t *testing.T, lines, plugin string) (dir, conf string) {
	t.Helper()
	dir = checkDir(t, "plugin /usr/lib/openvpn/openvpn-auth-ldap.so auth-ldap.conf\n"+lines)
	if err := os.WriteFile(filepath.Join(dir, "auth-ldap.conf"), []byte(plugin), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "server.conf")
}

const pluginText = `<LDAP>
	URL "ldaps://ldap1.example.org ldap://localhost/"
	BindDN uid=Manager,ou=People,dc=example,dc=com
	Password open-sesame
	Timeout 15
	TLSEnable yes
	FollowReferrals yes
	TLSCACertFile server.crt
</LDAP>
<Authorization>
	BaseDN "ou=People,dc=example,dc=com"
	SearchFilter "uid=%u"
	RequireGroup true
	<Group>
		RFC2307bis false
		BaseDN "ou=Groups,dc=example,dc=com"
		SearchFilter "(|(cn=developers)(cn=artists))"
		MemberAttribute memberUid
	</Group>
</Authorization>
`

// check tells of each line of the plugin's file what it means here, and shows no password.
func TestCheckExplainsAuthLDAP(t *testing.T) {
	dir, conf := pluginDir(t, "login-must-match-cert no\n", pluginText)
	out, status := runCheck(t, "--config", conf)
	if status != 0 || strings.Contains(out, "open-sesame") {
		t.Errorf("exit status %d, or the password is shown:\n%s", status, out)
	}
	file := filepath.Join(dir, "auth-ldap.conf")
	for _, want := range []string{
		file + ":2 used URL ldaps://ldap1.example.org ldap://localhost/ as `ldap-url`",
		file + ":4 used Password as the contents of `ldap-bind-password-file`",
		file + ":7 notice FollowReferrals yes referrals are not followed",
		file + ":8 used TLSCACertFile server.crt as `ldap-tls-ca`",
		file + ":12 used SearchFilter uid=%u as `ldap-user-filter`",
		file + ":13 used RequireGroup true whether the user must be in one of the groups below",
		file + ":17 used SearchFilter (|(cn=developers)(cn=artists)) these groups count",
		file + ":18 used MemberAttribute memberUid holds a group's members",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
	cfg, _, err := loadConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	if l := cfg.LDAP; l.BindPassword != "open-sesame" || l.UserFilter != "(uid=%u)" || len(l.CA.Bytes) == 0 || !l.StartTLS ||
		len(l.GroupSearches) != 1 || l.GroupSearches[0] != (config.GroupSearch{Base: "ou=Groups,dc=example,dc=com", Filter: "(|(cn=developers)(cn=artists))", Attribute: "memberUid", ByName: true}) {
		t.Errorf("the directory became %#v, groups %+v", l, l.GroupSearches)
	}
}

// What is wrong with the plugin's file is told with its place, beside all that is wrong with the server's.
func TestAuthLDAPProblems(t *testing.T) {
	from, to := pluginText[strings.Index(pluginText, "ldap://localhost/"):strings.Index(pluginText, "	FollowReferrals")], ""
	to = strings.NewReplacer("localhost", "ldap2.example.org", "TLSEnable yes", "TLSEnable no").Replace(from)
	for _, c := range []struct {
		name, lines, change, to string
		line                    int
		want                    string // "" is good
	}{
		{"good", "", "", "", 0, ""},
		{"clear text to another machine", "", "TLSEnable yes", "TLSEnable no", 0, ""}, // localhost alone has ldap://
		{"clear text", "", from, to, 2, "ldap-allow-cleartext"},
		{"clear text, allowed", "ldap-allow-cleartext\n", from, to, 0, ""},
		{"unknown key", "", "Timeout 15", "Patience 15", 5, "unknown key"},
		{"no certificate", "", "server.crt", "none.crt", 8, "cannot be read"},
		{"bad filter of groups", "", "(|(cn=developers)(cn=artists))", "(|(cn=developers)", 0, "filter of groups"},
		{"bad filter of users", "", "uid=%u", "uid=", 0, "filter"},
		{"bad attribute", "", "memberUid", "member)(uid=*", 0, "not the name of an attribute"},
		{"packet filter", "", "RequireGroup true", "PFTable ips", 13, "packet filter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(pluginText, c.change, c.to, 1)
			dir, conf := pluginDir(t, c.lines, text)
			_, report, err := loadConfig(conf)
			var problems config.Errors
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.As(err, &problems) || len(problems) != 1 || problems[0].File != filepath.Join(dir, "auth-ldap.conf") || problems[0].Line != c.line ||
				!strings.Contains(problems[0].Message, c.want) {
				t.Errorf("%v, want line %d and %q", err, c.line, c.want)
			}
			if report.Count(config.Refused) != 1 {
				t.Errorf("%d lines are refused in the report, want 1", report.Count(config.Refused))
			}
		})
	}
	dir, conf := pluginDir(t, "frobnicate\n", strings.Replace(pluginText, "Timeout", "Patience", 1))
	if err := os.Chmod(filepath.Join(dir, "auth-ldap.conf"), 0o644); err != nil {
		t.Fatal(err)
	}
	var problems config.Errors
	if _, _, err := loadConfig(conf); !errors.As(err, &problems) || len(problems) != 3 || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("%v, want one problem of the server's file, and two of the plugin's", err)
	}
}
