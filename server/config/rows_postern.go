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

var posternRows = []row{
	use("ldap-url", "URL", "A directory that decides about logins, ldap://HOST[:PORT] or ldaps://HOST[:PORT]. Several lines are tried in order.", addLDAPURL).each(),
	use("ldap-starttls", "", "Encrypt ldap:// with StartTLS before anything is sent.", func(d *draft, _ *directive) error { d.ldap.StartTLS = true; return nil }),
	use("ldap-tls-ca", "FILE", "Certificates of the CA that the directory's certificate must come from; default the system's.", setMaterial).inline(),
	use("ldap-bind-dn", "DN", "The account that searches for users; without it the search is anonymous.", func(d *draft, l *directive) error { return setDN(&d.ldap.BindDN, l) }),
	use("ldap-bind-password-file", "FILE", "The file with that account's password. Refused when others can read it.", setMaterial),
	use("ldap-user-base", "DN", "Where users are searched for, with everything below.", func(d *draft, l *directive) error { return setDN(&d.ldap.UserBase, l) }),
	use("ldap-user-filter", "FILTER", "How a user is found; `%u` is the login, escaped. Default `(uid=%u)`.", setUserFilter),
	use("ldap-require-group", "DN", "Let only members of this group in (member, uniqueMember or memberOf). With several lines any of them is enough.", addGroup).each(),
	use("ldap-timeout", "SECONDS", "How long each step of a login may take; default 5.", setLDAPTimeout),
	use("ldap-allow-cleartext", "", "Allow ldap:// without StartTLS to another machine. Passwords then cross the network readable.", func(d *draft, _ *directive) error { d.cleartextLDAP = true; return nil }),
	use("auth-users-file", "FILE", "Local users, made with `postern user add`. With a directory too, it is asked only for names that are in the file. Refused when others can read it.", func(d *draft, l *directive) error {
		d.cfg.Users = l.args[0] // found in readMaterial
		return setMaterial(d, l)
	}),
	use("login-must-match-cert", "yes|no", "Whether the login must be the certificate's common name; default yes.", func(d *draft, l *directive) (err error) {
		d.cfg.LoginMustMatchCert, err = yesNo(l.args[0])
		return err
	}),
	use("auth-totp-file", "FILE", "One-time codes: who logs in needs, besides the password, the code that an authenticator app shows. FILE has the users' secrets, of the user file's and of the directory's, made with `postern user totp`. Refused when others can read it.", func(d *draft, l *directive) error {
		d.cfg.TOTPFile = l.args[0] // found in readMaterial
		return setMaterial(d, l)
	}),
	use("auth-totp", "required|optional", "Whether users without a secret are kept out (default), or come in by their password alone. Then it shows, to whoever asks, who has one.", setTOTP),
	use("auth-totp-place", "last|first|apart", "Where in a password the code may be, for clients that have one field for both: at its end (default) or its beginning, if there are six digits, or nowhere. Clients that ask for the code by itself are understood in any case.", setTOTPPlace),
	use("auth-totp-text", "TEXT", "What users are asked, here and in profiles; default \"One-time code\".", setTOTPText),
	use("auth-totp-used", "FILE", "A file of the server's own in which it remembers over a restart which codes have been used. Without it, codes of the first minute after a start are refused.", func(d *draft, l *directive) error { return d.output(l, &d.cfg.TOTPUsed) }),
	use("auth-gen-token-format", "postern|openvpn", "What tokens are like: bound to a client's certificate, and over when its user's password or code has changed (default); or such that servers of OpenVPN with the same `auth-gen-token-secret` take them too.", setTokenFormat),
	use("nat", "yes|no", "Let clients reach what this machine reaches, with its address: forwarding and masquerading in a firewall table of Postern's own. Default no.", func(d *draft, l *directive) (err error) {
		d.cfg.NAT, err = yesNo(l.args[0])
		return err
	}),
	use("leak-guard", "yes|no", "Whether a pushed `redirect-gateway` is completed for each client, so that nothing goes past the tunnel: IPv6 goes through it too, or is blocked for clients without an IPv6 address; and where name servers are pushed and used, other ones and local networks are blocked (block-outside-dns, block-local). Default yes.", func(d *draft, l *directive) error {
		yes, err := yesNo(l.args[0])
		d.cfg.NoLeakGuard = err == nil && !yes
		return err
	}),
	use("tun-offload", "yes|no", "Whether the TUN device passes packets in large pieces where the kernel can; default yes.", func(d *draft, l *directive) error {
		yes, err := yesNo(l.args[0])
		d.cfg.NoOffload = err == nil && !yes
		return err
	}),
	use("proxy-protocol-from", "NET/BITS|ADDRESS...", "Balancers that announce whose TCP connections they pass on, by the PROXY protocol, version 2. Limits, logs and logins then go by the client's address. A connection from there without it is closed, and nobody else's announcements are heard.", addBalancers).each(),
	use("control-socket", "PATH", "The socket that `postern status` asks; default /run/postern/NAME.sock for NAME.conf.", func(d *draft, l *directive) error { return d.output(l, &d.cfg.Control) }),
}

func addBalancers(d *draft, l *directive) error {
	for _, s := range l.args {
		p, err := netip.ParsePrefix(s)
		if a, aErr := netip.ParseAddr(s); aErr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil || p.Addr().Zone() != "" || p.Addr().Is4In6():
			return fmt.Errorf("%q is neither an address nor a network such as 192.0.2.0/28", s)
		case hostBits(p):
			return fmt.Errorf("%s has bits set behind its prefix: write %s", s, p.Masked())
		case p.Bits() == 0:
			return fmt.Errorf("%s would let everybody choose an address: name the balancers", s)
		}
		d.cfg.Balancers = append(d.cfg.Balancers, p)
	}
	return nil
}

func addLDAPURL(d *draft, l *directive) error {
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
	if slices.Contains(d.ldap.URLs, clean) {
		return errors.New("it is listed twice: remove one line")
	}
	d.ldap.URLs = append(d.ldap.URLs, clean)
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

func addGroup(d *draft, l *directive) error {
	var dn string
	if err := setDN(&dn, l); err != nil {
		return err
	}
	d.ldap.RequireGroups = append(d.ldap.RequireGroups, dn)
	return nil
}

func setUserFilter(d *draft, l *directive) error {
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
	d.ldap.UserFilter = f
	return nil
}

func setLDAPTimeout(d *draft, l *directive) error {
	n, err := number(l.args[0], 1, 60)
	d.ldap.Timeout = time.Duration(n) * time.Second
	return err
}

// ldapExtras are the directives that say how to use a directory, and nothing without ldap-url.
var ldapExtras = []string{"ldap-starttls", "ldap-tls-ca", "ldap-bind-dn", "ldap-bind-password-file", "ldap-user-base", "ldap-user-filter", "ldap-require-group", "ldap-timeout", "ldap-allow-cleartext"}

// finishLDAP checks the directory's directives against each other.
func (d *draft) finishLDAP() {
	if !d.has("ldap-url") {
		for _, name := range ldapExtras {
			if d.has(name) {
				d.refuse(d.last[name], "there is no directory to use it with: add ldap-url")
			}
		}
		return
	}
	url := d.last["ldap-url"]
	if d.ldap.UserBase == "" && !d.has("ldap-user-base") {
		d.refuse(url, "ldap-user-base is missing: it says where users are searched for")
	}
	if d.has("ldap-bind-dn") != d.has("ldap-bind-password-file") {
		d.refuse(url, "ldap-bind-dn and ldap-bind-password-file belong together: write both, or none for an anonymous search")
	}
	for _, u := range d.ldap.URLs {
		plain := strings.HasPrefix(u, "ldap://")
		switch {
		case !plain && d.ldap.StartTLS:
			d.refuse(d.last["ldap-starttls"], "%s is encrypted already: write ldap:// there, or remove this line", u)
		case plain && !d.ldap.StartTLS && !d.cleartextLDAP && !loopback(u):
			d.refuse(url, "%s would carry passwords readable: write ldaps://, or add ldap-starttls; ldap-allow-cleartext allows it as it is", u)
		}
	}
	d.ldap.AllowCleartext = d.cleartextLDAP
	ldap := d.ldap
	d.cfg.LDAP = &ldap
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
