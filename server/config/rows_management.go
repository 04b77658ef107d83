package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Management is where management clients come, and who may.
type Management struct {
	Network     string         // tcp, unix, or "" for nowhere
	Addr        netip.AddrPort // tcp: a loopback address
	Path        string         // unix
	Password    []byte         `json:"-"` // from the password file; nil without one
	User, Group string         // unix: whose connections are taken; "" for anybody's
	LogCache    int            // lines kept for `log all`; 0 leaves ours
	Hold        bool           // wait for a release before serving
	Signal      bool           // reload when the last client leaves
	ClientAuth  bool           // ask about each login
	Echo        []string       // texts of echo directives
	Dial        bool           // connect to a program that listens there
}

// String and GoString leave the password out.
func (m Management) String() string {
	if m.Network == "unix" {
		return m.Path + " unix"
	}
	return m.Addr.String()
}
func (m Management) GoString() string { return m.String() }

var managementRows = []row{
	use("management", "HOST|PATH PORT|unix [PWFILE]", "Where programs watch the server and end clients, over OpenVPN's management protocol: `PATH unix` is a socket of mode 0660, `127.0.0.1 PORT PWFILE` a TCP port of this host only and with a password. PWFILE holds the password in its first line.", setManagement),
	use("management-client-user", "USER", "Only this user's programs may use the unix socket, which is then the user's own.", word(func(c *Config) *string { return &c.Management.User })),
	use("management-client-group", "GROUP", "Only programs that run as this group may use the unix socket, which is then the group's.", word(func(c *Config) *string { return &c.Management.Group })),
	use("management-log-cache", "N", "How many log lines `log all` shows; default 250.", count(1, 100_000, func(c *Config) *int { return &c.Management.LogCache })),
	use("management-hold", "", "Do not serve before a management client says `hold release`.", switchOn(func(c *Config) *bool { return &c.Management.Hold })),
	use("management-signal", "", "Reload, as SIGUSR1 does, when the last management client leaves.", switchOn(func(c *Config) *bool { return &c.Management.Signal })),
	use("management-client-auth", "", "Put each login to the management clients, and let in whom one of them lets in with `client-auth`. With a directory, user file or script too, all must agree.", switchOn(func(c *Config) *bool { return &c.Management.ClientAuth })),
	use("management-client", "", "Connect to a program that listens where `management` says, in place of listening there. When it leaves, the server ends.", switchOn(func(c *Config) *bool { return &c.Management.Dial })),
	accept("management-forget-disconnect", "", "there are no passwords to forget"),
	accept("management-up-down", "", "clients only"),
	accept("management-query-passwords", "", "there is no password to ask for"),
	accept("management-query-remote", "", "clients only"),
	accept("management-query-proxy", "", "clients only"),
	refuse("management-client-pf", "removed from OpenVPN 2.6: remove the line"),
}

func setManagement(d *draft, l *directive) error {
	m := &d.cfg.Management
	m.Network, m.Addr, m.Path = "", netip.AddrPort{}, ""
	if l.arg(2) == "stdin" {
		return errors.New("nobody is there to type the password: write it into a file of mode 0600, and name that")
	}
	if l.args[1] == "unix" {
		if l.args[0] == "" {
			return errors.New("the path must not be empty")
		}
		m.Network, m.Path = "unix", l.args[0] // made absolute once cd is known
		return nil
	}
	host := l.args[0]
	switch host {
	case "localhost":
		host = "127.0.0.1"
	case "tunnel":
		return errors.New("clients of the tunnel must not manage their server: " + managementElsewhere)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return fmt.Errorf("%q is neither an address nor, with unix behind it, a path (host names are not looked up)", host)
	}
	port, err := number(l.args[1], 1, 65535)
	if err != nil {
		return err
	}
	// S096: any user of this host, and any page in a browser of it, can connect to a port.
	if !addr.IsLoopback() {
		return fmt.Errorf("%s can be reached from elsewhere, and nothing is encrypted: %s", addr, managementElsewhere)
	}
	if l.arg(2) == "" {
		return fmt.Errorf("over TCP any program of this host could manage the server: write `management %s %d PWFILE` with a password file, or `management PATH unix`", host, port)
	}
	m.Network, m.Addr = "tcp", netip.AddrPortFrom(addr.Unmap(), uint16(port))
	return nil
}

const managementElsewhere = "write `management PATH unix`, or 127.0.0.1 with a password file, and let ssh bring others there"

// finishManagement holds the directives about management against each other, and reads the password.
func (d *draft) finishManagement() {
	m := &d.cfg.Management
	l := d.last["management"]
	for _, name := range []string{"management-client-user", "management-client-group", "management-log-cache", "management-hold", "management-signal", "management-client-auth", "management-client"} {
		switch {
		case !d.has(name):
		case l == nil:
			d.refuse(d.last[name], "says nothing without management: remove the line, or add `management PATH unix`")
		case m.Network == "tcp" && (name == "management-client-user" || name == "management-client-group"):
			d.refuse(d.last[name], "over TCP nobody can tell who connects: write `management PATH unix`")
		}
	}
	if m.Path != "" {
		m.Path = d.absolute(m.Path)
	}
	if m.Network == "" || l.arg(2) == "" {
		return
	}
	path := d.locate(l, l.args[2])
	b, info, err := d.files.ReadFile(path, 4096, true)
	if err != nil {
		d.refuse(l, "%s cannot be read: %s", path, reason(err))
		return
	}
	if !d.checkSecret(l, path, info) {
		return
	}
	password, _, _ := strings.Cut(string(b), "\n")
	if password = strings.TrimSuffix(password, "\r"); password == "" {
		d.refuse(l, "%s is empty: write the password into its first line", path)
		return
	}
	m.Password = []byte(password)
}
