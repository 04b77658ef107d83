package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"postern/server/config"
)

// logLevel maps OpenVPN's verb to a level: 0 errors and warnings, 1 to 3 what happens, 4 and 5 why, 6 and more
// everything.
func logLevel(verb int) zerolog.Level {
	switch {
	case verb <= 0:
		return zerolog.WarnLevel
	case verb <= 3:
		return zerolog.InfoLevel
	case verb <= 5:
		return zerolog.DebugLevel
	}
	return zerolog.TraceLevel
}

// A logForm is what log lines look like.
type logForm struct {
	json    bool // for machines; otherwise for people
	colours bool
	times   bool // false when whoever collects the lines adds them (suppress-timestamps)
	machine bool // machine-readable-output
}

// newLogForm knows the formats "console", "json" and "auto", which is console.
func newLogForm(format string, cfg *config.Config) (logForm, error) {
	f := logForm{times: !cfg.NoTimestamps, machine: cfg.MachineReadable}
	switch format {
	case "json":
		f.json = true
	case "console", "auto", "":
	default:
		return f, fmt.Errorf("log format %q: console or json", format)
	}
	return f, nil
}

// writer returns what makes lines of this form of zerolog's JSON and writes them to out.
func (f logForm) writer(out io.Writer) io.Writer {
	if f.json {
		return inertWriter{out}
	}
	w := zerolog.ConsoleWriter{Out: out, NoColor: !f.colours, TimeFormat: "2006-01-02 15:04:05"}
	switch {
	case f.machine:
		w.FormatTimestamp = func(any) string {
			now := time.Now()
			return fmt.Sprintf("%d.%06d", now.Unix(), now.Nanosecond()/1000)
		}
		w.FormatLevel = machineLevel
	case !f.times:
		w.PartsExclude = []string{zerolog.TimestampFieldName}
	}
	return w
}

// machineLevel is the number that OpenVPN writes for the kind of a message.
func machineLevel(level any) string {
	switch level {
	case zerolog.LevelFatalValue, zerolog.LevelPanicValue:
		return "10"
	case zerolog.LevelErrorValue:
		return "20"
	case zerolog.LevelWarnValue:
		return "40"
	case zerolog.LevelInfoValue:
		return "1"
	}
	return "80"
}

// newLogger logs in this form to out, and as JSON to more. Its level is that of all loggers of the process, so that it
// can be changed.
func newLogger(out io.Writer, form logForm, more ...io.Writer) zerolog.Logger {
	w := form.writer(out)
	if len(more) > 0 {
		w = zerolog.MultiLevelWriter(append([]io.Writer{w}, more...)...)
	}
	log := zerolog.New(w)
	if form.times || form.machine {
		log = log.With().Timestamp().Logger()
	}
	return log
}

// logging is the log of a server, and what of it can be changed while it runs.
type logging struct {
	zerolog.Logger
	process *process
	history *lateWriter // of the log, for management clients; nil without any
	close   func()
}

// openLogging opens where a configuration wants the log: a file, syslog, or standard error. Close it.
func openLogging(cfg *config.Config, format string) (*logging, error) {
	form, err := newLogForm(format, cfg)
	if err != nil {
		return nil, err
	}
	var out io.Writer = os.Stderr
	var closers []func()
	switch {
	case cfg.Log != "":
		f, err := openLogFile(cfg)
		if err != nil {
			return nil, err
		}
		out, closers = f, append(closers, func() { f.Close() })
	case cfg.Syslog != "":
		s := &syslogWriter{name: cfg.Syslog, form: form}
		out, closers = s, append(closers, s.close)
		form = logForm{json: true} // it makes the lines itself, when it knows how urgent they are
	default:
		form.colours = term.IsTerminal(int(os.Stderr.Fd()))
	}
	l := &logging{process: newProcess(cfg)}
	queue := startLogQueue(out, newLogger(out, form))
	closers = append(closers, queue.Close)
	var more []io.Writer
	if cfg.Management.Network != "" {
		l.history = new(lateWriter)
		more = append(more, l.history)
	}
	plain := newLogger(queue, form, more...)
	l.process.mute.log = plain
	l.Logger = plain.Hook(&l.process.mute)
	l.close = func() {
		for i := range closers {
			closers[len(closers)-1-i]()
		}
	}
	return l, nil
}

// openLogFile opens the file of log or log-append. A server in the background has no other place for what the Go
// runtime says when it dies.
func openLogFile(cfg *config.Config) (*os.File, error) {
	mode := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if !cfg.LogAppend {
		mode |= os.O_TRUNC
	}
	f, err := os.OpenFile(cfg.Log, mode, 0o640)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	if cfg.Daemon {
		if err := unix.Dup2(int(f.Fd()), 2); err != nil {
			f.Close()
			return nil, fmt.Errorf("log: %w", err)
		}
	}
	return f, nil
}
