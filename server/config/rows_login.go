package config

const ownLogin = "use `ldap-url` or `auth-users-file` for logins"

var loginRows = []row{
	later("auth-user-pass-verify", "COMMAND via-env|via-file", ownLogin).guard(),
	later("auth-user-pass-optional", "", "remove the line: everybody logs in, or nobody"),
	use("username-as-common-name", "", "Know clients by their login: for client files, addresses and the status. Needs a login.", switchOn(func(c *Config) *bool { return &c.UsernameAsCN })),
	later("auth-gen-token", "[LIFETIME [RENEWAL]] [external-auth]", "remove the line; clients send the password again at each renegotiation"),
	later("auth-gen-token-secret", "FILE", "remove the line"),
	refuse("auth-user-pass", "it is for clients: remove the line; "+ownLogin),
	accept("auth-retry", "none|nointeract|interact", "clients only"),
	accept("static-challenge", "TEXT ECHO [FORMAT]", "clients only"),
	use("plugin", "FILE [ARGUMENT...]", "Refused: nothing is loaded into the server.", refusePlugin).each(),
	accept("script-security", "0|1|2|3", "no scripts run"),
	later("up", "COMMAND", "remove the line; addresses, routes and with `nat yes` the firewall are set up without it"),
	later("down", "COMMAND", "remove the line; what the server set up it removes itself"),
	accept("down-pre", "", "there is no `down` script whose time it could change"),
	accept("up-restart", "", "there is no `up` script whose time it could change"),
	later("route-up", "COMMAND", "remove the line; routes are set without it"),
	refuse("ipchange", "not possible in a server: remove the line"),
	accept("route-pre-down", "COMMAND", "a server that keeps its routes never runs it"),
	accept("msg-channel", "N", "Windows only"),
	accept("dns", "...", "it acts where it stands; to reach clients write `push \"dns ...\"`"),
	accept("dns-updown", "...", "clients only"),
}

func refusePlugin(d *draft, l *directive) error { return pluginError(l.args[0]) }
