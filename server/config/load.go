package config

import "errors"

// Load reads the configuration file at path, then the directives of extra as if they followed it: each is a
// directive's words, as from a command line. It opens nothing but configuration files and the files they name.
//
// The Report is never nil and covers what could be read. When anything is refused the Config is nil and the error is
// an Errors that holds every problem.
func Load(path string, extra ...[]string) (*Config, *Report, error) {
	return nil, &Report{}, errors.New("not written yet")
}
