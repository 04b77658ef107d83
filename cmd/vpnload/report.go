package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// A Report is what a run found. Bytes and packets of traffic are counted at the end that received them.
type Report struct {
	Sessions       int            `json:"sessions"`
	Connected      int            `json:"connected"`
	Failed         int            `json:"failed"`
	Left           int            `json:"connected_at_the_end"`
	Errors         map[string]int `json:"errors,omitempty"` // of attempts to connect
	Lost           map[string]int `json:"lost,omitempty"`
	ConnectSeconds float64        `json:"connect_seconds"`
	ConnectRate    float64        `json:"connects_per_second"`
	Handshakes     Percentiles    `json:"handshake_ms"`

	Seconds    float64     `json:"seconds"`
	Up         Moved       `json:"up"`
	Down       Moved       `json:"down"`
	Pings      Percentiles `json:"ping_ms"`
	PingsSent  uint64      `json:"pings_sent"`
	Echo       Percentiles `json:"echo_ms"`
	EchoesSent uint64      `json:"echoes_sent"`

	PacketsIn  uint64 `json:"packets_in"` // of the data channel, from the first key to the last
	PacketsOut uint64 `json:"packets_out"`
	Late       uint64 `json:"late_for_stock_replay_window"`
	Bad        uint64 `json:"not_opened"`
	Strange    uint64 `json:"strange"`
	Corrupt    uint64 `json:"corrupt"`
	Uncounted  uint64 `json:"flows_uncounted"` // whose peer did not tell what arrived: it is missing in Up

	Resent uint64 `json:"tcp_bytes_resent"`
	Gaps   uint64 `json:"tcp_segments_behind_gaps"`

	Renegotiations       uint64 `json:"renegotiations"`
	RenegotiationsFailed uint64 `json:"renegotiations_failed"`
	Roams                uint64 `json:"roams"`
	Restarts             uint64 `json:"restarts"`
	Returns              uint64 `json:"returns"` // of sessions that had been lost

	Rebinds uint64      `json:"rebinds"`    // of -rebind
	Rebound Percentiles `json:"rebound_ms"` // from then until the server was heard again

	Server *ServerCost `json:"server,omitempty"`
	Phases []Phase     `json:"phases,omitempty"` // with -phases
}

// A Phase is a part of the measurement.
type Phase struct {
	Seconds float64     `json:"seconds"`
	Up      Moved       `json:"up"`
	Down    Moved       `json:"down"`
	Pings   Percentiles `json:"ping_ms"`
}

// Moved is traffic of one direction during the measurement. TCP flows have no packets to count, and sessions that came
// again only their echoes.
type Moved struct {
	Sent      uint64  `json:"sent"` // packets, at their near end
	Packets   uint64  `json:"packets"`
	Bytes     uint64  `json:"bytes"`
	Mbits     float64 `json:"mbits"`
	PerSecond float64 `json:"packets_per_second"`
}

// ServerCost is what the server process used: for each handshake, and during the measurement.
type ServerCost struct {
	HandshakeMillis float64 `json:"handshake_cpu_ms"`
	CPU             float64 `json:"cpu_seconds"`
	Cores           float64 `json:"cores"`
	PerGB           float64 `json:"cpu_seconds_per_gb"`
	RSS             int64   `json:"rss"`
	KBPerSession    float64 `json:"kb_per_session"`
}

// print writes the report as a table.
func (r *Report) print(w io.Writer) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-22s "+format+"\n", append([]any{name}, args...)...)
	}
	times := func(name string, p Percentiles) {
		if p.Count > 0 {
			line(name, "%d: p50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f  max %.3f ms", p.Count, p.P50, p.P90, p.P99, p.P999, p.Max)
		}
	}
	line("connected", "%d of %d in %.2f s (%.1f/s), %d at the end", r.Connected, r.Sessions, r.ConnectSeconds, r.ConnectRate, r.Left)
	times("handshakes", r.Handshakes)
	for _, why := range slices.Sorted(maps.Keys(r.Errors)) {
		line("  failed", "%d: %s", r.Errors[why], why)
	}
	for _, why := range slices.Sorted(maps.Keys(r.Lost)) {
		line("  lost", "%d: %s", r.Lost[why], why)
	}
	for _, m := range []struct {
		name string
		Moved
	}{{"up", r.Up}, {"down", r.Down}} {
		if m.Bytes > 0 {
			line(m.name, "%.0f Mbit/s, %.0f packets/s (%d bytes in %.1f s)", m.Mbits, m.PerSecond, m.Bytes, r.Seconds)
		}
		if m.Sent > m.Packets {
			line("  on their way or lost", "%d of %d packets", m.Sent-m.Packets, m.Sent)
		}
	}
	if r.PingsSent > 0 {
		times("pings", r.Pings)
		line("  sent", "%d", r.PingsSent)
	}
	for i, p := range r.Phases {
		line(fmt.Sprintf("phase %d", i+1), "%.1f s: up %.0f, down %.0f Mbit/s, ping p50 %.3f  p99 %.3f  max %.3f ms", p.Seconds, p.Up.Mbits, p.Down.Mbits,
			p.Pings.P50, p.Pings.P99, p.Pings.Max)
	}
	times("echoes", r.Echo)
	if r.EchoesSent > 0 {
		line("  sent", "%d", r.EchoesSent)
	}
	if r.Uncounted > 0 {
		line("not counted", "%d flows, whose peer did not tell what arrived", r.Uncounted)
	}
	line("packets", "%d in, %d out", r.PacketsIn, r.PacketsOut)
	line("  of them", "%d late for a stock replay window, %d not opened, %d strange, %d corrupt", r.Late, r.Bad, r.Strange, r.Corrupt)
	if r.Resent+r.Gaps > 0 {
		line("TCP inside", "%d bytes sent again, %d segments behind a gap", r.Resent, r.Gaps)
	}
	if r.Renegotiations+r.RenegotiationsFailed+r.Roams+r.Restarts > 0 {
		line("life", "%d renegotiations (%d failed), %d roams, %d restarts", r.Renegotiations, r.RenegotiationsFailed, r.Roams, r.Restarts)
	}
	if r.Returns > 0 {
		line("came back", "%d sessions that had been lost", r.Returns)
	}
	if r.Rebinds > 0 {
		line("all at once", "%d sessions changed their ports", r.Rebinds)
		times("  heard again", r.Rebound)
	}
	if s := r.Server; s != nil {
		line("server", "%.2f ms CPU a handshake, %.2f cores, %.2f s/GB, %.1f MB resident, %.1f KB a session", s.HandshakeMillis, s.Cores, s.PerGB,
			float64(s.RSS)/1e6, s.KBPerSession)
	}
}
