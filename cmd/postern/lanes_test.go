package main

import (
	"bytes"
	"net/netip"
	"testing"

	"postern/server"
	"postern/tun"
)

func TestPrintLanes(t *testing.T) {
	r := &server.LaneReport{
		Lanes: []server.LaneStatus{{
			Lane: 0,
			Sockets: []server.SocketStatus{{Local: netip.MustParseAddrPort("192.0.2.1:1194"), Receives: 10, PacketsIn: 400, BytesIn: 560000, Overrun: 7,
				Sends: 4, PacketsOut: 8, BytesOut: 999, Singly: 2, Errors: map[string]uint64{"input/output error": 2}}},
			Queues: []server.QueueStatus{{Device: "tun0", QueueStats: tun.QueueStats{Reads: 1, ReadCalls: 2, PacketsIn: 1, BytesIn: 64000, WriteCalls: 10, PacketsOut: 393, BytesOut: 550000, Dropped: 3}}},
		}, {Lane: 1, Sockets: []server.SocketStatus{}}},
		Drops: map[string]uint64{"replay": 4, "auth": 1},
	}
	var out bytes.Buffer
	if err := printLanes(&out, r); err != nil {
		t.Fatal(err)
	}
	want := `LANE  WHERE                PACKETS  BYTES     CALLS  PACKETS/CALL  DROPPED
0     from 192.0.2.1:1194  400      560.0 kB  10     40.0          7
0     to tun0              393      550.0 kB  10     39.3          3
0     from tun0            1        64.0 kB   2      0.5           0
0     to 192.0.2.1:1194    8        999 B     4      2.0           0
lane 0: 2 trains went packet by packet
lane 0: 2 times "input/output error"
dropped: 1 auth
dropped: 4 replay
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
