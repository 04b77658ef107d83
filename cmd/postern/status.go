package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"postern/server"
)

// controlDir holds the sockets of running servers, one for each configuration: NAME.conf has NAME.sock.
const controlDir = "/run/postern"

// controlSocket returns where the server of a configuration file listens when the file does not say.
func controlSocket(configPath string) string {
	name := strings.TrimSuffix(filepath.Base(configPath), filepath.Ext(configPath))
	return filepath.Join(controlDir, name+".sock")
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show who is connected to the running server",
		Description: "Asks the running server over its local socket: the one given, or the only one in " + controlDir + ".\n" +
			"A server.conf says control-socket PATH to have its socket elsewhere.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Usage: "the server's control socket `PATH`"},
			&cli.BoolFlag{Name: "json", Usage: "print everything as JSON"},
			&cli.BoolFlag{Name: "lanes", Usage: "show what each lane of the data path has moved and dropped, instead"},
		},
		Action: func(c *cli.Context) error {
			socket := c.String("socket")
			if socket == "" {
				var err error
				if socket, err = onlySocket(controlDir); err != nil {
					return err
				}
			}
			if c.Bool("lanes") {
				return showLanes(c.Context, c.App.Writer, socket, c.Bool("json"))
			}
			snap, err := askStatus(c.Context, socket)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				e := json.NewEncoder(c.App.Writer)
				e.SetIndent("", "  ")
				return e.Encode(snap)
			}
			return printStatus(c.App.Writer, snap)
		},
	}
}

// onlySocket finds the one control socket in dir that a server answers on.
func onlySocket(dir string) (string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "*.sock"))
	if err != nil {
		return "", err
	}
	var found []string
	for _, path := range all {
		conn, err := net.Dial("unix", path)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue // left by a server that could not remove it
		}
		if err == nil {
			conn.Close()
		}
		found = append(found, path)
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no running server has its socket in %s: name it with --socket (control-socket in server.conf)", dir)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("several servers run: choose one with --socket: %s", strings.Join(found, ", "))
}

// askStatus gets a snapshot from the server behind a socket.
func askStatus(ctx context.Context, socket string) (*server.Snapshot, error) {
	snap := new(server.Snapshot)
	return snap, askServer(ctx, socket, "/status", snap)
}

// askServer asks the server behind a socket, and reads its answer, which is JSON, into answer.
func askServer(ctx context.Context, socket, path string, answer any) error {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://postern"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), "connection refused") {
			return fmt.Errorf("no server answers on %s: is it running?", socket)
		}
		return fmt.Errorf("ask %s: %w", socket, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s", socket, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("ask %s: %w", socket, err)
	}
	return nil
}

// printStatus writes a snapshot for people.
func printStatus(out io.Writer, s *server.Snapshot) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	policies := slices.ContainsFunc(s.Clients, func(c server.ClientStatus) bool { return c.Policy != "" || c.Pool != "" })
	heads, fields := "", ""
	if policies {
		heads = "POLICY\tPOOL\t"
	}
	fmt.Fprintln(w, "NAME\tUSER\tFROM\tADDRESS\t"+heads+"RECEIVED\tSENT\tCONNECTED\tCIPHER\tCLIENT")
	for _, c := range s.Clients {
		var inside []string
		for _, a := range []string{shown(c.Addr4), shown(c.Addr6)} {
			if a != "" {
				inside = append(inside, a)
			}
		}
		from := c.Real.String()
		if c.Stream {
			from += " (tcp)"
		}
		if policies {
			fields = c.Policy + "\t" + c.Pool + "\t"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s%s\t%s\t%s\t%s\t%s\n", c.Name, c.User, from, strings.Join(inside, " "), fields,
			bytesText(c.Received), bytesText(c.Sent), s.Time.Sub(c.Since).Round(time.Second), c.Cipher,
			strings.TrimSpace(c.Version+" "+c.Platform))
	}
	fmt.Fprintf(w, "\n%d connected, %d logging in; device %s; pool %d of %d; up %v\n", len(s.Clients), s.HalfOpen, s.Device,
		s.Pool.Leased, s.Pool.Size, s.Time.Sub(s.Started).Round(time.Second))
	for _, p := range s.Pools {
		fmt.Fprintf(w, "pool %s: device %s, %d of %d\n", p.Name, p.Device, p.Leased, p.Size)
	}
	return w.Flush()
}

func shown(a interface {
	IsValid() bool
	String() string
}) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// bytesText is a byte count for people, in powers of 1000.
func bytesText(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.1f %cB", f, units[i])
}
