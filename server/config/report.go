package config

import (
	"fmt"
	"strings"
)

// Verdict is what became of one directive.
type Verdict uint8

const (
	Used    Verdict = iota // it does what OpenVPN's manual says
	Ignored                // it changes nothing here, and Why says why that is harmless
	Noticed                // it is used, and Why says what is different or worth knowing
	Refused                // the server does not start; Why says what to do
)

func (v Verdict) String() string { return [...]string{"used", "ignored", "notice", "refused"}[v] }

// MarshalText writes the verdict as a word.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// An Entry is one directive of a configuration, and what became of it. Line is 0 for what stands nowhere: a default
// worth knowing, or a directive that is missing.
type Entry struct {
	File      string  `json:"file"`
	Line      int     `json:"line,omitempty"`
	Directive string  `json:"directive"`
	Text      string  `json:"text"` // the line as understood; holds no secret
	Verdict   Verdict `json:"verdict"`
	Why       string  `json:"why,omitempty"`
}

// At is where the directive stands, as file:line.
func (e Entry) At() string { return Problem{File: e.File, Line: e.Line}.at() }

// A Report lists what became of every directive, in the order they were read.
type Report struct {
	Entries []Entry
	// AuthLDAP is the Config's, known also when there is no Config, as far as its file is there.
	AuthLDAP AuthLDAP
}

// Count tells how many entries have the verdict v.
func (r *Report) Count(v Verdict) int {
	n := 0
	for _, e := range r.Entries {
		if e.Verdict == v {
			n++
		}
	}
	return n
}

// A Problem is one reason why a configuration is refused.
type Problem struct {
	File      string `json:"file"`
	Line      int    `json:"line,omitempty"` // 0: the directive is missing, or the whole file is meant
	Directive string `json:"directive"`
	Message   string `json:"message"`
}

// at is where the problem is, as file:line.
func (p Problem) at() string {
	if p.Line > 0 {
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return p.File
}

func (p Problem) Error() string {
	s := p.at()
	if p.Directive != "" {
		s += ": " + p.Directive
	}
	return s + ": " + p.Message
}

// Errors is every Problem of a configuration at once, in the order of its lines.
type Errors []Problem

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the first Problem.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, p := range e {
		all[i] = p
	}
	return all
}
