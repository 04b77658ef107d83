package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
)

// A draft is a Config in the making: what the lines have said so far, and what was wrong with them.
type draft struct {
	cfg      *Config
	files    filesystem
	entries  []*Entry
	problems Errors

	last    map[string]*directive // the last line of each name
	foundBy []string              // names that were found beside the configuration file only

	// What lines say before macros and rules make the Config's fields of it.
	serverMode, tlsServer bool
	server, server6       netip.Prefix
	noPool                bool
	bridge                bridged
	locals                []local
	port                  int
	proto                 string
	v6only                bool
	devType               string
	routes                []pendingRoute
	gateway4, gateway6    netip.Addr
	metric                int
	poolMask              int
	material              map[string]*directive
	keepalive             [2]int // as written, for the push
	pushNoDelay           bool
	keyDirection          int
	cipher                string
	compat                [3]int // version of compat-mode; zero without
	mssfixGiven           bool
	maxPacketGiven        bool
	caPath                string
	keyPassword           []byte     // askpass; nil without
	fullTunnel            *directive // the push of redirect-gateway
	directories           []*directory
	open                  *block   // the lines that come belong to it; nil: to none
	blocks                []*block // in order
	ruleTargets           []*directive
	shared, behind        []string // pushes for everybody, before and behind those of the macros
}

// enter makes the report's entry of l.
func (d *draft) enter(l *directive) {
	l.entry = &Entry{File: l.file, Line: l.line, Directive: l.name, Text: l.text()}
	d.entries = append(d.entries, l.entry)
}

// refuse records why the configuration cannot be used because of l.
func (d *draft) refuse(l *directive, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	d.problems = append(d.problems, Problem{File: l.file, Line: l.line, Directive: l.name, Message: msg})
	l.entry.say(Refused, msg)
}

// refuseName records a problem with a directive that may stand nowhere.
func (d *draft) refuseName(name, format string, args ...any) {
	if l := d.last[name]; l != nil {
		d.refuse(l, format, args...)
		return
	}
	l := &directive{file: d.cfg.Path, name: name}
	if l.file == "" {
		l.file = commandLine
	}
	l.entry = &Entry{File: l.file, Directive: name, Text: "(" + name + " is missing)"}
	d.entries = append(d.entries, l.entry)
	d.refuse(l, format, args...)
}

// ignore and notice record what is worth knowing about l.
func (d *draft) ignore(l *directive, format string, args ...any) {
	l.entry.say(Ignored, fmt.Sprintf(format, args...))
}

func (d *draft) notice(l *directive, format string, args ...any) {
	l.entry.say(Noticed, fmt.Sprintf(format, args...))
}

// tell adds a notice about what stands in no line.
func (d *draft) tell(name, text, format string, args ...any) {
	d.entries = append(d.entries, &Entry{File: d.cfg.Path, Directive: name, Text: text, Verdict: Noticed, Why: fmt.Sprintf(format, args...)})
}

// say adds a reason, and raises the verdict to v if that is worse.
func (e *Entry) say(v Verdict, why string) {
	e.Verdict = max(e.Verdict, v)
	if e.Why != "" {
		e.Why += "; "
	}
	e.Why += why
}

// has reports whether a directive was written.
func (d *draft) has(name string) bool { return d.last[name] != nil }

// locate returns the absolute path of a file that is read. A relative name starts, as with openvpn, from the working
// directory or cd; what is not there but beside the configuration file is taken from there.
func (d *draft) locate(l *directive, name string) string {
	path := d.absolute(name)
	if filepath.IsAbs(name) {
		return path
	}
	if _, err := d.files.Lstat(path); err == nil {
		return path
	}
	if near := l.beside(name); near != "" {
		if !filepath.IsAbs(near) {
			near = d.files.Abs(near)
		}
		if _, err := d.files.Lstat(near); err == nil {
			d.foundBy = append(d.foundBy, name)
			return near
		}
	}
	return path
}

// absolute returns the absolute path of a file that is written.
func (d *draft) absolute(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(d.cfg.Dir, name)
}

// output sets field to the path of a file that the server writes, whose directory must exist.
func (d *draft) output(l *directive, field *string) error {
	name := l.args[0]
	if name == "" {
		return errors.New("the file name must not be empty")
	}
	*field = name // made absolute once cd is known
	return nil
}

// settle makes the names of files that the server writes absolute, now that all lines have been read, and insists on
// their directories.
func (d *draft) settle() {
	c := d.cfg
	for _, f := range []struct {
		name string
		path *string
	}{
		{"status", &c.Status}, {"log", &c.Log}, {"writepid", &c.WritePID}, {"ifconfig-pool-persist", &c.PoolPersist},
		{"auth-totp-used", &c.TOTPUsed}, {"audit", &c.Audit},
	} {
		if *f.path == "" {
			continue
		}
		l := d.last[f.name]
		if f.path == &c.PoolPersist {
			*f.path = d.locate(l, *f.path) // it is read before it is written
		} else {
			*f.path = d.absolute(*f.path)
		}
		if info, err := d.files.Stat(filepath.Dir(*f.path)); err != nil {
			d.refuse(l, "the directory does not exist: create %s", filepath.Dir(*f.path))
		} else if !info.IsDir() {
			d.refuse(l, "%s is not a directory", filepath.Dir(*f.path))
		}
	}
	if c.Control != "" {
		c.Control = d.absolute(c.Control) // in /run, which is empty after a reboot: the server makes the directory
	}
	d.settleDirectory("client-config-dir", &c.ClientConfigDir)
	d.settleDirectory("port-share", &c.PortShare.Dir)
}

// settleDirectory makes the path of a directory that is read absolute, and insists that it exists.
func (d *draft) settleDirectory(name string, path *string) {
	if *path == "" {
		return
	}
	l := d.last[name]
	*path = d.locate(l, *path)
	if info, err := d.files.Stat(*path); err != nil {
		d.refuse(l, "cannot be read: %v; create the directory", err)
	} else if !info.IsDir() {
		d.refuse(l, "%s is not a directory", *path)
	}
}
