package main

import (
	"fmt"
	"strings"
	"time"
)

// profileSeconds is how long a profile is taken.
func profileSeconds(o options) int { return min(o.seconds, 3) }

// tick is the CPU time of one sample of Go's.
const tick = 1e7 // ns

// looked is how long it is expected to take to profile a server.
func (p *plan) looked(w *watch) time.Duration {
	return max(p.takes, time.Duration(w.seconds+3)*time.Second)
}

// explained says of a figure whether a profile is taken of it: it shows where CPU time and memory go. Latency, and what is
// kept in a storm, are about waiting.
func (c column) explained() bool {
	return c == mbits || c == perGB || c == kpps || c == kilobytes || c == handshake || c == rate
}

// wanting are the contestants of a case that miss a target a profile explains.
func (r *bout) wanting() (list []int) {
	for i := range r.runs {
		for _, t := range targets {
			if t.plan == r.plan.name && t.who == i && t.column.explained() && t.judged([]*bout{r}).missed {
				list = append(list, i)
				break
			}
		}
	}
	return list
}

// summary is what a profile says, in one line.
func (w *watch) summary() string {
	if held, kb := w.held(); kb > 0 {
		return fmt.Sprintf("of %.1f KB, %s; %.1f goroutines", kb, largest(held, 4), (w.with.goroutines-w.before.goroutines)/w.sessions)
	}
	text := largest(shares(w.cpu, goClasses), 4)
	if len(w.kernel) > 0 {
		text += "; perf says of the kernel " + largest(inKernel(w.kernel), 3)
	}
	return text
}

// inKernel are the shares of a profile of perf's without what is outside the kernel.
func inKernel(of []stack) []share {
	list := shares(of, kernelClasses)
	if n := len(list); n > 0 && list[n-1].class == outside {
		list = list[:n-1]
	}
	return list
}

// cited is the profile of a contestant, for a target that it misses.
func (t *target) cited(done []*bout) string {
	if !t.column.explained() {
		return "No profile: it would show where CPU time goes, and not what waits for what."
	}
	for _, r := range done {
		if r.plan.name != t.plan {
			continue
		}
		switch w := r.runs[t.who].profile; {
		case w == nil:
			return "No profile was taken: there was no time for it, or -profiles wants fewer."
		case w.err != nil:
			return fmt.Sprintf("The profile failed: %s.", line(w.err))
		default:
			return fmt.Sprintf("Profile: %s.", w.summary())
		}
	}
	return ""
}

// explain writes where the time of those goes that miss a target, and their memory.
func explain(s *strings.Builder, done []*bout) {
	var cpu, kernel, memory table
	blind := ""
	for _, r := range done {
		for i, c := range r.plan.runs {
			w := r.runs[i].profile
			if w == nil || w.err != nil {
				continue
			}
			who := r.plan.title + ": " + c.who
			if held, kb := w.held(); kb > 0 {
				memory.add(fmt.Sprintf("%s | %.1f | %.2f", who, kb, (w.with.goroutines-w.before.goroutines)/w.sessions), held)
				continue
			}
			cpu.add(fmt.Sprintf("%s | %d", who, int(weighed(w.cpu)/tick)), shares(w.cpu, goClasses))
			if len(w.kernel) > 0 {
				kernel.add(fmt.Sprintf("%s | %d", who, len(w.kernel)), shares(w.kernel, kernelClasses))
			}
			if w.blind != "" {
				blind = w.blind
			}
		}
	}
	if len(cpu.rows)+len(memory.rows) == 0 {
		return
	}
	fmt.Fprint(s, "## Where the time goes\n\nProfiles of what misses a target, in measurements of their own, which are not counted elsewhere. Shares are in percent.\n\n")
	if len(cpu.rows) > 0 {
		fmt.Fprint(s, "CPU time of the server by Go's profile, which counts a system call, with all that the kernel does in it, where it is made:\n\n")
		cpu.print(s, "server | samples", goClasses...)
	}
	switch {
	case len(kernel.rows) > 0:
		fmt.Fprint(s, "The same time by Linux's `perf`, which sees into the kernel. Receivers' stacks are those of hosts, bridges and\n"+
			"routers behind the server: on a veth pair they run at once, within the call that sends, and are counted as the sender's time.\n"+
			"Shares differ from those above, since perf samples by a timer of its own and Go's profile at the ticks of the kernel's clock:\n\n")
		kernel.print(s, "server | samples", kernelClasses...)
	case blind != "":
		fmt.Fprintf(s, "What the kernel does in system calls is not told apart: %s.\n\n", strings.TrimSuffix(blind, "."))
	}
	if len(memory.rows) > 0 {
		fmt.Fprint(s, "Resident memory of idle sessions, by who asked for it. Gaps are what handshakes left between what stays:\n\n")
		memory.print(s, "server | KB/session | goroutines/session", append(heapClasses[:len(heapClasses):len(heapClasses)], class{name: stacks}, class{name: gaps})...)
	}
}

// A table has a row of shares for each profile.
type table struct {
	rows []row
}

type row struct {
	head   string
	shares map[string]float64
}

func (t *table) add(head string, list []share) {
	r := row{head, make(map[string]float64)}
	for _, s := range list {
		r.shares[s.class] = s.percent
	}
	t.rows = append(t.rows, r)
}

// print writes the table, without classes that have less than half a percent of every row.
func (t *table) print(s *strings.Builder, head string, classes ...class) {
	rule := "|---|" + strings.Repeat("---:|", strings.Count(head, "|"))
	head = "| " + head + " |"
	var shown []string
	for _, c := range classes {
		for _, r := range t.rows {
			if r.shares[c.name] >= 0.5 {
				shown = append(shown, c.name)
				head += " " + c.name + " |"
				rule += "---:|"
				break
			}
		}
	}
	fmt.Fprintf(s, "%s\n%s\n", head, rule)
	for _, r := range t.rows {
		fmt.Fprintf(s, "| %s |", r.head)
		for _, name := range shown {
			fmt.Fprintf(s, " %.0f |", r.shares[name])
		}
		fmt.Fprintln(s)
	}
	fmt.Fprintln(s)
}
