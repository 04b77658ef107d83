package main

import "fmt"

// A plan is one case: what each contestant does, and what is compared.
type plan struct {
	name    string // for -only
	title   string
	columns []column
	ratios  []column // of these a ratio is shown, too, to the contestant that each names
	runs    []contestant
	once    bool // takes so long that rounds are not repeated
	note    string
}

// A contestant is one server, seen by one kind of client.
type contestant struct {
	who     string
	to      int // the contestant it is compared with; itself: none
	measure func(*bed, options) (figures, error)
}

// A bout is a case that was run.
type bout struct {
	plan plan
	runs [][]figures // by contestant, by round
}

// cases are all cases, or those of a quick run.
func cases(o options) (list []plan) {
	ways, clients := []string{"up", "down", "both"}, []int{1, 2, 4}
	sizes, crowds := []int{64, 1300}, []int{1000, 10000}
	if o.quick {
		clients, crowds, sizes = []int{1}, []int{500}, []int{64}
	}
	tcp := []column{mbits, perGB}
	for _, n := range clients {
		for _, way := range ways {
			list = append(list, plan{
				name: fmt.Sprintf("tcp %s %d", way, n), title: fmt.Sprintf("TCP %s, %s", way, counted(n, "client")), columns: tcp, ratios: tcp,
				runs: []contestant{
					{"OpenVPN, stock client", 0, stock(openvpn, way, n, false)},
					{"Postern, stock client", 0, stock(postern, way, n, false)},
					{"wireguard-go, itself", 2, stock(wireguard, way, n, false)},
					{"Postern, GSO client", 2, generated(postern, "gso", "tcp", way, n, 0, false)},
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
		for _, way := range ways[:2] {
			list = append(list, plan{
				name: fmt.Sprintf("udp %s %d", way, size), title: fmt.Sprintf("UDP %s, %d bytes, 1 client, as fast as it goes", way, size),
				columns: []column{kpps, mbits, perPacket}, ratios: []column{kpps, perPacket},
				note: "Packets that arrived; what is sent beyond that is lost before or in the server, which has to work for it all the same.",
				runs: []contestant{
					{"OpenVPN, stock pattern", 0, generated(openvpn, "stock", "udp", way, 1, size, false)},
					{"Postern, stock pattern", 0, generated(postern, "stock", "udp", way, 1, size, false)},
					{"Postern, GSO client", 0, generated(postern, "gso", "udp", way, 1, size, false)},
				},
			})
		}
	}
	list = append(list, plan{
		name: "handshakes", title: "Handshakes, all at once (ECDSA P-256, TLS 1.3)", columns: []column{handshake, rate}, ratios: []column{handshake, rate},
		runs: []contestant{{"OpenVPN", 0, greeted(openvpn, 200)}, {"Postern", 0, greeted(postern, 200)}},
	})
	for _, n := range crowds {
		for _, proto := range []string{"udp", "tcp"} {
			if proto == "tcp" && (o.quick || n > 1000) {
				continue
			}
			list = append(list, plan{
				name: fmt.Sprintf("idle %s %d", proto, n), title: fmt.Sprintf("%d idle sessions over %s, keepalives every 10 s", n, upper(proto)),
				columns: []column{kilobytes, cores}, ratios: []column{kilobytes, cores}, once: true,
				note: "Resident memory beyond that of the server without sessions, and CPU while nothing but keepalives passes.",
				runs: idlers(proto, n),
			})
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
			name: "latency " + loaded, title: title, columns: []column{p50, p99, lost}, ratios: []column{p50, p99},
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
	return list
}

func idlers(proto string, n int) []contestant {
	c := []contestant{{"Postern", 0, idle(postern, n, 100, proto)}}
	if proto == "udp" && n <= 1000 {
		// Its one thread greets no more than this.
		c = []contestant{{"OpenVPN", 0, idle(openvpn, n, 100, proto)}, {"Postern", 0, idle(postern, n, 100, proto)}}
	}
	return c
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
