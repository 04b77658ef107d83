package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The parts of a round trip are read off what tcpdump prints at both ends; a trip with anything between is not counted.
func TestTrip(t *testing.T) {
	var station, gateway strings.Builder
	for i := range 30 {
		at := func(us int) string { return fmt.Sprintf("1791000%03d.%09d", i, 999_000_000+us*1000) }
		const inner, outer = "IP 10.84.0.2 > 172.29.7.2: ICMP echo request, id 1, seq 1, length 64", "IP 198.18.0.2.1194 > 198.18.0.1.1194: UDP, length 108"
		fmt.Fprintf(&station, "%s tun0  Out %s\n%s eth0  Out %s\n%s eth0  In  %s\n%s tun0  In  %s\n", at(0), inner, at(40), outer, at(150), outer, at(180), inner)
		fmt.Fprintf(&gateway, "%s eth0  In  %s\n%s tun0  In  %s\n%s eth1  Out %s\n%s tun0  Out %s\n%s eth0  Out %s\n", at(45), outer, at(75), inner, at(76), inner, at(115), inner, at(140), outer)
		if i == 7 {
			fmt.Fprintf(&gateway, "%s eth0  In  %s\n", at(100), outer) // a keepalive
		}
	}
	fmt.Fprint(&station, "tcpdump: listening on any\n0 packets dropped by kernel\n")
	f, err := trip(slices.Concat(sights("gateway", gateway.String()), sights("station", station.String())))
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range (figures{clientOut: 40, serverIn: 30, behind: 40, serverOut: 25, clientBack: 30, cable: 15, whole: 180}) {
		if f[c] != want {
			t.Errorf("%s: %v, want %v", c, f[c], want)
		}
	}
	if _, err := trip(sights("gateway", gateway.String())); err == nil {
		t.Error("trips that nobody saw the end of")
	}
}
