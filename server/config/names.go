package config

import (
	"crypto/tls"
	"slices"
	"strings"
)

// A Directive is one row of the table, for lists and completion.
type Directive struct {
	Name   string
	Usage  string // with its parameters, as the manual writes them
	Help   string
	Block  bool // may be an inline block
	Usable bool // in a configuration file: neither refused nor for client files only
}

// Directives lists the whole table, by section.
func Directives() (list []Directive) {
	for _, s := range sections {
		for i := range s.rows {
			r := &s.rows[i]
			list = append(list, Directive{r.name, r.usage(), r.help, r.blocks, r.stance == uses || r.stance == accepts})
		}
	}
	return list
}

// DataCipherNames lists what data-ciphers may name.
func DataCipherNames() []string { return slices.Clone(dataCiphers) }

// DigestNames lists what auth may name.
func DigestNames() (names []string) {
	for _, name := range digests {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// GroupNames lists what tls-groups may name.
func GroupNames() (names []string) {
	for name := range curves {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// SuiteNames lists what tls-ciphersuites and tls-cipher may name, by OpenVPN's names.
func SuiteNames() (tls13, tls12 []string) {
	for _, s := range suites {
		tls12 = append(tls12, strings.ReplaceAll(tls.CipherSuiteName(s.id), "_", "-"))
	}
	return slices.Clone(suites13), tls12
}
