package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"postern/auth"
	"postern/server/config"
)

// ldapCommand looks at directories as the server does, without a server.
func ldapCommand() *cli.Command {
	return &cli.Command{
		Name:  "ldap",
		Usage: "try the directory of a configuration",
		Subcommands: []*cli.Command{{
			Name:      "test",
			Usage:     "go through a user's login step by step, and say what to change when one fails",
			ArgsUsage: "USER",
			Description: "Asks the directory that the configuration names for USER as the server would: connects, finds the user\n" +
				"and the user's groups, and, when there is a password, logs in with it. On a terminal the password is\n" +
				"asked for; without one the test ends before the login. docs/ldap.md explains each message.",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "config", Value: "/etc/postern/server.conf", Usage: "server.conf `FILE`"},
				&cli.StringFlag{Name: "password-file", Usage: "take the password from the first line of `FILE`; - is the input"},
			},
			Action: func(c *cli.Context) error {
				names, err := positional(c)
				if err != nil {
					return err
				}
				if len(names) != 1 {
					return errors.New("usage: postern ldap test USER [--config FILE] [--password-file FILE]")
				}
				cfg, _, err := loadConfig(c.String("config"))
				if err != nil {
					return err
				}
				if cfg.LDAP == nil {
					return fmt.Errorf("%s: there is no directory in it: add ldap-url (docs/ldap.md)", cfg.Path)
				}
				password, err := testPassword(c, names[0])
				if err != nil {
					return err
				}
				defer clear(password)
				return testLDAP(c.Context, c.App.Writer, cfg, names[0], password)
			},
		}},
	}
}

// testPassword returns the user's password, nil when there is none to try.
func testPassword(c *cli.Context, user string) ([]byte, error) {
	var from io.Reader
	switch file := c.String("password-file"); {
	case file == "-":
		from = c.App.Reader
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("password-file: %w", err)
		}
		defer f.Close()
		from = f
	default:
		in, ok := c.App.Reader.(*os.File)
		if !ok || !term.IsTerminal(int(in.Fd())) {
			return nil, nil
		}
		fmt.Fprintf(c.App.ErrWriter, "Password of %s (empty: go without): ", user)
		password, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(c.App.ErrWriter)
		if err != nil || len(password) == 0 {
			return nil, err
		}
		return password, nil
	}
	line, err := bufio.NewReader(from).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read password: %w", err)
	}
	if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
		return nil, errors.New("the password is empty: an empty password lets nobody in")
	}
	return line, nil
}

// testLDAP writes what happens, and returns an error without a text when the user may not come in: it has been told.
func testLDAP(ctx context.Context, out io.Writer, cfg *config.Config, user string, password []byte) error {
	dirs, err := directories(cfg, zerolog.Nop())
	if err != nil {
		return fmt.Errorf("%s: ldap: %w", cfg.Path, err)
	}
	server, last := "", ""
	line := func(step, detail string) {
		if step == last {
			step = ""
		} else {
			last = step
		}
		for part := range strings.Lines(detail) {
			fmt.Fprintf(out, "  %-27s %s\n", step, printable(strings.TrimRight(part, "\n")))
			step = ""
		}
	}
	who, err := dirs.Test(ctx, user, password, func(s auth.LDAPStep) {
		if s.Server != "" && s.Server != server {
			server, last = s.Server, ""
			fmt.Fprintln(out, server)
		}
		line(s.Step, s.Detail)
	})
	if err != nil {
		advice := auth.Explain(err)
		fmt.Fprintf(out, "FAILED: %s\n", advice.Problem)
		last = ""
		line("what to do", advice.Remedy)
		line("in full", err.Error())
		return cli.Exit("", 1)
	}
	if who.Addr4.IsValid() || who.Addr6.IsValid() {
		line("address", strings.TrimSpace(shown(who.Addr4)+" "+shown(who.Addr6)))
	}
	if who.Pool != "" {
		line("pool", who.Pool)
	}
	for _, r := range who.Routes {
		line("route", r.String())
	}
	policy, err := testPolicy(cfg, who)
	if err != nil {
		return err
	}
	if policy.problem != "" {
		fmt.Fprintf(out, "FAILED: %s\n", policy.problem)
		last = ""
		line("what to do", policy.remedy)
		return cli.Exit("", 1)
	}
	for _, remark := range append(policy.remarks, testRemarks(cfg, who)...) {
		line("policy", remark)
	}
	switch {
	case password != nil:
		fmt.Fprintf(out, "OK: %s may connect\n", who.Name)
	case cfg.LoginByCert:
		fmt.Fprintf(out, "OK: %s may connect, with a certificate of that name\n", who.Name)
	default:
		fmt.Fprintf(out, "OK: %s may connect with the right password; none was tried\n", who.Name)
	}
	return nil
}

// testRemarks is what else decides about a user whom the directory lets in.
func testRemarks(cfg *config.Config, who *auth.Identity) (list []string) {
	if cfg.Users != "" {
		if names, err := auth.ListUsers(cfg.Users); err == nil {
			for _, name := range names {
				if name == who.Name {
					list = append(list, fmt.Sprintf("%s is in %s, so the server does not ask the directory for this name", name, cfg.Users))
				}
			}
		}
	}
	if cfg.LoginMustMatchCert && cfg.VerifyClientCert != config.CertNone {
		list = append(list, "the client's certificate must be for "+who.Name)
	}
	if cfg.TOTPFile != "" {
		list = append(list, "a one-time code is asked for, too, where the user has a secret in "+cfg.TOTPFile)
	}
	return list
}
