package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// Scripts are the programs that the server runs at certain events, and how.
type Scripts struct {
	// Commands are by the name of the directive, cut into words. The first is the absolute path of a program.
	Commands       map[string][]string
	Security       int    // script-security
	PasswordInFile bool   // auth-user-pass-verify with via-file
	TempDir        string // "" is the system's
	ExportCert     string // directory of tls-export-cert, "" without
	DownPre        bool
}

// idle are the scripts whose absence changes nothing for anybody: without script-security 2 they are left out, where
// the others would keep everybody out.
var idle = []string{"down", "route-up", "route-pre-down", "client-disconnect"}

// setScript takes a directive whose first parameter is a command: a program and its arguments in one word.
func setScript(d *draft, l *directive) error {
	words, err := Words(l.args[0])
	if err != nil {
		return fmt.Errorf("the command cannot be read: %w", err)
	}
	if len(words) == 0 || words[0] == "" {
		return errors.New("there is no program in the command: write its path, and arguments behind it in the same quotes")
	}
	if d.cfg.Scripts.Commands == nil {
		d.cfg.Scripts.Commands = make(map[string][]string)
	}
	d.cfg.Scripts.Commands[l.name] = words
	return nil
}

// setPasswordScript takes auth-user-pass-verify.
func setPasswordScript(d *draft, l *directive) error {
	switch l.arg(1) {
	case "via-env", "via-file":
		d.cfg.Scripts.PasswordInFile = l.arg(1) == "via-file"
		return setScript(d, l)
	}
	return fmt.Errorf("%q is neither via-env nor via-file", l.arg(1))
}

func setScriptSecurity(d *draft, l *directive) error {
	if method := l.arg(1); method == "system" {
		return errors.New("`system` was removed from OpenVPN 2.3, as no shell is used: remove the word")
	} else if method != "" && method != "execve" {
		return fmt.Errorf("%q is no way to run scripts: remove the word", method)
	}
	return count(0, 3, func(c *Config) *int { return &c.Scripts.Security })(d, l)
}

// settleScripts finds the programs, and holds them against script-security.
func (d *draft) settleScripts() {
	s := &d.cfg.Scripts
	for _, name := range slices.Sorted(maps.Keys(s.Commands)) {
		l, words := d.last[name], s.Commands[name]
		if l.entry.Verdict == Refused {
			continue
		}
		words[0] = d.locate(l, words[0])
		switch {
		case !d.checkProgram(l, words[0]):
		case s.Security < 2 && slices.Contains(idle, name):
			delete(s.Commands, name)
			d.notice(l, "it will not run: script-security is %d, write `script-security 2`", s.Security)
		case s.Security < 2:
			d.refuse(l, "script-security is %d, so that it could not run: write `script-security 2`", s.Security)
		case name == "auth-user-pass-verify" && !s.PasswordInFile && s.Security < 3:
			d.refuse(l, "with via-env the password goes into the script's environment: write `script-security 3`, or via-file")
		}
	}
	if len(s.Commands) == 0 {
		for _, name := range []string{"tmp-dir", "tls-export-cert", "down-pre"} {
			if l := d.last[name]; l != nil && l.entry.Verdict == Used {
				d.ignore(l, "it is for scripts, and none run")
			}
		}
		s.TempDir, s.ExportCert = "", ""
		return
	}
	d.settleDirectory("tmp-dir", &s.TempDir)
	d.settleDirectory("tls-export-cert", &s.ExportCert)
	if d.cfg.User != "" || d.cfg.Group != "" {
		for _, name := range slices.Sorted(maps.Keys(s.Commands)) {
			if name != "up" && name != "route-up" {
				d.notice(d.last[name], "it runs as the user and group that the server becomes, and can gain no privileges: sudo does nothing in it")
			}
		}
	}
}

// checkProgram tells whether a program can be run. Whether the server's user may is known only when it is that user.
func (d *draft) checkProgram(l *directive, path string) bool {
	info, err := d.files.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.refuse(l, "there is no program %s: PATH is not searched, write its path", path)
	case err != nil:
		d.refuse(l, "cannot be run: %s", reason(err))
	case !info.Mode().IsRegular():
		d.refuse(l, "%s is no program: arguments belong behind it, in the same quotes", path)
	case info.Mode()&0o111 == 0:
		d.refuse(l, "%s cannot be executed: chmod 755 %[1]s", path)
	case info.Mode()&0o022 != 0:
		d.notice(l, "others can change %s (mode %04o): chmod go-w %[1]s", path, info.Mode().Perm())
	}
	return l.entry.Verdict != Refused
}

// scriptUse is a row of a directive whose parameter is a command.
func scriptUse(name, help string) row { return use(name, "COMMAND", help, setScript) }

// runsScript reports whether a directive's first parameter is a command.
func runsScript(l *directive) bool { return l.row != nil && strings.HasPrefix(l.row.params, "COMMAND") }
