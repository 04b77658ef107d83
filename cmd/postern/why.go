package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/urfave/cli/v2"

	"postern/server"
)

func whyCommand() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "show what became of a user's latest attempts to connect, and why",
		ArgsUsage: "USER|ADDRESS|SESSION",
		Description: "Asks the running server over its local socket, as `postern status` does. An ADDRESS is for attempts that\n" +
			"came to no name; a SESSION is the id in log lines. The server remembers the latest attempts only, up to\n" +
			"16 of one name, and forgets them when it ends.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Usage: "the server's control socket `PATH`"},
			&cli.BoolFlag{Name: "json", Usage: "print everything as JSON"},
		},
		Action: func(c *cli.Context) error {
			names, err := positional(c)
			if err != nil {
				return err
			}
			if len(names) != 1 {
				return errors.New("usage: postern why USER|ADDRESS|SESSION [--json]")
			}
			socket := c.String("socket")
			if socket == "" {
				if socket, err = onlySocket(controlDir); err != nil {
					return err
				}
			}
			var why server.Why
			if err := askServer(c.Context, socket, "/why?who="+url.QueryEscape(names[0]), &why); err != nil {
				return err
			}
			if c.Bool("json") {
				e := json.NewEncoder(c.App.Writer)
				e.SetIndent("", "  ")
				return e.Encode(why)
			}
			printWhy(c.App.Writer, &why)
			return nil
		},
	}
}

// printWhy writes attempts for people, the latest last.
func printWhy(out io.Writer, w *server.Why) {
	if g := w.Greeted; g != nil {
		fmt.Fprintf(out, "%v: first packets from %s to %s: %d answered, %d dropped\n", g.From, g.First.Format(time.DateTime), g.Last.Format(time.DateTime), g.Answered, g.Dropped)
		if g.Answered == 0 {
			fmt.Fprintln(out, "  dropped are packets of no client of this server: see whether its profile has the right tls-auth or tls-crypt key, protocol and port")
		}
	}
	if len(w.Attempts) == 0 {
		fmt.Fprintf(out, "nothing is remembered of %s", w.Who)
		if w.Greeted == nil {
			fmt.Fprint(out, ": no packet came, or it was long ago; try the client's address")
		}
		fmt.Fprintln(out)
		return
	}
	for i, a := range w.Attempts {
		if i > 0 || w.Greeted != nil {
			fmt.Fprintln(out)
		}
		over := "udp"
		if a.Stream {
			over = "tcp"
		}
		fmt.Fprintf(out, "%s from %v (%s), session %s", a.Began.Format(time.DateTime), a.From, over, a.Session)
		if a.User != "" {
			fmt.Fprintf(out, ", user %q", a.User)
		}
		if a.Name != "" {
			fmt.Fprintf(out, ", certificate %q", a.Name)
		}
		fmt.Fprintln(out)
		for _, s := range a.Steps {
			detail := s.Detail
			if s.Failed {
				detail = "FAILED: " + detail
			}
			fmt.Fprintf(out, "  %10s  %-13s  %s\n", sinceText(s.At.Sub(a.Began)), s.Step, detail)
		}
	}
}

// sinceText is a time since the beginning, as fine as it is short.
func sinceText(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("+%.3f s", d.Seconds())
	default:
		return "+" + d.Round(time.Second).String()
	}
}
