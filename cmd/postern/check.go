package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"postern/server/config"
)

// checkCommand is `postern check`: it judges a configuration and opens nothing but its files.
func checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "tell of each directive of a configuration whether it is used, ignored or refused",
		Description: "The last line is the verdict: drop-in, drop-in with notices, or how many changes are needed. The exit\n" +
			"status is 0 when the file can be served as it is, 1 when not.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "the configuration `FILE`", Required: true},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: func(c *cli.Context) error {
			path := c.String("config")
			cfg, report, err := loadConfig(path)
			var problems config.Errors
			if err != nil && !errors.As(err, &problems) {
				return err
			}
			show := printCheck
			if c.Bool("json") {
				show = printCheckJSON
			}
			if err := show(c.App.Writer, path, cfg, report, problems); err != nil {
				return fmt.Errorf("print the report: %w", err)
			}
			if len(problems) > 0 {
				return cli.Exit("", 1)
			}
			return nil
		},
	}
}

// printCheck prints a table with a row for each directive, where clients send their traffic, and a line that sums it up.
// cfg is nil when the configuration is refused.
func printCheck(w io.Writer, path string, cfg *config.Config, report *config.Report, problems config.Errors) error {
	var table bytes.Buffer
	t := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	for _, e := range report.Entries {
		place := "-"
		if e.Line > 0 {
			place = strconv.Itoa(e.Line)
		}
		if e.File != path && e.Line > 0 {
			place = e.File + ":" + place
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", place, e.Verdict, shorten(printable(e.Text)), printable(e.Why))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
	if len(report.Entries) == 0 {
		for _, p := range problems {
			fmt.Fprintln(w, printable(p.Error()))
		}
	}
	if err := printPaths(w, cfg); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s: %s: %d used, %d with a notice, %d ignored, %d refused\n", path, checkVerdict(report, problems),
		report.Count(config.Used), report.Count(config.Noticed), report.Count(config.Ignored), report.Count(config.Refused))
	return err
}

// checkVerdict says in a few words whether a configuration can be served as it is.
func checkVerdict(report *config.Report, problems config.Errors) string {
	switch {
	case len(problems) == 1:
		return "needs 1 change"
	case len(problems) > 1:
		return fmt.Sprintf("needs %d changes", len(problems))
	case report.Count(config.Noticed) > 0:
		return "drop-in with notices"
	}
	return "drop-in"
}

// shorten keeps one long line from making the whole table wide.
func shorten(s string) string {
	const width = 60
	if r := []rune(s); len(r) > width {
		return string(r[:width-3]) + "..."
	}
	return s
}

// printable writes control characters of a file so that they cannot act on a terminal.
func printable(s string) string {
	q := strconv.Quote(s)
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(q[1 : len(q)-1])
}

func printCheckJSON(w io.Writer, path string, cfg *config.Config, report *config.Report, problems config.Errors) error {
	out := struct {
		File       string           `json:"file"`
		OK         bool             `json:"ok"`
		Verdict    string           `json:"verdict"`
		Used       int              `json:"used"`
		Noticed    int              `json:"notice"`
		Ignored    int              `json:"ignored"`
		Refused    int              `json:"refused"`
		Directives []config.Entry   `json:"directives"`
		Problems   []config.Problem `json:"problems"`
		Paths      *clientPaths     `json:"paths,omitempty"`
	}{
		path, len(problems) == 0, checkVerdict(report, problems),
		report.Count(config.Used), report.Count(config.Noticed), report.Count(config.Ignored), report.Count(config.Refused),
		append([]config.Entry{}, report.Entries...), append([]config.Problem{}, problems...), pathsOf(cfg),
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(out)
}
