package authldapconf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const full = `# a comment
<LDAP>
	URL		"ldaps://ldap1.example.org ldap://ldap2.example.org:3389"
	BindDN		uid=Manager,ou=People,dc=example,dc=com
	Password	"Secret # Pass\word" # not part of it
	Timeout		15
	TLSEnable	yes
	FollowReferrals yes
	TLSCACertFile	/usr/local/etc/ssl/ca.pem
	TLSCACertDir	/etc/ssl/certs
	TLSCertFile	/usr/local/etc/ssl/client-cert.pem
	TLSKeyFile	/usr/local/etc/ssl/client-key.pem
	TLSCipherSuite	ALL:!ADH:@STRENGTH
</LDAP>

<Authorization>
	BaseDN		"ou=People,dc=example,dc=com"
	SearchFilter	"(&(uid=%u)(accountStatus=active))"
	RequireGroup	true
	#PFTable	ips_vpn_users
	PasswordIsCR	false
	<Group>
		RFC2307bis	false
		UseCompareOperation False
		BaseDN		"ou=Groups,dc=example,dc=com"
		SearchFilter	"(|(cn=developers)(cn=artists))"
		MemberAttribute	memberUid
	</Group>
	<group>
		basedn		ou=Groups#2,dc=example,dc=com
		searchfilter	(cn=admins)
		MEMBERATTRIBUTE	member
	</GROUP>
</Authorization>`

func TestParse(t *testing.T) {
	for _, src := range []string{full, full + "\n", strings.ReplaceAll(full, "\n", "\r\n"), "\ufeff" + full} {
		got, err := Parse("f", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		want := &Config{
			URLs:            []string{"ldaps://ldap1.example.org", "ldap://ldap2.example.org:3389"},
			BindDN:          "uid=Manager,ou=People,dc=example,dc=com",
			Password:        `Secret # Pass\word`,
			Timeout:         15 * time.Second,
			StartTLS:        true,
			FollowReferrals: true,
			CACertFile:      "/usr/local/etc/ssl/ca.pem",
			CACertDir:       "/etc/ssl/certs",
			CertFile:        "/usr/local/etc/ssl/client-cert.pem",
			KeyFile:         "/usr/local/etc/ssl/client-key.pem",
			CipherSuite:     "ALL:!ADH:@STRENGTH",
			BaseDN:          "ou=People,dc=example,dc=com",
			SearchFilter:    "(&(uid=%u)(accountStatus=active))",
			RequireGroup:    true,
			Groups: []Group{
				{Line: 22, BaseDN: "ou=Groups,dc=example,dc=com", SearchFilter: "(|(cn=developers)(cn=artists))", MemberAttribute: "memberUid", MemberIsName: true, Search: true},
				{Line: 29, BaseDN: "ou=Groups#2,dc=example,dc=com", SearchFilter: "(cn=admins)", MemberAttribute: "member"},
			},
		}
		var notes []string
		for _, n := range got.Notes {
			notes = append(notes, fmt.Sprintf("%d %s", n.Line, n.Key))
		}
		if want := []string{"8 FollowReferrals", "13 TLSCipherSuite", "10 TLSCACertDir"}; !reflect.DeepEqual(notes, want) {
			t.Errorf("notes at %v, want %v", notes, want)
		}
		if n := len(got.Lines); n < 20 {
			t.Errorf("%d lines were taken, want all", n)
		}
		for _, l := range got.Lines {
			if l.Key == "Password" && l.Value != "" {
				t.Errorf("the password is among the lines: %+v", l)
			}
		}
		got.Notes, got.Lines = nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%+v\nwant\n%+v", got, want)
		}
	}
}

// small is a good file with room for more lines: in <LDAP>, in <Authorization>, and behind them.
func small(ldap, authorization, behind string) string {
	return "<LDAP>\nURL ldaps://h\n" + ldap + "\n</LDAP>\n<Authorization>\nBaseDN dc=x\nSearchFilter (uid=%u)\n" + authorization + "\n</Authorization>\n" + behind + "\n"
}

// What the plugin itself takes or refuses was tried with version 2.0.4; where we differ, the row says why.
func TestParseProblems(t *testing.T) {
	group := "<Group>\nBaseDN x\nSearchFilter y\nMemberAttribute z\n</Group>"
	for _, c := range []struct{ src, want string }{
		{"", "f: there is no section <LDAP>"},
		{small("Password foo bar", "", ""), "f:3: Password takes one value"},
		{small("Password \"foo", "", ""), "f:3: no closing quotation"},
		{small(`Password "fo\"o"`, "", ""), "f:3: something follows a closing quotation"},
		{small(`Password fo"o`, "", ""), "f:3: quotation"},
		{small("Password", "", ""), "f:3: Password takes one value"},
		{small(`Password ""`, "", ""), "f:3: Password takes one value"},
		{small("Timeout 5x", "", ""), "f:3: Timeout: \"5x\" is not a number of seconds"},
		{small("Timeout 0", "", ""), "f:3: Timeout: "},
		{small("Timeout 99999999999999999999", "", ""), "f:3: Timeout: "},
		{small("URL ldaps://other", "", ""), "f:3: URL was there in line 2 already"},
		{small("url ldaps://other", "", ""), "f:3: url was there in line 2 already"}, // the plugin overlooks that
		{small("FollowReferrals on", "", ""), "f:3: FollowReferrals: \"on\" is neither yes nor no"},
		{small("Unknown x", "", ""), "f:3: unknown key \"Unknown\" in section <LDAP>"},
		{small("BaseDN x", "", ""), "f:3: unknown key \"BaseDN\" in section <LDAP>"},
		{small("BindDN cn=x", "", ""), "f:3: BindDN without Password"}, // the plugin searches without a name, then
		{small("TLSCertFile x", "", ""), "f:1: TLSCertFile and TLSKeyFile go together"},
		{small("", "PFTable x", ""), "f:8: PFTable: is for the packet filter"},
		{small("", "RequireGroup yes", ""), "f:8: RequireGroup without a <Group>"},
		{small("", "RequireGroup yes\n<Group>\nBaseDN x\n</Group>", ""), "f:9: section <Group> lacks SearchFilter"},
		{small("", "<Group>\nSearchFilter x\n</Group>", ""), "f:8: section <Group> lacks BaseDN"},
		{small("", "<Group>\nBaseDN x\nSearchFilter x\n</Group>", ""), "f:8: section <Group> lacks MemberAttribute"},
		{small("", strings.Replace(group, "<Group>", "<Group foo>", 1), ""), "f:8: section Group takes no name"},
		{small("", "BaseDN dc=y", ""), "f:8: BaseDN was there in line 6 already"},
		{small(group, "", ""), "f:3: section <Group> belongs inside <Authorization>"},
		{small("", "<LDAP>\nURL x\n</LDAP>", ""), "f:8: section <LDAP> belongs outside"},
		{small("", "<Foo>\n</Foo>", ""), "f:8: unknown section \"Foo\""},
		{small("", "", "<LDAP>\nURL ldap://x\n</LDAP>"), "f:10: section <LDAP> was there in line 1 already"}, // one of the two would be lost
		{small("", "", "URL x"), "f:10: \"URL\" stands outside of a section"},
		{small("", "", "; x"), "f:10: \";\" stands outside of a section"},
		{small("", "", "</LDAP>"), "f:10: </LDAP> closes a section that is not open here"},
		{small("</Authorization>", "", ""), "f:3: </Authorization> closes a section that is not open here"},
		{small("", "<Group>\nBaseDN x\nSearchFilter y", ""), "f:11: </Authorization> closes"},
		{small("", "", "<LDAP"), "f:10: a section is written as <Name>"},
		{"<LDAP>\nTimeout 5\n</LDAP>\n<Authorization>\nSearchFilter x\n</Authorization>\n", "f:1: section <LDAP> lacks URL"},
		{"<LDAP>\nTimeout 5\n</LDAP>\n<Authorization>\nSearchFilter x\n</Authorization>\n", "f:4: section <Authorization> lacks BaseDN"},
		{"<LDAP>\nURL http://x\n</LDAP>\n", "f:2: URL: an address of a directory is written as"},
		{"<LDAP>\nURL ldapi:///\n</LDAP>\n", "f:2: URL: ldapi is not supported"},
		{"<LDAP>\nURL ldap://x\n", "f:1: section <LDAP> is not closed"},
		{small("BindDN a\x00b", "", ""), "f:3: control character"},
		{strings.Repeat("x", maxSize+1), "f: larger than"},
	} {
		_, err := Parse("f", []byte(c.src))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.200q:\n got %v\nwant %s", c.src, err, c.want)
		}
		if p := (*Problem)(nil); err != nil && !errors.As(err, &p) {
			t.Errorf("%.200q: error without a *Problem: %v", c.src, err)
		}
	}
}

func TestParseAccepted(t *testing.T) {
	for _, c := range []struct {
		src  string
		look func(*Config) any
		want any
	}{
		{small("Password foo#bar\nBindDN x", "", ""), func(c *Config) any { return string(c.Password) }, "foo#bar"},
		{small("Password foo # bar\nBindDN x", "", ""), func(c *Config) any { return string(c.Password) }, "foo"},
		{small(`Password "foo"#bar`+"\nBindDN x", "", ""), func(c *Config) any { return string(c.Password) }, "foo"},
		{small("Password 'foo'\nBindDN x", "", ""), func(c *Config) any { return string(c.Password) }, "'foo'"},
		{small("Password foo<b>\nBindDN x", "", ""), func(c *Config) any { return string(c.Password) }, "foo<b>"},
		{small("Password foo", "", ""), func(c *Config) any { return string(c.Password) + c.Notes[0].String() }, "f:3: Password: not used: there is no BindDN, so searches are anonymous, as the plugin's are"},
		{small("TLSEnable 1", "", ""), func(c *Config) any { return c.StartTLS }, true},
		{small("TLSEnable FALSE", "", ""), func(c *Config) any { return c.StartTLS }, false},
		{small("", "UseCn true", ""), func(c *Config) any { return c.UseCN && c.Notes[0].Line == 8 }, true},
		{small("", "PasswordIsCR true", ""), func(c *Config) any { return c.PasswordIsCR && len(c.Notes) == 1 }, true},
		{small("", "<Group>\nBaseDN x\nSearchFilter y\nMemberAttribute z\nRFC2307bis true\n</Group>", ""), func(c *Config) any { return c.Groups[0].MemberIsName }, false},
		{small("", "<Group>\nBaseDN x\nSearchFilter y\nMemberAttribute z\n</Group>", ""), func(c *Config) any { return c.Notes[0].String() }, "f:8: Group: has no effect while RequireGroup is false"},
		{strings.Replace(small("", "", ""), "ldaps:", "ldap:", 1), func(c *Config) any { return len(c.Notes) }, 1},
		{strings.Replace(small("TLSEnable yes", "", ""), "ldaps:", "ldap:", 1), func(c *Config) any { return len(c.Notes) }, 0},
		{strings.Replace(small("", "", ""), "<LDAP>", "<LDAP> # c", 1), func(c *Config) any { return c.BaseDN }, "dc=x"},
	} {
		got, err := Parse("f", []byte(c.src))
		if err != nil {
			t.Errorf("%q: %v", c.src, err)
		} else if v := c.look(got); v != c.want {
			t.Errorf("%q: got %v, want %v", c.src, v, c.want)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth-ldap.conf")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || c.Timeout != 15*time.Second {
		t.Errorf("got %+v, %v", c, err)
	}
}

// S109: the password shows neither in values that are printed nor in errors about its line.
func TestS109PasswordIsNotPrinted(t *testing.T) {
	const secret = "hunter2"
	c, err := Parse("f", []byte(small("BindDN x\nPassword "+secret, "", "")))
	if err != nil {
		t.Fatal(err)
	}
	if string(c.Password) != secret {
		t.Fatalf("password is %q", string(c.Password))
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(verb, c) + fmt.Sprintf(verb, *c) + fmt.Sprintf(verb, c.Password); strings.Contains(s, secret) {
			t.Errorf("%s shows the password: %s", verb, s)
		}
	}
	for _, line := range []string{"Password " + secret + " " + secret, "Password \"" + secret, `Password "` + secret + `"` + secret,
		"Password x" + secret + "\"", "Password " + secret + "\x01", "Pasword " + secret, "Password " + secret + "\nPassword " + secret} {
		if _, err := Parse("f", []byte(small(line, "", ""))); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(small("", "<Group>\n</Group>", "</LDAP>")))
	f.Add([]byte("<LDAP><Authorization>\n</ >\n< x>\nURL \"\" \"\n\"a\"b"))
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := Parse("file", src)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v and error %v", c, err)
		}
		if err != nil {
			for _, line := range strings.Split(err.Error(), "\n") {
				if !strings.HasPrefix(line, "file:") {
					t.Errorf("message without a place: %q", line)
				}
			}
			return
		}
		if len(c.URLs) == 0 || c.BaseDN == "" || c.SearchFilter == "" || c.RequireGroup && len(c.Groups) == 0 {
			t.Errorf("accepted without what is needed: %+v", c)
		}
		if c.BindDN == "" && c.Password != "" || c.BindDN != "" && c.Password == "" {
			t.Errorf("name and password do not go together: %+v", c)
		}
	})
}
