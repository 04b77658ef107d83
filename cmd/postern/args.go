package main

import (
	"errors"
	"flag"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// positional returns the arguments of a command that are not flags, and sets the flags among them: cli stops at the
// first argument, but people write `postern profile alice --out alice.ovpn`.
func positional(c *cli.Context) ([]string, error) {
	var names []string
	rest := c.Args().Slice()
	for len(rest) > 0 {
		if rest[0] == "-" || !strings.HasPrefix(rest[0], "-") {
			names, rest = append(names, rest[0]), rest[1:]
			continue
		}
		if rest[0] == "--" {
			return append(names, rest[1:]...), nil
		}
		fs := flag.NewFlagSet(c.Command.Name, flag.ContinueOnError)
		fs.SetOutput(io.Discard)
		for _, f := range c.Command.Flags {
			if err := f.Apply(fs); err != nil {
				return nil, err
			}
		}
		if err := fs.Parse(rest); errors.Is(err, flag.ErrHelp) {
			cli.ShowSubcommandHelp(c)
			return nil, cli.Exit("", 0)
		} else if err != nil {
			return nil, err
		}
		var failed error
		fs.Visit(func(f *flag.Flag) {
			value := f.Value.String()
			if s, ok := f.Value.(cli.Serializer); ok {
				value = s.Serialize()
			}
			failed = errors.Join(failed, c.Set(f.Name, value))
		})
		if failed != nil {
			return nil, failed
		}
		rest = fs.Args()
	}
	return names, nil
}
