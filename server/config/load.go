package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// Load reads the configuration file at path, then the directives of extra as if they followed it: each is a
// directive's words, as from a command line. With path "" all comes from extra, where a {"config", FILE} stands for
// the file's place among them. It opens nothing but configuration files and the files they name.
//
// The Report is never nil and covers what could be read. When anything is refused the Config is nil and the error is
// an Errors that holds every problem.
func Load(path string, extra ...[]string) (*Config, *Report, error) {
	return new(Loader).Load(path, extra...)
}

// A Loader loads one server's configuration again and again. What it has read before and may not read any more, since
// the process has given up its privileges, it takes to be as it was. The zero value is ready; it is not for concurrent
// use.
type Loader struct{ files remembering }

// Load is Load.
func (l *Loader) Load(path string, extra ...[]string) (*Config, *Report, error) {
	l.files.stale = nil
	dir, err := os.Getwd()
	if err != nil {
		return nil, &Report{}, Errors{{File: path, Message: "cannot tell the working directory: " + err.Error()}}
	}
	var src []byte
	if path != "" {
		src, _, err = l.files.ReadFile(path, maxConfigSize, false)
		if err != nil {
			return nil, &Report{}, Errors{{File: path, Message: "Error opening configuration file: " + reason(err)}}
		}
	}
	return load(&l.files, dir, path, src, extra)
}

// Stale lists the files of the last Load whose contents are those of an earlier one.
func (l *Loader) Stale() []string { return l.files.stale }

// load is Load with its file system and working directory given.
func load(files filesystem, dir, path string, src []byte, extra [][]string) (*Config, *Report, error) {
	d := &draft{
		cfg:          defaults(),
		files:        files,
		last:         make(map[string]*directive),
		material:     make(map[string]*directive),
		port:         1194,
		proto:        "udp",
		keyDirection: -1,
	}
	d.cfg.Path, d.cfg.Dir = path, dir
	r := &reader{include: d.include, chdir: d.chdir}
	if path != "" {
		r.read(path, src, 0)
	}
	for i, words := range extra {
		if len(words) > 0 {
			r.take(&directive{file: commandLine, line: i + 1}, words, -1)
		}
	}
	d.apply(r.found)
	d.finish()

	report := &Report{Entries: make([]Entry, len(d.entries)), AuthLDAP: d.cfg.AuthLDAP}
	for i, e := range d.entries {
		report.Entries[i] = *e
	}
	if len(d.problems) > 0 {
		d.problems.sort(r.found)
		return nil, report, d.problems
	}
	return d.cfg, report, nil
}

// defaults is what holds when no directive says otherwise.
func defaults() *Config {
	return &Config{
		MaxClients: 1024, MaxMACs: 256, TCPQueue: 64,
		Dev: "tun", MTU: 1500, PoolPersistEvery: 10 * time.Minute,
		TLSAuthDirection: -1, Auth: "SHA1", TLSMin: tls.VersionTLS12,
		HandWindow: time.Minute, TranWindow: time.Hour, TLSTimeout: 2 * time.Second, Renegotiate: time.Hour,
		ReplayWindow: 2048, MaxPacket: 1250,
		StatusEvery: time.Minute, StatusVersion: 1, Verb: 1,
		LoginMustMatchCert: true, LDAPRefresh: time.Minute,
		Scripts: Scripts{Security: 1},
	}
}

// include opens a file for a config directive. A cd above it has been followed by then.
func (d *draft) include(from *directive, name string) (string, []byte, error) {
	path := d.locate(from, name)
	src, _, err := d.files.ReadFile(path, maxConfigSize, false)
	if err != nil {
		return "", nil, errors.New(reason(err))
	}
	if d.cfg.Path == "" {
		d.cfg.Path = path // the first that a command line names stands for all
	}
	return path, src, nil
}

// chdir follows a cd directive, as soon as it is read.
func (d *draft) chdir(l *directive) error {
	dir := d.absolute(l.args[0])
	if info, err := d.files.Stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("there is no directory %s", dir)
	}
	d.cfg.Dir = dir
	return nil
}

// apply takes the lines in order. All of them are tried, so that every problem is told at once.
func (d *draft) apply(lines []*directive) {
	for _, l := range lines {
		if d.open != nil {
			d.inBlock(l)
			continue
		}
		refusal, ignored := l.judge()
		d.enter(l)
		switch {
		case refusal != "":
			d.refuse(l, "%s", refusal)
			if l.row != nil {
				d.last[l.name], d.last[l.row.key()] = l, l
			}
			continue
		case ignored != "":
			d.ignore(l, "%s", ignored)
			if l.row == nil {
				continue
			}
		}
		if before := d.last[l.row.key()]; before != nil && !l.row.adds && before.entry.Verdict != Refused {
			before.entry.Verdict, before.entry.Why = Ignored, "said again at "+l.place()+", and the last one counts"
		}
		d.last[l.name], d.last[l.row.key()] = l, l
		if l.row.apply == nil {
			continue
		}
		if err := l.row.apply(d, l); err != nil {
			d.refuse(l, "%v", err)
		}
	}
}

// finish makes the Config of what the lines have said: macros first, then the rules among directives, then files.
func (d *draft) finish() {
	d.finishListen()
	d.finishDevice()
	d.finishIfconfig()
	d.expandMacros()
	d.finishRoutes()
	d.finishCiphers()
	d.finishLDAP()
	d.finishTimers()
	d.finishBlocks()
	d.checkRules()
	d.settle()
	d.settleScripts()
	d.settlePlugin()
	d.finishManagement()
	d.readMaterial()
	if len(d.foundBy) > 0 {
		slices.Sort(d.foundBy)
		d.tell("cd", "(working directory)", "%d file(s) that are not in %s were found beside the configuration file", len(slices.Compact(d.foundBy)), d.cfg.Dir)
	}
}

// sort puts problems in the order of the lines; those of missing directives come last.
func (e Errors) sort(lines []*directive) {
	type at struct {
		file string
		line int
	}
	order := make(map[at]int, len(lines))
	for i, l := range lines {
		order[at{l.file, l.line}] = i
	}
	rank := func(p Problem) int {
		if p.Line == 0 {
			return len(lines)
		}
		return order[at{p.File, p.Line}]
	}
	slices.SortStableFunc(e, func(a, b Problem) int { return rank(a) - rank(b) })
}

// reason is an error's text without the name of the file, which is told elsewhere.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error() + " (" + p.Path + ")"
	}
	return err.Error()
}

// place is where a directive stands, for messages.
func (d *directive) place() string { return Problem{File: d.file, Line: d.line}.at() }
