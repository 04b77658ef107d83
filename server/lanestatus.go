package server

import (
	"encoding/json"
	"net/http"
	"net/netip"

	"postern/server/link"
	"postern/tun"
)

// A LaneStatus is what one lane has moved: its sockets, one of every UDP listener, and its queues, one of every
// pool's device.
type LaneStatus struct {
	Lane    int            `json:"lane"`
	Sockets []SocketStatus `json:"sockets"`
	Queues  []QueueStatus  `json:"queues"`
}

// QueueStatus is one TUN queue of a lane.
type QueueStatus struct {
	Device string `json:"device"`
	tun.QueueStats
}

// SocketStatus is one UDP socket of a lane. Receives and sends are system calls that moved something.
type SocketStatus struct {
	Local      netip.AddrPort    `json:"local"`
	Receives   uint64            `json:"receives"`
	PacketsIn  uint64            `json:"packets_in"`
	BytesIn    uint64            `json:"bytes_in"`
	Overrun    uint64            `json:"overrun"` // datagrams that the kernel dropped because the socket's buffer was full
	Truncated  uint64            `json:"truncated,omitempty"`
	Sends      uint64            `json:"sends"`
	PacketsOut uint64            `json:"packets_out"`
	BytesOut   uint64            `json:"bytes_out"`
	Unsent     uint64            `json:"unsent"`           // packets that the kernel did not take
	Singly     uint64            `json:"singly,omitempty"` // trains that had to be sent packet by packet
	Errors     map[string]uint64 `json:"errors,omitempty"` // of both directions, by name
}

// LaneReport is the answer to postern status --lanes.
type LaneReport struct {
	Lanes []LaneStatus `json:"lanes"`
	// Drops are packets that died inside, in whatever lane, by reason.
	Drops map[string]uint64 `json:"drops"`
}

// countingSocket is a socket that tells what it has moved.
type countingSocket interface {
	Stats() link.UDPStats
}

// LaneReport gathers the lanes' counters. Any goroutine.
func (s *Server) LaneReport() LaneReport {
	r := LaneReport{Lanes: make([]LaneStatus, len(s.lanes)), Drops: s.drops.snapshot()}
	for i, l := range s.lanes {
		r.Lanes[i] = LaneStatus{Lane: i, Sockets: []SocketStatus{}, Queues: []QueueStatus{}}
		for j, q := range l.queues {
			if q, ok := q.(tun.Counter); ok {
				r.Lanes[i].Queues = append(r.Lanes[i].Queues, QueueStatus{s.zones[j].device.Name(), q.Stats()})
			}
		}
	}
	for _, listener := range s.parts.UDP {
		for j, sock := range listener.Sockets {
			if c, ok := sock.(countingSocket); ok {
				l := &r.Lanes[j%len(r.Lanes)]
				l.Sockets = append(l.Sockets, socketStatus(listener.Local, c.Stats()))
			}
		}
	}
	return r
}

func socketStatus(local netip.AddrPort, u link.UDPStats) SocketStatus {
	errors := make(map[string]uint64)
	for errno, n := range u.ReceiveErrors {
		errors[errno.Error()] += n
	}
	for errno, n := range u.SendErrors {
		errors[errno.Error()] += n
	}
	return SocketStatus{Local: local, Receives: u.Receives, PacketsIn: u.PacketsIn, BytesIn: u.BytesIn, Overrun: u.Overrun,
		Truncated: u.Truncated, Sends: u.Sends, PacketsOut: u.PacketsOut, BytesOut: u.BytesOut, Unsent: u.Dropped, Singly: u.Singly, Errors: errors}
}

func (s *Server) serveLanes(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.LaneReport()) // a reader that has gone needs no answer
}
