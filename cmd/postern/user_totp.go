package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
	"rsc.io/qr"

	"postern/auth"
)

// userTOTPCommand edits the secrets of auth-totp-file. The user's password may be in the user file or in
// the directory: here is only the second factor.
func userTOTPCommand() *cli.Command {
	return &cli.Command{
		Name: "totp", Usage: "give a user a TOTP secret, shown once as a URL and a QR code for an authenticator app",
		ArgsUsage: "NAME",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Value: "totp-secrets", Usage: "the `FILE` of secrets, as auth-totp-file names it"},
			&cli.StringFlag{Name: "issuer", Value: "Postern", Usage: "the `NAME` that the app shows beside the user's"},
			&cli.BoolFlag{Name: "renew", Usage: "replace the user's secret; codes and tokens of the old one are refused from now on"},
			&cli.BoolFlag{Name: "remove", Usage: "take the user's secret away"},
		},
		Action: userTOTPAction,
	}
}

func userTOTPAction(c *cli.Context) error {
	args, err := positional(c)
	if err != nil {
		return err
	}
	if len(args) != 1 || c.Bool("renew") && c.Bool("remove") {
		return errors.New("usage: postern user totp [--file FILE] [--issuer NAME] [--renew | --remove] NAME")
	}
	file, name := c.String("file"), args[0]
	if c.Bool("remove") {
		return auth.RemoveTOTP(file, name)
	}
	set := auth.AddTOTP
	if c.Bool("renew") {
		set = auth.RenewTOTP
	}
	secret, err := set(file, name)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: a secret is shown once only; --renew makes another", err)
	}
	if err != nil {
		return err
	}
	canonical, err := auth.CanonicalName(name)
	if err != nil {
		return err
	}
	return showSecret(c.App.Writer, secret.URL(c.String("issuer"), canonical))
}

// showSecret prints a URL, and a QR code of it.
func showSecret(w io.Writer, url string) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", url); err != nil {
		return err
	}
	code, err := qr.Encode(url, qr.L)
	if err != nil {
		return fmt.Errorf("QR code: %w", err)
	}
	f, ok := w.(*os.File)
	_, err = io.WriteString(w, drawCode(code, ok && term.IsTerminal(int(f.Fd()))))
	return err
}

// drawCode draws two rows of a code into each line. In colour it is black on white whatever the terminal's colours
// are; otherwise it takes the terminal to be dark, and lets the light parts shine.
func drawCode(code *qr.Code, colour bool) string {
	const quiet = 4 // modules around it, without which readers do not find it
	light := func(x, y int) bool {
		return x < 0 || y < 0 || x >= code.Size || y >= code.Size || !code.Black(x, y)
	}
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		if colour {
			b.WriteString("\x1b[97;40m") // bright white on black
		}
		for x := -quiet; x < code.Size+quiet; x++ {
			switch top, bottom := light(x, y), light(x, y+1); {
			case top && bottom:
				b.WriteRune('█')
			case top:
				b.WriteRune('▀')
			case bottom:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		if colour {
			b.WriteString("\x1b[0m")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
