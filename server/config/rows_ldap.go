package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

var ldapRows = []row{
	dir("ldap-realm", "NAME", "What follows is about a directory of its own, for the logins that end with @NAME. It knows them without that end. Above the first such line is the directory for all other logins, if any.", nil).each(),
	dir("ldap-url", "URL", "A directory that decides about logins, ldap://HOST[:PORT] or ldaps://HOST[:PORT]. Several lines are tried in order; one that fails is passed over for 30 s.", addLDAPURL).each(),
	dir("ldap-domain", "DOMAIN", "Find servers in DNS: the SRV records of _ldaps._tcp.DOMAIN, or the hosts of _ldap._tcp.DOMAIN at port 636; with `ldap-starttls`, _ldap._tcp.DOMAIN as it is. Only hosts within DOMAIN are asked, after those of `ldap-url`.", setLDAPDomain),
	dir("ldap-starttls", "", "Encrypt ldap:// with StartTLS before anything is sent.", func(x *directory, _ *directive) error { x.StartTLS = true; return nil }),
	dir("ldap-tls-ca", "FILE", "Certificates of the CA that the directory's certificate must come from; default the system's.", setDirectoryFile).inline(),
	dir("ldap-tls-cert", "FILE", "A certificate to show to directories that want one.", setDirectoryFile).inline(),
	dir("ldap-tls-key", "FILE", "Its private key.", setDirectoryFile).inline(),
	dir("ldap-bind-dn", "DN", "The account that searches for users, as a DN or as NAME@DOMAIN; without it the search is anonymous.", func(x *directory, l *directive) error {
		if name, domain, ok := strings.Cut(l.args[0], "@"); ok && name != "" && domain != "" && !strings.Contains(l.args[0], "=") {
			x.BindDN = l.args[0]
			return nil
		}
		return setDN(&x.BindDN, l)
	}),
	dir("ldap-bind-password-file", "FILE", "The file with that account's password. Refused when others can read it.", setDirectoryFile),
	dir("ldap-bind-as", "TEMPLATE", "What a user binds as, instead of the entry that was found: a DN such as uid=%u,ou=people,dc=example,dc=org, or %u@DOMAIN. `%u` is the login. Without `ldap-bind-dn` users then find their entries and groups themselves; what becomes of them while they are connected cannot be seen.", setBindAs),
	dir("ldap-user-base", "DN", "Where users are searched for, with everything below.", func(x *directory, l *directive) error { return setDN(&x.UserBase, l) }),
	dir("ldap-user-filter", "FILTER", "How a user is found; `%u` is the login, escaped. Default `(uid=%u)`.", setUserFilter),
	dir("ldap-require-group", "DN", "Let only members of this group in (member, uniqueMember, memberUid, memberOf, Active Directory's primary group). With several lines any of them is enough.", func(x *directory, l *directive) error {
		var dn string
		err := setDN(&dn, l)
		if err == nil {
			x.RequireGroups = append(x.RequireGroups, dn)
		}
		return err
	}).each(),
	dir("ldap-group-base", "DN", "Where groups are searched for, with everything below, to find all groups of a user. Without it groups are searched for in what `ldap-user-base` ends with, and only as far as `ldap-require-group` needs it.", func(x *directory, l *directive) error { return setDN(&x.GroupBase, l) }),
	dir("ldap-nested-groups", "yes|no", "Whether members of a group within a group are its members; default yes. Active Directory is asked by its own rule, others step by step, at most 10 deep.", func(x *directory, l *directive) error {
		yes, err := yesNo(l.args[0])
		x.DirectGroups = err == nil && !yes
		return err
	}),
	dir("ldap-address-attribute", "NAME [NAME6]", "Attributes with a user's fixed IPv4 and IPv6 address, where a user has them. A client file goes before.", func(x *directory, l *directive) error {
		x.Addr4Attr, x.Addr6Attr = l.args[0], l.arg(1)
		return attributeNames(l.args...)
	}),
	dir("ldap-pool-attribute", "NAME", "An attribute with the name of the pool that a user's address comes from.", func(x *directory, l *directive) error {
		x.PoolAttr = l.args[0]
		return attributeNames(l.args...)
	}),
	dir("ldap-route-attribute", "NAME", "An attribute with networks to push as routes to a user, as 10.1.0.0/16.", func(x *directory, l *directive) error {
		x.RouteAttr = l.args[0]
		return attributeNames(l.args...)
	}),
	dir("ldap-timeout", "SECONDS", "How long each step of a login may take; default 5.", func(x *directory, l *directive) error {
		n, err := number(l.args[0], 1, 60)
		x.Timeout = time.Duration(n) * time.Second
		return err
	}),
	dir("ldap-allow-cleartext", "", "Allow ldap:// without StartTLS to another machine. Passwords then cross the network readable.", func(x *directory, _ *directive) error { x.AllowCleartext = true; return nil }),
	use("ldap-login", "password|certificate", "Whether users give a password (default), or are let in by their certificate, if the directory knows the certificate's name and lets it connect.", func(d *draft, l *directive) error {
		d.cfg.LoginByCert = l.args[0] == "certificate"
		return choice("password", "certificate")(d, l)
	}),
	use("ldap-refresh", "SECONDS", "How often the directory is asked about those who are connected: who may not connect any more is disconnected, and other groups count at once. Default 60; 0 asks at renegotiations only.", func(d *draft, l *directive) (err error) {
		d.cfg.LDAPRefresh, err = seconds(l.args[0], 0)
		return err
	}),
	use("ldap-max-failures", "N", "How many wrong passwords of one user the directory may see in 15 minutes, from where the user is not known (2 more from where the user has logged in before). Keep it 3 below the number that locks an account there; default 3. Read at the start.", count(1, 100, func(c *Config) *int { return &c.LDAPMaxFailures })),
}

// A directory is one realm in the making, and the lines that made it.
type directory struct {
	LDAP
	first *directive // of its lines
	lines map[string]*directive
}

// dir is a row whose line is about the directory that lines are about now.
func dir(name, params, help string, apply func(*directory, *directive) error) row {
	return use(name, params, help, func(d *draft, l *directive) error {
		if name == "ldap-realm" {
			return d.beginRealm(l)
		}
		if len(d.directories) == 0 {
			d.begin(l)
		}
		x := d.directories[len(d.directories)-1]
		x.lines[name] = l
		return apply(x, l)
	})
}

func (d *draft) begin(l *directive) *directory {
	x := &directory{LDAP: LDAP{UserFilter: "(uid=%u)", Timeout: 5 * time.Second}, first: l, lines: make(map[string]*directive)}
	d.directories = append(d.directories, x)
	return x
}

// beginRealm has the lines that follow say nothing about the directories above.
func (d *draft) beginRealm(l *directive) error {
	name := strings.ToLower(l.args[0])
	if name == "" || strings.ContainsAny(name, "@ \\/=,") {
		return fmt.Errorf("%q is not the end of a login such as corp.example", l.args[0])
	}
	for _, x := range d.directories {
		if x.Realm == name {
			return errors.New("there is such a realm already: remove one of them")
		}
	}
	for said := range d.last {
		if strings.HasPrefix(said, "ldap-") && !slices.Contains(ldapShared, said) {
			delete(d.last, said)
		}
	}
	d.begin(l).Realm = name
	return nil
}

// ldapShared are the directives that are about all directories.
var ldapShared = []string{"ldap-login", "ldap-refresh", "ldap-max-failures"}

func addLDAPURL(x *directory, l *directive) error {
	u, err := url.Parse(l.args[0])
	switch {
	case err != nil:
		l.entry.Text = "ldap-url ..." // as the parser's error, it may hold a password
		return errors.New("not a URL: write ldaps://HOST or ldap://HOST")
	case u.User != nil:
		l.entry.Text = "ldap-url " + u.Redacted()
		return errors.New("passwords do not belong into a URL: use ldap-bind-dn and ldap-bind-password-file")
	case u.Scheme != "ldap" && u.Scheme != "ldaps":
		return fmt.Errorf("%q is not a way to reach a directory: write ldaps://HOST or ldap://HOST", u.Scheme)
	case u.Hostname() == "":
		return errors.New("the host is missing: write ldaps://HOST or ldap://HOST")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("only host and port belong into the URL: the base goes into ldap-user-base, the filter into ldap-user-filter")
	}
	if p := u.Port(); p != "" {
		if _, err := number(p, 1, 65535); err != nil {
			return fmt.Errorf("Bad port number: %w", err)
		}
	}
	clean := u.Scheme + "://" + u.Host
	if slices.Contains(x.URLs, clean) {
		return errors.New("it is listed twice: remove one line")
	}
	x.URLs = append(x.URLs, clean)
	return nil
}

func setLDAPDomain(x *directory, l *directive) error {
	name := strings.TrimSuffix(l.args[0], ".")
	if name == "" || strings.ContainsAny(name, "/:@= ") || !strings.Contains(name, ".") {
		return fmt.Errorf("%q is not a domain such as corp.example", l.args[0])
	}
	x.Domain = name
	return nil
}

// setDirectoryFile remembers the line; its file is read when all lines are known.
func setDirectoryFile(_ *directory, l *directive) error {
	if !l.isBlock && l.args[0] == "" {
		return errors.New("the file name must not be empty")
	}
	return nil
}

// setDN reads a distinguished name. The directory has the last word about it; what has no = at all is a slip.
func setDN(field *string, l *directive) error {
	if !strings.Contains(l.args[0], "=") {
		return fmt.Errorf("%q is not a distinguished name such as ou=people,dc=example,dc=org", l.args[0])
	}
	*field = l.args[0]
	return nil
}

func setBindAs(x *directory, l *directive) error {
	t := l.args[0]
	switch {
	case !strings.Contains(t, "%u"):
		return errors.New("all users would bind as one: put %u where the login belongs")
	case !strings.Contains(t, "=") && strings.ContainsAny(t, " ,"):
		return fmt.Errorf("%q is neither a distinguished name nor a name such as %%u@corp.example", t)
	}
	x.BindAs = t
	return nil
}

// attributeNames refuses what is no name of an attribute: it goes to the directory as it is.
func attributeNames(names ...string) error {
	for _, name := range names {
		for i, c := range name {
			letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
			if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
				return fmt.Errorf("%q is not the name of an attribute", name)
			}
		}
	}
	return nil
}

func setUserFilter(x *directory, l *directive) error {
	f := l.args[0]
	depth := 0
	for i, c := range f {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth < 0 || depth == 0 && i < len(f)-1 {
			depth = -1
			break
		}
	}
	switch {
	case depth != 0 || !strings.HasPrefix(f, "(") || !strings.Contains(f, "="):
		return fmt.Errorf("%q is not a filter: it needs balanced brackets around it, as (uid=%%u)", f)
	case !strings.Contains(f, "%u"):
		return errors.New("the filter finds the same for every login: put %u where the login belongs")
	}
	x.UserFilter = f
	return nil
}

// finishLDAP checks the directories' directives against each other, and makes the Config's fields of them.
func (d *draft) finishLDAP() {
	for _, x := range d.directories {
		if !d.finishDirectory(x) {
			continue
		}
		if d.cfg.LDAP == nil && x.Realm == "" {
			d.cfg.LDAP = &x.LDAP
		} else {
			d.cfg.Realms = append(d.cfg.Realms, &x.LDAP)
		}
	}
	if d.cfg.LDAP == nil && len(d.cfg.Realms) > 0 {
		d.cfg.LDAP, d.cfg.Realms = d.cfg.Realms[0], d.cfg.Realms[1:]
	}
	if d.cfg.LDAP != nil {
		if l := d.last["auth-users-file"]; l != nil && d.cfg.LoginByCert {
			d.refuse(l, "with `ldap-login certificate` nobody gives a password: remove one of the two")
		}
		return
	}
	for _, name := range ldapShared {
		if d.has(name) && len(d.directories) == 0 && d.cfg.AuthLDAP.File == "" {
			d.refuse(d.last[name], "there is no directory to use it with: add ldap-url")
		}
	}
	d.cfg.LoginByCert = false
}

// finishDirectory reports whether there is a directory to ask.
func (d *draft) finishDirectory(x *directory) bool {
	server := x.lines["ldap-url"]
	if server == nil {
		server = x.lines["ldap-domain"]
	}
	if server == nil {
		if x.first.name == "ldap-realm" {
			d.refuse(x.first, "there is no directory in this realm: add ldap-url below")
			return false
		}
		for _, r := range ldapRows {
			if l := x.lines[r.name]; l != nil {
				if r.name == "ldap-allow-cleartext" && d.cfg.AuthLDAP.File != "" {
					d.cfg.AuthLDAP.Cleartext = true
					continue
				}
				d.refuse(l, "there is no directory to use it with: add ldap-url")
			}
		}
		return false
	}
	x.AllGroups = d.has("policy")
	if x.UserBase == "" && x.lines["ldap-user-base"] == nil {
		d.refuse(server, "ldap-user-base is missing: it says where users are searched for")
	}
	if (x.lines["ldap-bind-dn"] != nil) != (x.lines["ldap-bind-password-file"] != nil) {
		d.refuse(server, "ldap-bind-dn and ldap-bind-password-file belong together: write both, or none for an anonymous search")
	}
	if (x.lines["ldap-tls-cert"] != nil) != (x.lines["ldap-tls-key"] != nil) {
		d.refuse(server, "ldap-tls-cert and ldap-tls-key belong together: write both")
	}
	if l := x.lines["ldap-bind-as"]; l != nil && x.BindDN == "" {
		d.notice(l, "without ldap-bind-dn nobody can be looked at while connected: who leaves stays until the next renegotiation")
	}
	for _, u := range x.URLs {
		plain := strings.HasPrefix(u, "ldap://")
		switch {
		case !plain && x.StartTLS:
			d.refuse(x.lines["ldap-starttls"], "%s is encrypted already: write ldap:// there, or remove this line", u)
		case plain && !x.StartTLS && !x.AllowCleartext && !loopback(u):
			d.refuse(server, "%s would carry passwords readable: write ldaps://, or add ldap-starttls; ldap-allow-cleartext allows it as it is", u)
		}
	}
	return true
}

// readDirectories reads the files that the directories' lines name.
func (d *draft) readDirectories() {
	for _, x := range d.directories {
		for _, m := range []struct {
			name  string
			into  *Material
			check func(d *draft, l *directive, b []byte) error
		}{{"ldap-tls-ca", &x.CA, checkCertificates}, {"ldap-tls-cert", &x.Cert, checkCertificates}, {"ldap-tls-key", &x.Key, checkPrivateKey}} {
			if l := x.lines[m.name]; l != nil {
				d.readInto(l, m.into, m.check)
			}
		}
		if l := x.lines["ldap-bind-password-file"]; l != nil {
			x.BindPassword = d.readPassword(l)
		}
	}
}

// loopback reports whether a URL leads to this machine.
func loopback(rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	host := u.Hostname()
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
