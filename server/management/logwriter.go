package management

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rs/zerolog"
)

const (
	partField = "part"
	ownPart   = "management"
)

// LogWriter makes log lines of what a zerolog.Logger writes, as JSON: hand it to zerolog.MultiLevelWriter beside the
// writer that logs elsewhere.
func (i *Interface) LogWriter() zerolog.LevelWriter { return logWriter{i} }

type logWriter struct{ to *Interface }

func (w logWriter) Write(p []byte) (int, error) { return w.WriteLevel(zerolog.NoLevel, p) }

// WriteLevel never fails: a log line that cannot be shown is no reason to lose it elsewhere.
func (w logWriter) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	text, own, err := lineOf(p)
	if err != nil {
		text = strings.TrimSpace(string(p))
	}
	if !own {
		w.to.LogLine(flagsOf(level), time.Now(), text)
	}
	return len(p), nil
}

func flagsOf(level zerolog.Level) string {
	switch level {
	case zerolog.TraceLevel, zerolog.DebugLevel:
		return "D"
	case zerolog.InfoLevel:
		return "I"
	case zerolog.WarnLevel:
		return "W"
	case zerolog.ErrorLevel:
		return "N"
	case zerolog.FatalLevel, zerolog.PanicLevel:
		return "F"
	}
	return ""
}

// lineOf renders one JSON object as its message and its fields in their order. own says that this package logged it.
func lineOf(p []byte) (text string, own bool, err error) {
	d := json.NewDecoder(bytes.NewReader(p))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return "", false, fmt.Errorf("log line: no object: %w", err)
	}
	var message string
	var fields strings.Builder
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return "", false, fmt.Errorf("log line: %w", err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return "", false, fmt.Errorf("log line: %w", err)
		}
		value := string(raw)
		if isString := raw[0] == '"'; isString {
			if err := json.Unmarshal(raw, &value); err != nil {
				return "", false, fmt.Errorf("log line: %w", err)
			}
		}
		switch name {
		case zerolog.LevelFieldName, zerolog.TimestampFieldName:
		case zerolog.MessageFieldName:
			message = value
		default:
			own = own || name == partField && value == ownPart
			fmt.Fprintf(&fields, " %s=%s", name, field(value))
		}
	}
	return message + fields.String(), own, nil
}

// field is a value as one word (S102).
func field(s string) string {
	odd := func(r rune) bool { return r == '"' || r == '=' || unicode.IsSpace(r) }
	if s = shown(s); s != "" && strings.IndexFunc(s, odd) < 0 {
		return s
	}
	return strconv.Quote(s)
}
