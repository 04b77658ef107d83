package lab

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Pings is what a series of pings brought.
type Pings struct {
	Sent, Received int
	RTTs           []time.Duration // of each answer, in order
	Missing        []int           // the numbers, from 1, of those without an answer
}

// Lost is how many had no answer.
func (p Pings) Lost() int { return p.Sent - p.Received }

var (
	pingSummary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)
	pingLine    = regexp.MustCompile(`icmp_seq=(\d+) .*time=([0-9.]+) ms`)
)

// Ping sends count pings of size payload bytes, interval apart, and waits up to a second for the last answers.
func (h *Host) Ping(ctx context.Context, to string, count, size int, interval time.Duration) (Pings, error) {
	out, err := h.Run(ctx, "ping", "-n", "-c", strconv.Itoa(count), "-s", strconv.Itoa(size), "-i", strconv.FormatFloat(interval.Seconds(), 'f', 3, 64), "-W", "1", to)
	p, ok := parsePings(out)
	if !ok {
		return p, fmt.Errorf("ping %s: no summary: %w", to, err)
	}
	return p, nil // ping fails when answers are missing: that is the caller's to judge
}

func parsePings(out string) (p Pings, ok bool) {
	m := pingSummary.FindStringSubmatch(out)
	if m == nil {
		return p, false
	}
	p.Sent, _ = strconv.Atoi(m[1])
	p.Received, _ = strconv.Atoi(m[2])
	answered := make(map[int]bool, p.Received)
	for _, t := range pingLine.FindAllStringSubmatch(out, -1) {
		ms, err := strconv.ParseFloat(t[2], 64)
		if err != nil {
			continue
		}
		seq, err := strconv.Atoi(t[1])
		if err != nil {
			continue
		}
		answered[seq] = true
		p.RTTs = append(p.RTTs, time.Duration(ms*float64(time.Millisecond)))
	}
	for seq := 1; seq <= p.Sent; seq++ {
		if !answered[seq] {
			p.Missing = append(p.Missing, seq)
		}
	}
	return p, true
}
