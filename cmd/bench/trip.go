package main

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/cmd/lab"
)

// The parts of a round trip, in microseconds.
const (
	clientOut  column = "us, client out"
	serverIn   column = "us, server in"
	behind     column = "us, network behind and back"
	serverOut  column = "us, server out"
	clientBack column = "us, client in"
	cable      column = "us, cable"
	whole      column = "us, all"
)

// A sight is a packet seen on an interface.
type sight struct {
	at    time.Duration // since some day
	where string        // station, gateway
	dev   string
	out   bool // of the host
	icmp  bool
}

// stops are what an echo passes, and its answer, in this order.
var stops = []sight{
	{where: "station", dev: "tun0", out: true, icmp: true},
	{where: "station", dev: "eth0", out: true},
	{where: "gateway", dev: "eth0"},
	{where: "gateway", dev: "tun0", icmp: true},
	{where: "gateway", dev: "tun0", out: true, icmp: true},
	{where: "gateway", dev: "eth0", out: true},
	{where: "station", dev: "eth0"},
	{where: "station", dev: "tun0", icmp: true},
}

// tripped measures where a round trip of a station to the lan spends its time, by what is seen on the interfaces of both
// ends of the tunnel. Pings follow one another, so that one packet at a time is on its way.
func tripped(kind string) func(*bed, options) (figures, error) {
	return func(b *bed, o options) (figures, error) {
		g, err := b.gateway(kind, few)
		if err != nil {
			return nil, err
		}
		hosts := map[string]*lab.Host{"station": g.lab.Host(station(0)), "gateway": g.lab.Host("router")}
		captures := make(map[string]*lab.Process)
		for name, h := range hosts {
			p, err := h.Start("trip-"+name+".log", "tcpdump", "-i", "any", "-n", "-tt", "--nano", "icmp or udp port 1194")
			if err != nil {
				return nil, err
			}
			defer p.Kill()
			if err := p.Expect("listening on", 1, 5*time.Second); err != nil {
				return nil, err
			}
			captures[name] = p
		}
		p, err := hosts["station"].Ping(b.ctx, lab.Lan4, o.seconds*100, 56, 10*time.Millisecond)
		if err != nil {
			return nil, err
		}
		if p.Received == 0 {
			return nil, errNothing
		}
		time.Sleep(1500 * time.Millisecond) // libpcap hands packets on once a second
		var seen []sight
		for name, c := range captures {
			c.Stop() // by a signal, which is what its error says
			seen = append(seen, sights(name, c.Output())...)
		}
		return trip(seen)
	}
}

// sights reads what tcpdump -i any -tt prints: "1791000000.123456789 tun0  Out IP 10.8.0.2 > 10.9.0.1: ICMP echo ...".
func sights(where, out string) (list []sight) {
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 8 || f[2] != "In" && f[2] != "Out" {
			continue
		}
		seconds, nanos, _ := strings.Cut(f[0], ".")
		s, err1 := strconv.ParseInt(seconds, 10, 64)
		n, err2 := strconv.ParseInt(nanos, 10, 64)
		if err1 != nil || err2 != nil || len(nanos) != 9 {
			continue
		}
		const day = 24 * 60 * 60
		list = append(list, sight{
			at:    time.Duration(s%(1000*day))*time.Second + time.Duration(n),
			where: where, dev: f[1], out: f[2] == "Out", icmp: f[7] == "ICMP",
		})
	}
	return list
}

// trip finds the echoes that passed all stops one after the other, and how long each part of their way took: medians.
func trip(seen []sight) (figures, error) {
	seen = slices.DeleteFunc(seen, func(s sight) bool { return s.dev != "tun0" && s.dev != "eth0" })
	slices.SortStableFunc(seen, func(a, b sight) int { return int(a.at - b.at) })
	var found []figures
	for i := 0; i+len(stops) <= len(seen); i++ {
		way := seen[i : i+len(stops)]
		if !slices.EqualFunc(way, stops, func(a, b sight) bool { a.at = 0; return a == b }) {
			continue
		}
		us := func(from, to int) float64 { return float64(way[to].at-way[from].at) / 1e3 }
		found = append(found, figures{
			clientOut: us(0, 1), serverIn: us(2, 3), behind: us(3, 4), serverOut: us(4, 5), clientBack: us(6, 7),
			cable: us(1, 2) + us(5, 6), whole: us(0, 7),
		})
		i += len(stops) - 1
	}
	if len(found) < 20 {
		return nil, fmt.Errorf("only %d round trips were seen whole, of %d packets", len(found), len(seen))
	}
	f := make(figures)
	for c := range found[0] {
		f[c] = median(found, c)
	}
	return f, nil
}
