package datachan

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

var (
	// ErrInUse refuses a key whose id a live key still has.
	ErrInUse = errors.New("key id is in use")
	// ErrReinstalled refuses a key of which the ring has had the like before: its packet ids would start again.
	ErrReinstalled = errors.New("key was installed before")
)

// A Ring holds a client's data keys, one place for each key id, and knows which of them sends. The zero value is
// empty. Readers never wait.
type Ring struct {
	sending atomic.Pointer[Key]
	places  [8]atomic.Pointer[Key]

	mu   sync.Mutex     // held by writers, guards what follows
	seen [8]fingerprint // of what each place held last, retired or not
}

// Receiving returns the key that opens packets with this key id, nil when there is none.
func (r *Ring) Receiving(id KeyID) *Key { return r.places[id&7].Load() }

// Sending returns the key that seals, nil before the first Use.
func (r *Ring) Sending() *Key { return r.sending.Load() }

// Install makes k open packets. It does not send with it yet: that is for Use, once both ends have the key. A key
// id that a live key has is refused with ErrInUse: ids come round again, so retire the older key before.
func (r *Ring) Install(k *Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	place := k.id & 7
	if r.places[place].Load() != nil {
		return ErrInUse
	}
	if slices.Contains(r.seen[:], k.print) {
		return ErrReinstalled
	}
	r.seen[place] = k.print
	r.places[place].Store(k)
	return nil
}

// Use starts sending with the key of this id and reports whether there is one.
func (r *Ring) Use(id KeyID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.places[id&7].Load()
	if k == nil {
		return false
	}
	r.sending.Store(k)
	return true
}

// Retire forgets the key of this id. When it was the one that sends, nothing is sent until the next Use.
func (r *Ring) Retire(id KeyID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retire(id & 7)
}

// Clear forgets all keys.
func (r *Ring) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.places {
		r.retire(KeyID(id))
	}
}

func (r *Ring) retire(id KeyID) {
	k := r.places[id].Swap(nil)
	if k != nil {
		r.sending.CompareAndSwap(k, nil)
	}
}
