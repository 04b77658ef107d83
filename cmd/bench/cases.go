package main

import (
	"cmp"
	"fmt"
	"time"
)

// A plan is one case: what each contestant does, and what is compared.
type plan struct {
	name    string // for -only
	title   string
	columns []column
	ratios  []column // of these a ratio is shown, too, to the contestant that each names
	runs    []contestant
	once    bool          // takes so long that rounds are not repeated
	late    bool          // no target is about it: it comes last, and loses its rounds first
	takes   time.Duration // of one measurement; 0: what is asked for, and a second
	note    string
}

// A contestant is one server, seen by one kind of client.
type contestant struct {
	who     string
	to      int // the contestant it is compared with; itself: none
	measure func(*bed, options) (figures, error)
}

// round is how long one round is expected to take.
func (p *plan) round(o options) time.Duration { return time.Duration(len(p.runs)) * p.one(o) }

func (p *plan) one(o options) time.Duration {
	if p.takes > 0 {
		return p.takes
	}
	return time.Duration(o.seconds)*time.Second + 1200*time.Millisecond
}

func (p *plan) rounds(o options) int {
	if p.once {
		return 1
	}
	return o.rounds
}

// patience is when a measurement is given up. It may have to start servers first.
func (p *plan) patience(o options) time.Duration { return time.Minute + 2*p.one(o) }

// cases are all cases, or those of a quick run.
func cases(o options) (list []plan) {
	ways, clients := []string{"up", "down", "both"}, []int{1, 2, 4}
	sizes, crowds := []int{64, 1300}, []int{1000, 10000}
	storm, burst := 1000, 400
	if o.quick {
		clients, crowds, sizes, storm, burst = []int{1}, []int{300}, []int{64}, 200, 100
	}
	tcp := []column{mbits, perGB}
	for _, n := range clients {
		for _, way := range ways {
			list = append(list, plan{
				name: fmt.Sprintf("tcp %s %d", way, n), title: fmt.Sprintf("TCP %s, %s", way, counted(n, "client")), columns: tcp, ratios: tcp, late: n > 1 || way == "both",
				runs: []contestant{
					{"OpenVPN, stock client", 0, stock(openvpn, way, n, false)},
					{"Postern, stock client", 0, stock(postern, way, n, false)},
					{"wireguard-go, itself", 2, stock(wireguard, way, n, false)},
					{"Postern, GSO client", 2, generated(postern, few, flow{io: "gso", flow: "tcp", way: way, sessions: n})},
				},
			})
		}
	}
	for _, way := range ways[:2] {
		list = append(list, plan{
			name: "merge " + way, title: "TCP " + way + ", 1 client, datagrams merged as they come in", columns: tcp, ratios: tcp,
			note: "The router's interface has rx-udp-gro-forwarding and a flush timeout of 50 us, as good hardware does it by itself.",
			runs: []contestant{
				{"OpenVPN, stock client", 0, stock(openvpn, way, 1, true)},
				{"Postern, stock client", 0, stock(postern, way, 1, true)},
			},
		})
	}
	for _, size := range sizes {
		for _, n := range clients {
			for _, way := range ways {
				if way == "both" && o.quick {
					continue
				}
				udp := func(io string) flow { return flow{io: io, flow: "udp", way: way, sessions: n, size: size} }
				p := plan{
					name: fmt.Sprintf("udp %s %d %d", way, size, n), title: fmt.Sprintf("UDP %s, %d bytes, %s, as fast as it goes", way, size, counted(n, "client")),
					columns: []column{kpps, mbits, perPacket, perGB}, ratios: []column{kpps, perPacket}, late: size != 64 || n > 1 || way == "both",
					note: "Packets that arrived; what is sent beyond that is lost before or in the server, which has to work for it all the same.",
					runs: []contestant{
						{"OpenVPN, stock pattern", 0, generated(openvpn, few, udp("stock"))},
						{"Postern, stock pattern", 0, generated(postern, few, udp("stock"))},
						{"Postern, GSO client", 0, generated(postern, few, udp("gso"))},
					},
				}
				if n > 1 {
					p.runs = p.runs[:2]
				}
				list = append(list, p)
			}
		}
	}
	for _, way := range ways[:2] {
		if o.quick {
			break
		}
		w := flow{io: "stock", flow: "tcp", way: way, sessions: 1, stream: true}
		list = append(list, plan{
			name: "stream " + way, title: "TCP " + way + " through a tunnel over TCP, 1 client", columns: tcp, ratios: tcp,
			runs: []contestant{{"OpenVPN, load generator", 0, generated(openvpn, stream, w)}, {"Postern, load generator", 0, generated(postern, crowd, w)}},
		})
	}
	list = append(list, plan{
		name: "handshakes", title: "Handshakes, 32 at a time (ECDSA P-256, TLS 1.3)", columns: []column{handshake, rate, burstCores}, ratios: []column{handshake, rate},
		takes: 3 * time.Second, note: "The load generator computes the other ends on the same cores.",
		runs: []contestant{{"OpenVPN", 0, greeted(openvpn, burst)}, {"Postern", 0, greeted(postern, burst)}},
	})
	kept := []column{mbits, came, keptStorm, keptEnd, p99Quiet, p99Storm, p99End, rate}
	for _, s := range []struct {
		name, what string
		traffic    []string
	}{
		{"storm", "200 Mbit/s each way", []string{"-flow", "udp", "-traffic", "both", "-size", "1300", "-rate", "19230"}},
		{"storm full", "TCP down as fast as it goes", []string{"-flow", "tcp", "-traffic", "down"}},
	} {
		late := s.name != "storm"
		if late && o.quick {
			continue
		}
		list = append(list, plan{
			name: s.name, title: fmt.Sprintf("%d clients connect, 100 a second, and leave at once, while one moves %s", storm, s.what), columns: kept,
			late: late, once: late, takes: time.Duration(storm)*10*time.Millisecond + time.Duration(o.seconds)*time.Second + 5*time.Second,
			note: "Shares of what it moved before the storm. The load generator computes the clients' ends of the handshakes on the same cores.",
			runs: []contestant{{"OpenVPN", 0, stormed(openvpn, storm, 100, s.traffic...)}, {"Postern", 0, stormed(postern, storm, 100, s.traffic...)}},
		})
	}
	for _, n := range crowds {
		for _, proto := range []string{"udp", "tcp"} {
			if proto == "tcp" && (o.quick || n > 1000) {
				continue
			}
			takes := 33 * time.Second
			if o.quick {
				takes = 7 * time.Second
			}
			p := plan{
				name: fmt.Sprintf("idle %s %d", proto, n), title: fmt.Sprintf("%d idle sessions over %s, keepalives every 10 s", n, upper(proto)),
				columns: []column{kilobytes, cores}, ratios: []column{kilobytes, cores}, once: true, takes: takes + time.Duration(n)*10*time.Millisecond,
				note: "Resident memory beyond that of the server without sessions, and CPU while nothing but keepalives passes.",
				runs: []contestant{{"OpenVPN", 0, idle(openvpn, n, proto)}, {"Postern", 0, idle(postern, n, proto)}},
			}
			if n > 1000 {
				p.runs = []contestant{{"Postern", 0, idle(postern, n, proto)}}
				p.note += " OpenVPN is measured with 1,000: its one thread does not keep up with so many."
			}
			list = append(list, p)
		}
	}
	for _, loaded := range []string{"", "steady", "up", "down"} {
		title := "Round trip through the tunnel, idle"
		switch loaded {
		case "up", "down":
			title = "Round trip of one client while another moves TCP " + loaded
		case "steady":
			title = "Round trip of one client while another moves 80 Mbit/s of UDP each way"
		}
		list = append(list, plan{
			name: "latency " + cmp.Or(loaded, "idle"), title: title, columns: []column{p50, p99, lost}, late: loaded == "steady", takes: time.Duration(o.seconds+2) * time.Second, ratios: []column{p50, p99},
			runs: []contestant{
				{"OpenVPN, stock client", 0, pinged(openvpn, loaded)},
				{"Postern, stock client", 0, pinged(postern, loaded)},
				{"wireguard-go, itself", 0, pinged(wireguard, loaded)},
			},
		})
		if p := &list[len(list)-1]; loaded == "steady" {
			p.runs = p.runs[:2] // vpnload speaks OpenVPN's protocol only
		}
	}
	list = append(list, costs(o)...)
	list = append(list, plan{
		name: "trip", title: "Where an idle round trip spends its time", late: true, once: true, takes: time.Duration(o.seconds+4) * time.Second,
		columns: []column{clientOut, serverIn, behind, serverOut, clientBack, cable, whole},
		note: "Medians of pings, by what tcpdump sees on the interfaces of the client and of the gateway, beside which everything takes a little longer. " +
			"A part begins when the packet is at a process's socket or device, and ends when it has left by the other: waking the process is in it. " +
			"The sum lacks the waking of ping.",
		runs: []contestant{{"OpenVPN, stock client", 0, tripped(openvpn)}, {"Postern, stock client", 0, tripped(postern)}},
	})
	return append(list, plan{
		name: "connects", title: fmt.Sprintf("The packet filter: a client becomes a member of its policy, with %d members, and at %d connects a second", members, arrivals),
		columns: []column{oneConnect, sustained, p50Connect, p99Connect, filterCores},
		note:    "nftables alone, as Postern drives it: as many leave as come. What arrives while the kernel is busy goes to it in one batch.",
		runs:    []contestant{{"Postern", 0, filtered}},
	})
}

// costs are what policies, the clamp of segment sizes and limits cost, each beside the same without it.
func costs(o options) (list []plan) {
	for _, c := range []struct {
		name, title string
		columns     []column
		flow        flow
	}{
		{"cost tcp up", "TCP up", []column{mbits, perGB}, flow{io: "stock", flow: "tcp", way: "up", sessions: 1}},
		{"cost tcp down", "TCP down", []column{mbits, perGB}, flow{io: "stock", flow: "tcp", way: "down", sessions: 1}},
		{"cost udp", "50,000 datagrams of 64 bytes a second each way", []column{kpps, perPacket}, flow{io: "stock", flow: "udp", way: "both", sessions: 1, size: 64, rate: 50000}},
	} {
		if o.quick && c.name != "cost udp" {
			continue
		}
		list = append(list, plan{
			name: c.name, title: "What checks cost: " + c.title, columns: c.columns, ratios: c.columns[1:],
			note: "Each is compared with the one above it. Policies: three, with ten rules that do not fit before the one that does, judged by nftables for each packet, and connections tracked for it.",
			runs: []contestant{
				{"plain, mssfix 0", 0, generated(postern, unclamped, c.flow)},
				{"and with the MSS clamp", 0, generated(postern, clamped, c.flow)},
				{"and with policies", 1, generated(postern, policies, c.flow)},
				{"and with rate limits", 2, generated(postern, limited, c.flow)},
			},
		})
	}
	return list
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func upper(proto string) string {
	if proto == "tcp" {
		return "TCP"
	}
	return "UDP"
}
