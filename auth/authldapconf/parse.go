package authldapconf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxTimeout is where a number of seconds stops being meant.
const maxTimeout = 24 * 60 * 60

// A reader goes through the lines of a file.
type reader struct {
	file     string
	line     int
	sections []section // that are open, the outermost first
	c        Config
	seen     map[string]int    // "section key" in lower case -> line
	written  map[string]string // the key as it was written
	problems []error
}

type section struct {
	name string // in lower case
	line int
}

func (r *reader) problem(line int, format string, args ...any) {
	const enough = 50
	if len(r.problems) < enough {
		r.problems = append(r.problems, &Problem{r.file, line, fmt.Sprintf(format, args...)})
	}
}

func (r *reader) read(src string) {
	src = strings.TrimPrefix(src, "\ufeff")
	r.written = make(map[string]string)
	for src != "" {
		var line string
		line, src, _ = strings.Cut(src, "\n")
		r.line++
		words, err := splitLine(strings.TrimSuffix(line, "\r"))
		if err != nil {
			r.problem(r.line, "%v", err)
			continue
		}
		switch {
		case len(words) == 0:
		case strings.HasPrefix(words[0], "</"):
			r.close(words)
		case strings.HasPrefix(words[0], "<"):
			r.open(words)
		default:
			r.set(words)
		}
	}
}

// splitLine cuts a line into words. Errors show nothing of the line: it may hold the password.
func splitLine(line string) (words []string, err error) {
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			return words, nil
		}
		var word string
		if line[0] == '"' {
			var closed bool
			if word, line, closed = strings.Cut(line[1:], `"`); !closed {
				return nil, errors.New(`no closing quotation (")`)
			}
			if line != "" && strings.IndexByte(" \t#", line[0]) < 0 {
				return nil, errors.New(`something follows a closing quotation (") at once: a value cannot hold that character`)
			}
		} else {
			end := strings.IndexAny(line, " \t")
			if end < 0 {
				end = len(line)
			}
			word, line = line[:end], line[end:]
			if strings.Contains(word, `"`) {
				return nil, errors.New(`quotation (") inside a word`)
			}
		}
		for i := range len(word) {
			if word[i] < ' ' || word[i] == 0x7f {
				return nil, errors.New("control character in the line")
			}
		}
		words = append(words, word)
	}
}

// within says which sections a section may stand in; "" is the file.
var within = map[string]string{"ldap": "", "authorization": "", "group": "authorization"}

func (r *reader) current() string {
	if len(r.sections) == 0 {
		return ""
	}
	return r.sections[len(r.sections)-1].name
}

// tag reads <Name> or </Name>, and reports what is wrong with it.
func (r *reader) tag(words []string, before string) (name string, ok bool) {
	text := strings.Join(words, " ")
	inner, closed := strings.CutSuffix(text[len(before):], ">")
	inner = strings.TrimSpace(inner)
	if !closed || strings.ContainsAny(inner, "<>") || inner == "" {
		r.problem(r.line, "a section is written as <Name>, and its end as </Name>, on lines of their own")
		return "", false
	}
	name, _, named := strings.Cut(inner, " ")
	if _, known := within[strings.ToLower(name)]; !known {
		r.problem(r.line, "unknown section %.40q: there are LDAP, Authorization and Group", name)
		return "", false
	}
	if named {
		r.problem(r.line, "section %s takes no name", name)
		return "", false
	}
	return strings.ToLower(name), true
}

func (r *reader) open(words []string) {
	name, ok := r.tag(words, "<")
	if !ok {
		return
	}
	if in := r.current(); in != within[name] {
		where := "outside of other sections"
		if within[name] != "" {
			where = "inside <Authorization>"
		}
		r.problem(r.line, "section <%s> belongs %s", title[name], where)
	}
	if before := r.seen[name]; name != "group" && before != 0 {
		r.problem(r.line, "section <%s> was there in line %d already: keep one of the two", title[name], before)
	}
	if name == "group" {
		for k := range r.seen {
			if strings.HasPrefix(k, "group ") {
				delete(r.seen, k)
			}
		}
		r.c.Groups = append(r.c.Groups, Group{Line: r.line})
	}
	r.seen[name] = r.line
	r.sections = append(r.sections, section{name, r.line})
}

var title = map[string]string{"ldap": "LDAP", "authorization": "Authorization", "group": "Group"}

func (r *reader) close(words []string) {
	name, ok := r.tag(words, "</")
	if !ok {
		return
	}
	if r.current() != name {
		r.problem(r.line, "</%s> closes a section that is not open here", title[name])
		return
	}
	r.sections = r.sections[:len(r.sections)-1]
	if name == "group" {
		r.finishGroup(&r.c.Groups[len(r.c.Groups)-1])
	}
}

// set takes a line with a key and a value.
func (r *reader) set(words []string) {
	in := r.current()
	if in == "" {
		r.problem(r.line, "%.40q stands outside of a section", words[0])
		return
	}
	key := in + " " + strings.ToLower(words[0])
	take, known := keys[key]
	if !known {
		r.problem(r.line, "unknown key %.40q in section <%s>", words[0], title[in])
		return
	}
	if len(words) != 2 || words[1] == "" {
		r.problem(r.line, "%s takes one value: one with a blank in it stands in double quotes", words[0])
		return
	}
	if before := r.seen[key]; before != 0 {
		r.problem(r.line, "%s was there in line %d already: keep one of the two", words[0], before)
		return
	}
	r.seen[key], r.written[key] = r.line, words[0]
	if err := take(&r.c, words[1]); err != nil {
		r.problem(r.line, "%s: %v", words[0], err)
		return
	}
	l := Line{r.line, title[in], words[0], words[1]}
	if key == "ldap password" {
		l.Value = ""
	}
	r.c.Lines = append(r.c.Lines, l)
}

// keys holds a row for each key: its section, its name, what it sets.
var keys = map[string]func(c *Config, value string) error{
	"ldap url":             takeURL,
	"ldap binddn":          text(func(c *Config) *string { return &c.BindDN }),
	"ldap password":        func(c *Config, v string) error { c.Password = Secret(v); return nil },
	"ldap timeout":         takeTimeout,
	"ldap tlsenable":       boolean(func(c *Config) *bool { return &c.StartTLS }),
	"ldap followreferrals": boolean(func(c *Config) *bool { return &c.FollowReferrals }),
	"ldap tlscacertfile":   text(func(c *Config) *string { return &c.CACertFile }),
	"ldap tlscacertdir":    text(func(c *Config) *string { return &c.CACertDir }),
	"ldap tlscertfile":     text(func(c *Config) *string { return &c.CertFile }),
	"ldap tlskeyfile":      text(func(c *Config) *string { return &c.KeyFile }),
	"ldap tlsciphersuite":  text(func(c *Config) *string { return &c.CipherSuite }),

	"authorization basedn":       text(func(c *Config) *string { return &c.BaseDN }),
	"authorization searchfilter": text(func(c *Config) *string { return &c.SearchFilter }),
	"authorization requiregroup": boolean(func(c *Config) *bool { return &c.RequireGroup }),
	"authorization usecn":        boolean(func(c *Config) *bool { return &c.UseCN }),
	"authorization passwordiscr": boolean(func(c *Config) *bool { return &c.PasswordIsCR }),
	"authorization pftable":      packetFilter,

	"group basedn":              text(func(c *Config) *string { return &c.group().BaseDN }),
	"group searchfilter":        text(func(c *Config) *string { return &c.group().SearchFilter }),
	"group memberattribute":     text(func(c *Config) *string { return &c.group().MemberAttribute }),
	"group rfc2307bis":          inverse(func(c *Config) *bool { return &c.group().MemberIsName }),
	"group usecompareoperation": inverse(func(c *Config) *bool { return &c.group().Search }),
	"group pftable":             packetFilter,
}

func (c *Config) group() *Group { return &c.Groups[len(c.Groups)-1] }

func text(at func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error { *at(c) = v; return nil }
}

func boolean(at func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, v string) (err error) { *at(c), err = parseBool(v); return err }
}

func inverse(at func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, v string) error {
		yes, err := parseBool(v)
		*at(c) = !yes
		return err
	}
}

func parseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "yes", "true", "1":
		return true, nil
	case "no", "false", "0":
		return false, nil
	}
	return false, fmt.Errorf("%.40q is neither yes nor no", v)
}

func takeURL(c *Config, v string) error {
	c.URLs = strings.Fields(v)
	for _, u := range c.URLs {
		scheme, host, ok := strings.Cut(u, "://")
		scheme = strings.ToLower(scheme)
		if scheme == "ldapi" {
			return errors.New("ldapi is not supported: write ldap://localhost")
		}
		if !ok || scheme != "ldap" && scheme != "ldaps" || host == "" {
			return errors.New("an address of a directory is written as ldap://HOST[:PORT] or ldaps://HOST[:PORT]")
		}
	}
	if len(c.URLs) == 0 {
		return errors.New("empty")
	}
	return nil
}

func takeTimeout(c *Config, v string) error {
	seconds, err := strconv.Atoi(v)
	if err != nil || seconds <= 0 || seconds > maxTimeout {
		return fmt.Errorf("%.40q is not a number of seconds", v)
	}
	c.Timeout = time.Duration(seconds) * time.Second
	return nil
}

func packetFilter(*Config, string) error {
	return errors.New("is for the packet filter of BSD systems: remove the line, and use the server's own rules for groups")
}

// finish looks at what is missing.
func (r *reader) finish() {
	for _, s := range r.sections {
		r.problem(s.line, "section <%s> is not closed", title[s.name])
	}
	for _, s := range []string{"ldap", "authorization"} {
		if r.seen[s] == 0 {
			r.problem(0, "there is no section <%s>", title[s])
		}
	}
	c := &r.c
	for _, m := range []struct {
		section, key string
		missing      bool
	}{{"ldap", "URL", c.URLs == nil}, {"authorization", "BaseDN", c.BaseDN == ""}, {"authorization", "SearchFilter", c.SearchFilter == ""}} {
		if line := r.seen[m.section]; m.missing && line != 0 && r.seen[m.section+" "+strings.ToLower(m.key)] == 0 {
			r.problem(line, "section <%s> lacks %s", title[m.section], m.key)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		r.problem(r.seen["ldap"], "TLSCertFile and TLSKeyFile go together")
	}
	if c.BindDN != "" && c.Password == "" && r.seen["ldap password"] == 0 {
		r.problem(r.seen["ldap binddn"], "BindDN without Password: the directory would take that for an anonymous search")
	}
	if c.RequireGroup && len(c.Groups) == 0 {
		r.problem(r.seen["authorization requiregroup"], "RequireGroup without a <Group>: the plugin asks for no group then; write RequireGroup false if that is meant, or a <Group>")
	}
}

func (r *reader) finishGroup(g *Group) {
	if g.BaseDN == "" && r.seen["group basedn"] == 0 {
		r.problem(g.Line, "section <Group> lacks BaseDN")
	}
	if g.SearchFilter == "" && r.seen["group searchfilter"] == 0 {
		r.problem(g.Line, "section <Group> lacks SearchFilter")
	}
	if g.MemberAttribute == "" && r.seen["group memberattribute"] == 0 {
		// The plugin starts with it, and takes the server down at the first login.
		r.problem(g.Line, "section <Group> lacks MemberAttribute: member, uniqueMember or memberUid")
	}
}
