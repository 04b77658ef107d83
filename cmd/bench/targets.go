package main

import (
	"fmt"
	"strings"
)

// A target is what a figure of a case is to be: by itself, beside a peer of the same case, or both.
type target struct {
	line    string // what it is about
	plan    string // by name
	who     int    // the contestant
	column  column
	least   bool    // the figure is to be at least so much, not at most
	figure  float64 // 0: any
	peer    int     // the contestant to be compared with; itself: none
	ratio   float64 // to the peer's; 0: any, it is only shown
	because string  // why it may be missed: what is known, not what was found
}

// What is known about targets that are missed.
const (
	singly  = "Datagrams come one by one from a stock client, unless the interface merges them: each is a packet for the socket, the cipher and the device by itself. The server is faster than that client, so it sleeps, and is woken for every one or two of them; under load more come at once."
	farEnd  = "On a veth pair the receiver's network stack runs within the server's own system calls; a real interface takes the packets instead."
	sealing = "More than a third is AES-256-GCM in the assembly of crypto/cipher, a fifth reading the TUN and sendmmsg; what is left is a little of many things."
	single  = "The generator is what limits: handing each datagram over in a system call of its own takes it longer than the server needs for it."
	shared  = "The load generator shares the cores with the server."
	halved  = "TLS handshakes compute in at most half of the cores, by decision, so that traffic keeps the others; the load generator computes the clients' ends on the same cores."
	held    = "What is left is the client's certificate, the buffers of crypto/tls, the keys of four ciphers and goroutine stacks: see docs/performance.md."
	framed  = "A stream has a goroutine more than a datagram's session, and buffers in the kernel and outside of it."
	answers = "The largest part is writing the client's acknowledgements to the TUN: the kernel hands each to the sender's TCP stack in the same call, and that sends on from there, within the server's time."
	timed   = "The peer's figure says what the machine takes by itself."
	parts   = "About half of it is the client's and the network's, and the rest mostly waking the server: see \"Where an idle round trip spends its time\"."
)

// targets are those of issue and design, in the order in which they are shown.
var targets = []target{
	{"stock client up: CPU, s/GB", "tcp up 1", 1, perGB, false, 2.0, 0, 0.45, singly},
	{"stock client up: rate, Mbit/s", "tcp up 1", 1, mbits, true, 0, 0, 1.3, shared},
	{"stock client down: CPU, s/GB", "tcp down 1", 1, perGB, false, 2.1, 0, 0.40, farEnd + " " + answers},
	{"stock client down: rate, Mbit/s", "tcp down 1", 1, mbits, true, 0, 0, 1.3, shared},
	{"stock client up, merged at ingress: CPU, s/GB", "merge up", 1, perGB, false, 1.2, 0, 0.27, "How many datagrams merge is the interface's doing: on a veth pair it depends on how they happen to come."},
	{"stock client down, merged at ingress: CPU, s/GB", "merge down", 1, perGB, false, 2.1, 0, 0.40, farEnd + " " + answers},
	{"GSO client up: CPU, s/GB", "tcp up 1", 3, perGB, false, 0.70, 2, 0.32, shared},
	{"GSO client up: rate, Mbit/s", "tcp up 1", 3, mbits, true, 0, 2, 1.8, shared},
	{"GSO client down: CPU, s/GB", "tcp down 1", 3, perGB, false, 0.90, 2, 0.42, sealing},
	{"GSO client down: rate, Mbit/s", "tcp down 1", 3, mbits, true, 0, 2, 1.8, shared},
	{"UDP of 64 bytes up, stock pattern: kpps", "udp up 64 1", 1, kpps, true, 500, 0, 0, single + " " + shared},
	{"UDP of 64 bytes up, GSO client: kpps", "udp up 64 1", 2, kpps, true, 1000, 0, 0, shared},
	{"UDP of 64 bytes down, stock pattern: kpps", "udp down 64 1", 1, kpps, true, 700, 0, 0, single + " " + shared},
	{"UDP of 64 bytes down, GSO client: kpps", "udp down 64 1", 2, kpps, true, 700, 0, 0, shared},
	{"tunnel over TCP up: CPU, s/GB", "stream up", 1, perGB, false, 0, 0, 0.5, shared},
	{"tunnel over TCP up: rate, Mbit/s", "stream up", 1, mbits, true, 0, 0, 1, shared},
	{"tunnel over TCP down: CPU, s/GB", "stream down", 1, perGB, false, 0, 0, 0.5, answers},
	{"tunnel over TCP down: rate, Mbit/s", "stream down", 1, mbits, true, 0, 0, 1, shared},
	{"handshake: CPU ms", "handshakes", 1, handshake, false, 0, 0, 0.7, shared},
	{"handshakes on all cores: more a second than one thread", "handshakes", 1, rate, true, 0, 0, 1, halved},
	{"storm of 1,000 clients: % of its rate that the data plane keeps", "storm", 1, keptStorm, true, 90, 0, 0, shared},
	{"storm of 1,000 clients: p99 ms of a ping", "storm", 1, p99Storm, false, 20, 0, 0, shared},
	{"1,000 clients leave: % of its rate that the data plane keeps", "storm", 1, keptEnd, true, 90, 0, 0, shared},
	{"1,000 clients leave: p99 ms of a ping", "storm", 1, p99End, false, 20, 0, 0, shared},
	{"memory, 1,000 idle sessions: KB each", "idle udp 1000", 1, kilobytes, false, 40, 0, 0.25, held},
	{"memory, 1,000 idle sessions over TCP: KB each", "idle tcp 1000", 1, kilobytes, false, 40, 0, 0, held + " " + framed},
	{"memory, 10,000 idle sessions: KB each", "idle udp 10000", 0, kilobytes, false, 40, 0, 0, held},
	{"10,000 idle sessions with keepalives: cores", "idle udp 10000", 0, cores, false, 0.10, 0, 0, shared},
	{"idle round trip: p50 ms", "latency idle", 1, p50, false, 0.15, 0, 0, timed + " " + parts},
	{"round trip under full TCP load up: p99 ms", "latency up", 1, p99, false, 0, 0, 1, timed},
	{"round trip under full TCP load down: p99 ms", "latency down", 1, p99, false, 0, 0, 1, timed},
	{"packet filter with 5,000 members: connects a second", "connects", 0, sustained, true, 0.99 * arrivals, 0, 0, timed},
}

// A verdict is what became of a target.
type verdict struct {
	wanted, measured, ratio, outcome string
	missed                           bool
}

// judged compares a target with what was measured.
func (t *target) judged(done []*bout) (v verdict) {
	sign := map[bool]string{false: "≤", true: "≥"}[t.least]
	var parts []string
	if t.figure > 0 {
		parts = append(parts, fmt.Sprintf("%s %s", sign, shown(t.figure)))
	}
	if t.ratio > 0 {
		parts = append(parts, fmt.Sprintf("%s %.2f × the peer's", sign, t.ratio))
	}
	v = verdict{wanted: strings.Join(parts, " and "), outcome: "not measured"}
	var r *bout
	for _, b := range done {
		if b.plan.name == t.plan {
			r = b
		}
	}
	if r == nil {
		return v
	}
	own, peer := r.runs[t.who].rounds, r.runs[t.peer].rounds
	if len(own) == 0 {
		return v
	}
	misses := func(is, wanted float64) bool {
		return wanted > 0 && (t.least && is < wanted || !t.least && is > wanted)
	}
	value := median(own, t.column)
	v.measured = shown(value)
	var missed []string
	if misses(value, t.figure) {
		missed = append(missed, "the figure")
	}
	if base := median(peer, t.column); t.peer != t.who && base > 0 {
		v.ratio = fmt.Sprintf("%.2f (%s: %s)", value/base, r.plan.runs[t.peer].who, shown(base))
		if misses(value/base, t.ratio) {
			missed = append(missed, "the ratio")
		}
	} else if t.ratio > 0 {
		return v // there is nothing to compare with
	}
	switch {
	case len(missed) == 0:
		v.outcome = "met"
	case len(missed) < len(parts):
		v.outcome = "missed: " + missed[0]
	default:
		v.outcome = "missed"
	}
	v.missed = len(missed) > 0
	return v
}

// judge writes which targets are met, and what is known of those that are missed.
func judge(s *strings.Builder, done []*bout) {
	fmt.Fprint(s, "## Targets\n\n| line | target | measured | ratio | |\n|---|---|---:|---|---|\n")
	var missed []string
	for i := range targets {
		t := &targets[i]
		v := t.judged(done)
		fmt.Fprintf(s, "| %s | %s | %s | %s | %s |\n", t.line, v.wanted, v.measured, v.ratio, v.outcome)
		if v.missed {
			missed = append(missed, fmt.Sprintf("- **%s.** %s %s", t.line, t.cited(done), t.because))
		}
	}
	fmt.Fprint(s, "\n## Missed\n\n")
	if len(missed) == 0 {
		fmt.Fprint(s, "None of those that were measured.\n\n")
		return
	}
	fmt.Fprintf(s, "The profile of each, with more of it under the next heading, and what is known of it. [performance.md](performance.md) tells what was\n"+
		"tried to make the path faster, and what that gave.\n\n%s\n\n", strings.Join(missed, "\n"))
}
