package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

var daemonRows = []row{
	use("daemon", "[NAME]", "Go into the background once everything is open, and log to syslog as NAME (default openvpn) unless `log` names a file. Under systemd with Type=notify the server stays in the foreground.", setDaemon),
	use("syslog", "[NAME]", "Log to syslog as NAME; default openvpn. `log` counts more.", setSyslog),
	use("log", "FILE", "Write the log to FILE, which is emptied at the start.", setLog(false)),
	use("log-append", "FILE", "Write the log to the end of FILE.", setLog(true)).as("log"),
	use("suppress-timestamps", "", "Leave the time out of log lines.", switchOn(func(c *Config) *bool { return &c.NoTimestamps })),
	use("machine-readable-output", "", "Log lines begin with the time in seconds and microseconds and a number for the kind of message.", switchOn(func(c *Config) *bool { return &c.MachineReadable })),
	use("verb", "N", "How much is logged, 0 (fatal errors only) to 11; default 1, usual 3.", count(0, 11, func(c *Config) *int { return &c.Verb })),
	use("mute", "N", "Leave out debugging lines (`verb 4` and more) that say the same as the N lines before them; 0 (default): none.", count(0, maxSeconds, func(c *Config) *int { return &c.Mute })),
	accept("errors-to-stderr", "", "the log goes to standard error unless `log` says otherwise"),
	accept("mlock", "", "memory is not locked; encrypt swap space, or switch it off"),
	use("nice", "N", "Change the process's priority; a negative number needs root.", count(-20, 19, func(c *Config) *int { return &c.Nice })),
	accept("fast-io", "", "it has no effect in OpenVPN 2.7 either"),
	accept("gremlin", "N", "it is for OpenVPN's own tests"),
	use("cd", "DIR", "The directory from which relative names start, for includes from this line on; default the working directory.", nil),
	refuse("chroot", "a reload could not read the files again: remove the line; `user` and `group` drop privileges, and the systemd units shut the file system off"),
	use("user", "NAME", "Serve as this user, once devices and sockets are open.", word(func(c *Config) *string { return &c.User })),
	use("group", "NAME", "Serve as this group.", word(func(c *Config) *string { return &c.Group })),
	accept("setcon", "CONTEXT", "set it where the server is started, in systemd with SELinuxContext="),
	use("writepid", "FILE", "Write the process id to FILE.", func(d *draft, l *directive) error { return d.output(l, &d.cfg.WritePID) }),
	use("status", "FILE [SECONDS]", "Write who is connected to FILE, every SECONDS (default 60).", setStatus),
	use("status-version", "[1|2|3]", "The form of that file; default 1.", setStatusVersion),
	use("remap-usr1", "SIGHUP|SIGTERM", "What SIGUSR1 does: reload (default), or end the server.", setRemap),
	accept("disable-occ", "", "options of client and server are never compared"),
	accept("opt-verify", "", "removed from OpenVPN 2.7; options of client and server are never compared"),
	use("setenv", "NAME [VALUE]", "A variable for scripts. `setenv profile_endpoint HOST[:PORT]` tells `postern profile` where clients find the server. `setenv opt DIRECTIVE ...` makes a directive optional, `setenv FORWARD_COMPATIBLE 1` all unknown ones below it.", setEnv("")).each(),
	use("setenv-safe", "NAME [VALUE]", "The same, named OPENVPN_NAME.", setEnv("OPENVPN_")).each(),
	use("ignore-unknown-option", "NAME...", "Let these directives be unknown, on the lines below.", nil).each(),
	use("config", "FILE", "Read FILE here. At most 10 files deep.", nil).each(),
	accept("memstats", "FILE", "removed from OpenVPN 2.7"),
	accept("foreign-option", "...", "clients only"),
	accept("ifconfig-pool-linear", "", "removed from OpenVPN 2.5; `topology p2p` is what it asked for"),
	use("key-method", "2", "Ignored: key method 2 is the only one.", checkKeyMethod),
	refuse("inetd", "removed from OpenVPN 2.6: remove the line"),
	refuse("tls-remote", "removed from OpenVPN 2.4: write `verify-x509-name`"),
	refuse("peer-id", "the server gives each client its own: remove the line"),
	refuse("protocol-flags", "the server negotiates it: remove the line"),
	refuse("key-derivation", "the server negotiates it: remove the line"),
	refuse("auth-token", "it can only be pushed to one client, and that is not supported yet: remove the line"),
	refuse("auth-token-user", "it can only be pushed to one client, and that is not supported yet: remove the line"),
}

var commandRows = []row{
	refuse("help", asCommand), refuse("version", asCommand),
	refuse("genkey", "it is a command: `postern key` makes keys"),
	refuse("mktun", asCommand), refuse("rmtun", asCommand),
	refuse("show-adapters", asCommand), refuse("show-ciphers", asCommand), refuse("show-curves", asCommand),
	refuse("show-digests", asCommand), refuse("show-engines", asCommand), refuse("show-gateway", asCommand),
	refuse("show-groups", asCommand), refuse("show-net", asCommand), refuse("show-pkcs11-ids", asCommand),
	refuse("show-tls", asCommand), refuse("show-valid-subnets", asCommand),
}

const asCommand = "it is a command, not configuration: remove the line"

// plugins are the well-known ones, and what does their work here.
var plugins = map[string]string{
	"openvpn-plugin-auth-pam":  insteadOfPAM,
	"openvpn-auth-pam":         insteadOfPAM,
	"openvpn-plugin-down-root": "remove the line: what the server set up it removes itself",
	"openvpn-down-root":        "remove the line: what the server set up it removes itself",
	"radiusplugin":             insteadOfRADIUS,
	"openvpn-radius":           insteadOfRADIUS,
	"openvpn-plugin-radius":    insteadOfRADIUS,
}

const (
	insteadOfPAM    = ownLogin + " in place of PAM, or `auth-user-pass-verify` with a script that asks PAM"
	insteadOfRADIUS = ownLogin + " in place of RADIUS, or `auth-user-pass-verify` with a script that asks it"
	authLDAPPlugin  = "openvpn-auth-ldap"
)

// setPlugin takes the one plugin whose work is built in.
func setPlugin(d *draft, l *directive) error {
	name, _, _ := strings.Cut(path.Base(l.args[0]), ".so")
	switch {
	case name != authLDAPPlugin:
		return pluginError(l.args[0])
	case l.arg(1) == "":
		return errors.New("the plugin's file is missing: write plugin " + l.args[0] + " FILE")
	case d.cfg.AuthLDAP.File != "":
		return errors.New("the plugin is there twice: keep one line")
	}
	d.cfg.AuthLDAP.File = l.args[1] // found in settlePlugin
	d.last[authLDAPPlugin] = l
	return nil
}

// settlePlugin finds the plugin's file.
func (d *draft) settlePlugin() {
	x := &d.cfg.AuthLDAP
	if x.File == "" {
		return
	}
	l := d.last[authLDAPPlugin]
	x.File, x.Dir = d.locate(l, x.File), d.cfg.Dir
	switch info, err := d.files.Stat(x.File); {
	case errors.Is(err, fs.ErrNotExist):
		d.refuse(l, "there is no file %s: create it, or correct the name", x.File)
	case err != nil:
		d.refuse(l, "cannot be read: %s", reason(err))
	case !info.Mode().IsRegular():
		d.refuse(l, "%s is no file", x.File)
	case d.cfg.LDAP != nil:
		d.refuse(l, "there is a directory by `ldap-url` too: keep one of the two")
	default:
		d.notice(l, "nothing is loaded: what the plugin does is built in, by the lines of %s", x.File)
		return
	}
	x.File = ""
}

func pluginError(file string) error {
	name, _, _ := strings.Cut(path.Base(file), ".so")
	if remedy := plugins[name]; remedy != "" {
		return fmt.Errorf("%s.so cannot be loaded: %s", name, remedy)
	}
	return errors.New("plugins cannot be loaded: " + ownLogin + ", and client-config-dir for settings of single clients")
}

func setLog(adds bool) func(*draft, *directive) error {
	return func(d *draft, l *directive) error {
		d.cfg.LogAppend = adds
		return d.output(l, &d.cfg.Log)
	}
}

func setDaemon(d *draft, l *directive) error {
	d.cfg.Daemon = true
	return setSyslog(d, l)
}

// setSyslog takes the name from whichever of daemon and syslog gives one last.
func setSyslog(d *draft, l *directive) error {
	if d.cfg.Syslog == "" {
		d.cfg.Syslog = "openvpn"
	}
	if len(l.args) == 0 {
		return nil
	}
	name := l.args[0]
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '[' || r == ':' }) {
		return errors.New("NAME stands in every line of the log: printable, and no blank, [ or :")
	}
	d.cfg.Syslog = name
	return nil
}

func setRemap(d *draft, l *directive) error {
	if err := choice("SIGHUP", "SIGTERM")(d, l); err != nil {
		return err
	}
	d.cfg.RemapUSR1 = l.args[0]
	return nil
}

func setStatus(d *draft, l *directive) error {
	if s := l.arg(1); s != "" {
		every, err := seconds(s, 0)
		if err != nil {
			return err
		}
		d.cfg.StatusEvery = every
	}
	return d.output(l, &d.cfg.Status)
}

func setStatusVersion(d *draft, l *directive) error {
	if len(l.args) == 0 {
		d.cfg.StatusVersion = 1
		return nil
	}
	return count(1, 3, func(c *Config) *int { return &c.StatusVersion })(d, l)
}

func setEnv(prefix string) func(*draft, *directive) error {
	return func(d *draft, l *directive) error {
		name := l.args[0]
		switch {
		case name == "opt" && len(l.args) == 1:
			return errors.New("setenv opt needs a directive behind it")
		case name == "FORWARD_COMPATIBLE" || name == "UV_ID" || name == "CLIENT_CERT" || name == "SERVER_POLL_TIMEOUT" || name == "PUSH_PEER_INFO":
			return nil // meant for the program itself, not for scripts
		case name == "GENERIC_CONFIG":
			return errors.New("this is a profile for many servers: get the one for yours")
		case name == "" || strings.ContainsFunc(name, func(r rune) bool {
			return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		}):
			return errors.New("the name of a variable has only letters, digits and _")
		}
		d.cfg.SetEnv = append(d.cfg.SetEnv, [2]string{prefix + name, l.arg(1)})
		return nil
	}
}

func checkKeyMethod(d *draft, l *directive) error {
	if l.args[0] != "2" {
		return errors.New("key method 1 is not supported, it was removed from OpenVPN 2.5: remove the line here and in profiles")
	}
	d.ignore(l, "key method 2 is the only one")
	return nil
}
