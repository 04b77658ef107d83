package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"postern/auth"
)

// userCommand edits the local user file of auth-users-file, and the secrets of auth-totp-file. A running server sees a
// change at once.
func userCommand() *cli.Command {
	file := &cli.StringFlag{
		Name: "file", Aliases: []string{"f"}, Value: "users",
		Usage: "the user `FILE`, as auth-users-file names it",
	}
	return &cli.Command{
		Name:  "user",
		Usage: "edit the local user file, and the second factors of all users",
		Subcommands: []*cli.Command{
			audited(&cli.Command{
				Name: "add", Usage: "add a user; the password is asked for, or is the first line of the input",
				ArgsUsage: "NAME", Flags: []cli.Flag{file},
				Action: func(c *cli.Context) error { return withPassword(c, auth.AddUser) },
			}),
			audited(&cli.Command{
				Name: "passwd", Usage: "give a user another password",
				ArgsUsage: "NAME", Flags: []cli.Flag{file},
				Action: func(c *cli.Context) error { return withPassword(c, auth.SetPassword) },
			}),
			audited(&cli.Command{
				Name: "del", Usage: "remove a user",
				ArgsUsage: "NAME", Flags: []cli.Flag{file},
				Action: func(c *cli.Context) error {
					name, err := userName(c)
					if err != nil {
						return err
					}
					return auth.DeleteUser(c.String("file"), name)
				},
			}),
			{
				Name: "list", Usage: "print the names of the users",
				Flags: []cli.Flag{file},
				Action: func(c *cli.Context) error {
					names, err := auth.ListUsers(c.String("file"))
					if err != nil {
						return err
					}
					for _, name := range names {
						fmt.Fprintln(c.App.Writer, name)
					}
					return nil
				},
			},
			audited(userTOTPCommand()),
		},
	}
}

func userName(c *cli.Context) (string, error) {
	if c.NArg() != 1 {
		return "", fmt.Errorf("usage: postern user %s [--file FILE] NAME", c.Command.Name)
	}
	return c.Args().First(), nil
}

func withPassword(c *cli.Context, edit func(path, name string, password []byte) error) error {
	name, err := userName(c)
	if err != nil {
		return err
	}
	password, err := readPassword(c)
	if err != nil {
		return err
	}
	defer clear(password)
	return edit(c.String("file"), name, password)
}

// readPassword asks twice on a terminal. Elsewhere it takes a line of the input: an argument would be in the process
// list.
func readPassword(c *cli.Context) ([]byte, error) {
	if in, ok := c.App.Reader.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		fmt.Fprint(c.App.ErrWriter, "Password: ")
		password, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(c.App.ErrWriter)
		if err != nil {
			return nil, fmt.Errorf("read password: %w", err)
		}
		fmt.Fprint(c.App.ErrWriter, "Again: ")
		again, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(c.App.ErrWriter)
		if err != nil {
			return nil, fmt.Errorf("read password: %w", err)
		}
		defer clear(again)
		if !bytes.Equal(password, again) {
			clear(password)
			return nil, errors.New("the two passwords differ")
		}
		return password, nil
	}
	line, err := bufio.NewReader(c.App.Reader).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read password: %w", err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
