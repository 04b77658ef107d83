package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/auth/authldapconf"
	"postern/server/config"
)

// loadConfig is config.Load with what the file of openvpn-auth-ldap says, where the configuration has that plugin.
func loadConfig(path string, extra ...[]string) (*config.Config, *config.Report, error) {
	return loadConfigBy(new(config.Loader), path, extra...)
}

// loadConfigBy is loadConfig by a loader that may have loaded the same before.
func loadConfigBy(l *config.Loader, path string, extra ...[]string) (*config.Config, *config.Report, error) {
	cfg, report, err := l.Load(path, extra...)
	if report.AuthLDAP.File == "" {
		return cfg, report, err
	}
	p := &pluginFile{AuthLDAP: report.AuthLDAP}
	dir := p.read()
	at := slices.IndexFunc(report.Entries, func(e config.Entry) bool { return e.Directive == "plugin" && e.Verdict != config.Refused })
	report.Entries = slices.Insert(report.Entries, at+1, p.entries...)
	if len(p.problems) > 0 {
		var others config.Errors
		if err != nil && !errors.As(err, &others) {
			return nil, report, err
		}
		return nil, report, append(slices.Clone(others), p.problems...)
	}
	if err == nil {
		cfg.LDAP = dir
	}
	return cfg, report, err
}

// A pluginFile is the configuration of openvpn-auth-ldap on its way into ours.
type pluginFile struct {
	config.AuthLDAP
	conf     *authldapconf.Config
	dir      config.LDAP
	entries  []config.Entry
	problems config.Errors
}

// pluginLines are what the keys of the file mean here.
var pluginLines = map[string]string{
	"LDAP URL":                   "as `ldap-url`",
	"LDAP BindDN":                "as `ldap-bind-dn`",
	"LDAP Password":              "as the contents of `ldap-bind-password-file`",
	"LDAP Timeout":               "as `ldap-timeout`; a whole login takes 10 s at most",
	"LDAP TLSEnable":             "yes is as `ldap-starttls`",
	"LDAP FollowReferrals":       "referrals are never followed",
	"LDAP TLSCACertFile":         "as `ldap-tls-ca`",
	"LDAP TLSCACertDir":          "all certificates in it are as those of `ldap-tls-ca`",
	"LDAP TLSCertFile":           "as `ldap-tls-cert`",
	"LDAP TLSKeyFile":            "as `ldap-tls-key`",
	"LDAP TLSCipherSuite":        "only suites that are known to be good are used",
	"Authorization BaseDN":       "as `ldap-user-base`",
	"Authorization SearchFilter": "as `ldap-user-filter`; exactly one entry must be found",
	"Authorization RequireGroup": "whether the user must be in one of the groups below, as with `ldap-require-group`",
	"Authorization UseCN":        "whether the name in the certificate is the login, whatever was typed",
	"Authorization PasswordIsCR": "the password is always taken out of the answer to a challenge",
	"Group BaseDN":               "groups are searched for below it",
	"Group SearchFilter":         "these groups count, each as with `ldap-require-group`",
	"Group MemberAttribute":      "holds a group's members; only direct members count",
	"Group RFC2307bis":           "whether members are written as DNs, or as names",
	"Group UseCompareOperation":  "members are found by a search, which finds the same",
}

// read returns the directory that the file is about. What is wrong with it becomes problems.
func (p *pluginFile) read() *config.LDAP {
	if info, err := os.Stat(p.File); err == nil && info.Mode()&0o027 != 0 { // it holds a password (S108)
		p.problem(0, "", "others can read or change it (mode %04o): chmod 600 %s", info.Mode().Perm(), p.File)
	}
	var err error
	if p.conf, err = authldapconf.Load(p.File); err != nil {
		p.refuse(err)
		return nil
	}
	for _, l := range p.conf.Lines {
		name := l.Section + " " + l.Key
		for key, why := range pluginLines {
			if strings.EqualFold(key, name) {
				p.entries = append(p.entries, config.Entry{File: p.File, Line: l.Number, Directive: l.Key,
					Text: strings.TrimSpace(l.Key + " " + l.Value), Verdict: config.Used, Why: why})
			}
		}
	}
	p.convert()
	for _, n := range p.conf.Notes {
		p.note(n)
	}
	if len(p.problems) > 0 {
		return nil
	}
	if _, err := auth.NewLDAP(ldapOptions(&p.dir), zerolog.Nop()); err != nil {
		p.problem(0, "", "%v", err)
	}
	return &p.dir
}

// refuse takes the parser's problems.
func (p *pluginFile) refuse(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			p.refuse(e)
		}
		return
	}
	if one := (*authldapconf.Problem)(nil); errors.As(err, &one) {
		p.problem(one.Line, "", "%s", one.Message)
		return
	}
	p.problem(0, "", "%v", err)
}

func (p *pluginFile) problem(line int, key, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	p.problems = append(p.problems, config.Problem{File: p.File, Line: line, Directive: key, Message: message})
	for i := range p.entries {
		if e := &p.entries[i]; line > 0 && e.Line == line {
			e.Verdict, e.Why = config.Refused, message
			return
		}
	}
	p.entries = append(p.entries, config.Entry{File: p.File, Line: line, Directive: key, Text: key, Verdict: config.Refused, Why: message})
}

// line is where a key stands, 0 if nowhere.
func (p *pluginFile) line(section, key string) int {
	for _, l := range p.conf.Lines {
		if l.Section == section && strings.EqualFold(l.Key, key) {
			return l.Number
		}
	}
	return 0
}

// note tells what a line means differently here. Passwords in clear text are more than a note, to other machines.
func (p *pluginFile) note(n authldapconf.Note) {
	if strings.EqualFold(n.Key, "URL") {
		far := slices.ContainsFunc(p.dir.URLs, func(u string) bool { return strings.HasPrefix(u, "ldap://") && !loopback(u) })
		switch {
		case !far:
			return
		case !p.Cleartext:
			p.problem(n.Line, n.Key, "%s; `ldap-allow-cleartext` in the server's configuration allows it as it is", n.Message)
			return
		}
	}
	for i := range p.entries {
		if e := &p.entries[i]; e.Line == n.Line && e.Verdict < config.Noticed {
			e.Verdict, e.Why = config.Noticed, n.Message
			return
		}
	}
	p.entries = append(p.entries, config.Entry{File: p.File, Line: n.Line, Directive: n.Key, Text: n.Key, Verdict: config.Noticed, Why: n.Message})
}

// loopback reports whether a URL leads to this machine.
func loopback(rawURL string) bool {
	u, err := url.Parse(rawURL)
	return err == nil && slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
}

// convert makes p.dir of p.conf.
func (p *pluginFile) convert() {
	c := p.conf
	p.dir = config.LDAP{StartTLS: c.StartTLS, BindDN: c.BindDN, BindPassword: string(c.Password), UserBase: c.BaseDN, UserFilter: c.SearchFilter,
		Timeout: 5 * time.Second, AllowCleartext: p.Cleartext, NamedByCert: c.UseCN, DirectGroups: true}
	for _, u := range c.URLs {
		p.dir.URLs = append(p.dir.URLs, strings.TrimRight(u, "/"))
	}
	if !strings.HasPrefix(c.SearchFilter, "(") {
		p.dir.UserFilter = "(" + c.SearchFilter + ")" // the plugin's library takes it either way
	}
	if c.Timeout > 0 {
		p.dir.Timeout = min(c.Timeout, 10*time.Second)
	}
	if c.RequireGroup {
		for _, g := range c.Groups {
			p.dir.GroupSearches = append(p.dir.GroupSearches, config.GroupSearch{Base: g.BaseDN, Filter: g.SearchFilter, Attribute: g.MemberAttribute, ByName: g.MemberIsName})
		}
	}
	p.material("TLSCACertFile", c.CACertFile, &p.dir.CA)
	p.material("TLSCertFile", c.CertFile, &p.dir.Cert)
	p.material("TLSKeyFile", c.KeyFile, &p.dir.Key)
	if c.CACertDir != "" {
		p.certificates(c.CACertDir)
	}
}

// absolute is the path of a file that is read: relative names start as those of the server's configuration do.
func (p *pluginFile) absolute(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	path, near := filepath.Join(p.Dir, name), filepath.Join(filepath.Dir(p.File), name)
	if _, err := os.Stat(path); err != nil {
		if _, err := os.Stat(near); err == nil {
			return near
		}
	}
	return path
}

// material reads a file that a key names.
func (p *pluginFile) material(key, name string, into *config.Material) {
	if name == "" {
		return
	}
	path := p.absolute(name)
	b, err := os.ReadFile(path)
	if err != nil {
		p.problem(p.line("LDAP", key), key, "cannot be read: %v", err)
		return
	}
	*into = config.Material{Name: path, Bytes: b}
}

// certificates adds those of a directory, each once: beside a file there is often a link to it, named by its hash.
func (p *pluginFile) certificates(dir string) {
	path := p.absolute(dir)
	names, err := filepath.Glob(filepath.Join(path, "*"))
	if err == nil && len(names) == 0 {
		err = errors.New("there is no file in it")
	}
	if err != nil {
		p.problem(p.line("LDAP", "TLSCACertDir"), "TLSCACertDir", "%s: %v", path, err)
		return
	}
	ca := &p.dir.CA
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(b, []byte("-----BEGIN CERTIFICATE-----")) || bytes.Contains(ca.Bytes, bytes.TrimSpace(b)) {
			continue
		}
		ca.Bytes = append(append(ca.Bytes, b...), '\n')
	}
	if len(ca.Bytes) == 0 {
		p.problem(p.line("LDAP", "TLSCACertDir"), "TLSCACertDir", "there is no certificate in %s", path)
	}
	if ca.Name == "" {
		ca.Name = path
	}
}
