package management

import (
	"math"
	"os"
	"strings"
	"time"
)

// A command of the protocol.
type command struct {
	name    string
	args    int  // it takes at least so many words
	open    bool // and the error about too few says "at least"
	changes effect
	secret  bool // its words stay out of the log
	run     func(c *conn, r *reply, args []string)
}

// effect says when a command changes something: such are not for read-only tools, and leave a line in the log.
type effect int

const (
	never effect = iota
	always
	withArgs
)

func (cmd *command) alters(args []string) bool {
	return cmd.changes == always || cmd.changes == withArgs && len(args) > 0
}

// commands is the table of all commands a server answers. Those for clients are there for their errors, which tools
// know.
var commands = byName([]command{
	{name: "auth-retry", changes: withArgs, run: (*conn).setAuthRetry},
	{name: "bytecount", args: 1, run: (*conn).setByteCount},
	{name: "certificate", run: unavailable("certificate")},
	{name: "client-auth", args: 2, changes: always, run: (*conn).clientAuth},
	{name: "client-auth-nt", args: 2, changes: always, run: (*conn).clientAuthNT},
	{name: "client-deny", args: 3, open: true, changes: always, run: (*conn).clientDeny},
	{name: "client-kill", args: 1, open: true, changes: always, run: (*conn).clientKill},
	{name: "client-pending-auth", args: 4, changes: always, run: (*conn).clientPendingAuth},
	{name: "cr-response", args: 1, secret: true, run: func(_ *conn, r *reply, _ []string) {
		r.notSupported("cr-repsonse") // upstream's spelling
	}},
	{name: "echo", args: 1, open: true, run: func(c *conn, r *reply, args []string) { c.stream(r, echoStream, args) }},
	{name: "env-filter", run: (*conn).setEnvFilter},
	{name: "exit", run: (*conn).exit},
	{name: "forget-passwords", changes: always, run: func(_ *conn, r *reply, _ []string) { r.succeed("Passwords were forgotten") }},
	{name: "help", run: (*conn).help},
	{name: "hold", changes: withArgs, run: (*conn).holdCommand},
	{name: "kill", args: 1, changes: always, run: (*conn).kill},
	{name: "load-stats", run: func(c *conn, r *reply, _ []string) {
		l := c.owner.Load()
		r.succeed("nclients=%d,bytesin=%d,bytesout=%d", l.Clients, l.Received, l.Sent)
	}},
	{name: "log", args: 1, open: true, run: func(c *conn, r *reply, args []string) { c.stream(r, logStream, args) }},
	{name: "mute", changes: withArgs, run: func(c *conn, r *reply, args []string) {
		level(r, "mute", args, math.MaxInt32, c.owner.Mute, c.owner.SetMute)
	}},
	{name: "nclients", run: func(c *conn, r *reply, _ []string) { r.succeed("nclients=%d", c.owner.Load().Clients) }},
	{name: "needok", args: 2, run: notNeeded("needok-confirmation")},
	{name: "needstr", args: 2, secret: true, run: notNeeded("needstr-string")},
	{name: "net", run: func(_ *conn, r *reply, _ []string) {
		r.fail("Sorry, this command is currently only implemented on Windows")
	}},
	{name: "password", args: 2, secret: true, run: notNeeded("password")},
	{name: "pid", run: func(_ *conn, r *reply, _ []string) { r.succeed("pid=%d", os.Getpid()) }},
	{name: "pk-sig", run: unavailable("pk-sig")},
	{name: "pkcs11-id-count", run: func(_ *conn, r *reply, _ []string) { r.line(">PKCS11ID-COUNT:0") }},
	{name: "pkcs11-id-get", args: 1, run: pkcs11ID},
	{name: "proxy", args: 1, open: true, secret: true, run: clientsOnly("proxy")},
	{name: "push-update-broad", args: 1, changes: always, run: (*conn).pushUpdateBroad},
	{name: "push-update-cid", args: 2, changes: always, run: (*conn).pushUpdateCID},
	{name: "quit", run: (*conn).exit},
	{name: "remote", args: 1, open: true, run: clientsOnly("remote")},
	{name: "remote-entry-count", run: clientsOnly("remote-entry-count")},
	{name: "remote-entry-get", args: 1, open: true, run: clientsOnly("remote-entry-get")},
	{name: "rsa-sig", run: unavailable("rsa-sig")},
	{name: "signal", args: 1, changes: always, run: (*conn).signal},
	{name: "state", run: (*conn).state},
	{name: "status", run: (*conn).status},
	{name: "test", args: 1, run: test},
	{name: "username", args: 2, secret: true, run: notNeeded("username")},
	{name: "verb", changes: withArgs, run: func(c *conn, r *reply, args []string) {
		level(r, "verb", args, maxVerb, c.owner.Verb, c.owner.SetVerb)
	}},
	{name: "version", run: (*conn).version},
})

// maxVerb is the highest level upstream takes.
const maxVerb = 15

func byName(list []command) map[string]*command {
	m := make(map[string]*command, len(list))
	for i := range list {
		m[list[i].name] = &list[i]
	}
	return m
}

// command runs one line. ok is false when it was too long to keep.
func (c *conn) command(line string, ok bool) {
	if !ok {
		c.answer(line, false, func(r *reply) { r.fail("the line is longer than %d bytes", maxLine) })
		return
	}
	list, err := words(line)
	if err == nil && len(list) == 0 {
		return
	}
	var cmd *command
	if err == nil {
		cmd = commands[list[0]]
	}
	// What cannot be told apart may hold a password.
	if cmd == nil && couldBeSecret(line) || cmd != nil && cmd.secret && len(list) > 1 {
		line, _, _ = strings.Cut(strings.TrimLeft(line, " \t"), " ")
		line += " [...]"
	}
	c.add(logStream, stamped(time.Now(), "D,MANAGEMENT: CMD '"+shown(line)+"'"))
	c.log.Debug().Str("command", shown(line)).Msg("management command")
	switch {
	case err != nil:
		c.answer(line, false, func(r *reply) { r.fail("%v", err) })
	case cmd == nil:
		c.answer(line, false, func(r *reply) { r.fail("unknown command, enter 'help' for more options") })
	case len(list)-1 < cmd.args:
		c.answer(line, false, cmd.tooFew)
	case c.access.ReadOnly && cmd.alters(list[1:]):
		c.log.Warn().Str("command", shown(line)).Msg("management command refused: this access is read-only")
		c.tellAudit(line, false)
		c.answer(line, false, func(r *reply) { r.fail("the '%s' command is not for read-only access", cmd.name) })
	default:
		c.answer(line, cmd.alters(list[1:]), func(r *reply) { cmd.run(c, r, list[1:]) })
		if c.block != nil {
			c.block.line = line
		}
	}
}

// couldBeSecret reports whether a line that is no command was meant as one with a secret.
func couldBeSecret(line string) bool {
	for name, cmd := range commands {
		if cmd.secret && strings.HasPrefix(strings.TrimLeft(line, " \t\"'"), name) {
			return true
		}
	}
	return false
}

func (cmd *command) tooFew(r *reply) {
	least, plural := "", ""
	if cmd.open {
		least = "at least "
	}
	if cmd.args > 1 {
		plural = "s"
	}
	r.fail("the '%s' command requires %s%d parameter%s", cmd.name, least, cmd.args, plural)
}

func (r *reply) notSupported(name string) {
	r.fail("The '%s' command is not supported by the current daemon mode", name)
}

// clientsOnly answers a command that servers do not have.
func clientsOnly(name string) func(*conn, *reply, []string) {
	return func(_ *conn, r *reply, _ []string) { r.notSupported(name) }
}

// notNeeded answers a command that gives what nobody asked for.
func notNeeded(what string) func(*conn, *reply, []string) {
	return func(_ *conn, r *reply, _ []string) { r.fail("no %s is currently needed at this time", what) }
}

// unavailable answers a command whose question was never asked.
func unavailable(name string) func(*conn, *reply, []string) {
	return func(_ *conn, r *reply, _ []string) { r.fail("The %s command is not currently available", name) }
}
