package main

import (
	"bytes"
	"log/syslog"
	"strings"

	"github.com/rs/zerolog"
)

// A syslogWriter sends log lines to syslog with their urgency. What comes while nobody listens there is lost, as with
// every program. It is the log queue's: one goroutine.
type syslogWriter struct {
	name string
	form logForm
	conn *syslog.Writer // nil while nobody listens
}

func (w *syslogWriter) Write(line []byte) (int, error) { return w.WriteLevel(zerolog.NoLevel, line) }

// WriteLevel sends one line of zerolog's JSON.
func (w *syslogWriter) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	if w.conn == nil {
		conn, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, w.name)
		if err != nil {
			return 0, err
		}
		w.conn = conn
	}
	text := string(line)
	if !w.form.json {
		var b bytes.Buffer
		console := zerolog.ConsoleWriter{Out: &b, NoColor: true, PartsExclude: []string{zerolog.TimestampFieldName, zerolog.LevelFieldName}}
		if _, err := console.Write(line); err == nil {
			text = b.String()
		}
	}
	send := w.conn.Info
	switch {
	case level >= zerolog.ErrorLevel && level <= zerolog.PanicLevel:
		send = w.conn.Err
	case level == zerolog.WarnLevel:
		send = w.conn.Warning
	case level <= zerolog.DebugLevel:
		send = w.conn.Debug
	}
	if err := send(strings.TrimRight(text, "\n")); err != nil {
		w.close()
		return 0, err
	}
	return len(line), nil
}

func (w *syslogWriter) close() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}
