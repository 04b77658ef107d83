package main

import (
	"fmt"
	"io"

	"github.com/rs/zerolog"
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

// newLogger writes to out: format "console" for people, in colours if they can be shown, "json" for machines, "auto"
// is console. Without times when whoever collects the lines adds them (suppress-timestamps). To more, lines go as well,
// as JSON. The level is that of all loggers of the process, so that it can be changed.
func newLogger(out io.Writer, colours bool, format string, verb int, times bool, more ...io.Writer) (zerolog.Logger, error) {
	var w io.Writer
	switch format {
	case "json":
		w = out
	case "console", "auto", "":
		console := zerolog.ConsoleWriter{Out: out, NoColor: !colours, TimeFormat: "2006-01-02 15:04:05"}
		if !times {
			console.PartsExclude = []string{zerolog.TimestampFieldName}
		}
		w = console
	default:
		return zerolog.Nop(), fmt.Errorf("log format %q: console or json", format)
	}
	if len(more) > 0 {
		w = zerolog.MultiLevelWriter(append([]io.Writer{w}, more...)...)
	}
	zerolog.SetGlobalLevel(logLevel(verb))
	log := zerolog.New(w)
	if times {
		log = log.With().Timestamp().Logger()
	}
	return log, nil
}
