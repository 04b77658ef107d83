package config

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A stance is what this version does with a directive. A row's function may still refuse single values.
type stance uint8

const (
	uses    stance = iota
	accepts        // and ignores: help says why that is harmless
	refuses        // for good: help says what to do
	waits          // refused by name, because a later version will support it
	nested         // belongs into a client-config-dir file
)

// A row is all there is to know about one directive. The same rows drive parsing, check and docs/configuration.md.
type row struct {
	name   string
	params string // as the manual writes them: [optional], a|b, NAME... ; they are counted from this text
	stance stance
	help   string
	apply  func(*draft, *directive) error
	adds   bool   // each line adds to the ones before, where otherwise the last one wins
	blocks bool   // may be an inline block
	sets   string // what it says, where several names say the same; its own name by default
}

// A section is one part of the table, in the order of the page.
type section struct {
	title string
	rows  []row
}

var sections = []section{
	{"Mode, addresses, transport", transportRows},
	{"Tunnel device and MTU", deviceRows},
	{"Routes of the server", routeRows},
	{"Clients: pools, client files, push", clientRows},
	{"TLS and certificates", tlsRows},
	{"Data channel", dataRows},
	{"Login and scripts", loginRows},
	{"Daemon, log, privileges", daemonRows},
	{"Management interface", managementRows},
	{"Commands that are no directives", commandRows},
	{"Directory", ldapRows},
	{"Pools and policies", blockSectionRows},
	{"Postern's own directives", posternRows},
}

// rowsByName finds rows. It is built on first use because the rows' functions reach it, too.
var rowsByName = sync.OnceValue(func() map[string]*row {
	m := make(map[string]*row)
	for _, s := range sections {
		for i := range s.rows {
			m[s.rows[i].name] = &s.rows[i]
		}
	}
	return m
})

func use(name, params, help string, apply func(*draft, *directive) error) row {
	return row{name: name, params: params, help: help, apply: apply}
}

func accept(name, params, why string) row {
	return row{name: name, params: params, stance: accepts, help: why}
}

func refuse(name, remedy string) row {
	return row{name: name, params: "...", stance: refuses, help: remedy, adds: true, blocks: true}
}

func later(name, params, remedy string) row {
	return row{name: name, params: params, stance: waits, help: remedy, adds: true, blocks: true}
}

func inClientFile(name, params, help string) row {
	return row{name: name, params: params, stance: nested, help: help, adds: true}
}

// each marks a row whose lines add up.
func (r row) each() row { r.adds = true; return r }

// inline marks a row that may be an inline block.
func (r row) inline() row { r.blocks = true; return r }

// as marks a row that says the same as the one called name: of both, the last line counts.
func (r row) as(name string) row { r.sets = name; return r }

// key is what of several lines only the last one may say.
func (r *row) key() string {
	if r.sets != "" {
		return r.sets
	}
	return r.name
}

// counts tells how many parameters the row takes, from the way params is written.
func (r *row) counts() (low, high int) {
	depth := 0
	for _, w := range strings.Fields(r.params) {
		optional := depth > 0 || w[0] == '['
		depth += strings.Count(w, "[") - strings.Count(w, "]")
		if strings.HasSuffix(strings.TrimRight(w, "]"), "...") {
			if w != "..." && !optional {
				low++
			}
			return low, maxWords - 1
		}
		high++
		if !optional {
			low++
		}
	}
	return low, high
}

// usage is how the directive is to be written.
func (r *row) usage() string { return strings.TrimSpace(r.name + " " + r.params) }

// judge finds d's row and tells why the table alone already refuses or ignores d; both texts are empty when it is up
// to the row's function.
func (d *directive) judge() (refusal, ignored string) {
	d.row = rowsByName()[d.name]
	switch {
	case d.fault != nil:
		return d.fault.Error(), ""
	case d.row == nil && d.optional != "":
		return "", "unknown directive; " + d.optional
	case d.row == nil:
		return "Unrecognized option or missing or extra parameter(s): there is no such directive" + suggestion(d.name), ""
	case d.row.stance == waits && d.named:
		return "", "not supported yet; " + d.optional
	case d.row.stance == waits:
		return "not supported yet: " + d.row.help, ""
	case d.row.stance == refuses:
		return d.row.help, ""
	case d.row.stance == nested:
		return "only in a file of client-config-dir: " + d.row.help, ""
	case d.isBlock && !d.row.blocks:
		return fmt.Sprintf("option '%s' is not expected to be inline: write it on one line, %s", d.name, d.row.usage()), ""
	}
	if low, high := d.row.counts(); !d.isBlock && (len(d.args) < low || len(d.args) > high) {
		return "Unrecognized option or missing or extra parameter(s): write " + d.row.usage() + quotesMissing(d), ""
	}
	if d.row.stance == accepts {
		return "", d.row.help
	}
	return "", ""
}

// quotesMissing recognises the commonest slip: a text or command that is unquoted.
func quotesMissing(d *directive) string {
	switch {
	case d.name == "push" && len(d.args) > 1:
		return `, with quotes around the whole text`
	case runsScript(d) && len(d.args) > 1:
		return `, with quotes around the whole command`
	}
	return ""
}

// suggestion names the directive that name is a slip of, if one is near.
func suggestion(name string) string {
	switch {
	case strings.HasPrefix(name, "ldap-") && strings.Contains(name, "pass"):
		return "; the password goes into a file that ldap-bind-password-file names"
	case strings.HasPrefix(name, "<"):
		return "; an inline block starts with <NAME> alone on its line and ends with </NAME>"
	}
	best, found := 3, "" // up to two slips
	for _, s := range sections {
		for _, r := range s.rows {
			if n := slips(name, r.name, best); n < best && n*3 <= len(r.name) {
				best, found = n, r.name
			}
		}
	}
	if found == "" {
		return "; remove the line, or write `setenv opt` before it"
	}
	return "; do you mean " + found + "?"
}

// slips counts the letters to add, drop or change to get from a to b, up to limit.
func slips(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		next := []int{i + 1}
		for j := range len(b) {
			change := prev[j]
			if a[i] != b[j] {
				change++
			}
			next = append(next, min(change, prev[j+1]+1, next[j]+1))
		}
		prev = next
	}
	return min(prev[len(b)], limit)
}

// The functions below make row functions for directives that set one field.

func switchOn(field func(*Config) *bool) func(*draft, *directive) error {
	return func(d *draft, _ *directive) error {
		*field(d.cfg) = true
		return nil
	}
}

func count(low, high int, field func(*Config) *int) func(*draft, *directive) error {
	return func(d *draft, l *directive) error {
		n, err := number(l.args[0], low, high)
		if err == nil {
			*field(d.cfg) = n
		}
		return err
	}
}

func interval(low int, field func(*Config) *time.Duration) func(*draft, *directive) error {
	return func(d *draft, l *directive) error {
		t, err := seconds(l.args[0], low)
		if err == nil {
			*field(d.cfg) = t
		}
		return err
	}
}

func word(field func(*Config) *string) func(*draft, *directive) error {
	return func(d *draft, l *directive) error {
		if l.args[0] == "" {
			return fmt.Errorf("%s must not be empty", l.row.params)
		}
		*field(d.cfg) = l.args[0]
		return nil
	}
}

// choice is for a parameter that is one word of a few.
func choice(words ...string) func(*draft, *directive) error {
	return func(d *draft, l *directive) error {
		if len(l.args) > 0 && !slices.Contains(words, l.args[0]) {
			return fmt.Errorf("%q is not one of: %s", l.args[0], strings.Join(words, ", "))
		}
		return nil
	}
}
