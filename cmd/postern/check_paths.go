package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"postern/server"
	"postern/server/config"
)

// clientPaths is where clients send their traffic, system by system.
type clientPaths struct {
	FullTunnel bool                  `json:"full_tunnel"`
	Platforms  []server.PlatformPath `json:"platforms"`
}

// pathsOf is nil for a configuration that is refused.
func pathsOf(cfg *config.Config) *clientPaths {
	if cfg == nil {
		return nil
	}
	list, full := server.Paths(cfg)
	return &clientPaths{full, list}
}

// printPaths prints where clients send their names, their IPv6 and what is for their local networks, and why something
// goes past a tunnel that is to take everything.
func printPaths(w io.Writer, cfg *config.Config) error {
	p := pathsOf(cfg)
	if p == nil {
		return nil
	}
	if !p.FullTunnel && !slices.ContainsFunc(p.Platforms, func(r server.PlatformPath) bool { return r.DNS != server.Outside || r.Why != nil }) {
		_, err := fmt.Fprintln(w, "split tunnel: clients send through it what is routed to it, and ask for names and send the rest as without it")
		return err
	}
	title := "split tunnel: besides what is routed to it, clients without a file of their own send"
	if p.FullTunnel {
		title = "full tunnel: clients without a file of their own send"
	}
	var table bytes.Buffer
	t := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\tDNS\tIPv6\tlocal networks")
	for _, r := range p.Platforms {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Platform, loud(r.DNS), loud(r.IPv6), r.Local)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, title)
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(w, "  "+strings.TrimRight(line, " \n"))
	}
	for _, r := range p.reasons() {
		fmt.Fprintf(w, "  %s: %s\n", r.platforms, printable(r.why))
	}
	if p.FullTunnel {
		fmt.Fprintln(w, "  whoever runs a client's local network can still draw single addresses out of the tunnel with routes of his own; no push prevents it")
	}
	return nil
}

type reason struct{ why, platforms string }

// reasons lists why something goes past the tunnel, each once, with the systems that it is true of.
func (p *clientPaths) reasons() (list []reason) {
	of := make(map[string][]string)
	for _, r := range p.Platforms {
		for _, why := range r.Why {
			if of[why] == nil {
				list = append(list, reason{why: why})
			}
			of[why] = append(of[why], r.Platform)
		}
	}
	for i := range list {
		r := &list[i]
		if r.platforms = strings.Join(of[r.why], "; "); len(of[r.why]) == len(p.Platforms) {
			r.platforms = "everywhere"
		}
	}
	return list
}

// loud makes a leak stand out.
func loud(where string) string {
	if where == server.Leaks {
		return strings.ToUpper(where)
	}
	return where
}
