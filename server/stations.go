package server

// recentStations is how many addresses a loop remembers by itself.
const recentStations = 16

// recent is what a loop that carries frames has lately asked the bridge, so that it takes the bridge's lock for addresses
// that are new to it and not for every frame. All of it is worthless as soon as anything has changed. The loop's own; the
// zero value is ready.
type recent struct {
	changes uint64 // bridge.changes of all
	at      *[recentStations]knownStation
}

type knownStation struct {
	mac mac
	s   *station // nil: the place is free
}

// station returns where a is, or nil.
func (r *recent) station(b *bridge, a mac) *station {
	// Before the look: what changes between the two makes the place worthless by the next time.
	changes := b.changes.Load()
	if r.at == nil {
		r.at = new([recentStations]knownStation)
	}
	if r.changes != changes {
		r.changes, *r.at = changes, [recentStations]knownStation{}
	}
	place := &r.at[(a[5]^a[4]<<2)%recentStations]
	if place.s != nil && place.mac == a {
		return place.s
	}
	b.mu.RLock()
	s := b.byMAC[a]
	b.mu.RUnlock()
	if s != nil {
		*place = knownStation{a, s}
	}
	return s
}
