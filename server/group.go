package server

import "postern/tun"

// Packets for groups, by multicast, go to all, as frames for groups do on a tap device:
//
//	from the device                           to every client of its zone
//	from a client, with client-to-client      to every other one of its zone, and to the device
//	                otherwise                 to the device

const (
	// copyRate is how many copies a second one client may have made of its packets for groups, a second's worth at once:
	// what it sends once, the server encrypts and sends for everybody.
	copyRate = 1 << 14
	// copyMost is what a packet counts at most, so that in a crowd, too, some go: who is there has to be found.
	copyMost = copyRate / 4
	// maxCopies is how many copies of packets for groups one batch may bring about. What is beyond it dies: a client must not
	// have the server fill its memory.
	maxCopies = 1 << 16
	// spareCopies is what a loop keeps room for from batch to batch.
	spareCopies = 1 << 12
	// streamCopies is what a stream's loop does: there are thousands of those.
	streamCopies = 64
)

// others calls f for every member of a zone but c. list is the loop's own scratch.
func (s *Server) others(list *[]*client, zone int, c *client, f func(*client)) {
	*list = s.table.joined((*list)[:0])
	for _, other := range *list {
		if other == c || other.gone.Load() {
			continue
		}
		if m := other.member.Load(); m != nil && m.zone == zone {
			f(other)
		}
	}
	clear(*list)
}

// spreads reports whether a packet for a group from r's client may be copied to the others now. It counts as many copies
// as there are members: to look for those of the zone is a large part of the work.
func (u *uplink) spreads(r *run) bool {
	if u.nanos == 0 {
		u.nanos = u.lane.srv.nanos()
	}
	if r.c.copies.spend(copyRate*8, u.nanos, 1, min(u.lane.srv.table.population(), copyMost)) == 0 {
		u.lane.srv.drops.add(dropGroup)
		return false
	}
	return true
}

// copyFor adds copies of a packet for a group to list: one for each member of a zone but c.
func (s *Server) copyFor(scratch *[]*client, list []forwarded, zone int, c *client, b []byte) []forwarded {
	s.others(scratch, zone, c, func(to *client) {
		if len(list) >= maxCopies {
			s.drops.add(dropGroup)
			return
		}
		list = append(list, forwarded{to, b})
	})
	return list
}

// passAll sends forwarded packets, and returns the list for the next ones.
func passAll(list []forwarded) []forwarded {
	for rest := list; len(rest) > 0; {
		rest = rest[rest[0].to.path.Load().home.pass(rest):]
	}
	if cap(list) > spareCopies {
		return nil
	}
	clear(list)
	return list[:0]
}

// spread sends a packet of the device to every client of its zone.
func (d *downlink) spread(p *tun.Packet) {
	srv := d.lane.srv
	for i := range p.Segments() {
		b, err := p.Segment(i)
		if err != nil {
			srv.drops.add(dropInner)
			return
		}
		d.copies = passAll(srv.copyFor(&d.clients, d.copies, d.zone.index, nil, b))
	}
}
