package management

import (
	_ "embed"
	"strings"
)

// helpText is what help answers between its first and its last line. A test keeps it complete.
//
//go:embed help.txt
var helpText string

func (c *conn) help(r *reply, _ []string) {
	r.line("Management Interface for %s", c.options.Title)
	r.line("Commands:")
	for line := range strings.Lines(helpText) {
		r.line("%s", strings.TrimSuffix(line, "\n"))
	}
	r.line("END")
}
