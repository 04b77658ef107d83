// Command postern is an OpenVPN-compatible remote-access gateway. It is the only place that knows everything, and
// does nothing else: configuration becomes parts, parts become a server.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // policies' hours, also where the host knows no zones

	"github.com/urfave/cli/v2"
)

// version is set by the build.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if calledAsOpenVPN(os.Args) {
		os.Exit(runOpenVPN(ctx, os.Args[1:]))
	}
	app := &cli.App{
		Name:                 "postern",
		Usage:                "OpenVPN-compatible remote-access gateway",
		Version:              version,
		EnableBashCompletion: true,
		HideHelpCommand:      true,
		Commands: []*cli.Command{
			serveCommand(), checkCommand(), quickstartCommand(), pkiCommand(), audited(profileCommand()), keyCommand(),
			userCommand(), statusCommand(), whyCommand(), ldapCommand(), auditCommand(), importCommand(), openvpnCommand(), completionCommand(),
		},
		ExitErrHandler: func(*cli.Context, error) {}, // below, once
	}
	if err := app.RunContext(ctx, os.Args); err != nil {
		if msg := err.Error(); msg != "" {
			fmt.Fprintln(os.Stderr, "postern:", msg)
		}
		if code := cli.ExitCoder(nil); errors.As(err, &code) {
			os.Exit(code.ExitCode())
		}
		os.Exit(1)
	}
}
