package auth

import (
	"bytes"
	"container/list"
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"
)

// A heldLogin is a login that waits for the answer to its challenge: the verdict about the password is in, and nobody
// has been told. There is no password in it.
type heldLogin struct {
	name       string // canonical
	commonName string
	certKey    []byte
	source     netip.Prefix
	id         *Identity // nil when denied
	denied     error

	expires time.Time
	key     [sha256.Size]byte
}

// of reports whether r comes from whom the challenge was for. The address may have changed.
func (h *heldLogin) of(name string, r *Request) bool {
	return h.name == name && h.commonName == r.CommonName && bytes.Equal(h.certKey, r.CertKey)
}

// heldLogins is a bounded table of them: a source that asks for too many loses its own oldest, and only then does
// the oldest of all make room.
type heldLogins struct {
	most      int
	perSource int
	within    time.Duration

	mu      sync.Mutex
	held    map[[sha256.Size]byte]*list.Element // by hash of the state, so that looking one up takes no telling time
	order   *list.List                          // of *heldLogin, the oldest in front; so is what expires first
	sources map[netip.Prefix]int
}

func newHeldLogins(most, perSource int, within time.Duration) *heldLogins {
	return &heldLogins{
		most: most, perSource: perSource, within: within,
		held: make(map[[sha256.Size]byte]*list.Element), order: list.New(), sources: make(map[netip.Prefix]int),
	}
}

// hold keeps h until take, and returns its state.
func (l *heldLogins) hold(h *heldLogin) (state string) {
	state = rand.Text()
	h.key, h.expires = sha256.Sum256([]byte(state)), time.Now().Add(l.within)
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := l.order.Front(); e != nil && !time.Now().Before(e.Value.(*heldLogin).expires); e = l.order.Front() {
		l.remove(e)
	}
	if l.sources[h.source] >= l.perSource {
		e := l.order.Front()
		for e.Value.(*heldLogin).source != h.source {
			e = e.Next()
		}
		l.remove(e)
	}
	if l.order.Len() >= l.most {
		l.remove(l.order.Front())
	}
	l.held[h.key] = l.order.PushBack(h)
	l.sources[h.source]++
	return state
}

// take returns what was held under state, once, and nil when there is nothing or no more.
func (l *heldLogins) take(state string) *heldLogin {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.held[sha256.Sum256([]byte(state))]
	if e == nil {
		return nil
	}
	h := l.remove(e)
	if !time.Now().Before(h.expires) {
		return nil
	}
	return h
}

func (l *heldLogins) remove(e *list.Element) *heldLogin {
	h := l.order.Remove(e).(*heldLogin)
	delete(l.held, h.key)
	if l.sources[h.source]--; l.sources[h.source] == 0 {
		delete(l.sources, h.source)
	}
	return h
}
