package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"postern/server"
)

// showLanes prints the counters of a running server's data path.
func showLanes(ctx context.Context, out io.Writer, socket string, asJSON bool) error {
	var r server.LaneReport
	if err := askServer(ctx, socket, "/lanes", &r); err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return printLanes(out, &r)
}

// printLanes writes them for people: a line for each direction of each socket and queue. What a call moves on average
// tells how well the kernel batches.
func printLanes(out io.Writer, r *server.LaneReport) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LANE\tWHERE\tPACKETS\tBYTES\tCALLS\tPACKETS/CALL\tDROPPED")
	line := func(lane int, where string, packets, bytes, calls, dropped uint64) {
		each := "-"
		if calls > 0 {
			each = fmt.Sprintf("%.1f", float64(packets)/float64(calls))
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%d\t%s\t%d\n", lane, where, packets, bytesText(bytes), calls, each, dropped)
	}
	for _, l := range r.Lanes {
		for _, s := range l.Sockets {
			line(l.Lane, fmt.Sprintf("from %v", s.Local), s.PacketsIn, s.BytesIn, s.Receives, s.Overrun+s.Truncated)
		}
		for _, q := range l.Queues {
			line(l.Lane, "to "+q.Device, q.PacketsOut, q.BytesOut, q.WriteCalls, q.Dropped)
			line(l.Lane, "from "+q.Device, q.PacketsIn, q.BytesIn, q.ReadCalls, 0)
		}
		for _, s := range l.Sockets {
			line(l.Lane, fmt.Sprintf("to %v", s.Local), s.PacketsOut, s.BytesOut, s.Sends, s.Unsent)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, l := range r.Lanes {
		for _, s := range l.Sockets {
			if s.Singly > 0 {
				fmt.Fprintf(out, "lane %d: %d trains went packet by packet\n", l.Lane, s.Singly)
			}
			for _, why := range slices.Sorted(maps.Keys(s.Errors)) {
				fmt.Fprintf(out, "lane %d: %d times %q\n", l.Lane, s.Errors[why], why)
			}
		}
	}
	for _, why := range slices.Sorted(maps.Keys(r.Drops)) {
		fmt.Fprintf(out, "dropped: %d %s\n", r.Drops[why], why)
	}
	return nil
}
