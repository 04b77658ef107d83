package server

import (
	"sync/atomic"

	"postern/server/datachan"
)

// maxLoad is the longest packet that a client is sent because it asks for one of some length.
const maxLoad = 2048

// loads is what a client's test of its path (mtu-test) has come to: the longest packets that were sent for it, each way.
type loads struct{ received, sent atomic.Uint32 }

func longest(a *atomic.Uint32, size int) {
	for {
		if was := a.Load(); size <= int(was) || a.CompareAndSwap(was, uint32(size)) {
			return
		}
	}
}

// occ answers the questions of a client's mtu-test; size is how long the packet was that b came in. Options are compared at
// the handshake, and asked for by nobody.
func (u *uplink) occ(r *run, kind datachan.Message, b []byte, size int) {
	c := r.c
	switch kind {
	case datachan.MTULoad:
		longest(&c.loads.received, min(size, 0xffff))
		return
	case datachan.MTULoadRequest, datachan.MTURequest:
	default:
		return
	}
	key := c.ring.Sending()
	if key == nil || c.stream || !c.errors.allow(u.lane.srv.clock.Load()) {
		return
	}
	if kind == datachan.MTURequest {
		u.forward = append(u.forward, forwarded{c, datachan.AppendMTUReply(nil, uint16(c.loads.received.Load()), uint16(c.loads.sent.Load()))})
		return
	}
	if want, ok := datachan.LoadSize(b); ok {
		want = min(want, maxLoad)
		longest(&c.loads.sent, want)
		u.forward = append(u.forward, forwarded{c, datachan.AppendMTULoad(nil, key.Fit(want))})
	}
}
