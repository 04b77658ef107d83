package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"postern/cmd/lab"
	"postern/server/firewall"
)

const (
	members  = 5000 // of the policies, before anybody connects
	arrivals = 2000 // connects a second
)

// filtered measures the kernel's packet filter alone: what it takes for a client to become a member of its policy and to
// leave again, as Postern does it, with members there already. First one at a time; then so many arrive each second,
// and what has arrived while the kernel was busy goes to it in one batch.
func filtered(b *bed, o options) (figures, error) {
	dir, err := os.MkdirTemp(b.dir, "filter-")
	if err != nil {
		return nil, err
	}
	l, err := lab.New(dir)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	rules := firewall.Rules{Closed: true, Zones: []firewall.Zone{{Device: "tun0", Own: []netip.Addr{netip.MustParseAddr("10.77.0.1")},
		Pools: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")}}}}
	names := []string{"staff", "guests", "others"}
	for _, name := range names {
		rules.Policies = append(rules.Policies, firewall.Policy{Name: name, Rules: []firewall.Rule{{Allow: true, Any: true}}})
	}
	var f *firewall.Firewall
	if err := l.Host("router").Do(func() (err error) {
		f, err = firewall.Apply(rules)
		return err
	}); err != nil {
		return nil, err
	}
	defer f.Remove()
	var all []firewall.Change
	for i := range members {
		all = append(all, firewall.Change{Net: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(1 + i/250), byte(i % 250)}), 32), To: names[i%len(names)]})
	}
	if err := f.Replace(rules, all...); err != nil {
		return nil, err
	}
	in := func(i int) firewall.Change {
		return firewall.Change{Net: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(100 + i/250%100), byte(i % 250)}), 32), To: names[i%len(names)]}
	}
	out := func(c firewall.Change) firewall.Change { return firewall.Change{Net: c.Net, From: c.To} }

	alone := make([]time.Duration, 300)
	for i := range alone {
		start := time.Now()
		if err := f.Update([]firewall.Change{in(i)}); err != nil {
			return nil, err
		}
		alone[i] = time.Since(start)
		if err := f.Update([]firewall.Change{out(in(i))}); err != nil {
			return nil, err
		}
	}

	before, err := cpuSeconds(os.Getpid())
	if err != nil {
		return nil, err
	}
	const stay = arrivals / 2 // who is the so-many-th to leave after an arrival: half a second later
	total := o.seconds * arrivals
	took := make([]time.Duration, 0, total)
	begun := time.Now()
	for done := 0; done < total; {
		due := min(int(time.Since(begun).Seconds()*arrivals), total)
		if due == done {
			time.Sleep(500 * time.Microsecond) // nobody has come yet
			continue
		}
		if b.ctx.Err() != nil {
			return nil, b.ctx.Err()
		}
		var batch []firewall.Change
		for i := done; i < due; i++ {
			batch = append(batch, in(i))
			if i >= stay {
				batch = append(batch, out(in(i-stay)))
			}
		}
		if err := f.Update(batch); err != nil {
			return nil, fmt.Errorf("%d changes at once: %w", len(batch), err)
		}
		for now := time.Since(begun); done < due; done++ {
			took = append(took, now-time.Duration(float64(done)/arrivals*float64(time.Second)))
		}
	}
	spent := time.Since(begun).Seconds()
	after, err := cpuSeconds(os.Getpid())
	if err != nil {
		return nil, err
	}
	slices.Sort(alone)
	slices.Sort(took)
	return figures{oneConnect: alone[len(alone)/2].Seconds() * 1e6, sustained: float64(total) / spent, p50Connect: took[total/2].Seconds() * 1e3,
		p99Connect: took[total*99/100].Seconds() * 1e3, filterCores: (after - before) / spent}, nil
}
