package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postern/server/audit"
	"postern/server/config"
)

// auditEnd is how long the end of the program waits for its last records to be on the disk.
const auditEnd = 5 * time.Second

// openAudit opens the audit file of a configuration and records that the server starts, which fails when it cannot be
// recorded. Without the directive it returns nil, which records nothing.
func openAudit(cfg *config.Config) (*audit.Log, error) {
	if cfg.Audit == "" {
		return nil, nil
	}
	l, err := audit.Open(cfg.Audit)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if err := l.Write(audit.Record{Event: "start", Result: audit.Done, Command: "postern " + version, Reason: cfg.Path, Peer: myself()}); err != nil {
		l.Close()
		return nil, fmt.Errorf("audit: %s cannot be written: %w", cfg.Audit, err)
	}
	return l, nil
}

// keepAudit writes records in a goroutine of its own, so that a disk that hangs delays nobody. end records why the server
// ends and waits for the last of them, in vain on such a disk.
func keepAudit(l *audit.Log) (end func(why error) error) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx)
	}()
	return func(why error) error {
		r := audit.Record{Event: "stop", Result: audit.Done}
		if why != nil {
			r.Result, r.Reason = audit.Failed, why.Error()
		}
		l.Add(r)
		stop()
		select {
		case <-ended:
			return errors.Join(l.Trouble(), l.Close())
		case <-time.After(auditEnd):
			return errors.New("the disk does not answer")
		}
	}
}

// recordReload records that the configuration was read again.
func recordReload(l *audit.Log, err error) {
	r := audit.Record{Event: "reload", Result: audit.Done}
	if err != nil {
		r.Result, r.Reason = audit.Failed, err.Error()
	}
	l.Add(r)
}

// recordCommand is what the management interface tells of its commands.
func recordCommand(l *audit.Log) func(who, command string, done bool) {
	return func(who, command string, done bool) {
		r := audit.Record{Event: "management", Peer: who, Command: command, Result: audit.Done}
		if !done {
			r.Result = audit.Failed
		}
		l.Add(r)
	}
}

// myself is whoever runs this program.
func myself() string {
	id := strconv.Itoa(os.Getuid())
	who := "uid=" + id
	if u, err := user.LookupId(id); err == nil {
		who += " " + u.Username
	}
	if sudo := os.Getenv("SUDO_USER"); sudo != "" && os.Getuid() == 0 {
		who += " by sudo from " + sudo
	}
	return who
}

const auditEnv = "POSTERN_AUDIT"

// audited has a command recorded where --audit says: that it was asked for, without which nothing is done, and what came
// of it.
func audited(cmd *cli.Command) *cli.Command {
	do := cmd.Action
	cmd.Flags = append(slices.Clip(cmd.Flags), &cli.StringFlag{Name: "audit", EnvVars: []string{auditEnv},
		Usage: "record the command in `FILE`, as the server's audit directive names it"})
	cmd.Action = func(c *cli.Context) error {
		if slices.ContainsFunc(c.Args().Slice(), func(s string) bool { return strings.HasPrefix(s, "--audit") || strings.HasPrefix(s, "-audit") }) {
			if _, err := positional(c); err != nil { // flags may stand behind names
				return err
			}
		}
		path := c.String("audit")
		if path == "" {
			return do(c)
		}
		l, err := openCommandAudit(path)
		if err != nil {
			return fmt.Errorf("--audit: %w; nothing was done", err)
		}
		defer l.Close()
		r := audit.Record{Event: "command", Result: audit.Asked, Peer: myself(), Command: strings.Join(append([]string{c.Command.HelpName}, c.Args().Slice()...), " ")}
		if err := l.Write(r); err != nil {
			return fmt.Errorf("--audit: %w; nothing was done", err)
		}
		c.Context = context.WithValue(c.Context, auditOf{}, l)
		err = do(c)
		if r.Result = audit.Done; err != nil {
			r.Result, r.Reason = audit.Failed, err.Error()
		}
		if failed := l.Write(r); failed != nil && err == nil {
			return fmt.Errorf("done, but what came of it could not be recorded: %w", failed)
		}
		return err
	}
	return cmd
}

type auditOf struct{}

// recordOf writes a record of what a command has done, if it has an audit file.
func recordOf(c *cli.Context, r audit.Record) error {
	l, _ := c.Context.Value(auditOf{}).(*audit.Log)
	r.Peer, r.Result = myself(), audit.Done
	return l.Write(r)
}

// openCommandAudit opens a file that is the server's: where root makes it, whoever has the directory gets it.
func openCommandAudit(path string) (*audit.Log, error) {
	_, err := os.Lstat(path)
	l, openErr := audit.Open(path)
	if openErr == nil && errors.Is(err, fs.ErrNotExist) {
		openErr = ownedAsDirectory(path)
	}
	return l, openErr
}

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:  "audit",
		Usage: "check audit files",
		Subcommands: []*cli.Command{{
			Name: "verify", Usage: "check that nothing in audit files was changed, taken out or put in", ArgsUsage: "FILE...",
			Description: "Files that were rotated are named in their order, the oldest first. Where a chain is broken the line is\n" +
				"named, and the command ends with 1.",
			Action: auditVerify,
		}},
	}
}

func auditVerify(c *cli.Context) error {
	names, err := positional(c)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("usage: postern audit verify FILE...")
	}
	chain := new(audit.Chain)
	for _, name := range names {
		if err := verifyFile(chain, name); err != nil {
			return err
		}
	}
	if chain.Records == 0 {
		return errors.New("there are no records")
	}
	fmt.Fprintf(c.App.Writer, "%d records, %d to %d, from %s to %s: the chain is whole\n", chain.Records, chain.First, chain.Seq(),
		chain.Began.Format(time.RFC3339), chain.Last.Format(time.RFC3339))
	if chain.First > 1 {
		fmt.Fprintf(c.App.Writer, "records before %d are in older files\n", chain.First)
	}
	fmt.Fprintf(c.App.Writer, "last hash %s: compare it with one that was kept elsewhere, since an end that was cut off or written anew breaks no chain\n", chain.Hash())
	return nil
}

func verifyFile(chain *audit.Chain, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := chain.Verify(f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
