// Package authldapconf reads the configuration file of openvpn-auth-ldap, the plugin that most servers with a
// directory use, into plain values. It opens no other file and knows nothing of how we log in.
//
//	<LDAP>
//		URL ldaps://ldap1.example.org
//		Timeout 15
//	</LDAP>
//	<Authorization>
//		BaseDN "ou=People,dc=example,dc=com"
//		SearchFilter "(&(uid=%u)(accountStatus=active))"
//		RequireGroup true
//		<Group>
//			BaseDN "ou=Groups,dc=example,dc=com"
//			SearchFilter "(|(cn=developers)(cn=artists))"
//			MemberAttribute uniqueMember
//		</Group>
//	</Authorization>
//
// A line is a key and one value. Keys and section names are the same in upper and lower case. A value with a blank in
// it stands in double quotes, and there is no escaping: a backslash is a backslash. # begins a comment where a word
// could begin, and is an ordinary character inside one. The plugin takes each key once.
package authldapconf

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Config is what the file says. Values are as they were written; files named in it have not been looked at.
type Config struct {
	URLs            []string // tried in this order
	BindDN          string   // "": searches are anonymous
	Password        Secret   // of BindDN
	Timeout         time.Duration
	StartTLS        bool // TLSEnable; an ldaps URL needs none
	FollowReferrals bool
	CACertFile      string
	CACertDir       string
	CertFile        string // of the client towards the directory
	KeyFile         string
	CipherSuite     string // OpenSSL's notation

	BaseDN       string // users are searched in the whole tree below
	SearchFilter string // %u is the name that the user typed, escaped
	RequireGroup bool   // the user must be a member of one of Groups
	UseCN        bool   // the certificate's name is meant by %u, in place of the typed one
	PasswordIsCR bool   // the password is the answer to a challenge
	Groups       []Group

	// Lines are all that were taken, in their order, for telling about each. The password's value is left out.
	Lines []Line

	// Notes are about lines that are right for the plugin but that a server which logs in by itself may see
	// differently. Who uses the values decides about each; none of them makes anybody's access wider.
	Notes []Note
}

// A Group says which groups count, and how one finds a user in them: who is in any group of any Group is a member.
type Group struct {
	Line            int
	BaseDN          string // groups are searched in the whole tree below
	SearchFilter    string // finds them; %u is nothing special in it
	MemberAttribute string // of a group, holds its members
	MemberIsName    bool   // RFC2307bis false: members are written as login names, not as DNs
	Search          bool   // UseCompareOperation false: look by a search, not by a compare
}

// A Line is a key and its value, as they were written.
type Line struct {
	Number  int
	Section string // LDAP, Authorization or Group
	Key     string
	Value   string
}

// A Secret does not show itself when it is printed.
type Secret string

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[secret]"
}

// GoString is for %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText keeps the secret from encoders, and loggers that use them.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Problem is a reason why the file cannot be used.
type Problem struct {
	File    string
	Line    int // 0: the whole file is meant
	Message string
}

func (p *Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
}

// A Note is worth telling when the file is checked.
type Note struct {
	File    string
	Line    int
	Key     string
	Message string
}

func (n Note) String() string { return fmt.Sprintf("%s:%d: %s: %s", n.File, n.Line, n.Key, n.Message) }

// maxSize is more than any such file has.
const maxSize = 1 << 20

// Load reads a file.
func Load(path string) (*Config, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration of openvpn-auth-ldap: %w", err)
	}
	return Parse(path, src)
}

// Parse reads what stands in a file; name is for messages. The error joins every *Problem. No message holds the
// password.
func Parse(name string, src []byte) (*Config, error) {
	if len(src) > maxSize {
		return nil, &Problem{name, 0, fmt.Sprintf("larger than %d bytes: this is another kind of file", maxSize)}
	}
	r := &reader{file: name, seen: make(map[string]int)}
	r.read(string(src))
	r.finish()
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	r.notes()
	return &r.c, nil
}

// notes says what is different for a server that is not the plugin.
func (r *reader) notes() {
	c := &r.c
	note := func(key, message string) {
		if line := r.seen[key]; line != 0 {
			c.Notes = append(c.Notes, Note{r.file, line, r.written[key], message})
		}
	}
	if c.FollowReferrals {
		note("ldap followreferrals", "referrals are not followed: name the server that holds the users in URL")
	}
	if c.CipherSuite != "" {
		note("ldap tlsciphersuite", "not used: the suites of TLS 1.2 and 1.3 that are known to be good are")
	}
	if c.CACertDir != "" && c.CACertFile != "" {
		note("ldap tlscacertdir", "certificates of TLSCACertFile and of this directory are trusted alike")
	}
	if c.BindDN == "" && c.Password != "" {
		c.Password = ""
		note("ldap password", "not used: there is no BindDN, so searches are anonymous, as the plugin's are")
	}
	if c.UseCN {
		note("authorization usecn", "the name in the certificate, not the typed one, is the one that logs in")
	}
	if c.PasswordIsCR {
		note("authorization passwordiscr", "the password is taken out of the answer to the challenge")
	}
	if !c.RequireGroup && len(c.Groups) > 0 {
		c.Notes = append(c.Notes, Note{r.file, c.Groups[0].Line, "Group", "has no effect while RequireGroup is false"})
	}
	clear := !c.StartTLS
	for _, u := range c.URLs {
		if clear && strings.HasPrefix(strings.ToLower(u), "ldap://") {
			note("ldap url", "passwords go to the directory unencrypted: write TLSEnable yes, or ldaps:// in URL")
			break
		}
	}
}
