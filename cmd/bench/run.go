package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// A bout is a case that was run.
type bout struct {
	plan plan
	runs []result // by contestant
}

// A result is what a contestant did in all rounds.
type result struct {
	rounds  []figures // those that it finished
	failed  []error
	profile *watch // of a measurement apart, when a target was missed
}

// A schedule says how long what is left will take, from what was foreseen and what it came to so far.
type schedule struct {
	begun         time.Time
	limit         time.Duration
	foreseen, was time.Duration // of what is done
}

func (s *schedule) done(foreseen, was time.Duration) {
	s.foreseen += foreseen
	s.was += was
}

// scaled is what will become of a foreseen time.
func (s *schedule) scaled(d time.Duration) time.Duration {
	if s.foreseen < 30*time.Second {
		return d // too little to judge by
	}
	return time.Duration(float64(d) * s.was.Seconds() / s.foreseen.Seconds())
}

func (s *schedule) fits(d time.Duration) bool { return time.Since(s.begun)+s.scaled(d) <= s.limit }

// run runs all cases, those first that targets are about. Every case has one round; when the limit does not leave time for
// all rounds of all, those that come later have fewer. What fails does not keep the others from being measured; the
// error names all that failed.
func run(ctx context.Context, o options, list []plan, begun time.Time, measure func(meter) (figures, error)) ([]*bout, error) {
	bouts := make([]*bout, len(list))
	order := make([]*bout, 0, len(list))
	var first, rest time.Duration // what is left: of first rounds, of others
	for i, p := range list {
		bouts[i] = &bout{plan: p, runs: make([]result, len(p.runs))}
		order = append(order, bouts[i])
		first += p.round(o)
		rest += p.round(o) * time.Duration(p.rounds(o)-1)
	}
	slices.SortStableFunc(order, func(a, b *bout) int {
		if a.plan.late == b.plan.late {
			return 0
		}
		if a.plan.late {
			return 1
		}
		return -1
	})
	s := schedule{begun: begun, limit: o.limit}
	var failed []error
	taken := 0 // profiles
	for _, r := range order {
		p := &r.plan
		rounds := p.rounds(o)
		for round := range rounds {
			if round > 0 && !s.fits(first+p.round(o)) {
				rest -= p.round(o) * time.Duration(rounds-round)
				fmt.Fprintf(os.Stderr, "%s: %d of %d rounds, for lack of time\n", p.name, round, rounds)
				break
			}
			start := time.Now()
			for i, c := range p.runs {
				if ctx.Err() != nil {
					return bouts, errors.Join(failed...)
				}
				to := &r.runs[i]
				if len(to.failed) > 1 {
					continue // it will not do better
				}
				f, err := measure(meter{c.measure, p.patience(o), nil})
				if ctx.Err() != nil {
					return bouts, errors.Join(failed...) // nor is this a failure
				}
				left := max(s.limit-time.Since(begun), 0)
				left = min(left, s.scaled(first+rest-time.Since(start)))
				head := fmt.Sprintf("%v, %v left: %s, round %d of %d, %s:", time.Since(begun).Round(time.Second), left.Round(time.Second), p.name,
					round+1, rounds, c.who)
				if err != nil {
					to.failed = append(to.failed, err)
					failed = append(failed, fmt.Errorf("%s, %s: %w", p.name, c.who, err))
					fmt.Fprintln(os.Stderr, head, "failed:", err)
					continue
				}
				to.rounds = append(to.rounds, f)
				fmt.Fprintln(os.Stderr, head, f.line(p.columns))
			}
			s.done(p.round(o), time.Since(start))
			if round == 0 {
				first -= p.round(o)
			} else {
				rest -= p.round(o)
			}
		}
		for _, i := range r.wanting() {
			c, w := p.runs[i], &watch{seconds: profileSeconds(o)}
			if ctx.Err() != nil || taken == o.profiles || !s.fits(first+p.looked(w)) {
				break
			}
			taken++
			if _, err := measure(meter{c.measure, p.patience(o), w}); err != nil {
				w.err = cmp.Or(w.err, err)
			}
			r.runs[i].profile = w
			head := fmt.Sprintf("%v: %s, %s, profile:", time.Since(begun).Round(time.Second), p.name, c.who)
			if w.err != nil {
				fmt.Fprintln(os.Stderr, head, "failed:", w.err)
				continue
			}
			fmt.Fprintln(os.Stderr, head, w.summary())
		}
	}
	return bouts, errors.Join(failed...)
}
